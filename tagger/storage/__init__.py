"""Files wherever they lie: the one interface to the disks of this machine and to servers.

Only this module decides which file system a path belongs to. The errors are those of FileSystem.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from tagger.paths import AnyPath, is_remote
from tagger.records import ContentSample, Track
from tagger.storage.filesystem import FILE_CHANGED, FileSystem, FolderEntry, ListedFile, Root
from tagger.storage.local import LocalFiles, check_no_open_writer
from tagger.storage.remote import NO_PRESERVED_MTIME, RemoteFiles, prepare_replacement

__all__ = [
    "FILE_CHANGED",
    "NO_PRESERVED_MTIME",
    "FileSystem",
    "FolderEntry",
    "ListedFile",
    "Root",
    "check_no_open_writer",
    "check_no_writer",
    "check_writable",
    "find_file",
    "find_volume",
    "get_filesystem",
    "is_reachable",
    "look_up",
    "open_for_decoding",
    "open_for_reading",
    "prepare_replacement",
    "reports_changes",
    "sample_content",
    "was_moved_from",
]

LOCAL_FILES, REMOTE_FILES = LocalFiles(), RemoteFiles()


def get_filesystem(path: AnyPath) -> FileSystem:
    return REMOTE_FILES if is_remote(path) else LOCAL_FILES


def look_up(path: AnyPath) -> Track | None:
    return get_filesystem(path).look_up(path)


def find_file(path: AnyPath) -> Track:
    return get_filesystem(path).find_file(path)


def open_for_reading(path: AnyPath) -> AbstractContextManager[BinaryIO]:
    return get_filesystem(path).open_for_reading(path)


def open_for_decoding(path: AnyPath) -> AbstractContextManager[Path | BinaryIO]:
    return get_filesystem(path).open_for_decoding(path)


def is_reachable(path: AnyPath) -> bool:
    return get_filesystem(path).is_reachable(path)


def was_moved_from(path: AnyPath, inode: int) -> bool:
    return get_filesystem(path).was_moved_from(path, inode)


def sample_content(path: AnyPath) -> ContentSample:
    return get_filesystem(path).sample_content(path)


def find_volume(path: AnyPath) -> int | None:
    return get_filesystem(path).find_volume(path)


def check_no_writer(path: AnyPath, *, is_settled: bool) -> None:
    get_filesystem(path).check_no_writer(path, is_settled=is_settled)


def reports_changes(path: AnyPath) -> bool:
    return get_filesystem(path).reports_changes(path)


def check_writable(paths: Iterable[AnyPath], *, preserve_mtime: bool) -> None:
    for path in paths:
        get_filesystem(path).check_writable(path, preserve_mtime=preserve_mtime)
