"""Folders to Tracks, in a stable order, without what no one would call part of the library."""

import os
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from tagger.errors import AccessError, LibraryError
from tagger.records import FILE_NAMES, Failure, Shard, Track, signed

HIDDEN = "."  # also the `._` files that macOS leaves on foreign disks
JUNK = {
    "$RECYCLE.BIN",
    "RECYCLER",
    "#recycle",
    "@eaDir",
    "@Recycle",
    "lost+found",
    "System Volume Information",
}
"""Names that are passed over wherever they stand, but not where the user names them."""

MOST_FILES = 500
"""So many files at most come in one Listing: memory is flat however large a folder is."""

NO_MEDIA = ".nomedia"
"""A folder that holds this file is no media folder, nor is any folder in it (Android's rule)."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What of a folder counts: suffixes in lower case, patterns to leave out, links or not.

    shard: only this part, told by the path below the root, so that it does not matter where the
    library is mounted. whole_folders: whose files all belong to one part.
    """

    suffixes: Collection[str]
    exclude: Sequence[str] = ()
    follow_symlinks: bool = False
    shard: Shard | None = None
    whole_folders: bool = False

    def has(self, inside: bytes, name: str) -> bool:
        """Tell whether a file belongs to the shard, by its folder below the root and its name."""
        if self.shard is None:
            return True
        return self.shard.has(inside if self.whole_folders else inside + b"/" + os.fsencode(name))


class Seen(NamedTuple):
    """A file as its folder shows it: what a Track is, without the cost of a Path for each."""

    name: str
    size: int
    mtime_ns: int
    inode: int
    links: int

    @classmethod
    def from_stat(cls, name: str, status: os.stat_result) -> "Seen":
        mtime_ns, inode = signed(status.st_mtime_ns), signed(status.st_ino)
        return cls(name, status.st_size, mtime_ns, inode, status.st_nlink)


@dataclass(frozen=True, slots=True)
class Listing:
    """Audio files of one folder that follow one another, by name; `folder` is absolute."""

    folder: str
    files: Sequence[Seen]

    def track(self, seen: Seen) -> Track:
        return Track(Path(self.folder, seen.name), *seen[1:])


def crawl(paths: Sequence[Path], scope: Scope) -> Iterator[Track | Failure]:
    """Yield the tracks of all listings one by one; else as `crawl_folders`."""
    return chain.from_iterable(map(_one_by_one, crawl_folders(paths, scope)))


def _one_by_one(found: Listing | Failure) -> Iterator[Track | Failure]:
    return map(found.track, found.files) if isinstance(found, Listing) else iter((found,))


def crawl_folders(paths: Sequence[Path], scope: Scope) -> Iterator[Listing | Failure]:
    """Yield every audio file below `paths` once: the files named, then folder by folder, by name.

    The files of a folder come before the folders in it. Paths come out absolute. A folder or file
    that the system will not show is a Failure. A link is passed over, or with `follow_symlinks`
    stands for what it leads to.
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


Found = Listing | Path | Failure
"""What is in a folder: its files, a folder, what a link leads to, or something not to be seen."""


@dataclass(slots=True)
class _Walk:
    """One crawl; remembers where it was, for roots that overlap and links that go in circles."""

    scope: Scope
    folders: set[tuple[int, int]] = field(default_factory=set)
    files: set[str] = field(default_factory=set)

    def below(self, root: Path) -> Iterator[Listing | Failure]:
        """Walk a folder, depth first; by a stack, since folders may lie deeper than calls can."""
        pending = [self._folder(root, root)]
        while pending:
            found = next(pending[-1], None)
            if found is None:
                pending.pop()
            elif isinstance(found, Path):
                pending.append(self._folder(found, root))
            else:
                yield found

    def named(self, path: Path) -> Iterator[Listing | Failure]:
        """Yield a file that the user or a link names, unless its folder was walked already."""
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

    def _folder(self, folder: Path, root: Path) -> Iterator[Found]:
        try:
            entries = self._entries(folder, root)
        except OSError as error:
            yield Failure.unseen(folder, f"cannot list the folder: {error.strerror}")
            return
        inside = os.fsencode(os.path.relpath(folder, root)) if self.scope.shard else b""
        files: list[Seen] = []
        others = []
        for entry in entries:
            found = self._file(entry)
            if isinstance(found, Seen):
                if self.scope.has(inside, found.name):
                    files.append(found)
            elif found:
                yield found
            else:
                others.append(entry)
            if len(files) == MOST_FILES:
                yield Listing(str(folder), files)
                files = []
        if files:
            yield Listing(str(folder), files)
        for entry in others:
            yield from self._beyond(entry)

    def _entries(self, folder: Path, root: Path) -> list[os.DirEntry[str]]:
        """Return what is in a folder, sorted by name; nothing where it is not to be walked."""
        status = folder.stat()
        if (status.st_dev, status.st_ino) in self.folders:
            return []
        self.folders.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name.encode(*FILE_NAMES))
        if any(entry.name == NO_MEDIA for entry in entries):
            return []
        return [entry for entry in entries if not self._left_out(entry, root)]

    def _file(self, entry: os.DirEntry[str]) -> Seen | Failure | None:
        """Return the audio file that an entry is, None where it is anything else."""
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
        """Yield the folder that an entry is or, if links are to be followed, what it leads to."""
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

    def _is_audio(self, name: str) -> bool:
        return name[name.rfind(".") :].lower() in self.scope.suffixes

    def _left_out(self, entry: os.DirEntry[str], root: Path) -> bool:
        if entry.name.startswith(HIDDEN) or entry.name in JUNK:
            return True
        return bool(self.scope.exclude) and self._is_excluded(entry, root)

    def _is_excluded(self, entry: os.DirEntry[str], root: Path) -> bool:
        inside = os.path.relpath(entry.path, root)
        return any(
            fnmatchcase(entry.name, pattern) or fnmatchcase(inside, pattern)
            for pattern in self.scope.exclude
        )


def _unseen(path: Path, error: OSError) -> Failure:
    return Failure.unseen(path, f"cannot be looked at: {error.strerror}")


def look_at(path: Path) -> Track | None:
    """Return the file at a path as it is now, None where there is none. Raises AccessError."""
    try:
        return Track.from_stat(path, path.lstat())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AccessError(f"cannot be looked at: {error.strerror}") from error
