"""Clear away what a killed replacement left beside a file, and finish what cannot be left half."""

import os
import stat
from filecmp import cmp
from pathlib import Path
from shutil import rmtree

from tagger.errors import AccessError, UnfinishedError
from tagger.paths import RemotePath, displayed
from tagger.records import Track
from tagger.tags.copying import descriptor_of, write_over
from tagger.tags.replace import is_copy_name, whole_name
from tagger.tags.replace_object import scratch_folder

SLOWEST_WRITE = 1 << 20
"""Bytes a second that a disk surely writes: so long at most may a file have been written over."""
SHORTEST_S = 60.0


def clear_leftovers(path: Path, copy: str, old: Track | None) -> bool:
    """Remove the copy that was made of the file at `path`; `old` is the file as it was then.

    Return whether there was one that had not been checked yet, which an object's cannot tell. A
    file that was being written over is finished first from its whole copy. UnfinishedError where
    somebody else may have changed it since: then both stay. AccessError where the system refuses.
    """
    if old is None or not is_copy_name(copy, old):
        return False
    if isinstance(path, RemotePath):
        rmtree(scratch_folder(copy), ignore_errors=True)
        return False  # the copy stays until after the store has the new object
    part, whole = path.with_name(copy), path.with_name(whole_name(copy))
    try:
        if _is_regular(whole):
            if not _is_settled(path, whole, old):
                _finish(path, whole, old)
            whole.unlink()
        part.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise AccessError(
            f"what an earlier run left cannot be cleared away: {error.strerror}"
        ) from error
    return True


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _is_settled(path: Path, whole: Path, old: Track) -> bool:
    """Tell whether the file is still what it was, or already what it should be."""
    if not _is_regular(path):
        return False
    return Track.from_stat(path, path.lstat()) == old or cmp(path, whole, shallow=False)


def _finish(path: Path, whole: Path, old: Track) -> None:
    """Write the whole copy over its original, if nobody else can have touched that meanwhile.

    The change time tells, for nobody can set it: the copy's is when the writing began.
    """
    begun = whole.lstat()
    longest_s = max(SHORTEST_S, begun.st_size / SLOWEST_WRITE)
    if _is_regular(path):
        now = path.lstat()
        if now.st_ino == old.inode and -1 <= now.st_ctime - begun.st_ctime <= longest_s:
            with (
                descriptor_of(whole, os.O_RDONLY) as source,
                descriptor_of(path, os.O_RDWR) as target,
            ):
                os.fchmod(source, begun.st_mode & 0o777)  # it begins now, if this is killed too
                os.fsync(source)
                write_over(source, target)
            return
    raise UnfinishedError(
        "an earlier run was killed while it wrote this file, and somebody changed it since; what it"
        f" was to become is in {displayed(Path(whole.name))}"
    )
