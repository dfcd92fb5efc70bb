"""Files on the disks of this machine."""

import os
import stat
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO

from tagger.errors import AccessError, FailureKind, LibraryError
from tagger.paths import FILENAME_CODEC
from tagger.records import Track, to_signed_64
from tagger.storage.filesystem import (
    CANNOT_LIST,
    CANNOT_LOOK_UP,
    CANNOT_OPEN,
    ListedFile,
    Root,
)


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
            raise AccessError("is no file (- reads from standard input)", FailureKind.OTHER)
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

    def check_writable(self, path: Path, *, preserve_mtime: bool) -> None:
        """Accept every path: whether a folder can be written shows with its first file."""
