"""Folders on the disks of this machine."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tagger.crawl.walk import Found, Listing, Scope, Seen, Walk
from tagger.errors import AccessError, LibraryError
from tagger.paths import FILE_NAMES
from tagger.records import Failure


def find_root(path: Path, scope: Scope) -> Path:
    """Return where a folder or file really lies. Raises LibraryError if it is not there."""
    try:
        root = path.resolve(strict=True)
        mode = root.stat().st_mode
        if stat.S_ISDIR(mode):
            os.scandir(root).close()
            return root
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        reason = getattr(error, "strerror", None) or error
        raise LibraryError(f"cannot read {path}: {reason}") from error
    if root.suffix.lower() in scope.suffixes and stat.S_ISREG(mode):
        return root
    raise LibraryError(f"{path} is neither a folder nor an audio file that tagger knows")


@dataclass(slots=True)
class DiskWalk(Walk[os.DirEntry[str]]):
    """A walk on disks."""

    folders: set[tuple[int, int]] = field(default_factory=set)

    def named(self, path: Path) -> Iterator[Listing | Failure]:
        status = path.parent.stat()
        if (status.st_dev, status.st_ino) not in self.folders and str(path) not in self.files:
            self.files.add(str(path))
            if not self.scope.has(b".", path.name):
                return
            try:
                seen = Seen.from_stat(path.name, path.lstat())
            except FileNotFoundError:
                return  # gone since it was resolved
            except OSError as error:
                yield _unseen(path, error)
            else:
                yield Listing(str(path.parent), [seen])

    def _entries(self, folder: Path, root: Path) -> list[os.DirEntry[str]]:
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in self.folders:
                return []
            self.folders.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name.encode(*FILE_NAMES))
        except OSError as error:
            raise AccessError(f"cannot list the folder: {error.strerror}") from error
        return self._counting(entries, root)

    def _file(self, entry: os.DirEntry[str]) -> Seen | Failure | None:
        if not self._is_audio(entry.name) or entry.path in self.files:
            return None
        try:
            if entry.is_file(follow_symlinks=False):
                return Seen.from_stat(entry.name, entry.stat(follow_symlinks=False))
        except FileNotFoundError:
            return None  # gone since the folder was listed
        except OSError as error:
            return _unseen(Path(entry.path), error)
        return None

    def _beyond(self, entry: os.DirEntry[str]) -> Iterator[Found]:
        try:
            if entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)
            elif entry.is_symlink():
                yield from self._link(Path(entry.path))
        except OSError as error:
            yield _unseen(Path(entry.path), error)

    def _link(self, link: Path) -> Iterator[Found]:
        if not self.scope.follow_symlinks:
            return
        try:
            target = link.resolve(strict=True)
        except (OSError, RuntimeError):
            return  # it leads nowhere
        if target.is_dir():
            yield target
        elif target.is_file() and self._is_audio(target.name):
            yield from self.named(target)


def _unseen(path: Path, error: OSError) -> Failure:
    return Failure.unseen(path, f"cannot be looked at: {error.strerror}")
