"""The bytes and the attributes of one open file, brought into another."""

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tagger.errors import AccessError

CHUNK = 1 << 20
NOT_COPIED = {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF}
NOT_KEPT = {errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ENODATA}
SPECIAL_XATTRS = ("security.", "system.", "trusted.")


@contextmanager
def descriptor_of(
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


def write_over(source: int, target: int) -> None:
    """Make one open file what another one is."""
    os.lseek(source, 0, os.SEEK_SET)
    os.lseek(target, 0, os.SEEK_SET)
    while block := os.read(source, CHUNK):
        _write_all(target, block)
    os.ftruncate(target, os.fstat(source).st_size)
    os.fsync(target)


def reserve(target: int, old: int, new: int) -> None:
    """Make sure before the first byte is written that the disk has room for the last."""
    if new <= old or sys.platform != "linux":
        return
    try:
        os.posix_fallocate(target, old, new - old)
    except OSError:
        os.ftruncate(target, old)
        raise


def adopt(source: int, target: int) -> None:
    """Give the copy owner, mode and extended attributes (with them the ACL) of the original."""
    status, own = os.fstat(source), os.fstat(target)
    if (status.st_uid, status.st_gid) != (own.st_uid, own.st_gid):
        try:
            os.fchown(target, status.st_uid, status.st_gid)
        except PermissionError as error:  # only root gives files away
            raise AccessError("its owner and group could not be kept") from error
    if sys.platform == "linux":
        _adopt_xattrs(source, target)
    os.fchmod(target, stat.S_IMODE(status.st_mode))


def _adopt_xattrs(source: int, target: int) -> None:
    """Set those of the original, and take off what the folder gave, such as a default ACL."""
    wanted = _xattrs(source)
    for name in sorted({*wanted, *_xattrs(target)}):
        try:
            if name in wanted:
                os.setxattr(target, name, os.getxattr(source, name))
            else:
                os.removexattr(target, name)
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


def keep_times(source: int, target: int) -> None:
    status = os.fstat(source)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
