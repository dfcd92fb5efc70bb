"""What a checkpoint's folder says of itself, read without loading it."""

import hashlib
import json
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from tagger.errors import ModelError, SettingsError
from tagger.paths import displayed
from tagger.settings import Settings

CONFIG = "config.json"
EXTRACTORS = ("preprocessor_config.json", "processor_config.json")
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "vocab.txt",
    "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
SMALL = (CONFIG, *EXTRACTORS, *TOKENIZER)
SAFE = ("model", ".safetensors")
PICKLED = ("pytorch_model", ".bin")
"""How files of weights are named: one, or several with an index that lists them."""

LARGEST_JSON = 64 << 20

VERSIONED = (
    CONFIG, "preprocessor_config.json", "*.safetensors", "processor_config.json", *TOKENIZER,
    "pytorch_model*.bin", "*.py",
)  # fmt: skip
"""The files that decide what the model says."""

AUTO_CLASS = "AutoModelForAudioClassification"
CLASSIFIERS = ("ForSequenceClassification", "ForAudioClassification")
"""What the classes of transformers are called that put labels to sounds (or to texts)."""

UNNAMED = re.compile(r"LABEL_\d+")
"""What transformers calls the labels of a model that has none."""


def digest(folder: Path) -> str:
    """Return a hash of all that decides what the model says. Raises ModelError."""
    whole = hashlib.sha256()
    for path in (path for pattern in VERSIONED for path in sorted(folder.glob(pattern))):
        with _opened(path) as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def config_of(folder: Path) -> Mapping[str, Any]:
    """Return what config.json says. Raises ModelError where there is none."""
    place = displayed(folder)
    if not (folder / CONFIG).exists():
        raise ModelError(f"{place} is no model: it has no {CONFIG}")
    config = _json(folder / CONFIG)
    if not isinstance(config, dict):
        raise ModelError(f"the {CONFIG} in {place} is none of a model")
    return config


def _json(path: Path) -> Any:
    try:
        with _opened(path) as file:
            return json.loads(file.read(LARGEST_JSON))
    except (ValueError, RecursionError) as error:
        place = displayed(path.parent)
        raise ModelError(f"the {path.name} in {place} is no valid JSON") from error


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    """Open a file of a model; what is no regular file could be waited for, or read, for ever."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ModelError(f"{displayed(path)} is no file of a model")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise ModelError(f"cannot read {displayed(path)}: {error.strerror}") from error


def labels_of(name: str, config: Mapping[str, Any], settings: Settings) -> tuple[str, ...]:
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
    _check_kind(name, config)
    names = config.get("id2label") or {}
    if not isinstance(names, dict) or set(names) != set(map(str, range(len(names)))):
        raise ModelError(f"the labels of {name} are not numbered from 0 on (id2label)")
    labels = [_one_line(names[str(number)]) for number in range(len(names))]
    if all(UNNAMED.fullmatch(label) for label in labels):
        raise ModelError(f"{name} is no classifier: its {CONFIG} names no labels (id2label)")
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


def _check_kind(name: str, config: Mapping[str, Any]) -> None:
    kinds = config.get("architectures")
    kinds = kinds if isinstance(kinds, list) else []
    has_own_class = AUTO_CLASS in own_code(config)
    if kinds and not has_own_class and not any(str(kind).endswith(CLASSIFIERS) for kind in kinds):
        what = ", ".join(map(str, kinds))
        raise ModelError(f"{name} is no audio classifier but something else: {what}")
    if config.get("problem_type") == "regression":
        raise ModelError(f"{name} is no classifier: it estimates numbers (regression)")


def own_code(config: Mapping[str, Any]) -> Mapping[str, object]:
    """Return the classes that a checkpoint brings along, by what they stand for."""
    found = config.get("auto_map")
    return found if isinstance(found, dict) else {}


def own_files(config: Mapping[str, Any]) -> Sequence[str]:
    """Return the files of code that a checkpoint needs of itself."""
    classes = [str(each) for each in own_code(config).values()]
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
            names = sorted(set(_json(index)["weight_map"].values()))
        except (LookupError, TypeError, AttributeError) as error:
            raise ModelError(f"{displayed(index)} is no index of weights") from error
    if not all(str(name).endswith(suffix) and Path(name).name == name for name in names):
        raise ModelError(f"{displayed(index)} names files that are none of weights")
    return all((folder / name).is_file() for name in names)


def has_tokenizer(folder: Path) -> bool:
    choices = (("tokenizer.json",), ("vocab.json", "merges.txt"))
    return any(all((folder / name).is_file() for name in names) for names in choices)


def _one_line(label: object) -> str:
    """Return a label without what a tag or a terminal would take for more than text."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(label)).split())
