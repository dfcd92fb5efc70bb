"""Clear away what a killed replacement left beside a file, and finish what cannot be left half."""

import os
import stat
from contextlib import suppress
from filecmp import cmp
from pathlib import Path

from tagger.errors import AccessError, UnfinishedError
from tagger.records import Track, displayed
from tagger.tags.replace import opened, whole_name, write_over

SLOWEST_WRITE = 1 << 20
"""Bytes a second that a disk surely writes: so long at most may a file have been written over."""
SHORTEST_S = 60.0


def clear_leftovers(path: Path, copy: str, old: Track | None) -> None:
    """Remove the copy that was made of the file at `path`; `old` is the file as it was then.

    A file that was being written over is finished first from its whole copy. UnfinishedError where
    somebody else may have changed it since: then both stay. AccessError where the system refuses.
    """
    part, whole = path.with_name(copy), path.with_name(whole_name(copy))
    try:
        with suppress(FileNotFoundError):
            part.unlink()
        if _is_regular(whole):
            if not _is_settled(path, whole, old):
                _finish(path, whole, old)
            whole.unlink()
    except OSError as error:
        raise AccessError(
            f"what an earlier run left cannot be cleared away: {error.strerror}"
        ) from error


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _is_settled(path: Path, whole: Path, old: Track | None) -> bool:
    """Tell whether the file is still what it was, or already what it should be."""
    if not _is_regular(path):
        return False
    return Track.from_stat(path, path.lstat()) == old or cmp(path, whole, shallow=False)


def _finish(path: Path, whole: Path, old: Track | None) -> None:
    """Write the whole copy over its original, if nobody else can have touched that meanwhile."""
    begun = whole.lstat()
    longest_s = max(SHORTEST_S, begun.st_size / SLOWEST_WRITE)
    if old is not None and _is_regular(path):
        now = path.lstat()
        if now.st_ino == old.inode and now.st_mtime - begun.st_ctime <= longest_s:
            with opened(whole, os.O_RDONLY) as source, opened(path, os.O_RDWR) as target:
                write_over(source, target)
            return
    raise UnfinishedError(
        "an earlier run was killed while it wrote this file, and somebody changed it since; what it"
        f" was to become is in {displayed(Path(whole.name))}"
    )
