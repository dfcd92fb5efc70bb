"""The folder of a training: its recipe, split and checkpoints, and a lock against a second one."""

import csv
import io
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tagger.errors import (
    DISK_FULL_ERRNOS,
    DiskFullError,
    LockedError,
    ReportError,
    SettingsError,
    TaggerError,
)
from tagger.paths import display_path, write_file_whole
from tagger.training.clips import PARTS
from tagger.training.splits import Split

RECIPE_FILE = "recipe.json"
EVALUATION_FILE = "evaluation.json"
"""Written last. A folder that has it holds a finished training."""

CHECKPOINT_FOLDER = "checkpoints"
SPLIT_FILE = "split.csv"
DECODED_FOLDER = "decoded"
LOCK_FILE = ".lock"
TEMPORARY_FOLDERS = (CHECKPOINT_FOLDER, DECODED_FOLDER)
"""A finished training does not need them."""

TrainingDescription = Mapping[str, object]
"""The options, base model, labels and version of a training, for RECIPE_FILE."""


def check_workspace(folder: Path, *, resume: bool) -> None:
    """Raise SettingsError if the folder holds another training, or other files."""
    name = display_path(folder)
    with translate_workspace_errors(folder):
        files = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if EVALUATION_FILE in files and RECIPE_FILE in files:
        raise SettingsError(f"{name} holds a finished training: choose another --output-dir")
    if RECIPE_FILE in files and not resume and has_checkpoints(folder):
        raise SettingsError(f"{name} holds an unfinished training: add --resume to continue it")
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:  # safetensors cannot write there
        raise SettingsError(f"{name} is not a UTF-8 name: choose another --output-dir") from error
    if files - {DECODED_FOLDER, LOCK_FILE} and RECIPE_FILE not in files:
        raise SettingsError(f"{name} is not empty: choose a new folder as --output-dir")


def open_workspace(folder: Path, description: TrainingDescription, split: Split) -> None:
    """Make the folder of a training, or check that the unfinished training there is the same.

    Raises SettingsError if it is another one, ReportError if the folder cannot be written.
    """
    with translate_workspace_errors(folder):
        if has_checkpoints(folder):
            _check_same_training(folder, description, split)
        folder.mkdir(parents=True, exist_ok=True)
        write_text_file(folder / SPLIT_FILE, _format_split(split))
        text = json.dumps(description, indent=2, ensure_ascii=False)
        write_text_file(folder / RECIPE_FILE, f"{text}\n")


def has_checkpoints(folder: Path) -> bool:
    """Return whether an epoch was finished, so that a training can be continued."""
    checkpoints = (folder / CHECKPOINT_FOLDER).glob("checkpoint-*")
    return (folder / RECIPE_FILE).exists() and any(checkpoints)


def _check_same_training(folder: Path, description: TrainingDescription, split: Split) -> None:
    name = display_path(folder)
    old = json.loads((folder / RECIPE_FILE).read_text("utf-8"))
    if not isinstance(old, dict):
        raise ValueError(f"{RECIPE_FILE} has no object")  # noqa: TRY004 - as for all damaged files
    new = json.loads(json.dumps(description))
    for key in new:
        if old.get(key) != new[key]:
            raise SettingsError(
                f"the training in {name} was started with {_describe_difference(key, old, new)},"
                " or choose another --output-dir"
            )
    with (folder / SPLIT_FILE).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        old_split = file.read()
    if old_split != _format_split(split):
        raise SettingsError(
            f"the training in {name} was started with other clips or another split: use the same"
            " data, or choose another --output-dir"
        )


DIFFERENCES = {
    "tagger": "tagger {old}, and this is tagger {new}: go on with tagger {old}",
    "recipe": "other options: use the same ones",
    "base": "the base model {old}, not {new}: use the same one",
    "labels": "other genres: use the same data",
}
"""What differs in an unfinished training, by the key in RECIPE_FILE, and what helps."""


def _describe_difference(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    old_value, new_value = old.get(key), new[key]
    if isinstance(old_value, dict) and isinstance(new_value, dict):
        names = [*new_value, *old_value]
        option = next(name for name in names if old_value.get(name) != new_value.get(name))
        options = f"--{option} {old_value.get(option)}, not {new_value.get(option)}"
        return f"{options}: use the same options"
    return DIFFERENCES[key].format(old=old_value, new=new_value)


def _format_split(split: Split) -> str:
    """Return a CSV file of the clips with their parts, which `--split-file` can read."""
    file = io.StringIO()
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(["path", "label", "part"])
    for part in PARTS:
        clips = getattr(split, part)
        rows.writerows([str(clip.track.path), clip.labels[0], part] for clip in clips)
    return file.getvalue()


def write_text_file(path: Path, text: str) -> None:
    """Write a text file whole or not at all. It may have paths that are not UTF-8."""
    write_file_whole(path, text.encode("utf-8", "surrogateescape"))


def remove_temporary_folders(folder: Path) -> None:
    """Remove the folders that only an unfinished training needs."""
    for name in TEMPORARY_FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)


@contextmanager
def lock_workspace(folder: Path) -> Iterator[None]:
    """Keep other trainings out of the folder. Raises LockedError, ReportError."""
    lock = FileLock(folder / LOCK_FILE)  # flock: the system releases it when the process dies
    try:
        with translate_workspace_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
    except Timeout as error:
        raise LockedError(f"another training is running in {display_path(folder)}") from error
    try:
        yield
    finally:
        if not (folder / RECIPE_FILE).exists():
            remove_temporary_folders(folder)
        (folder / LOCK_FILE).unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):
            folder.rmdir()  # it stays if it has files


DISK_FULL_PHRASES = ("No space left", "inline_container", "Disk quota")
"""Words of safetensors and torch for a full disk."""


@contextmanager
def translate_workspace_errors(folder: Path) -> Iterator[None]:
    """Turn errors into one line: the folder is full, cannot be used, or has damaged files."""
    name = display_path(folder)
    try:
        yield
    except (TaggerError, Timeout):
        raise
    except Exception as error:
        is_full = any(phrase in str(error) for phrase in DISK_FULL_PHRASES)
        if is_full or getattr(error, "errno", 0) in DISK_FULL_ERRNOS:
            raise DiskFullError(f"no space is left for {name}") from error
        if isinstance(error, OSError):
            raise ReportError(f"cannot use {name}: {error.strerror or error}") from error
        if isinstance(error, ValueError):
            raise ReportError(f"{RECIPE_FILE} in {name} is damaged: {error}") from error
        raise
