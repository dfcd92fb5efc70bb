"""What changes below some folders, as Linux tells it (inotify(7)); owns inotify_simple."""

import errno
import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from tagger.crawl import PathSelection, Scope, list_folders
from tagger.errors import WatchError

READ_DELAY_MS = 500
"""Events are read this long after the first one, so that a copied album is one change."""

LIMIT_HELP = (
    "Linux watches no more folders for this user: raise fs.inotify.max_user_watches (sysctl), or"
    " use --poll"
)


class FolderEvents:
    """Watches folders and all folders in them that a crawl looks into; a context manager.

    Raises WatchError where Linux does not watch a folder.
    """

    def __init__(self, roots: Iterable[Path], scope: Scope) -> None:
        from inotify_simple import INotify, flags

        self._roots = list(roots)
        self._scope = scope
        self._flags = flags
        self._mask = (
            flags.CREATE | flags.CLOSE_WRITE | flags.MOVED_TO | flags.MOVE_SELF | flags.ONLYDIR
        )
        try:
            self._inotify = INotify()
        except OSError as error:
            raise WatchError(f"this system watches no folders: {error.strerror}") from error
        self._folders: dict[int, str] = {}
        for root in self._roots:
            self._watch_tree(root, root)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inotify.close()

    def read(self, timeout_s: float) -> set[Path]:
        """Wait for changes, and return the files and folders that are new or were written.

        Some may be gone again. If Linux lost events, the roots are returned. Raises WatchError if
        a root is gone.
        """
        flags = self._flags
        changed = set()
        for event in self._inotify.read(int(timeout_s * 1000), READ_DELAY_MS):
            if event.mask & flags.Q_OVERFLOW:
                return set(self._roots)
            folder = self._folders.get(event.wd, "")
            if event.mask & (flags.IGNORED | flags.MOVE_SELF) and Path(folder) in self._roots:
                raise WatchError(f"{folder} is gone: is its disk still mounted?")
            if event.mask & flags.IGNORED:  # the folder is gone
                self._folders.pop(event.wd, None)
            elif event.name and folder:
                path = Path(folder, event.name)
                changed.add(path)
                if event.mask & flags.ISDIR:
                    self._watch_new_folder(path)
        return changed

    def _watch_new_folder(self, folder: Path) -> None:
        for root in self._roots:
            if folder.is_relative_to(root):
                self._watch_tree(root, folder)

    def _watch_tree(self, root: Path, folder: Path) -> None:
        """Watch a folder below `root`, and those in it, as far as a crawl of `root` gets there."""
        selection = None if folder == root else PathSelection.make([folder])
        for each in list_folders(root, replace(self._scope, only=selection)):
            self._watch_folder(str(each))

    def _watch_folder(self, folder: str) -> None:
        try:
            self._folders[self._inotify.add_watch(folder, self._mask)] = folder
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise WatchError(LIMIT_HELP) from error
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                raise WatchError(
                    f"cannot watch {folder}: {os.strerror(error.errno or 0)}"
                ) from error


def can_watch_folders() -> bool:
    return sys.platform == "linux"
