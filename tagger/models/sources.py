"""Find a model by its name, and check and complete its files, without loading it."""

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from io import BufferedReader
from pathlib import Path
from typing import Any

from tagger.errors import ModelError, SettingsError
from tagger.models import hub, musicnn, musicnn_yamnet, yamnet
from tagger.models.hub import CONFIG_FILE, EXTRACTOR_FILES, SMALL_FILES, TOKENIZER_FILES
from tagger.paths import display_path, to_one_line, write_file_whole
from tagger.records import AttributeLabels
from tagger.settings import Settings
from tagger.user_folders import find_hash_cache


@dataclass(frozen=True, slots=True)
class BundledModel:
    """A model whose code and weights are part of tagger.

    checkpoint: its folder. register: makes transformers know its classes; imports torch. package:
    what a program must import and call `register` of, to load a model of this type.
    """

    checkpoint: Path
    register: Callable[[], None]
    package: str


BUNDLED_MODELS: Mapping[str, BundledModel] = {
    "musicnn-yamnet": BundledModel(
        musicnn_yamnet.CHECKPOINT, musicnn_yamnet.register, musicnn_yamnet.__name__
    ),
    "musicnn": BundledModel(musicnn.CHECKPOINT, musicnn.register, musicnn.__name__),
    "yamnet": BundledModel(yamnet.CHECKPOINT, yamnet.register, yamnet.__name__),
}
"""The bundled models by name, which is also the `model_type` in their config.json.

A new one needs a package like `tagger.models.musicnn`, a line here and one in
`tagger.models.loading`, its classes in `tagger.models.pretrained`, and its licence in
pyproject.toml.
"""

MODEL_WITH_ATTRIBUTES = "musicnn-yamnet"
"""The `model_type` that has styles, moods and voices."""


def register_bundled_models() -> None:
    """Make transformers know the classes of all bundled models; imports torch."""
    for bundled in BUNDLED_MODELS.values():
        bundled.register()


SAFETENSORS_NAME = ("model", ".safetensors")
PICKLE_NAME = ("pytorch_model", ".bin")
"""Stem and suffix of files of weights: one file, or several and an index that lists them."""

MAX_JSON_BYTES = 64 << 20

MIN_CACHED_BYTES = 16 << 20
"""The hash of a smaller file costs less than a look into the cache is worth."""

CLOCK_STEP_S = 0.1
"""The hash of a file that changed this short ago is not kept: the next change may bear the same
time, because file systems count in steps."""

HASH = re.compile(r"[0-9a-f]{64}")

HASHED_FILES = (
    CONFIG_FILE,
    "preprocessor_config.json", "*.safetensors", "processor_config.json", *TOKENIZER_FILES,
    "pytorch_model*.bin", "*.py",
)  # fmt: skip
"""The files that can change a model's scores."""

AUTO_CLASS = "AutoModelForAudioClassification"
CLASSIFIER_SUFFIXES = ("ForSequenceClassification", "ForAudioClassification")
"""How transformers names its classes that label sounds (or texts)."""

UNNAMED_LABEL = re.compile(r"LABEL_\d+")
"""The names that transformers gives to labels without names."""


def hash_folder(folder: Path) -> str:
    """Return a hash of all files that can change the model's scores. Raises ModelError."""
    digest = hashlib.sha256()
    for path in (path for pattern in HASHED_FILES for path in sorted(folder.glob(pattern))):
        with _open_model_file(path) as file:
            digest.update(bytes.fromhex(_hash_file(path, file)))
    return digest.hexdigest()


def _hash_file(path: Path, file: BufferedReader) -> str:
    """Return the hash of an open file. Large files are hashed once: gigabytes take seconds."""
    status = os.fstat(file.fileno())
    if status.st_size < MIN_CACHED_BYTES:
        return hashlib.file_digest(file, "sha256").hexdigest()
    cache, key = find_hash_cache(), str(path.resolve())
    # The time of the last change of the inode: no program can set it back, as it can the mtime.
    version = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    hashes = _read_hashes(cache)
    if key in hashes and hashes[key][:-1] == version:
        return str(hashes[key][-1])
    is_at_rest = time.time() - status.st_ctime > CLOCK_STEP_S
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    if is_at_rest:
        hashes = {name: each for name, each in hashes.items() if os.path.exists(name)}  # noqa: PTH110 - never raises
        with suppress(OSError):  # without a cache the next run hashes the file again
            cache.parent.mkdir(parents=True, exist_ok=True)
            write_file_whole(cache, json.dumps(hashes | {key: [*version, digest]}).encode())
    return digest


def _read_hashes(cache: Path) -> dict[str, list[object]]:
    """Return the version and the hash of each file in the cache; nothing if it is damaged."""
    try:
        hashes = json.loads(cache.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    is_valid = isinstance(hashes, dict) and all(
        isinstance(each, list) and len(each) == 5 and HASH.fullmatch(str(each[-1]))  # noqa: PLR2004
        for each in hashes.values()
    )
    return hashes if is_valid else {}


def read_config(folder: Path) -> Mapping[str, Any]:
    """Return the content of config.json. Raises ModelError where there is none."""
    shown = display_path(folder)
    if not (folder / CONFIG_FILE).exists():
        raise ModelError(f"{shown} is not a model: it has no {CONFIG_FILE}")
    config = read_json(folder / CONFIG_FILE)
    if not isinstance(config, dict):
        raise ModelError(f"the {CONFIG_FILE} in {shown} is not that of a model")
    return config


def read_json(path: Path) -> Any:
    """Return the content of a JSON file of a model. Raises ModelError."""
    try:
        with _open_model_file(path) as file:
            return json.loads(file.read(MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        shown = display_path(path.parent)
        raise ModelError(f"the {path.name} in {shown} is not valid JSON") from error


@contextmanager
def _open_model_file(path: Path) -> Iterator[BufferedReader]:
    """Open a file of a model. Only a regular file: others could block, or never end."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ModelError(f"{display_path(path)} is not a regular file")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise ModelError(f"cannot read {display_path(path)}: {error.strerror}") from error


def get_labels(name: str, config: Mapping[str, Any], settings: Settings) -> tuple[str, ...]:
    """Return the labels that the model chooses from.

    Raises ModelError where it has none, SettingsError where `--labels` does not suit it.
    """
    _check_loading(name, config, settings)
    if config.get("model_type") == "clap":
        if not settings.labels:
            raise SettingsError(
                f"{name} is a CLAP model: name the labels to choose from with --labels"
            )
        return tuple(label.name for label in settings.labels)
    if settings.labels:
        example = "--model laion/clap-htsat-unfused"
        raise SettingsError(f"--labels needs a CLAP model, such as {example}; {name} is none")
    _check_architecture(name, config)
    names = config.get("id2label") or {}
    if not isinstance(names, dict) or set(names) != set(map(str, range(len(names)))):
        raise ModelError(f"the labels of {name} are not numbered from 0 (id2label)")
    labels = [to_one_line(str(names[str(number)])) for number in range(len(names))]
    if all(UNNAMED_LABEL.fullmatch(label) for label in labels):
        raise ModelError(f"{name} is not a classifier: its {CONFIG_FILE} has no labels (id2label)")
    return tuple(labels)


def check_trainable(name: str, config: Mapping[str, Any], settings: Settings) -> None:
    """Raise ModelError for a model that training cannot turn into a classifier."""
    _check_loading(name, config, settings)
    if config.get("model_type") == "clap":
        raise ModelError(f"{name} is a CLAP model: it takes --labels, and cannot be trained")


def _check_loading(name: str, config: Mapping[str, Any], settings: Settings) -> None:
    """Raise ModelError where transformers would load files that are neither checked nor hashed."""
    if "transformers_weights" in config:
        weights = config["transformers_weights"]
        raise ModelError(f"{name} takes its weights from another place: {weights}")
    kernels = [config.get(key) for key in ("attn_implementation", "_attn_implementation")]
    if any("/" in str(each) for each in kernels) and not settings.trust_remote_code:
        raise ModelError(
            f"{name} needs code from another repository, which --trust-remote-code would run"
        )


def _check_architecture(name: str, config: Mapping[str, Any]) -> None:
    found = config.get("architectures")
    architectures = list(map(str, found)) if isinstance(found, list) else []
    is_classifier = any(each.endswith(CLASSIFIER_SUFFIXES) for each in architectures)
    if architectures and not is_classifier and AUTO_CLASS not in get_auto_map(config):
        raise ModelError(f"{name} is not an audio classifier but {', '.join(architectures)}")
    if config.get("problem_type") == "regression":
        raise ModelError(f"{name} is not a classifier: it estimates numbers (regression)")


def get_auto_map(config: Mapping[str, Any]) -> Mapping[str, object]:
    """Return the checkpoint's own classes, by the Auto class that loads each."""
    found = config.get("auto_map")
    return found if isinstance(found, dict) else {}


def list_code_files(config: Mapping[str, Any]) -> Sequence[str]:
    """List the files of the checkpoint's own code that it needs."""
    classes = [str(each) for each in get_auto_map(config).values()]
    return [f"{each.split('.')[0]}.py" for each in classes if "--" not in each]


def has_weights(folder: Path, stem: str, suffix: str) -> bool:
    """Tell whether all files of weights with this stem and suffix are there.

    Raises ModelError for an index that names files with another suffix: transformers would load
    them, even pickles.
    """
    index = folder / f"{stem}{suffix}.index.json"
    names = [f"{stem}{suffix}"]
    if index.exists():
        try:
            names = sorted(set(read_json(index)["weight_map"].values()))
        except (LookupError, TypeError, AttributeError) as error:
            raise ModelError(f"{display_path(index)} is not an index of weights") from error
    if not all(str(name).endswith(suffix) and Path(name).name == name for name in names):
        raise ModelError(f"{display_path(index)} names other files than {suffix} files beside it")
    return all((folder / name).is_file() for name in names)


def has_tokenizer(folder: Path) -> bool:
    choices = (("tokenizer.json",), ("vocab.json", "merges.txt"))
    return any(all((folder / name).is_file() for name in names) for names in choices)


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model that was found.

    identity: its name and version in tags, report and state. Models that could give different
    scores have different identities: it contains the Hub's commit or a hash of the folder, and the
    user's labels and window length. commit: empty unless the model is on the Hub; the folder may
    then lack files until `download_missing`. labels: what the model chooses from. not_music: those
    of sound that is no music, where its config.json names such labels.
    """

    identity: str
    name: str
    folder: Path
    commit: str
    labels: tuple[str, ...] = ()
    not_music: frozenset[str] = frozenset()
    attribute_labels: AttributeLabels = field(default_factory=AttributeLabels)


def find_model(settings: Settings, *, may_be_folder: bool = True) -> ModelSource:
    """Find the model that the user names.

    may_be_folder: False where the name is a stranger's, who must not reach the folders of this
    machine. Raises ModelError where there is none or it is no audio classifier, SettingsError where
    the options do not suit it. Only small files of a model on the Hub are downloaded.
    """
    source = _locate(settings, may_be_folder=may_be_folder)
    config = read_config(source.folder)
    labels = get_labels(source.name, config, settings)
    not_music = config.get("not_music")
    known = not_music if isinstance(not_music, list) else []
    return replace(
        source,
        labels=labels,
        not_music=frozenset(map(str, known)),
        attribute_labels=_read_attribute_labels(source.folder, config),
    )


def _read_attribute_labels(folder: Path, config: Mapping[str, Any]) -> AttributeLabels:
    """Return the styles, moods and voices of the bundled model, or of one trained from it.

    Raises ModelError where they are not what the network expects.
    """
    if config.get("model_type") != MODEL_WITH_ATTRIBUTES:
        return AttributeLabels()
    styles = config.get("styles", {})
    if not isinstance(styles, dict) or not all(isinstance(each, str) for each in styles.values()):
        shown = display_path(folder / CONFIG_FILE)
        raise ModelError(f"{shown}: styles must give each style the label of its genre")
    moods, voices = (_read_label_list(folder, config, name) for name in ("moods", "voices"))
    return AttributeLabels(dict(sorted(styles.items())), moods, voices)


def _read_label_list(folder: Path, config: Mapping[str, Any], name: str) -> tuple[str, ...]:
    labels = config.get(name, [])
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ModelError(f"{display_path(folder / CONFIG_FILE)}: {name} must be a list of labels")
    return tuple(labels)


def find_base_model(settings: Settings) -> ModelSource:
    """Find a model to train; it need not have labels yet. Raises as `find_model`."""
    source = _locate(settings, may_be_folder=True)
    check_trainable(source.name, read_config(source.folder), settings)
    return source


def _locate(settings: Settings, *, may_be_folder: bool) -> ModelSource:
    name = settings.model
    bundled = BUNDLED_MODELS.get(name)
    folder = bundled.checkpoint if bundled else Path(os.path.expanduser(name))  # noqa: PTH111 - never raises
    if bundled or (may_be_folder and folder.is_dir()):
        if settings.revision:
            raise SettingsError(f"--revision is for models on the Hub, and {name} is a folder")
        short_name = name if bundled else display_path(Path(folder.resolve().name))
        commit, version = "", hash_folder(folder)
    elif may_be_folder and (name.count("/") > 1 or name.startswith(("/", ".", "~"))):
        raise ModelError(f"there is no model folder {name}")
    else:
        folder = hub.find_cached_model(name, settings.revision)
        short_name, commit = name, folder.name
        version = commit
    identity = f"{short_name}@{version[:8]}{''.join(_list_identity_suffixes(settings))}"
    return ModelSource(identity, name, folder, commit)


def download_missing(source: ModelSource, settings: Settings, progress: hub.ByteProgress) -> None:
    """Download the files of a model on the Hub that the cache lacks.

    Raises ModelError where a model has only pickled weights, unless the user allows them.
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
    """Yield the files that the folder lacks, weights aside."""
    folder = source.folder
    if not any((folder / name).is_file() for name in EXTRACTOR_FILES):
        yield f"feature extractor ({EXTRACTOR_FILES[0]})"
    if settings.labels and not has_tokenizer(folder):
        yield "tokenizer (tokenizer.json)"  # else transformers embeds all texts alike
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
    proposed = " (a pull request may have one: --revision refs/pr/N)" if source.commit else ""
    return (
        f"{source.name} has only pickled weights ({pickled[0]}), which can hold harmful code: look"
        f" for a version with safetensors{proposed}, or load them with --allow-pickle"
    )


def _list_identity_suffixes(settings: Settings) -> Iterator[str]:
    """Yield a suffix for each option that changes a checkpoint's scores."""
    if settings.labels:
        text = "\0".join(f"{label.name}\0{label.prompt}" for label in settings.labels)
        yield f"+{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    if settings.window_seconds:
        yield f"+{settings.window_seconds:g}s"
