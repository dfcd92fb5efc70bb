"""Replace the tags of one file: copy, edit, verify, sync and rename it, or leave it as it was.

An object on a server is downloaded, edited, verified and put back, if nobody changed it meanwhile.
"""

import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from filecmp import cmp
from pathlib import Path
from shutil import copyfile, rmtree
from tempfile import gettempdir
from typing import BinaryIO

from tagger.audio import SHOWN_PREFIX
from tagger.errors import (
    DISK_FULL_ERRNOS,
    AccessError,
    FailureKind,
    TagError,
    UnfinishedError,
    translate_os_error,
)
from tagger.paths import display_path, is_remote, to_one_line
from tagger.records import TagChange, Tags, Track
from tagger.settings import Owner
from tagger.storage import (
    FILE_CHANGED,
    NO_PRESERVED_MTIME,
    check_no_open_writer,
    prepare_replacement,
)
from tagger.tags import read_tags, write_raw, write_tags

COPY_CHUNK_BYTES = 1 << 20
NO_KERNEL_COPY_ERRNOS = {
    errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF,
}  # fmt: skip
"""What copy_file_range(2) answers where the kernel cannot copy between two files."""

XATTR_NOT_KEPT_ERRNOS = {errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ENODATA}
SPECIAL_XATTRS = ("security.", "system.", "trusted.")
"""Attributes that only the system or root may set: a copy may lack them."""

OWNER_REFUSED_ERRNOS = {errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOTSUP}
"""Only root may give a file to another user; a container may not even know the user."""

OWNER_NOT_KEPT = (
    "its owner and group cannot be kept in a new file: run tagger as its owner, or use --owner"
    " in-place (with several hard links: --hardlinks in-place)"
)
NEW_LINK = "it got another hard link since it was found: left as it is"
NOT_WRITABLE = (
    "only a write into the file itself keeps its owner or its hard links, and this user may not"
    " write into it: run tagger as its owner, or give the group write access (chmod g+w)"
)

NEW_FILE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL
MAX_NAME_BYTES = 255
UTF8_CONTINUATION, UTF8_CONTINUATION_MASK = 0x80, 0xC0
"""All bytes of a UTF-8 character but the first one start with the bits 10."""

PART_MARK, FULL_MARK = ".part", ".full"
"""Marks in the names of copies: under work, and verified, to be written over the original."""

InspectFile = Callable[[Path], Mapping[str, str]]
"""Returns all content of a file except tagger's fields: other tags, pictures, sound."""


def replace_tags(
    change: TagChange,
    inspect: InspectFile,
    *,
    preserve_mtime: bool = False,
    in_place: bool = False,
    owner: Owner = Owner.KEEP,
) -> Track:
    """Write tags into a file, whole or not at all, and return its new Track.

    Raises TagError if `inspect` finds any other change, AccessError if the file is not the one that
    the Track describes or the system refuses, DiskFullError if no space is left. The original is
    unchanged then. Raises UnfinishedError if the original may be half-written, or a copy is left.
    in_place: keep the inode, and with it the hard links. owner: what to do if a copy cannot get the
    owner and the group of the file; a file with several hard links is not written in place for it.
    """
    track = change.track
    try:
        if is_remote(track.path):
            return _replace_stored_object(change, inspect, preserve_mtime=preserve_mtime)
        path = Path(track.path)
        with _open_replacement(track, change.copy_name) as files:
            copy_bytes(files.original, files.copy)
            with os.fdopen(os.dup(files.copy), "r+b") as file:
                _edit_copy(change, file, path, path.with_name(change.copy_name), inspect)
            in_place = in_place or not _copy_owner(track, files, owner)
            finish = _write_in_place if in_place else _rename_over
            status = finish(track, files, preserve_mtime=preserve_mtime)
            with suppress(OSError):  # the file is the new one, even if its disk has an error now
                os.fsync(files.folder)
            return Track.from_stat(path, status)
    except OSError as error:
        raise translate_os_error(error, "cannot replace the file") from error


@dataclass(frozen=True, slots=True)
class OpenReplacement:
    """The open files of one replacement, by descriptor: the folder, the original and its copy.

    ctime_ns: when the original last changed in any way. No program can set this time.
    """

    folder: int
    original: int
    copy: int
    copy_name: str
    ctime_ns: int


@contextmanager
def _open_replacement(track: Track, copy_name: str) -> Iterator[OpenReplacement]:
    """Open the files of a replacement. If it fails, remove the copy.

    All work goes through the descriptor of the folder: nobody can redirect it by putting a link in
    the place of the folder.
    """
    has_copy = False
    with open_descriptor(track.path.parent, os.O_RDONLY | os.O_DIRECTORY) as folder:
        try:
            _check_track(track, _stat_original(track, folder))
            with open_descriptor(
                track.path.name, os.O_RDONLY | os.O_NONBLOCK, folder=folder
            ) as original:
                status = os.fstat(original)
                _check_track(track, status)
                with open_descriptor(copy_name, NEW_FILE_FLAGS, folder=folder) as copy:
                    has_copy = True
                    yield OpenReplacement(folder, original, copy, copy_name, status.st_ctime_ns)
        except BaseException:
            if has_copy:
                _remove_copy(copy_name, folder)
            raise


@contextmanager
def open_descriptor(
    path: str | os.PathLike[str], flags: int, *, folder: int | None = None, mode: int = 0o600
) -> Iterator[int]:
    """Open a file, but never a link, and close it again. folder: the descriptor of its folder."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW, mode, dir_fd=folder)
    try:
        yield descriptor
    finally:
        with suppress(OSError):  # all that must last was synced before
            os.close(descriptor)


def _stat_original(track: Track, folder: int) -> os.stat_result:
    return os.stat(track.path.name, dir_fd=folder, follow_symlinks=False)


def _check_track(track: Track, status: os.stat_result) -> None:
    """Raise AccessError if this is not the file, or not the version, that the Track describes."""
    if not stat.S_ISREG(status.st_mode):
        reason = "changed while tagger was at work: it is no regular file any more"
        raise AccessError(reason, FailureKind.CHANGED)
    if Track.from_stat(track.path, status) != track:
        raise AccessError(FILE_CHANGED, FailureKind.CHANGED)
    if status.st_nlink > track.links:
        raise AccessError(NEW_LINK, FailureKind.CHANGED)


def _check_unchanged(track: Track, files: OpenReplacement) -> None:
    """Raise AccessError if the original changed, or if the name of the copy is another file now."""
    original = _stat_original(track, files.folder)
    _check_track(track, original)
    copy = os.stat(files.copy_name, dir_fd=files.folder, follow_symlinks=False)
    is_our_copy = os.path.samestat(copy, os.fstat(files.copy))
    if original.st_ctime_ns != files.ctime_ns or not is_our_copy:
        raise AccessError(FILE_CHANGED, FailureKind.CHANGED)


def _remove_copy(name: str, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        shown = display_path(Path(name))
        reason = f"its copy {shown} could not be removed: {error.strerror}"
        raise UnfinishedError(reason) from error


def _edit_copy(
    change: TagChange, file: BinaryIO, original: Path, copy: Path, inspect: InspectFile
) -> None:
    """Change the tags of the copy, and verify that nothing else differs from the original.

    New tags are first undone and written again: what an undo cannot take back is not written.
    Write through the open `file`: another file that somebody puts in the place of the copy is not
    written. Raises TagError, AccessError, DiskFullError.
    """
    others = inspect(original)

    def write(tags: Tags, *, restores_raw: bool) -> None:
        if restores_raw:
            write_raw(copy, tags, file)
        else:
            write_tags(copy, tags, file)
        file.flush()

    def verify(tags: Tags, *, restores_raw: bool, which: str) -> Mapping[str, str]:
        found = read_tags(copy, extras=tags.extra_fields)
        if found != tags or (restores_raw and set(found.raw) != set(tags.raw)):
            raise TagError(f"not written, for the {which} tags could not be read back")
        content = inspect(copy)
        if changed := find_unwanted_changes(others, content, is_undo=change.restores_raw):
            raise TagError(f"not written, for it would change {', '.join(changed)}")
        return content

    write(change.after, restores_raw=change.restores_raw)
    if change.restores_raw:
        verify(change.after, restores_raw=True, which="new")
        return
    write(change.before, restores_raw=True)
    is_same = cmp(original, copy, shallow=False)  # then no part of it can differ
    restored = others if is_same else verify(change.before, restores_raw=True, which="old")
    write(change.after, restores_raw=False)
    written = verify(change.after, restores_raw=False, which="new")
    if changed := find_unwanted_changes(written, restored, is_undo=True):
        raise TagError(f"not written, for an undo would change {', '.join(changed)}")


def find_unwanted_changes(
    before: Mapping[str, str], after: Mapping[str, str], *, is_undo: bool = False
) -> list[str]:
    """Return the names of the parts of a file that differ, sorted.

    FFmpeg may show more texts than before: those that stood behind the declared size of the file,
    or in an ID3v1 tag that something else hid. So an undo may hide such texts again, and the undo
    of an undo may show them again.
    """
    changed = find_changed_fields(before, after)
    unwanted = [name for name in changed if name in before or not name.startswith(SHOWN_PREFIX)]
    return find_unwanted_changes(after, before) if is_undo and unwanted else unwanted


def find_changed_fields(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return the names of the fields that differ, sorted."""
    names = sorted(before.keys() | after.keys())
    return [name for name in names if before.get(name) != after.get(name)]


def _rename_over(track: Track, files: OpenReplacement, *, preserve_mtime: bool) -> os.stat_result:
    """Put the verified copy in the place of the original, and return the stat of the new file.

    The rename is the last step that can fail.
    """
    _copy_attributes(files.original, files.copy)
    if preserve_mtime:
        _copy_times(files.original, files.copy)
    os.fsync(files.copy)
    status = os.fstat(files.copy)
    check_no_open_writer(files.original, is_settled=True)
    _check_unchanged(track, files)
    try:
        os.replace(
            files.copy_name, track.path.name, src_dir_fd=files.folder, dst_dir_fd=files.folder
        )
    except OSError:
        if not _was_renamed(track, files):
            raise
    return status


def _was_renamed(track: Track, files: OpenReplacement) -> bool:
    """Tell whether the copy has the name of the original now, although a rename failed.

    On NFS this may happen (rename(2), BUGS). Raises UnfinishedError if the system cannot tell.
    """
    try:
        return os.path.samestat(_stat_original(track, files.folder), os.fstat(files.copy))
    except OSError as error:
        reason = f"nobody can tell whether it was replaced: {error.strerror}"
        raise UnfinishedError(reason) from error


def _write_in_place(
    track: Track, files: OpenReplacement, *, preserve_mtime: bool
) -> os.stat_result:
    """Write the verified copy over the original, which keeps its inode and so its hard links.

    This is not atomic. So sync the copy first, and rename it to mark it as whole: a later run that
    finds such a copy knows that the original may be half-written, and finishes it from the copy.
    Return the stat of the new file.
    """
    check_no_open_writer(files.original, is_settled=True)  # while tagger is no writer itself
    with _open_for_overwriting(track, files.folder) as target:
        old_status = os.fstat(target)
        _check_track(track, old_status)
        os.fsync(files.copy)
        _check_unchanged(track, files)
        if preserve_mtime:
            _check_times_can_be_set(target)
        full_name = make_full_copy_name(files.copy_name)
        os.rename(files.copy_name, full_name, src_dir_fd=files.folder, dst_dir_fd=files.folder)
        try:
            os.fsync(files.folder)
            _reserve_space(target, track.size, os.fstat(files.copy).st_size)
        except OSError:
            _remove_copy(full_name, files.folder)
            raise
        try:
            overwrite_file(files.copy, target)
            if preserve_mtime:
                os.utime(target, ns=(old_status.st_atime_ns, old_status.st_mtime_ns))
            os.fsync(target)
            status = os.fstat(target)
        except OSError as error:
            shown = display_path(Path(full_name))
            reason = f"half-written ({error.strerror}), its whole content is in {shown}"
            raise UnfinishedError(reason) from error
        _remove_copy(full_name, files.folder)
        return status


@contextmanager
def _open_for_overwriting(track: Track, folder: int) -> Iterator[int]:
    with ExitStack() as stack:
        try:
            target = stack.enter_context(open_descriptor(track.path.name, os.O_RDWR, folder=folder))
        except PermissionError as error:
            raise AccessError(NOT_WRITABLE) from error
        yield target


def make_copy_name(track: Track) -> str:
    """Return a new name for the copy: hidden, surely tagger's, and short enough for a file system.

    It contains the inode of the original, by which a person finds the original even if the name had
    to be shortened. It has the suffix of the original, because the suffix decides the container.
    """
    mark = f".tagger-{track.inode:x}-{secrets.token_hex(4)}{PART_MARK}{track.path.suffix}"
    ending = os.fsencode(mark)
    name = os.fsencode(track.path.name)
    start = name[: MAX_NAME_BYTES - 1 - len(ending)]
    while len(start) < len(name) and (
        name[len(start)] & UTF8_CONTINUATION_MASK == UTF8_CONTINUATION
    ):
        start = start[:-1]
    return os.fsdecode(b"." + start + ending)


def is_copy_name(name: str, track: Track) -> bool:
    """Tell whether `make_copy_name` can have made this name for the old Track of a file."""
    mark = re.escape(f".tagger-{track.inode:x}-")
    ending = re.escape(PART_MARK + track.path.suffix)
    return bool(re.fullmatch(rf"\.[^/\0]*{mark}[0-9a-f]{{8}}{ending}", name, re.DOTALL))


def make_full_copy_name(copy_name: str) -> str:
    """Return the name of a verified copy that is about to be written over its original."""
    suffix = Path(copy_name).suffix
    return copy_name.removesuffix(PART_MARK + suffix) + FULL_MARK + suffix


def copy_bytes(source: int, target: int) -> None:
    """Copy a file. If the file system can share the blocks, no byte moves."""
    size = os.fstat(source).st_size
    os.lseek(source, 0, os.SEEK_SET)
    os.lseek(target, 0, os.SEEK_SET)
    copied = _copy_in_kernel(source, target, size)
    os.lseek(source, copied, os.SEEK_SET)
    os.lseek(target, copied, os.SEEK_SET)
    _copy_rest(source, target)


def _copy_in_kernel(source: int, target: int, size: int) -> int:
    """Return how many bytes the kernel copied: all, some, or none if it cannot."""
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


def _copy_rest(source: int, target: int) -> None:
    """Copy from the position of each file to the end of the source."""
    while chunk := os.read(source, COPY_CHUNK_BYTES):
        unwritten = memoryview(chunk)
        while unwritten:
            unwritten = unwritten[os.write(target, unwritten) :]


def overwrite_file(source: int, target: int) -> None:
    """Give one open file the content of another, and sync it."""
    os.lseek(source, 0, os.SEEK_SET)
    os.lseek(target, 0, os.SEEK_SET)
    _copy_rest(source, target)
    os.ftruncate(target, os.fstat(source).st_size)
    os.fsync(target)


def _reserve_space(target: int, old_size: int, new_size: int) -> None:
    """Reserve room on the disk for a longer file, before its first byte is written."""
    if new_size <= old_size or sys.platform != "linux":
        return
    try:
        os.posix_fallocate(target, old_size, new_size - old_size)
    except OSError:
        os.ftruncate(target, old_size)
        raise


def _copy_owner(track: Track, files: OpenReplacement, owner: Owner) -> bool:
    """Give the copy owner and group of the original.

    If the system refuses, return False if the file may be written in place instead, else raise
    AccessError. A write in place would change the other hard links too.
    """
    old, new = os.fstat(files.original), os.fstat(files.copy)
    if (old.st_uid, old.st_gid) == (new.st_uid, new.st_gid):
        return True
    try:
        os.fchown(files.copy, old.st_uid, old.st_gid)
    except OSError as error:
        if error.errno not in OWNER_REFUSED_ERRNOS:
            raise
        if owner is Owner.KEEP or track.links > 1:
            raise AccessError(OWNER_NOT_KEPT) from error
        return False
    return True


def _copy_attributes(source: int, target: int) -> None:
    """Give the copy mode and extended attributes (with the ACL) of the original."""
    if sys.platform == "linux":
        _copy_xattrs(source, target)
    os.fchmod(target, stat.S_IMODE(os.fstat(source).st_mode))


def _copy_xattrs(source: int, target: int) -> None:
    """Copy the attributes, and remove those that came from the folder, such as a default ACL."""
    source_names = _list_xattrs(source)
    for name in sorted({*source_names, *_list_xattrs(target)}):
        try:
            if name in source_names:
                os.setxattr(target, name, os.getxattr(source, name))
            else:
                os.removexattr(target, name)
        except OSError as error:
            if error.errno in DISK_FULL_ERRNOS:
                raise
            if error.errno not in XATTR_NOT_KEPT_ERRNOS or not name.startswith(SPECIAL_XATTRS):
                raise AccessError(
                    f"its extended attribute {to_one_line(name)} cannot be kept in the new file:"
                    f" {error.strerror} (let the user that runs tagger set it, or remove it)"
                ) from error


def _list_xattrs(descriptor: int) -> list[str]:
    try:
        return os.listxattr(descriptor)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise AccessError(f"its extended attributes cannot be read: {error.strerror}") from error


def _copy_times(source: int, target: int) -> None:
    status = os.fstat(source)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _check_times_can_be_set(descriptor: int) -> None:
    try:
        _copy_times(descriptor, descriptor)
    except PermissionError as error:
        reason = "only its owner may keep its modification time: leave out --preserve-mtime"
        raise AccessError(reason) from error


def _replace_stored_object(
    change: TagChange, inspect: InspectFile, *, preserve_mtime: bool
) -> Track:
    """Write tags into an object, whole or not at all, and return its new Track.

    Work on copies in the folder for temporary files. The errors are those of `replace_tags`.
    Raises UnfinishedError if nobody can tell whether the server took the new object.
    """
    if preserve_mtime:
        raise AccessError(NO_PRESERVED_MTIME, FailureKind.CANNOT_TAG)
    replacement = prepare_replacement(change.track)
    suffix = change.track.path.suffix
    folder = find_work_folder(change.copy_name)
    folder.mkdir(mode=0o700)
    try:
        original, copy = folder / f"original{suffix}", folder / f"copy{suffix}"
        with original.open("xb") as file:
            replacement.download(file)
        copyfile(original, copy)
        with copy.open("r+b") as file:
            _edit_copy(change, file, original, copy, inspect)
            return replacement.upload(file)
    finally:
        rmtree(folder, ignore_errors=True)


def find_work_folder(copy_name: str) -> Path:
    """Return the folder for the work on an object. A killed run leaves it under the copy's name."""
    return Path(gettempdir(), copy_name)
