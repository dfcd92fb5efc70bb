"""What a checkpoint's folder says of itself, read without loading it."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tagger.errors import ModelError
from tagger.records import displayed

CONFIG = "config.json"
EXTRACTOR = ("preprocessor_config.json", "processor_config.json")
SAFE = ("model", ".safetensors")
PICKLED = ("pytorch_model", ".bin")
"""How files of weights are named: one, or several with an index that lists them."""

VERSIONED = (
    CONFIG,
    "preprocessor_config.json",
    "*.safetensors",
    "processor_config.json",
    "tokenizer*.json",
    "vocab.*",
    "merges.txt",
    "pytorch_model*.bin",
    "*.py",
)
"""The files that decide what the model says."""


def digest(folder: Path) -> str:
    """Return a hash of all that decides what the model says. Raises ModelError."""
    config_of(folder)
    whole = hashlib.sha256()
    try:
        for path in (path for pattern in VERSIONED for path in sorted(folder.glob(pattern))):
            with path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise ModelError(f"cannot read the model in {folder}: {error.strerror}") from error
    return whole.hexdigest()


def config_of(folder: Path) -> Mapping[str, Any]:
    """Return what config.json says. Raises ModelError where there is none."""
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except FileNotFoundError as error:
        raise ModelError(f"{displayed(folder)} is no model: it has no {CONFIG}") from error
    except OSError as error:
        raise ModelError(f"cannot read the model in {folder}: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"the {CONFIG} in {displayed(folder)} is no valid JSON") from error
    if not isinstance(config, dict):
        raise ModelError(f"the {CONFIG} in {displayed(folder)} is none of a model")
    return config


def has_weights(folder: Path, stem: str, suffix: str) -> bool:
    """Tell whether all files of weights of one kind are there."""
    files = list(_shards(folder / f"{stem}{suffix}.index.json")) or [f"{stem}{suffix}"]
    return all((folder / name).is_file() for name in files)


def _shards(index: Path) -> Iterator[str]:
    """Yield the files that an index lists; none where there is no index that can be read."""
    try:
        yield from sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return
