"""From what the user calls a model to where it lies and which version it is, without loading it."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tagger.errors import ModelError, SettingsError
from tagger.models import folder as folders
from tagger.models import hub
from tagger.models.folder import EXTRACTOR, PICKLED, SAFE
from tagger.models.musicnn import CHECKPOINT
from tagger.records import Label, displayed
from tagger.settings import Settings

BUNDLED = {"musicnn": CHECKPOINT}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a checkpoint comes from.

    identity: its name and version, as tags, report and state know it. Two that could give other
    scores never share one: it carries the Hub's commit or a hash of the folder, and what the user
    changed about labels and window length.
    folder: where it lies. commit: of a model on the Hub; weights may be missing until `fetch`.
    labels: what it can answer, as far as its configuration tells.
    """

    identity: str
    name: str
    folder: Path
    commit: str = ""
    labels: tuple[str, ...] = ()


def find_source(settings: Settings) -> Source:
    """Return where the model lies that the user asks for. Raises ModelError where there is none."""
    name = settings.model
    folder = BUNDLED.get(name) or Path(os.path.expanduser(name))  # noqa: PTH111 - never raises
    if folder.is_dir():
        if settings.revision:
            raise SettingsError(f"--revision is for models on the Hub, and {name} is a folder")
        called = name if name in BUNDLED else displayed(Path(folder.resolve().name))
        commit, version = "", folders.digest(folder)
    elif name.count("/") > 1 or name.startswith(("/", ".", "~")):
        raise ModelError(f"there is no model folder {name}")
    else:
        folder = hub.find(name, settings.revision)
        called, commit = name, folder.name
        version = commit
    identity = f"{called}@{version[:8]}{''.join(_changes(settings))}"
    return Source(identity, name, folder, commit, tuple(_labels(folder, settings.labels)))


def fetch(source: Source, settings: Settings, progress: hub.Progress) -> None:
    """Download what the cache lacks of a model on the Hub. Raises ModelError.

    Pickled weights are refused here, unless `--allow-pickle` says otherwise.
    """
    names = [*hub.SMALL, *(["*.py"] if settings.trust_remote_code else [])]
    has_extractor = any((source.folder / name).is_file() for name in EXTRACTOR)
    kinds = [SAFE, *([PICKLED] if settings.allow_pickle else [])]
    for stem, suffix in kinds:
        complete = has_extractor and folders.has_weights(source.folder, stem, suffix)
        if source.commit and not complete:
            patterns = [*names, f"{stem}{suffix}", f"{stem}-*{suffix}"]
            hub.download(source.name, source.commit, patterns, progress)
        if folders.has_weights(source.folder, stem, suffix):
            return
    raise ModelError(_no_weights(source))


def _no_weights(source: Source) -> str:
    names = (
        hub.file_names(source.name, source.commit)
        if source.commit
        else [path.name for path in source.folder.iterdir()]
    )
    stem, suffix = PICKLED
    pickled = [name for name in names if name.startswith(stem) and name.endswith(suffix)]
    if not pickled:
        return f"{source.name} has no weights that tagger can load (model.safetensors)"
    proposed = ", --revision refs/pr/N takes one that was proposed" if source.commit else ""
    return (
        f"{source.name} has pickled weights alone ({pickled[0]}), which can hold harmful code:"
        f" look for a version with safetensors{proposed}, or load them with --allow-pickle"
    )


def _changes(settings: Settings) -> Iterable[str]:
    """Yield what sets this use of a checkpoint apart from another."""
    if settings.labels:
        text = "\0".join(f"{label.name}\0{label.prompt}" for label in settings.labels)
        yield f"+{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    if settings.window_seconds:
        yield f"+{settings.window_seconds:g}s"


def _labels(folder: Path, own: Iterable[Label]) -> Iterable[str]:
    if own:
        return [label.name for label in own]
    names = folders.config_of(folder).get("id2label")
    return [str(name) for name in names.values()] if isinstance(names, dict) else []
