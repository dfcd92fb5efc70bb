"""Replace the tags of one file: copied, edited, checked, synced and renamed, or left as it was."""

import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tagger.errors import AccessError, UnfinishedError
from tagger.paths import RemotePath, displayed
from tagger.records import Change, Track
from tagger.storage import CHANGED
from tagger.tags.copying import adopt, copy_bytes, descriptor_of, keep_times, reserve, write_over
from tagger.tags.editing import Inspect, edit
from tagger.tags.replace_object import replace_object
from tagger.tags.system import os_error

NAME_LIMIT = 255
NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL
UTF8_REST = 0x80  # how all bytes of a letter but the first one start
UNFINISHED, WHOLE = ".part", ".full"
"""Marks of our files: a copy at work, and a checked one on its way over its original."""


@dataclass(frozen=True, slots=True)
class Desk:
    """The open files of one replacement: the folder, the original and its copy, by descriptor."""

    folder: int
    original: int
    part: int
    name: str
    changed_ns: int
    """When the original was last changed in any way: the one time that nobody can set."""


def replace_tags(
    change: Change,
    inspect: Inspect,
    *,
    preserve_mtime: bool = False,
    in_place: bool = False,
) -> Track:
    """Write tags into a file, whole or not at all; return the Track it is afterwards.

    TagError where `inspect` would find anything else changed, AccessError where the file is not
    what the Track says or the system refuses, DiskFullError where no space is left. The original is
    untouched then. UnfinishedError where not even that could be done.
    in_place keeps the inode, for the sake of hard links.
    """
    track = change.track
    finish = _overwrite if in_place else _swap
    try:
        if isinstance(track.path, RemotePath):
            return replace_object(change, inspect, preserve_mtime=preserve_mtime)
        with _desk(track, change.copy) as desk:
            copy_bytes(desk.original, desk.part)
            with os.fdopen(os.dup(desk.part), "r+b") as file:
                edit(change, file, track.path, track.path.with_name(desk.name), inspect)
            status = finish(track, desk, preserve_mtime=preserve_mtime)
            with suppress(OSError):  # the file is the new one, whether or not its disk is well
                os.fsync(desk.folder)
            return Track.from_stat(track.path, status)
    except OSError as error:
        raise os_error(error, "cannot replace the file") from error


@contextmanager
def _desk(track: Track, name: str) -> Iterator[Desk]:
    """Open what the work needs; afterwards no copy is left, whatever happened.

    All is done through the folder's descriptor: a folder swapped for a link leads nowhere else.
    """
    made = False
    with descriptor_of(track.path.parent, os.O_RDONLY | os.O_DIRECTORY) as folder:
        try:
            _same(track, _status(track, folder))
            with descriptor_of(track.path.name, os.O_RDONLY | os.O_NONBLOCK, folder=folder) as old:
                _same(track, os.fstat(old))
                with descriptor_of(name, NEW, folder=folder) as part:
                    made = True
                    yield Desk(folder, old, part, name, os.fstat(old).st_ctime_ns)
        except BaseException:
            if made:
                _remove(name, folder)
            raise


def _remove(name: str, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UnfinishedError(
            f"its copy {displayed(Path(name))} could not be removed: {error.strerror}"
        ) from error


def _status(track: Track, folder: int) -> os.stat_result:
    return os.stat(track.path.name, dir_fd=folder, follow_symlinks=False)


def _same(track: Track, status: os.stat_result) -> None:
    """Refuse a file that is not the one, or not in the state, that the Track describes."""
    if not stat.S_ISREG(status.st_mode):
        raise AccessError("changed while tagger was at work: it is no regular file any more")
    if Track.from_stat(track.path, status) != track:
        raise AccessError(CHANGED)


def _check_both(track: Track, desk: Desk) -> None:
    """Refuse to go on if the original, or what bears the name of the copy, is another one now."""
    now, copy = _status(track, desk.folder), os.fstat(desk.part)
    _same(track, now)
    named = os.stat(desk.name, dir_fd=desk.folder, follow_symlinks=False)
    if now.st_ctime_ns != desk.changed_ns or not os.path.samestat(named, copy):
        raise AccessError(CHANGED)


def copy_name(track: Track) -> str:
    """Return a new name for the copy: hidden, surely ours, and no longer than names can be.

    It tells the inode of the original, which so can be found even where its name was shortened,
    and ends like the original, for that is how the kind of a file is told.
    """
    mark = f".tagger-{track.inode:x}-{secrets.token_hex(4)}{UNFINISHED}{track.path.suffix}"
    ending = os.fsencode(mark)
    whole = os.fsencode(track.path.name)
    short = whole[: NAME_LIMIT - 1 - len(ending)]
    while len(short) < len(whole) and whole[len(short)] & 0xC0 == UTF8_REST:
        short = short[:-1]
    return os.fsdecode(b"." + short + ending)


def is_copy_name(name: str, track: Track) -> bool:
    """Tell whether `copy_name` can have made this name for the file as it was."""
    mark = re.escape(f".tagger-{track.inode:x}-")
    ending = re.escape(UNFINISHED + track.path.suffix)
    return bool(re.fullmatch(rf"\.[^/\0]*{mark}[0-9a-f]{{8}}{ending}", name, re.DOTALL))


def whole_name(copy: str) -> str:
    """Return the name that a copy gets once it is checked and about to be written over a file."""
    suffix = Path(copy).suffix
    return copy.removesuffix(UNFINISHED + suffix) + WHOLE + suffix


def _swap(track: Track, desk: Desk, *, preserve_mtime: bool) -> os.stat_result:
    """Put the checked copy in the place of the original; the rename is the last that can fail."""
    adopt(desk.original, desk.part)
    if preserve_mtime:
        keep_times(desk.original, desk.part)
    os.fsync(desk.part)
    status = os.fstat(desk.part)
    _check_both(track, desk)
    os.replace(desk.name, track.path.name, src_dir_fd=desk.folder, dst_dir_fd=desk.folder)
    return status


def _overwrite(track: Track, desk: Desk, *, preserve_mtime: bool) -> os.stat_result:
    """Write the checked copy over the original, which keeps its inode and so its hard links.

    This is not atomic. The copy is therefore synced first, and renamed to say that it is whole: a
    run that finds such a file knows that its original may be half-written, and what it has to be.
    """
    with descriptor_of(track.path.name, os.O_RDWR, folder=desk.folder) as target:
        _same(track, os.fstat(target))
        times = os.fstat(target)
        os.fsync(desk.part)
        _check_both(track, desk)
        whole = whole_name(desk.name)
        os.rename(desk.name, whole, src_dir_fd=desk.folder, dst_dir_fd=desk.folder)
        try:
            os.fsync(desk.folder)
            reserve(target, track.size, os.fstat(desk.part).st_size)
        except OSError:
            _remove(whole, desk.folder)
            raise
        try:
            write_over(desk.part, target)
            if preserve_mtime:
                os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))
            os.fsync(target)
            status = os.fstat(target)
        except OSError as error:
            raise UnfinishedError(
                f"half-written ({error.strerror}), its whole content is in {displayed(Path(whole))}"
            ) from error
        _remove(whole, desk.folder)
        return status
