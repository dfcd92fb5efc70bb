"""Files that tagger writes anew each time: they take the place of nothing but their like."""

import errno
from pathlib import Path

from tagger.errors import DiskFullError, ReportError, SettingsError


def check_place(path: Path, start: bytes, option: str) -> None:
    """Raise SettingsError for a folder, and for a file that does not begin so: it may be a song.

    Raises OSError where it cannot be read.
    """
    if path.is_dir():
        raise SettingsError(f"{option} names a folder: {path}")
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            if file.read(len(start)) != start:
                raise SettingsError(f"{option} would overwrite {path}, which is none of tagger's")


def refusal(what: str, path: Path, error: OSError) -> ReportError | DiskFullError:
    """Return what to tell the user where the system would not write such a file."""
    kind = DiskFullError if error.errno == errno.ENOSPC else ReportError
    return kind(f"cannot write the {what} {path}: {error.strerror}")
