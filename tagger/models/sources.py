"""Find a model by its name, and read what its folder says, without loading it."""

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import Any

from tagger.errors import ModelError, SettingsError
from tagger.models import hub
from tagger.models.hub import CONFIG_FILE, EXTRACTOR_FILES, SMALL_FILES, TOKENIZER_FILES
from tagger.models.musicnn import CHECKPOINT
from tagger.paths import display_path
from tagger.settings import Settings

SAFETENSORS_NAME = ("model", ".safetensors")
PICKLE_NAME = ("pytorch_model", ".bin")
"""How files of weights are named: one, or several with an index that lists them."""

MAX_JSON_BYTES = 64 << 20

HASHED_FILES = (
    CONFIG_FILE,
    "preprocessor_config.json", "*.safetensors", "processor_config.json", *TOKENIZER_FILES,
    "pytorch_model*.bin", "*.py",
)  # fmt: skip
"""The files that decide what the model says."""

AUTO_CLASS = "AutoModelForAudioClassification"
CLASSIFIER_SUFFIXES = ("ForSequenceClassification", "ForAudioClassification")
"""What the classes of transformers are called that put labels to sounds (or to texts)."""

UNNAMED_LABEL = re.compile(r"LABEL_\d+")
"""What transformers calls the labels of a model that has none."""


def hash_folder(folder: Path) -> str:
    """Return a hash of all that decides what the model says. Raises ModelError."""
    whole = hashlib.sha256()
    for path in (path for pattern in HASHED_FILES for path in sorted(folder.glob(pattern))):
        with _open_model_file(path) as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def read_config(folder: Path) -> Mapping[str, Any]:
    """Return what config.json says. Raises ModelError where there is none."""
    place = display_path(folder)
    if not (folder / CONFIG_FILE).exists():
        raise ModelError(f"{place} is no model: it has no {CONFIG_FILE}")
    config = _read_json(folder / CONFIG_FILE)
    if not isinstance(config, dict):
        raise ModelError(f"the {CONFIG_FILE} in {place} is none of a model")
    return config


def _read_json(path: Path) -> Any:
    try:
        with _open_model_file(path) as file:
            return json.loads(file.read(MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        place = display_path(path.parent)
        raise ModelError(f"the {path.name} in {place} is no valid JSON") from error


@contextmanager
def _open_model_file(path: Path) -> Iterator[BufferedReader]:
    """Open a file of a model; what is no regular file could be waited for, or read, for ever."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ModelError(f"{display_path(path)} is no file of a model")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise ModelError(f"cannot read {display_path(path)}: {error.strerror}") from error


def get_labels(name: str, config: Mapping[str, Any], settings: Settings) -> tuple[str, ...]:
    """Return what the model can answer.

    Raises ModelError where that is nothing, SettingsError where `--labels` does not suit it.
    """
    _check_loading(name, config, settings)
    if config.get("model_type") == "clap":
        if not settings.labels:
            raise SettingsError(f"{name} is a CLAP model: say with --labels what to choose from")
        return tuple(label.name for label in settings.labels)
    if settings.labels:
        cure = "--model laion/clap-htsat-unfused"
        raise SettingsError(f"--labels needs a CLAP model, such as {cure}; {name} is none")
    _check_architecture(name, config)
    names = config.get("id2label") or {}
    if not isinstance(names, dict) or set(names) != set(map(str, range(len(names)))):
        raise ModelError(f"the labels of {name} are not numbered from 0 on (id2label)")
    labels = [_clean_label(names[str(number)]) for number in range(len(names))]
    if all(UNNAMED_LABEL.fullmatch(label) for label in labels):
        raise ModelError(f"{name} is no classifier: its {CONFIG_FILE} names no labels (id2label)")
    return tuple(labels)


def check_trainable(name: str, config: Mapping[str, Any], settings: Settings) -> None:
    """Raise ModelError for what cannot be made a classifier of."""
    _check_loading(name, config, settings)
    if config.get("model_type") == "clap":
        raise ModelError(f"{name} is a CLAP model, which takes --labels and no training")


def _check_loading(name: str, config: Mapping[str, Any], settings: Settings) -> None:
    """Raise ModelError where transformers would load what is neither checked nor hashed here."""
    if "transformers_weights" in config:
        raise ModelError(f"{name} keeps its weights elsewhere: {config['transformers_weights']}")
    foreign = [config.get(key) for key in ("attn_implementation", "_attn_implementation")]
    if any("/" in str(each) for each in foreign) and not settings.trust_remote_code:
        raise ModelError(f"{name} wants code of others, which --trust-remote-code would run")


def _check_architecture(name: str, config: Mapping[str, Any]) -> None:
    kinds = config.get("architectures")
    kinds = kinds if isinstance(kinds, list) else []
    has_own_class = AUTO_CLASS in get_auto_map(config)
    if (
        kinds
        and not has_own_class
        and not any(str(kind).endswith(CLASSIFIER_SUFFIXES) for kind in kinds)
    ):
        what = ", ".join(map(str, kinds))
        raise ModelError(f"{name} is no audio classifier but something else: {what}")
    if config.get("problem_type") == "regression":
        raise ModelError(f"{name} is no classifier: it estimates numbers (regression)")


def get_auto_map(config: Mapping[str, Any]) -> Mapping[str, object]:
    """Return the classes that a checkpoint brings along, by what they stand for."""
    found = config.get("auto_map")
    return found if isinstance(found, dict) else {}


def list_code_files(config: Mapping[str, Any]) -> Sequence[str]:
    """Return the files of code that a checkpoint needs of itself."""
    classes = [str(each) for each in get_auto_map(config).values()]
    return [f"{each.split('.')[0]}.py" for each in classes if "--" not in each]


def has_weights(folder: Path, stem: str, suffix: str) -> bool:
    """Tell whether all files of weights of one kind are there.

    Raises ModelError for an index that leads to files of another kind: transformers loads whatever
    it names, pickles too.
    """
    index = folder / f"{stem}{suffix}.index.json"
    names = [f"{stem}{suffix}"]
    if index.exists():
        try:
            names = sorted(set(_read_json(index)["weight_map"].values()))
        except (LookupError, TypeError, AttributeError) as error:
            raise ModelError(f"{display_path(index)} is no index of weights") from error
    if not all(str(name).endswith(suffix) and Path(name).name == name for name in names):
        raise ModelError(f"{display_path(index)} names files that are none of weights")
    return all((folder / name).is_file() for name in names)


def has_tokenizer(folder: Path) -> bool:
    choices = (("tokenizer.json",), ("vocab.json", "merges.txt"))
    return any(all((folder / name).is_file() for name in names) for names in choices)


def _clean_label(label: object) -> str:
    """Return a label without what a tag or a terminal would take for more than text."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(label)).split())


BUNDLED_MODELS = {"musicnn": CHECKPOINT}


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a checkpoint comes from.

    identity: its name and version, as tags, report and state know it. Two that could give other
    scores never share one: it carries the Hub's commit or a hash of the folder, and what the user
    changed about labels and window length.
    folder: where it lies. commit: of a model on the Hub; files may be missing until `fetch`.
    labels: what it can answer.
    """

    identity: str
    name: str
    folder: Path
    commit: str
    labels: tuple[str, ...] = ()


def find_model(settings: Settings) -> ModelSource:
    """Return where the model lies that the user asks for.

    Raises ModelError where there is none, or none that puts labels to sounds, SettingsError where
    the options do not suit it. Of a model on the Hub only small files are downloaded for that.
    """
    source = _locate(settings)
    labels = get_labels(source.name, read_config(source.folder), settings)
    return replace(source, labels=labels)


def find_base_model(settings: Settings) -> ModelSource:
    """Return where a model lies that is to be trained; it need not know any labels yet.

    Raises what `find_source` raises.
    """
    source = _locate(settings)
    check_trainable(source.name, read_config(source.folder), settings)
    return source


def _locate(settings: Settings) -> ModelSource:
    name = settings.model
    folder = BUNDLED_MODELS.get(name) or Path(os.path.expanduser(name))  # noqa: PTH111 - never raises
    if folder.is_dir():
        if settings.revision:
            raise SettingsError(f"--revision is for models on the Hub, and {name} is a folder")
        called = name if name in BUNDLED_MODELS else display_path(Path(folder.resolve().name))
        commit, version = "", hash_folder(folder)
    elif name.count("/") > 1 or name.startswith(("/", ".", "~")):
        raise ModelError(f"there is no model folder {name}")
    else:
        folder = hub.find_cached_model(name, settings.revision)
        called, commit = name, folder.name
        version = commit
    identity = f"{called}@{version[:8]}{''.join(_list_changes(settings))}"
    return ModelSource(identity, name, folder, commit)


def download_missing(source: ModelSource, settings: Settings, progress: hub.ByteProgress) -> None:
    """Download what the cache lacks of a model on the Hub. Raises ModelError.

    Pickled weights are refused here, unless `--allow-pickle` says otherwise.
    """
    kinds = [SAFETENSORS_NAME, PICKLE_NAME] if settings.allow_pickle else [SAFETENSORS_NAME]
    missing = list(_list_missing(source, settings))
    if source.commit and (missing or not _has_any_weights(source.folder, kinds)):
        code = ["*.py"] if settings.trust_remote_code else []
        for stem, suffix in kinds:
            weights = (f"{stem}{suffix}", f"{stem}{suffix}.index.json", f"{stem}-*{suffix}")
            hub.download(source.name, source.commit, (*SMALL_FILES, *code, *weights), progress)
            if _has_any_weights(source.folder, kinds):
                break
        missing = list(_list_missing(source, settings))
    if not _has_any_weights(source.folder, kinds):
        raise ModelError(_describe_missing_weights(source))
    if missing:
        raise ModelError(f"the model {source.name} cannot be loaded: it has no {missing[0]}")


def _list_missing(source: ModelSource, settings: Settings) -> Iterator[str]:
    """Yield what the folder lacks beside weights."""
    folder = source.folder
    if not any((folder / name).is_file() for name in EXTRACTOR_FILES):
        yield f"feature extractor ({EXTRACTOR_FILES[0]})"
    if settings.labels and not has_tokenizer(folder):
        yield "tokenizer (tokenizer.json)"  # without one, transformers takes all texts for the same
    if settings.trust_remote_code:
        files = list_code_files(read_config(folder))
        yield from (name for name in files if not (folder / name).is_file())


def _has_any_weights(folder: Path, kinds: Iterable[tuple[str, str]]) -> bool:
    return any(has_weights(folder, stem, suffix) for stem, suffix in kinds)


def _describe_missing_weights(source: ModelSource) -> str:
    names = (
        hub.list_repo_files(source.name, source.commit)
        if source.commit
        else [path.name for path in source.folder.iterdir()]
    )
    stem, suffix = PICKLE_NAME
    pickled = [name for name in names if name.startswith(stem) and name.endswith(suffix)]
    if not pickled:
        return f"{source.name} has no weights that tagger can load (model.safetensors)"
    proposed = ", --revision refs/pr/N takes one that was proposed" if source.commit else ""
    return (
        f"{source.name} has pickled weights alone ({pickled[0]}), which can hold harmful code:"
        f" look for a version with safetensors{proposed}, or load them with --allow-pickle"
    )


def _list_changes(settings: Settings) -> Iterator[str]:
    """Yield what sets this use of a checkpoint apart from another."""
    if settings.labels:
        text = "\0".join(f"{label.name}\0{label.prompt}" for label in settings.labels)
        yield f"+{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    if settings.window_seconds:
        yield f"+{settings.window_seconds:g}s"
