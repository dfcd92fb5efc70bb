"""Files on the disks of this machine."""

import errno
import fcntl
import os
import signal
import stat
import sys
import time
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from tagger.errors import AccessError, FailureKind, LibraryError
from tagger.paths import FILENAME_CODEC
from tagger.records import ContentSample, Track, to_signed_64
from tagger.storage.filesystem import (
    CANNOT_LIST,
    CANNOT_LOOK_UP,
    CANNOT_OPEN,
    ListedFile,
    Root,
)

SAMPLE_BLOCKS, SAMPLE_BLOCK_BYTES = 4, 16 << 10
"""A sample has the first block of a file, the last one, and those at a third and two thirds."""

SETTLING_S = 120
"""A file is left alone for so long after its last change, if nobody can tell who writes it."""

OPEN_FOR_WRITING = "another program has it open for writing: left as it is"
JUST_CHANGED = (
    "it changed in the last two minutes, perhaps another program still writes it: left as it is"
)

LEASE_REFUSING_FILE_SYSTEMS = {"nfs4", "cifs", "smb3"}
"""They refuse a lease also if the server has not given them one of its own."""

SHARED_FILE_SYSTEMS = LEASE_REFUSING_FILE_SYSTEMS | {
    "nfs", "smbfs", "9p", "virtiofs", "vboxsf", "afs", "ceph", "gfs2", "ocfs2", "fuse.sshfs",
    "fuse.rclone", "fuse.glusterfs", "fuse.s3fs", "fuse.grpcfuse", "fakeowner",
}  # fmt: skip
"""Other machines write into them, and this one does not hear of it."""


class LocalFiles:
    """The file system of this machine; see FileSystem for the contracts of the methods."""

    def find_root(self, path: Path, suffixes: Collection[str]) -> Root:
        try:
            root = path.resolve(strict=True)
            mode = root.stat().st_mode
            if stat.S_ISDIR(mode):
                os.scandir(root).close()
                return Root(root, is_folder=True)
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
            reason = getattr(error, "strerror", None) or error
            raise LibraryError(f"cannot read {path}: {reason}") from error
        if root.suffix.lower() in suffixes and stat.S_ISREG(mode):
            return Root(root, is_folder=False)
        raise LibraryError(f"{path} is neither a folder nor an audio file that tagger knows")

    def look_up(self, path: Path) -> Track | None:
        try:
            return Track.from_stat(path, path.lstat())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise AccessError(f"{CANNOT_LOOK_UP}: {error.strerror}") from error

    def find_file(self, path: Path) -> Track:
        try:
            status = path.stat()
        except OSError as error:
            raise AccessError(f"{CANNOT_OPEN}: {error.strerror}") from error
        if stat.S_ISDIR(status.st_mode):
            raise AccessError("is a folder (tagger scan goes through folders)", FailureKind.OTHER)
        if not stat.S_ISREG(status.st_mode):
            raise AccessError("is no regular file", FailureKind.OTHER)
        return Track.from_stat(path, status)

    def identify_folder(self, folder: Path) -> tuple[int, int]:
        try:
            status = folder.stat()
        except OSError as error:
            raise AccessError(f"{CANNOT_LIST}: {error.strerror}") from error
        return status.st_dev, status.st_ino

    def list_folder(self, folder: Path) -> Sequence[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: entry.name.encode(*FILENAME_CODEC))
        except OSError as error:
            raise AccessError(f"{CANNOT_LIST}: {error.strerror}") from error

    def look_up_entry(self, entry: os.DirEntry[str]) -> ListedFile | None:
        try:
            if not entry.is_file(follow_symlinks=False):
                return None
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return None  # it went away after the folder was listed
        except OSError as error:
            raise AccessError(f"{CANNOT_LOOK_UP}: {error.strerror}") from error
        mtime_ns, inode = to_signed_64(status.st_mtime_ns), to_signed_64(status.st_ino)
        return ListedFile(entry.name, status.st_size, mtime_ns, inode, status.st_nlink)

    def follow_link(self, link: Path) -> Root | None:
        try:
            target = link.resolve(strict=True)
        except (OSError, RuntimeError):
            return None
        try:
            mode = target.stat().st_mode
        except OSError as error:
            raise AccessError(f"{CANNOT_LOOK_UP}: {error.strerror}") from error
        is_folder = stat.S_ISDIR(mode)
        return Root(target, is_folder) if is_folder or stat.S_ISREG(mode) else None

    def open_for_reading(self, path: Path) -> AbstractContextManager[BinaryIO]:
        return path.open("rb")

    def open_for_decoding(self, path: Path) -> AbstractContextManager[Path]:
        return nullcontext(path)

    def is_reachable(self, path: Path) -> bool:
        return os.path.isdir(path.parent)  # noqa: PTH112 - Path's raises without permission

    def was_moved_from(self, path: Path, inode: int) -> bool:
        try:
            return Track.from_stat(path, path.lstat()).inode != inode
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False  # the file may be there, although this user may not look

    def sample_content(self, path: Path) -> ContentSample:
        digest = sha256()
        try:
            with os.fdopen(_open_without_waiting(path), "rb") as file:
                last = max(0, os.fstat(file.fileno()).st_size - SAMPLE_BLOCK_BYTES)
                for number in range(SAMPLE_BLOCKS):
                    file.seek(last * number // (SAMPLE_BLOCKS - 1))
                    digest.update(file.read(SAMPLE_BLOCK_BYTES))
        except OSError:
            return ContentSample()
        return ContentSample(self.find_volume(path), digest.digest())

    def find_volume(self, path: Path) -> int | None:
        try:
            return to_signed_64(os.statvfs(path).f_fsid)
        except OSError:
            return None

    def check_no_writer(self, path: Path, *, is_settled: bool) -> None:
        try:
            descriptor = _open_without_waiting(path)
        except BlockingIOError as error:  # another program has a lease, as Samba for its clients
            raise AccessError(OPEN_FOR_WRITING, FailureKind.IN_USE) from error
        except OSError:
            return
        try:
            check_no_open_writer(descriptor, is_settled=is_settled)
        finally:
            os.close(descriptor)

    def reports_changes(self, path: Path) -> bool:
        return _find_file_system_type(path.stat().st_dev) not in SHARED_FILE_SYSTEMS

    def check_writable(self, path: Path, *, preserve_mtime: bool) -> None:
        """Accept every path: whether a folder can be written shows with its first file."""


def _open_without_waiting(path: Path) -> int:
    """Open a file for reading, but no link; do not wait for the other end of a pipe."""
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)


def check_no_open_writer(descriptor: int, *, is_settled: bool) -> None:
    """Do what FileSystem.check_no_writer does for a file that is open for reading only."""
    has_writer = _has_writer(descriptor)
    if has_writer:
        raise AccessError(OPEN_FOR_WRITING, FailureKind.IN_USE)
    age_s = time.time() - os.fstat(descriptor).st_mtime
    if has_writer is None and not is_settled and abs(age_s) < SETTLING_S:
        raise AccessError(JUST_CHANGED, FailureKind.IN_USE)


def _has_writer(descriptor: int) -> bool | None:
    """Tell whether anybody has a file open for writing; None if the system cannot tell.

    Linux gives no read lease on such a file. Only the owner and root may ask for a lease. For files
    of others the answer is False, so that libraries shared by a group can be written.
    """
    if sys.platform != "linux":
        return None
    try:
        # A program that opens the file now sends a signal. SIGIO would end this process.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            kind = _find_file_system_type(os.fstat(descriptor).st_dev)
            return None if kind in LEASE_REFUSING_FILE_SYSTEMS else True
        return False if error.errno == errno.EACCES else None
    return False


def _find_file_system_type(device: int) -> str:
    """Return the type of a mounted file system as Linux names it; "" if that is not known."""
    number = f"{os.major(device)}:{os.minor(device)}"
    with suppress(OSError), Path("/proc/self/mountinfo").open(errors="replace") as mounts:
        for line in mounts:  # ID PARENT MAJOR:MINOR ROOT FOLDER OPTIONS... - TYPE SOURCE OPTIONS
            fields, _, source = line.partition(" - ")
            if fields.split()[2] == number:
                return source.split()[0]
    return ""
