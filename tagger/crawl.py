"""Folders to Tracks, in a stable order, without what no one would call part of the library."""

import os
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path

from tagger.errors import AccessError, LibraryError
from tagger.records import Failure, Track

JUNK = (
    ".*",  # hidden, and the `._` files that macOS leaves on foreign disks
    "$RECYCLE.BIN",
    "RECYCLER",
    "#recycle",
    "@eaDir",
    "@Recycle",
    "lost+found",
    "System Volume Information",
)
"""Names that are passed over wherever they stand, but not where the user names them."""

NO_MEDIA = ".nomedia"
"""A folder that holds this file is no media folder, nor is any folder in it (Android's rule)."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What of a folder counts: suffixes in lower case, patterns to leave out, links or not."""

    suffixes: Collection[str]
    exclude: Sequence[str] = ()
    follow_symlinks: bool = False


def crawl(paths: Sequence[Path], scope: Scope) -> Iterator[Track | Failure]:
    """Yield every audio file below `paths` once: the files named, then folder by folder, by name.

    Paths come out absolute. A folder or file that the system will not show is a Failure. A link
    is passed over, or with `follow_symlinks` stands for what it leads to.
    Raises LibraryError at once where one of `paths` is not there or no part of a library.
    """
    roots = [_root(path, scope) for path in paths]
    walk = _Walk(scope)
    files = [root for root in roots if not root.is_dir()]
    folders = [root for root in roots if root.is_dir()]
    return chain(
        chain.from_iterable(walk.named(file) for file in files),
        chain.from_iterable(walk.below(folder) for folder in folders),
    )


def _root(path: Path, scope: Scope) -> Path:
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
class _Walk:
    """One crawl; remembers where it was, for roots that overlap and links that go in circles."""

    scope: Scope
    folders: set[tuple[int, int]] = field(default_factory=set)
    files: set[Path] = field(default_factory=set)

    def below(self, root: Path) -> Iterator[Track | Failure]:
        """Walk a folder, depth first; by a stack, since folders may lie deeper than calls can."""
        pending = [self._folder(root, root)]
        while pending:
            for found in pending[-1]:
                if isinstance(found, Path):
                    pending.append(self._folder(found, root))
                    break
                yield found
            else:
                pending.pop()

    def named(self, path: Path) -> Iterator[Track | Failure]:
        """Yield a file that the user or a link names, unless its folder was walked already."""
        status = path.parent.stat()
        if (status.st_dev, status.st_ino) not in self.folders and path not in self.files:
            self.files.add(path)
            yield from _look_at(path)

    def _folder(self, folder: Path, root: Path) -> Iterator[Track | Failure | Path]:
        """Yield the tracks of one folder, and the folders in it as paths."""
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in self.folders:
                return
            self.folders.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            yield Failure.unseen(folder, f"cannot list the folder: {error.strerror}")
            return
        if any(entry.name == NO_MEDIA for entry in entries):
            return
        for entry in entries:
            if not self._left_out(entry, root):
                yield from self._entry(entry)

    def _entry(self, entry: os.DirEntry[str]) -> Iterator[Track | Failure | Path]:
        path = Path(entry.path)
        try:
            if entry.is_symlink():
                yield from self._link(path)
            elif entry.is_dir():
                yield path
            elif entry.is_file() and path.suffix.lower() in self.scope.suffixes:
                yield from () if path in self.files else _look_at(path)
        except OSError as error:
            yield Failure.unseen(path, f"cannot be looked at: {error.strerror}")

    def _link(self, link: Path) -> Iterator[Track | Failure | Path]:
        if not self.scope.follow_symlinks:
            return
        try:
            target = link.resolve(strict=True)
        except (OSError, RuntimeError):
            return  # it leads nowhere
        if target.is_dir():
            yield target
        elif target.is_file() and target.suffix.lower() in self.scope.suffixes:
            yield from self.named(target)

    def _left_out(self, entry: os.DirEntry[str], root: Path) -> bool:
        if any(fnmatchcase(entry.name, pattern) for pattern in JUNK):
            return True
        inside = os.path.relpath(entry.path, root)
        return any(
            fnmatchcase(entry.name, pattern) or fnmatchcase(inside, pattern)
            for pattern in self.scope.exclude
        )


def look_at(path: Path) -> Track | None:
    """Return the file at a path as it is now, None where there is none. Raises AccessError."""
    try:
        return Track.from_stat(path, path.lstat())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AccessError(f"cannot be looked at: {error.strerror}") from error


def _look_at(path: Path) -> Iterator[Track | Failure]:
    try:
        track = look_at(path)
    except AccessError as error:
        yield Failure.unseen(path, str(error))
    else:
        if track is not None:  # else it is gone since the folder was listed
            yield track
