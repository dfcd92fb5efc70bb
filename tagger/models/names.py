"""From what the user calls a model to where it lies and which version it is, without loading it."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tagger.errors import ModelError, SettingsError
from tagger.models import folder as folders
from tagger.models import hub
from tagger.models.folder import EXTRACTORS, PICKLED, SAFE, SMALL
from tagger.models.musicnn import CHECKPOINT
from tagger.paths import displayed
from tagger.settings import Settings

BUNDLED = {"musicnn": CHECKPOINT}


@dataclass(frozen=True, slots=True)
class Source:
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


def find_source(settings: Settings) -> Source:
    """Return where the model lies that the user asks for.

    Raises ModelError where there is none, or none that puts labels to sounds, SettingsError where
    the options do not suit it. Of a model on the Hub only small files are downloaded for that.
    """
    source = _locate(settings)
    labels = folders.labels_of(source.name, folders.config_of(source.folder), settings)
    return replace(source, labels=labels)


def find_base(settings: Settings) -> Source:
    """Return where a model lies that is to be trained; it need not know any labels yet.

    Raises what `find_source` raises.
    """
    source = _locate(settings)
    folders.check_trainable(source.name, folders.config_of(source.folder), settings)
    return source


def _locate(settings: Settings) -> Source:
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
    return Source(identity, name, folder, commit)


def fetch(source: Source, settings: Settings, progress: hub.Progress) -> None:
    """Download what the cache lacks of a model on the Hub. Raises ModelError.

    Pickled weights are refused here, unless `--allow-pickle` says otherwise.
    """
    kinds = [SAFE, PICKLED] if settings.allow_pickle else [SAFE]
    missing = list(_missing(source, settings))
    if source.commit and (missing or not _weights(source.folder, kinds)):
        code = ["*.py"] if settings.trust_remote_code else []
        for stem, suffix in kinds:
            weights = (f"{stem}{suffix}", f"{stem}{suffix}.index.json", f"{stem}-*{suffix}")
            hub.download(source.name, source.commit, (*SMALL, *code, *weights), progress)
            if _weights(source.folder, kinds):
                break
        missing = list(_missing(source, settings))
    if not _weights(source.folder, kinds):
        raise ModelError(_no_weights(source))
    if missing:
        raise ModelError(f"the model {source.name} cannot be loaded: it has no {missing[0]}")


def _missing(source: Source, settings: Settings) -> Iterator[str]:
    """Yield what the folder lacks beside weights."""
    folder = source.folder
    if not any((folder / name).is_file() for name in EXTRACTORS):
        yield f"feature extractor ({EXTRACTORS[0]})"
    if settings.labels and not folders.has_tokenizer(folder):
        yield "tokenizer (tokenizer.json)"  # without one, transformers takes all texts for the same
    if settings.trust_remote_code:
        files = folders.own_files(folders.config_of(folder))
        yield from (name for name in files if not (folder / name).is_file())


def _weights(folder: Path, kinds: Iterable[tuple[str, str]]) -> bool:
    return any(folders.has_weights(folder, stem, suffix) for stem, suffix in kinds)


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


def _changes(settings: Settings) -> Iterator[str]:
    """Yield what sets this use of a checkpoint apart from another."""
    if settings.labels:
        text = "\0".join(f"{label.name}\0{label.prompt}" for label in settings.labels)
        yield f"+{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    if settings.window_seconds:
        yield f"+{settings.window_seconds:g}s"
