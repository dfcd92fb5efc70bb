"""The folder of a training: its notes, halves and checkpoints, and what another one finds there."""

import csv
import io
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tagger.errors import ReportError, SettingsError
from tagger.models.folder import CONFIG
from tagger.records import displayed
from tagger.training.finetune import CHECKPOINTS
from tagger.training.splits import Split

NOTES = "recipe.json"
HALVES = "split.csv"
DECODED = "decoded"
PASSING = (CHECKPOINTS, DECODED)
"""What is gone once a training is done."""

Notes = Mapping[str, object]


def check_workspace(folder: Path, *, resume: bool) -> None:
    """Raise SettingsError where another training, or anything else, is in the folder."""
    place = displayed(folder)
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if CONFIG in there and NOTES in there:
        raise SettingsError(f"{place} holds a finished training: choose another --output-dir")
    if NOTES in there and not resume:
        raise SettingsError(f"{place} holds a training that was not finished: add --resume")
    if there - {DECODED} and NOTES not in there:
        raise SettingsError(f"{place} is not empty: --output-dir makes a new folder")


def open_workspace(folder: Path, notes: Notes, split: Split) -> None:
    """Make the folder of a training, or see that the one begun there is this one.

    Raises SettingsError where it is not, ReportError where it cannot be written.
    """
    with clear_errors(folder):
        if (folder / NOTES).exists():
            _check_same(folder, notes, split)
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / HALVES, _table(split))
        _write(folder / NOTES, json.dumps(notes, indent=2, ensure_ascii=False) + "\n")


def _check_same(folder: Path, notes: Notes, split: Split) -> None:
    place = displayed(folder)
    before = json.loads((folder / NOTES).read_text("utf-8"))
    now = json.loads(json.dumps(notes))
    for name in now:
        if before.get(name) != now[name]:
            raise SettingsError(
                f"the training in {place} was begun with another {name}: {before.get(name)}"
            )
    if (folder / HALVES).read_text("utf-8", "surrogateescape") != _table(split):
        raise SettingsError(f"the training in {place} was begun on other clips, or other halves")


def _table(split: Split) -> str:
    """Return each clip with its half, as `--split-file` reads it."""
    file = io.StringIO()
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(["path", "label", "part"])
    for part in ("train", "validation", "test"):
        clips = getattr(split, part)
        rows.writerows([str(clip.track.path), clip.labels[0], part] for clip in clips)
    return file.getvalue()


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, "utf-8", "surrogateescape")
    part.replace(path)


def clear(folder: Path) -> None:
    """Remove what only an unfinished training needs."""
    for name in PASSING:
        shutil.rmtree(folder / name, ignore_errors=True)


@contextmanager
def clear_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ReportError(f"cannot write to {displayed(folder)}: {error.strerror}") from error
    except ValueError as error:
        raise ReportError(f"the notes in {displayed(folder)} are damaged: {error}") from error
