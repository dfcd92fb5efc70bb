"""Replace the tags of one file: copied, edited, checked, synced and renamed, or left as it was."""

import errno
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tagger.errors import AccessError, TagError, UnfinishedError
from tagger.records import Change, Track, displayed
from tagger.tags.fields import read_tags, write_raw, write_tags
from tagger.tags.others import lost_fields
from tagger.tags.system import os_error

CHUNK = 1 << 20
NAME_LIMIT = 255
UTF8_REST = 0x80  # how all bytes of a letter but the first one start
UNFINISHED, WHOLE = ".part", ".whole"
"""Marks of our files: a copy at work, and a checked one on its way over its original."""
NOT_COPIED = {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF}
NOT_KEPT = {errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ENODATA}
SPECIAL_XATTRS = ("security.", "system.", "trusted.")


@dataclass(frozen=True, slots=True)
class Desk:
    """The open files of one replacement: the folder, the original and its copy, by descriptor."""

    folder: int
    original: int
    part: int
    name: str


Inspect = Callable[[Path], Mapping[str, str]]
"""Tells all that is in a file beside our fields: other tags, pictures, sound."""


def replace_tags(
    change: Change, inspect: Inspect, *, preserve_mtime: bool = False, in_place: bool = False
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
        with _desk(track, change.copy) as desk:
            _copy(desk.original, desk.part)
            _edit(change, track.path.with_name(desk.name), inspect)
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
    with opened(track.path.parent, os.O_RDONLY | os.O_DIRECTORY) as folder:
        _same(track, _status(track, folder))
        with opened(track.path.name, os.O_RDONLY | os.O_NONBLOCK, folder=folder) as original:
            _same(track, os.fstat(original))
            new = os.O_RDWR | os.O_CREAT | os.O_EXCL
            with opened(name, new, folder=folder) as part:
                try:
                    yield Desk(folder, original, part, name)
                except BaseException:
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


@contextmanager
def opened(
    path: str | Path, flags: int, *, folder: int | None = None, mode: int = 0o600
) -> Iterator[int]:
    """Open a file, never through a link, and close it again; `folder` is an open descriptor."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW, mode, dir_fd=folder)
    try:
        yield descriptor
    finally:
        with suppress(OSError):  # what is to last was synced before
            os.close(descriptor)


def _status(track: Track, folder: int) -> os.stat_result:
    return os.stat(track.path.name, dir_fd=folder, follow_symlinks=False)


def _same(track: Track, status: os.stat_result) -> None:
    """Refuse a file that is not the one, or not in the state, that the Track describes."""
    if not stat.S_ISREG(status.st_mode):
        raise AccessError("changed while tagger was at work: it is no regular file any more")
    now = Track.from_stat(track.path, status)
    if (now.size, now.mtime_ns, now.inode) != (track.size, track.mtime_ns, track.inode):
        raise AccessError("changed while tagger was at work: left as it is")


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


def whole_name(copy: str) -> str:
    """Return the name that a copy gets once it is checked and about to be written over a file."""
    suffix = Path(copy).suffix
    return copy.removesuffix(UNFINISHED + suffix) + WHOLE + suffix


def _copy(source: int, target: int) -> None:
    """Copy a file; without moving a byte where the file system can share them."""
    size = os.fstat(source).st_size
    os.lseek(source, 0, os.SEEK_SET)
    os.lseek(target, 0, os.SEEK_SET)
    copied = _copy_in_kernel(source, target, size)
    os.lseek(source, copied, os.SEEK_SET)
    os.lseek(target, copied, os.SEEK_SET)
    while block := os.read(source, CHUNK):
        _write_all(target, block)


def _copy_in_kernel(source: int, target: int, size: int) -> int:
    """Return how many bytes the kernel copied: all, or as far as it knows how to."""
    copied = 0
    if sys.platform == "linux":
        try:
            while copied < size:
                count = os.copy_file_range(source, target, size - copied)
                if not count:
                    break
                copied += count
        except OSError as error:
            if error.errno not in NOT_COPIED:
                raise
    return copied


def _write_all(target: int, block: bytes) -> None:
    left = memoryview(block)
    while left:
        left = left[os.write(target, left) :]


def _edit(change: Change, copy: Path, inspect: Inspect) -> None:
    """Change the copy, and refuse it if anything but the wanted fields differs then."""
    if change.undoes:
        write_raw(copy, change.after.raw)
    else:
        write_tags(copy, change.after)
    found = read_tags(copy)
    if found != change.after or (change.undoes and set(found.raw) != set(change.after.raw)):
        raise TagError("not written, for the new tags could not be read back")
    changed = lost_fields(inspect(change.track.path), inspect(copy))
    if changed:
        raise TagError(f"not written, for it would change {', '.join(changed)}")


def _swap(track: Track, desk: Desk, *, preserve_mtime: bool) -> os.stat_result:
    """Put the checked copy in the place of the original; the rename is the last that can fail."""
    _adopt(desk.original, desk.part)
    if preserve_mtime:
        _keep_times(desk.original, desk.part)
    os.fsync(desk.part)
    status = os.fstat(desk.part)
    _same(track, _status(track, desk.folder))
    os.replace(desk.name, track.path.name, src_dir_fd=desk.folder, dst_dir_fd=desk.folder)
    return status


def _keep_times(source: int, target: int) -> None:
    status = os.fstat(source)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _adopt(source: int, target: int) -> None:
    """Give the copy owner, mode and extended attributes (with them the ACL) of the original."""
    status, own = os.fstat(source), os.fstat(target)
    if (status.st_uid, status.st_gid) != (own.st_uid, own.st_gid):
        try:
            os.fchown(target, status.st_uid, status.st_gid)
        except PermissionError as error:  # only root gives files away
            raise AccessError("its owner and group could not be kept") from error
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    if sys.platform == "linux":
        for name in _xattrs(source):
            try:
                os.setxattr(target, name, os.getxattr(source, name))
            except OSError as error:
                if error.errno not in NOT_KEPT or not name.startswith(SPECIAL_XATTRS):
                    raise


def _xattrs(source: int) -> list[str]:
    try:
        return os.listxattr(source)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise


def _overwrite(track: Track, desk: Desk, *, preserve_mtime: bool) -> os.stat_result:
    """Write the checked copy over the original, which keeps its inode and so its hard links.

    This is not atomic. The copy is therefore synced first, and renamed to say that it is whole: a
    run that finds such a file knows that its original may be half-written, and what it has to be.
    """
    with opened(track.path.name, os.O_RDWR, folder=desk.folder) as target:
        _same(track, os.fstat(target))
        times = os.fstat(target)
        os.fsync(desk.part)
        whole = whole_name(desk.name)
        os.rename(desk.name, whole, src_dir_fd=desk.folder, dst_dir_fd=desk.folder)
        try:
            os.fsync(desk.folder)
            _reserve(target, track.size, os.fstat(desk.part).st_size)
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


def _reserve(target: int, old: int, new: int) -> None:
    """Make sure before the first byte is written that the disk has room for the last."""
    if new <= old or sys.platform != "linux":
        return
    try:
        os.posix_fallocate(target, old, new - old)
    except OSError:
        os.ftruncate(target, old)
        raise


def write_over(source: int, target: int) -> None:
    """Make one open file what another one is."""
    os.lseek(source, 0, os.SEEK_SET)
    os.lseek(target, 0, os.SEEK_SET)
    while block := os.read(source, CHUNK):
        _write_all(target, block)
    os.ftruncate(target, os.fstat(source).st_size)
    os.fsync(target)
