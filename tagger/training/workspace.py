"""The folder of a training: its notes, halves and checkpoints, and what another one finds there."""

import csv
import errno
import io
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tagger.errors import DiskFullError, LockedError, ReportError, SettingsError, TaggerError
from tagger.paths import display_path
from tagger.training.splits import Split

NOTES_FILE = "recipe.json"
RESULTS_FILE = "evaluation.json"
"""Written last: a folder that has it is a finished training."""

CHECKPOINT_FOLDER = "checkpoints"
SPLIT_FILE = "split.csv"
DECODED_FOLDER = "decoded"
LOCK_FILE = ".lock"
TEMPORARY_FOLDERS = (CHECKPOINT_FOLDER, DECODED_FOLDER)
"""What is gone once a training is done."""

Notes = Mapping[str, object]


def check_workspace(folder: Path, *, resume: bool) -> None:
    """Raise SettingsError where another training, or anything else, is in the folder."""
    place = display_path(folder)
    with translate_workspace_errors(folder):
        there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if RESULTS_FILE in there and NOTES_FILE in there:
        raise SettingsError(f"{place} holds a finished training: choose another --output-dir")
    if NOTES_FILE in there and not resume and has_checkpoints(folder):
        raise SettingsError(f"{place} holds a training that was not finished: add --resume")
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:  # safetensors cannot write there
        raise SettingsError(f"{place} is no name in UTF-8: choose another --output-dir") from error
    if there - {DECODED_FOLDER, LOCK_FILE} and NOTES_FILE not in there:
        raise SettingsError(f"{place} is not empty: --output-dir makes a new folder")


def open_workspace(folder: Path, notes: Notes, split: Split) -> None:
    """Make the folder of a training, or see that the one begun there is this one.

    Raises SettingsError where it is not, ReportError where it cannot be written.
    """
    with translate_workspace_errors(folder):
        if has_checkpoints(folder):
            _check_same_training(folder, notes, split)
        folder.mkdir(parents=True, exist_ok=True)
        write_text_file(folder / SPLIT_FILE, _format_split(split))
        write_text_file(folder / NOTES_FILE, json.dumps(notes, indent=2, ensure_ascii=False) + "\n")


def has_checkpoints(folder: Path) -> bool:
    """Tell whether an epoch was finished, so that there is something to go on with."""
    return (folder / NOTES_FILE).exists() and any((folder / CHECKPOINT_FOLDER).glob("checkpoint-*"))


def _check_same_training(folder: Path, notes: Notes, split: Split) -> None:
    place = display_path(folder)
    before = json.loads((folder / NOTES_FILE).read_text("utf-8"))
    if not isinstance(before, dict):
        raise ValueError(f"{NOTES_FILE} is none")  # noqa: TRY004 - told like all damaged notes
    now = json.loads(json.dumps(notes))
    for name in now:
        if before.get(name) != now[name]:
            raise SettingsError(
                f"the training in {place} was begun with {_describe_difference(name, before, now)}:"
                " say the same again, or choose another --output-dir"
            )
    with (folder / SPLIT_FILE).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        halves = file.read()
    if halves != _format_split(split):
        raise SettingsError(f"the training in {place} was begun on other clips, or other halves")


def _describe_difference(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    was, wanted = before.get(name), now[name]
    if isinstance(was, dict) and isinstance(wanted, dict):
        option = next(each for each in wanted if was.get(each) != wanted[each])
        return f"--{option} {was.get(option)}, not {wanted[option]}"
    return f"another {name}"


def _format_split(split: Split) -> str:
    """Return each clip with its half, as `--split-file` reads it."""
    file = io.StringIO()
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(["path", "label", "part"])
    for part in ("train", "validation", "test"):
        clips = getattr(split, part)
        rows.writerows([str(clip.track.path), clip.labels[0], part] for clip in clips)
    return file.getvalue()


def write_text_file(path: Path, text: str) -> None:
    """Write a file so that it is never there in part."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, "utf-8", "surrogateescape", newline="")
    part.replace(path)


def remove_temporary_folders(folder: Path) -> None:
    """Remove what only an unfinished training needs."""
    for name in TEMPORARY_FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)


@contextmanager
def lock_workspace(folder: Path) -> Iterator[None]:
    """Keep other trainings out of the folder. Raises LockedError, ReportError."""
    mine = FileLock(folder / LOCK_FILE)  # flock: the lock of a process that died is no lock
    try:
        with translate_workspace_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            mine.acquire(blocking=False)
    except Timeout as error:
        raise LockedError(f"another training works in {display_path(folder)}") from error
    try:
        yield
    finally:
        if not (folder / NOTES_FILE).exists():
            remove_temporary_folders(folder)
        (folder / LOCK_FILE).unlink(missing_ok=True)
        mine.release()
        with suppress(OSError):
            folder.rmdir()  # where nothing came of it


DISK_FULL_PHRASES = ("No space left", "inline_container", "Disk quota")
"""How safetensors and torch say that a disk is full."""


@contextmanager
def translate_workspace_errors(folder: Path) -> Iterator[None]:
    """Say in one line what is wrong with the folder: that it is full, damaged, or not ours."""
    place = display_path(folder)
    try:
        yield
    except (TaggerError, Timeout):
        raise
    except Exception as error:
        if getattr(error, "errno", 0) == errno.ENOSPC or any(
            word in str(error) for word in DISK_FULL_PHRASES
        ):
            raise DiskFullError(f"no space is left for {place}") from error
        if isinstance(error, OSError):
            raise ReportError(f"cannot use {place}: {error.strerror or error}") from error
        if isinstance(error, ValueError):
            raise ReportError(f"the notes in {place} are damaged: {error}") from error
        raise
