"""Settle what a killed run left: journal entries, copies, a half-written file."""

import os
import stat
from filecmp import cmp
from pathlib import Path
from shutil import rmtree

from tagger.errors import AccessError, TrackError, UnfinishedError
from tagger.isolation import IsolatedCaller
from tagger.paths import AnyPath, display_path, is_remote
from tagger.records import Track
from tagger.state import JournalEntry, State
from tagger.storage import is_reachable, look_up
from tagger.tags import read_tags
from tagger.writing.replace import (
    find_work_folder,
    is_copy_name,
    make_full_copy_name,
    open_descriptor,
    overwrite_file,
)

MIN_WRITE_BYTES_PER_S = 1 << 20
"""Bytes a second that a disk surely writes: so long at most may a file have been written over."""
MIN_WRITE_ALLOWANCE_S = 60.0


def remove_leftover_copy(path: AnyPath, copy: str, old: Track | None) -> bool:
    """Remove the copy that was made of the file at `path`; `old` is the file as it was then.

    Return whether there was one that had not been checked yet, which an object's cannot tell. A
    file that was being written over is finished first from its whole copy. UnfinishedError where
    somebody else may have changed it since: then both stay. AccessError where the system refuses.
    """
    if old is None or not is_copy_name(copy, old):
        return False
    if is_remote(path):
        rmtree(find_work_folder(copy), ignore_errors=True)
        return False  # the copy stays until after the store has the new object
    path = Path(path)
    part, whole = path.with_name(copy), path.with_name(make_full_copy_name(copy))
    try:
        if _is_regular(whole):
            if not _is_old_or_new(path, whole, old):
                _finish_overwrite(path, whole, old)
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


def _is_old_or_new(path: Path, whole: Path, old: Track) -> bool:
    """Tell whether the file is still what it was, or already what it should be."""
    if not _is_regular(path):
        return False
    return Track.from_stat(path, path.lstat()) == old or cmp(path, whole, shallow=False)


def _finish_overwrite(path: Path, whole: Path, old: Track) -> None:
    """Write the whole copy over its original, if nobody else can have touched that meanwhile.

    The change time tells, for nobody can set it: the copy's is when the writing began.
    """
    begun = whole.lstat()
    longest_s = max(MIN_WRITE_ALLOWANCE_S, begun.st_size / MIN_WRITE_BYTES_PER_S)
    if _is_regular(path):
        now = path.lstat()
        if now.st_ino == old.inode and -1 <= now.st_ctime - begun.st_ctime <= longest_s:
            with (
                open_descriptor(whole, os.O_RDONLY) as source,
                open_descriptor(path, os.O_RDWR) as target,
            ):
                os.fchmod(source, begun.st_mode & 0o777)  # it begins now, if this is killed too
                os.fsync(source)
                overwrite_file(source, target)
            return
    raise UnfinishedError(
        "an earlier run was killed while it wrote this file, and somebody changed it since; what it"
        f" was to become is in {display_path(Path(whole.name))}"
    )


NO_FILE_STAT = (0, 0, 0)
"""Size, time and inode of a file that no undo will ever find unchanged."""


def recover_entries(state: State, isolated: IsolatedCaller) -> dict[AnyPath, str]:
    """Bring files and journal together again, whatever moment the last run was killed at.

    Return the files that cannot be mended, each with the reason: their entries stay open. So do
    those in a folder that is not there (an unmounted disk, a server that does not answer).
    """
    unrecovered: dict[AnyPath, str] = {}
    for entry in state.journal.list_unfinished():
        if not is_reachable(entry.path):
            continue
        try:
            recover_entry(entry, state, isolated)
        except TrackError as error:
            unrecovered[entry.path] = str(error)
        state.commit()
    return unrecovered


def recover_entry(entry: JournalEntry, state: State, isolated: IsolatedCaller) -> None:
    """Clear away what is left of a replacement, and settle its entry by what the file is now.

    The entry is closed if that is the new one, cancelled if it is the old one. The tags decide, for
    size and time may be what they were. An entry whose file is gone waits.
    Raises TrackError where only a person can judge, or the system refuses.
    """
    if remove_leftover_copy(entry.path, entry.copy, entry.old):
        state.journal.cancel_entry(entry.id)  # the copy was there: it never took a place
        return
    now = look_up(entry.path)
    if now is None:
        return
    tags = isolated.call(read_tags, entry.path)
    if tags == entry.after:
        state.finish_replacement(entry.id, entry.old or now, now, tags)
    elif tags == entry.before:
        state.journal.cancel_entry(entry.id)
    else:  # somebody edited it: on record, but not for us to undo
        state.journal.close_entry(entry.id, Track(entry.path, *NO_FILE_STAT))
