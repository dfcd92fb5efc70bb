"""Replace the tags of one file or object whole, or leave it as it was."""

import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile, rmtree
from tempfile import gettempdir
from typing import BinaryIO

from tagger.errors import AccessError, TagError, UnfinishedError, translate_os_error
from tagger.paths import RemotePath, display_path
from tagger.records import TagChange, Track
from tagger.storage import FILE_CHANGED, NO_PRESERVED_MTIME, prepare_replacement
from tagger.tags.fields import find_changed_fields, read_tags, write_raw, write_tags

COPY_CHUNK_BYTES = 1 << 20
NO_KERNEL_COPY_ERRNOS = {
    errno.EXDEV,
    errno.ENOSYS,
    errno.EINVAL,
    errno.EOPNOTSUPP,
    errno.EPERM,
    errno.EBADF,
}
XATTR_NOT_KEPT_ERRNOS = {errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ENODATA}
SPECIAL_XATTRS = ("security.", "system.", "trusted.")


@contextmanager
def open_descriptor(
    path: str | Path, flags: int, *, folder: int | None = None, mode: int = 0o600
) -> Iterator[int]:
    """Open a file, never through a link, and close it again; `folder` is an open descriptor."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW, mode, dir_fd=folder)
    try:
        yield descriptor
    finally:
        with suppress(OSError):  # what is to last was synced before
            os.close(descriptor)


def copy_bytes(source: int, target: int) -> None:
    """Copy a file; without moving a byte where the file system can share them."""
    size = os.fstat(source).st_size
    os.lseek(source, 0, os.SEEK_SET)
    os.lseek(target, 0, os.SEEK_SET)
    copied = _copy_by_kernel(source, target, size)
    os.lseek(source, copied, os.SEEK_SET)
    os.lseek(target, copied, os.SEEK_SET)
    while block := os.read(source, COPY_CHUNK_BYTES):
        _write_all(target, block)


def _copy_by_kernel(source: int, target: int, size: int) -> int:
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
            if error.errno not in NO_KERNEL_COPY_ERRNOS:
                raise
    return copied


def _write_all(target: int, block: bytes) -> None:
    left = memoryview(block)
    while left:
        left = left[os.write(target, left) :]


def overwrite_file(source: int, target: int) -> None:
    """Make one open file what another one is."""
    os.lseek(source, 0, os.SEEK_SET)
    os.lseek(target, 0, os.SEEK_SET)
    while block := os.read(source, COPY_CHUNK_BYTES):
        _write_all(target, block)
    os.ftruncate(target, os.fstat(source).st_size)
    os.fsync(target)


def reserve_space(target: int, old: int, new: int) -> None:
    """Make sure before the first byte is written that the disk has room for the last."""
    if new <= old or sys.platform != "linux":
        return
    try:
        os.posix_fallocate(target, old, new - old)
    except OSError:
        os.ftruncate(target, old)
        raise


def copy_attributes(source: int, target: int) -> None:
    """Give the copy owner, mode and extended attributes (with them the ACL) of the original."""
    status, own = os.fstat(source), os.fstat(target)
    if (status.st_uid, status.st_gid) != (own.st_uid, own.st_gid):
        try:
            os.fchown(target, status.st_uid, status.st_gid)
        except PermissionError as error:  # only root gives files away
            raise AccessError("its owner and group could not be kept") from error
    if sys.platform == "linux":
        _copy_xattrs(source, target)
    os.fchmod(target, stat.S_IMODE(status.st_mode))


def _copy_xattrs(source: int, target: int) -> None:
    """Set those of the original, and take off what the folder gave, such as a default ACL."""
    wanted = _list_xattrs(source)
    for name in sorted({*wanted, *_list_xattrs(target)}):
        try:
            if name in wanted:
                os.setxattr(target, name, os.getxattr(source, name))
            else:
                os.removexattr(target, name)
        except OSError as error:
            if error.errno not in XATTR_NOT_KEPT_ERRNOS or not name.startswith(SPECIAL_XATTRS):
                raise


def _list_xattrs(source: int) -> list[str]:
    try:
        return os.listxattr(source)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise


def copy_times(source: int, target: int) -> None:
    status = os.fstat(source)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


InspectFile = Callable[[Path], Mapping[str, str]]
"""Tells all that is in a file beside our fields: other tags, pictures, sound."""


def edit_copy(
    change: TagChange, file: BinaryIO, original: Path, copy: Path, inspect: InspectFile
) -> None:
    """Change the copy, and refuse it if anything but the wanted fields differs then.

    It is written through `file`, open already: whatever is put in the place of its name stays as it
    is. Raises TagError, AccessError, DiskFullError.
    """
    if change.undoes:
        write_raw(copy, change.after.raw, file)
    else:
        write_tags(copy, change.after, file)
    file.flush()
    found = read_tags(copy)
    if found != change.after or (change.undoes and set(found.raw) != set(change.after.raw)):
        raise TagError("not written, for the new tags could not be read back")
    changed = find_changed_fields(inspect(original), inspect(copy))
    if changed:
        raise TagError(f"not written, for it would change {', '.join(changed)}")


def replace_object(change: TagChange, inspect: InspectFile, *, preserve_mtime: bool) -> Track:
    """Write tags into an object, whole or not at all; return the Track it is afterwards.

    The work is done on copies in the folder for temporary files. The errors are those of
    `replace_tags`; UnfinishedError where nobody can tell whether the store took the new object.
    """
    if preserve_mtime:
        raise AccessError(NO_PRESERVED_MTIME)
    holding = prepare_replacement(change.track)
    suffix = change.track.path.suffix
    with _make_work_folder(change.copy) as folder:
        original, copy = folder / f"original{suffix}", folder / f"copy{suffix}"
        with original.open("xb") as file:
            holding.download(file)
        copyfile(original, copy)
        with copy.open("r+b") as file:
            edit_copy(change, file, original, copy, inspect)
            return holding.put(file)


def find_work_folder(copy: str) -> Path:
    """Return where the work on an object is done; a killed run leaves it, and knows it by name."""
    return Path(gettempdir(), copy)


@contextmanager
def _make_work_folder(copy: str) -> Iterator[Path]:
    folder = find_work_folder(copy)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        rmtree(folder, ignore_errors=True)


MAX_NAME_BYTES = 255
NEW_FILE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL
UTF8_CONTINUATION = 0x80  # how all bytes of a letter but the first one start
PART_MARK, FULL_MARK = ".part", ".full"
"""Marks of our files: a copy at work, and a checked one on its way over its original."""


@dataclass(frozen=True, slots=True)
class OpenReplacement:
    """The open files of one replacement: the folder, the original and its copy, by descriptor."""

    folder: int
    original: int
    part: int
    name: str
    changed_ns: int
    """When the original was last changed in any way: the one time that nobody can set."""


def replace_tags(
    change: TagChange,
    inspect: InspectFile,
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
    finish = _write_in_place if in_place else _rename_over
    try:
        if isinstance(track.path, RemotePath):
            return replace_object(change, inspect, preserve_mtime=preserve_mtime)
        with _open_replacement(track, change.copy) as desk:
            copy_bytes(desk.original, desk.part)
            with os.fdopen(os.dup(desk.part), "r+b") as file:
                edit_copy(change, file, track.path, track.path.with_name(desk.name), inspect)
            status = finish(track, desk, preserve_mtime=preserve_mtime)
            with suppress(OSError):  # the file is the new one, whether or not its disk is well
                os.fsync(desk.folder)
            return Track.from_stat(track.path, status)
    except OSError as error:
        raise translate_os_error(error, "cannot replace the file") from error


@contextmanager
def _open_replacement(track: Track, name: str) -> Iterator[OpenReplacement]:
    """Open what the work needs; afterwards no copy is left, whatever happened.

    All is done through the folder's descriptor: a folder swapped for a link leads nowhere else.
    """
    made = False
    with open_descriptor(track.path.parent, os.O_RDONLY | os.O_DIRECTORY) as folder:
        try:
            _check_same(track, _stat_original(track, folder))
            with open_descriptor(
                track.path.name, os.O_RDONLY | os.O_NONBLOCK, folder=folder
            ) as old:
                _check_same(track, os.fstat(old))
                with open_descriptor(name, NEW_FILE_FLAGS, folder=folder) as part:
                    made = True
                    yield OpenReplacement(folder, old, part, name, os.fstat(old).st_ctime_ns)
        except BaseException:
            if made:
                _remove_copy(name, folder)
            raise


def _remove_copy(name: str, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UnfinishedError(
            f"its copy {display_path(Path(name))} could not be removed: {error.strerror}"
        ) from error


def _stat_original(track: Track, folder: int) -> os.stat_result:
    return os.stat(track.path.name, dir_fd=folder, follow_symlinks=False)


def _check_same(track: Track, status: os.stat_result) -> None:
    """Refuse a file that is not the one, or not in the state, that the Track describes."""
    if not stat.S_ISREG(status.st_mode):
        raise AccessError("changed while tagger was at work: it is no regular file any more")
    if Track.from_stat(track.path, status) != track:
        raise AccessError(FILE_CHANGED)


def _check_unchanged(track: Track, desk: OpenReplacement) -> None:
    """Refuse to go on if the original, or what bears the name of the copy, is another one now."""
    now, copy = _stat_original(track, desk.folder), os.fstat(desk.part)
    _check_same(track, now)
    named = os.stat(desk.name, dir_fd=desk.folder, follow_symlinks=False)
    if now.st_ctime_ns != desk.changed_ns or not os.path.samestat(named, copy):
        raise AccessError(FILE_CHANGED)


def make_copy_name(track: Track) -> str:
    """Return a new name for the copy: hidden, surely ours, and no longer than names can be.

    It tells the inode of the original, which so can be found even where its name was shortened,
    and ends like the original, for that is how the kind of a file is told.
    """
    mark = f".tagger-{track.inode:x}-{secrets.token_hex(4)}{PART_MARK}{track.path.suffix}"
    ending = os.fsencode(mark)
    whole = os.fsencode(track.path.name)
    short = whole[: MAX_NAME_BYTES - 1 - len(ending)]
    while len(short) < len(whole) and whole[len(short)] & 0xC0 == UTF8_CONTINUATION:
        short = short[:-1]
    return os.fsdecode(b"." + short + ending)


def is_copy_name(name: str, track: Track) -> bool:
    """Tell whether `copy_name` can have made this name for the file as it was."""
    mark = re.escape(f".tagger-{track.inode:x}-")
    ending = re.escape(PART_MARK + track.path.suffix)
    return bool(re.fullmatch(rf"\.[^/\0]*{mark}[0-9a-f]{{8}}{ending}", name, re.DOTALL))


def make_full_copy_name(copy: str) -> str:
    """Return the name that a copy gets once it is checked and about to be written over a file."""
    suffix = Path(copy).suffix
    return copy.removesuffix(PART_MARK + suffix) + FULL_MARK + suffix


def _rename_over(track: Track, desk: OpenReplacement, *, preserve_mtime: bool) -> os.stat_result:
    """Put the checked copy in the place of the original; the rename is the last that can fail."""
    copy_attributes(desk.original, desk.part)
    if preserve_mtime:
        copy_times(desk.original, desk.part)
    os.fsync(desk.part)
    status = os.fstat(desk.part)
    _check_unchanged(track, desk)
    os.replace(desk.name, track.path.name, src_dir_fd=desk.folder, dst_dir_fd=desk.folder)
    return status


def _write_in_place(track: Track, desk: OpenReplacement, *, preserve_mtime: bool) -> os.stat_result:
    """Write the checked copy over the original, which keeps its inode and so its hard links.

    This is not atomic. The copy is therefore synced first, and renamed to say that it is whole: a
    run that finds such a file knows that its original may be half-written, and what it has to be.
    """
    with open_descriptor(track.path.name, os.O_RDWR, folder=desk.folder) as target:
        _check_same(track, os.fstat(target))
        times = os.fstat(target)
        os.fsync(desk.part)
        _check_unchanged(track, desk)
        whole = make_full_copy_name(desk.name)
        os.rename(desk.name, whole, src_dir_fd=desk.folder, dst_dir_fd=desk.folder)
        try:
            os.fsync(desk.folder)
            reserve_space(target, track.size, os.fstat(desk.part).st_size)
        except OSError:
            _remove_copy(whole, desk.folder)
            raise
        try:
            overwrite_file(desk.part, target)
            if preserve_mtime:
                os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))
            os.fsync(target)
            status = os.fstat(target)
        except OSError as error:
            raise UnfinishedError(
                f"half-written ({error.strerror}), its whole content is in {display_path(Path(whole))}"
            ) from error
        _remove_copy(whole, desk.folder)
        return status
