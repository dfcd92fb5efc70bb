"""What of a folder counts, and the order in which folders are walked, wherever they lie."""

import os
from abc import abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

from tagger.errors import AccessError
from tagger.paths import path_of
from tagger.records import Failure, Shard, Track, signed

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
        here = self.folder.startswith("/")
        path = Path(self.folder, seen.name) if here else path_of(self.folder) / seen.name
        return Track(path, *seen[1:])


Found = Listing | Path | Failure
"""What is in a folder: its files, a folder, what a link leads to, or something not to be seen."""


class Named(Protocol):
    """Something in a folder."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> str: ...


E = TypeVar("E", bound=Named)


@dataclass(slots=True)
class Walk(Generic[E]):
    """One crawl; remembers where it was, for roots that overlap and links that go in circles."""

    scope: Scope
    files: set[str] = field(default_factory=set)

    @abstractmethod
    def named(self, path: Path) -> Iterator[Listing | Failure]:
        """Yield a file that the user or a link names, unless its folder was walked already."""

    @abstractmethod
    def _entries(self, folder: Path, root: Path) -> list[E]:
        """Return what is in a folder, sorted by name; nothing where it is not to be walked.

        Raises AccessError where it cannot be listed.
        """

    @abstractmethod
    def _file(self, entry: E) -> Seen | Failure | None:
        """Return the audio file that an entry is, None where it is anything else."""

    @abstractmethod
    def _beyond(self, entry: E) -> Iterator[Found]:
        """Yield the folder that an entry is or, if links are to be followed, what it leads to."""

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

    def _folder(self, folder: Path, root: Path) -> Iterator[Found]:
        try:
            entries = self._entries(folder, root)
        except AccessError as error:
            yield Failure.unseen(folder, str(error))
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

    def _counting(self, entries: Sequence[E], root: Path) -> list[E]:
        """Return the entries of a folder that are not to be passed over."""
        if any(entry.name == NO_MEDIA for entry in entries):
            return []
        return [entry for entry in entries if not self._left_out(entry, root)]

    def _is_audio(self, name: str) -> bool:
        return name[name.rfind(".") :].lower() in self.scope.suffixes

    def _left_out(self, entry: E, root: Path) -> bool:
        if entry.name.startswith(HIDDEN) or entry.name in JUNK:
            return True
        return bool(self.scope.exclude) and self._is_excluded(entry, root)

    def _is_excluded(self, entry: E, root: Path) -> bool:
        inside = os.path.relpath(entry.path, root)
        return any(
            fnmatchcase(entry.name, pattern) or fnmatchcase(inside, pattern)
            for pattern in self.scope.exclude
        )
