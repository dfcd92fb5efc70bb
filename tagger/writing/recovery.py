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
from tagger.storage import check_no_writer, is_reachable, look_up
from tagger.tags import read_tags
from tagger.writing.replace import (
    find_work_folder,
    is_copy_name,
    make_full_copy_name,
    open_descriptor,
    overwrite_file,
)

MIN_WRITE_BYTES_PER_S = 1 << 20
MIN_WRITE_ALLOWANCE_S = 60.0
"""Assume that the disk writes at least this fast, and allow at least a minute. A change that came
later than the write can have lasted was made by another program."""

NO_FILE_STAT = (0, 0, 0)
"""No file has this size, time and inode. An entry with these values fits no file, so an undo
refuses the file."""


def recover_entries(state: State, isolated: IsolatedCaller) -> dict[AnyPath, UnfinishedError]:
    """Make files and journal agree again, whatever the last run was doing when it was killed.

    Return the files that cannot be recovered, each with the error. Their entries stay open.
    Entries also stay open if their folder cannot be reached: the disk is not mounted, or the
    server does not answer.
    """
    unrecovered: dict[AnyPath, UnfinishedError] = {}
    for entry in state.journal.list_unfinished():
        if not is_reachable(entry.path):
            continue
        try:
            recover_entry(entry, state, isolated)
        except TrackError as error:
            unrecovered[entry.path] = UnfinishedError(str(error), error.kind)
        state.commit()
    return unrecovered


def recover_entry(entry: JournalEntry, state: State, isolated: IsolatedCaller) -> None:
    """Remove the copy of a killed replacement, and settle its entry by the tags of the file.

    Close the entry if the file has the new tags. Cancel it if the file has the old tags. Leave it
    open if there is no file. Size and time do not decide: they may be the same for both.
    Raises TrackError if only a person can decide, or the system refuses.
    """
    if remove_leftover_copy(entry.path, entry.copy_name, entry.old):
        state.journal.cancel_entry(entry.id)  # the copy was still there: it replaced nothing
        return
    track = look_up(entry.path)
    if track is None:
        return
    tags = isolated.call(read_tags, entry.path, extras=entry.after.extra_fields)
    if tags == entry.after:
        state.finish_replacement(entry.id, entry.old or track, track, tags)
    elif tags == entry.before:
        state.journal.cancel_entry(entry.id)
    else:  # somebody edited the file: the journal keeps the entry, but no undo touches the file
        state.journal.close_entry(entry.id, Track(entry.path, *NO_FILE_STAT))


def remove_leftover_copy(path: AnyPath, copy_name: str, old: Track | None) -> bool:
    """Remove the copy that a killed run made of a file. old: the file as it was then.

    Return whether there was a copy that was not verified yet; always False for an object. If the
    run was writing a verified copy over the file, finish that first.
    Raises UnfinishedError if another program may have changed the file since: then file and copy
    stay as they are. Raises AccessError if the system refuses.
    """
    if old is None or not is_copy_name(copy_name, old):
        return False
    if is_remote(path):
        rmtree(find_work_folder(copy_name), ignore_errors=True)
        return False  # the copy stays until after the server has the new object
    path = Path(path)
    copy, full_copy = path.with_name(copy_name), path.with_name(make_full_copy_name(copy_name))
    try:
        if _is_regular_file(full_copy):
            if not (_is_regular_file(path) and cmp(path, full_copy, shallow=False)):
                _finish_overwrite(path, full_copy, old)
            full_copy.unlink()
        copy.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        reason = f"what an earlier run left cannot be cleared away: {error.strerror}"
        raise AccessError(reason) from error
    return True


def _is_regular_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _finish_overwrite(path: Path, full_copy: Path, old: Track) -> None:
    """Write the verified copy over its original, if no other program can have changed that since.

    Compare the change times of both files, which no program can set. The write began at the change
    time of the copy. After a power cut the file may be half-written and still have its old times.
    """
    copy_status = full_copy.lstat()
    longest_s = max(MIN_WRITE_ALLOWANCE_S, copy_status.st_size / MIN_WRITE_BYTES_PER_S)
    if _is_regular_file(path):
        status = path.lstat()
        passed_s = status.st_ctime - copy_status.st_ctime
        has_begun = passed_s >= -1 or Track.from_stat(path, status) == old
        if status.st_ino == old.inode and has_begun and passed_s <= longest_s:
            check_no_writer(path, is_settled=True)
            with (
                open_descriptor(full_copy, os.O_RDONLY) as source,
                open_descriptor(path, os.O_RDWR) as target,
            ):
                # This sets a new change time: the write starts now, if this run is killed too.
                os.fchmod(source, copy_status.st_mode & 0o777)
                os.fsync(source)
                overwrite_file(source, target)
            return
    raise UnfinishedError(
        "an earlier run was killed while it wrote this file, and somebody changed it since:"
        f" its whole new content is in {display_path(Path(full_copy.name))}"
    )
