"""From what the user calls a model to where it lies and which version it is, without loading it."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from tagger.errors import ModelError
from tagger.models.musicnn import CHECKPOINT
from tagger.records import displayed

BUNDLED = {"musicnn": CHECKPOINT}

CONFIG = "config.json"
VERSIONED = (CONFIG, "preprocessor_config.json", "*.safetensors")
"""The files of a folder that decide what the model says."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a checkpoint comes from.

    identity: its name and version, as tags, report and state know it. Two versions never share one:
    it carries the Hub's revision, or a hash of the weights of a folder.
    location: a folder, or the id of a repository on the Hub, then with its `revision`.
    """

    identity: str
    location: str
    revision: str | None = None


def find_source(name: str) -> Source:
    """Return where the model lies that the user calls so. Raises ModelError where there is none."""
    folder = BUNDLED.get(name) or Path(os.path.expanduser(name))  # noqa: PTH111 - never raises
    if folder.is_dir():
        label = name if name in BUNDLED else displayed(Path(folder.resolve().name))
        return Source(f"{label}@{_folder_digest(folder)[:8]}", str(folder))
    if name.count("/") > 1 or name.startswith(("/", ".", "~")):
        raise ModelError(f"there is no model folder {name}")
    revision = _hub_revision(name)
    return Source(f"{name}@{revision[:8]}", name, revision)


def _folder_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    files = [path for pattern in VERSIONED for path in sorted(folder.glob(pattern))]
    if folder / CONFIG not in files:
        raise ModelError(f"{folder} is no model: it has no {CONFIG}")
    try:
        for path in files:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise ModelError(f"cannot read the model in {folder}: {error.strerror}") from error
    return digest.hexdigest()


def _hub_revision(name: str) -> str:
    """Return the commit of a model on the Hub: the one in the cache, else the newest one."""
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        cached = try_to_load_from_cache(name, CONFIG)
        path = cached if isinstance(cached, str) else hf_hub_download(name, CONFIG)
    except HFValidationError as error:
        raise ModelError(f"{name} is neither a model folder nor the id of a model") from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"the model {name} is not in the cache ({constants.HF_HUB_CACHE}) and the Hub cannot"
            " be reached: connect once to download it, or name a folder that holds it"
        ) from error
    except HfHubHTTPError as error:
        raise ModelError(f"the Hub does not give the model {name}: {error}") from error
    return Path(path).parent.name
