"""Find the audio files below folders, in a stable order."""

import os
import stat
from abc import abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

from tagger import storage
from tagger.errors import AccessError, LibraryError
from tagger.paths import FILENAME_CODEC, RemotePath, parse_path
from tagger.records import Failure, Shard, Track, to_signed_64

HIDDEN_PREFIX = "."  # also the `._` files that macOS leaves on foreign disks
SKIPPED_NAMES = {
    "$RECYCLE.BIN",
    "RECYCLER",
    "#recycle",
    "@eaDir",
    "@Recycle",
    "lost+found",
    "System Volume Information",
}
"""Names that are passed over wherever they stand, but not where the user names them."""

MAX_LISTED_FILES = 500
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


class ListedFile(NamedTuple):
    """A file as its folder shows it: what a Track is, without the cost of a Path for each."""

    name: str
    size: int
    mtime_ns: int
    inode: int
    links: int

    @classmethod
    def from_stat(cls, name: str, status: os.stat_result) -> "ListedFile":
        mtime_ns, inode = to_signed_64(status.st_mtime_ns), to_signed_64(status.st_ino)
        return cls(name, status.st_size, mtime_ns, inode, status.st_nlink)


@dataclass(frozen=True, slots=True)
class Listing:
    """Audio files of one folder that follow one another, by name; `folder` is absolute."""

    folder: str
    files: Sequence[ListedFile]

    def track(self, seen: ListedFile) -> Track:
        here = self.folder.startswith("/")
        path = Path(self.folder, seen.name) if here else parse_path(self.folder) / seen.name
        return Track(path, *seen[1:])


FolderItem = Listing | Path | Failure
"""What is in a folder: its files, a folder, what a link leads to, or something not to be seen."""


class NamedEntry(Protocol):
    """Something in a folder."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> str: ...


E = TypeVar("E", bound=NamedEntry)


@dataclass(slots=True)
class FolderWalk(Generic[E]):
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
    def _file(self, entry: E) -> ListedFile | Failure | None:
        """Return the audio file that an entry is, None where it is anything else."""

    @abstractmethod
    def _beyond(self, entry: E) -> Iterator[FolderItem]:
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

    def _folder(self, folder: Path, root: Path) -> Iterator[FolderItem]:
        try:
            entries = self._entries(folder, root)
        except AccessError as error:
            yield Failure.without_stat(folder, str(error))
            return
        inside = os.fsencode(os.path.relpath(folder, root)) if self.scope.shard else b""
        files: list[ListedFile] = []
        others = []
        for entry in entries:
            found = self._file(entry)
            if isinstance(found, ListedFile):
                if self.scope.has(inside, found.name):
                    files.append(found)
            elif found:
                yield found
            else:
                others.append(entry)
            if len(files) == MAX_LISTED_FILES:
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
        if entry.name.startswith(HIDDEN_PREFIX) or entry.name in SKIPPED_NAMES:
            return True
        return bool(self.scope.exclude) and self._is_excluded(entry, root)

    def _is_excluded(self, entry: E, root: Path) -> bool:
        inside = os.path.relpath(entry.path, root)
        return any(
            fnmatchcase(entry.name, pattern) or fnmatchcase(inside, pattern)
            for pattern in self.scope.exclude
        )


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
class DiskWalk(FolderWalk[os.DirEntry[str]]):
    """A walk on disks."""

    folders: set[tuple[int, int]] = field(default_factory=set)

    def named(self, path: Path) -> Iterator[Listing | Failure]:
        status = path.parent.stat()
        if (status.st_dev, status.st_ino) not in self.folders and str(path) not in self.files:
            self.files.add(str(path))
            if not self.scope.has(b".", path.name):
                return
            try:
                seen = ListedFile.from_stat(path.name, path.lstat())
            except FileNotFoundError:
                return  # gone since it was resolved
            except OSError as error:
                yield _fail_without_stat(path, error)
            else:
                yield Listing(str(path.parent), [seen])

    def _entries(self, folder: Path, root: Path) -> list[os.DirEntry[str]]:
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in self.folders:
                return []
            self.folders.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name.encode(*FILENAME_CODEC))
        except OSError as error:
            raise AccessError(f"cannot list the folder: {error.strerror}") from error
        return self._counting(entries, root)

    def _file(self, entry: os.DirEntry[str]) -> ListedFile | Failure | None:
        if not self._is_audio(entry.name) or entry.path in self.files:
            return None
        try:
            if entry.is_file(follow_symlinks=False):
                return ListedFile.from_stat(entry.name, entry.stat(follow_symlinks=False))
        except FileNotFoundError:
            return None  # gone since the folder was listed
        except OSError as error:
            return _fail_without_stat(Path(entry.path), error)
        return None

    def _beyond(self, entry: os.DirEntry[str]) -> Iterator[FolderItem]:
        try:
            if entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)
            elif entry.is_symlink():
                yield from self._link(Path(entry.path))
        except OSError as error:
            yield _fail_without_stat(Path(entry.path), error)

    def _link(self, link: Path) -> Iterator[FolderItem]:
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


def _fail_without_stat(path: Path, error: OSError) -> Failure:
    return Failure.without_stat(path, f"cannot be looked at: {error.strerror}")


EMPTY_NAME_PART = "its name has an empty part (//), which a path cannot keep: it is not looked at"


@dataclass(frozen=True, slots=True)
class RemoteEntry:
    """What a folder holds, with its whole path. seen: of a file, if the listing tells enough."""

    name: str
    path: str
    is_folder: bool
    seen: ListedFile | None


def is_remote_folder(root: RemotePath, scope: Scope) -> bool:
    """Tell whether a root is a folder, or a file. Raises LibraryError where it is neither."""
    try:
        if root.suffix.lower() in scope.suffixes and storage.look_up_object(root):
            return False
        if storage.has_folder(root):
            return True
    except AccessError as error:
        raise LibraryError(f"cannot read {root}: {error}") from error
    raise LibraryError(f"cannot read {root}: nothing is there that tagger knows")


@dataclass(slots=True)
class RemoteWalk(FolderWalk[RemoteEntry]):
    """A walk through a store, which has no links."""

    folders: set[Path] = field(default_factory=set)

    def named(self, path: Path) -> Iterator[Listing | Failure]:
        if path.parent in self.folders or str(path) in self.files:
            return
        self.files.add(str(path))
        if self.scope.has(b".", path.name):
            found = _look_up_listed(path)
            if isinstance(found, Failure):
                yield found
            elif found:
                yield Listing(str(path.parent), [found])

    def _entries(self, folder: Path, root: Path) -> list[RemoteEntry]:
        assert isinstance(folder, RemotePath)
        if folder in self.folders:
            return []
        self.folders.add(folder)
        return self._counting(
            [_make_remote_entry(folder, each) for each in storage.list_folder(folder)], root
        )

    def _file(self, entry: RemoteEntry) -> ListedFile | Failure | None:
        if not self._is_audio(entry.name) or entry.is_folder or entry.path in self.files:
            return None
        return entry.seen or _look_up_listed(RemotePath(entry.path))

    def _beyond(self, entry: RemoteEntry) -> Iterator[FolderItem]:
        if not entry.name:
            yield Failure.without_stat(RemotePath(entry.path), EMPTY_NAME_PART)
        elif entry.is_folder:
            yield RemotePath(entry.path)


def _make_remote_entry(folder: RemotePath, entry: storage.FolderEntry) -> RemoteEntry:
    path = folder / entry.name
    track = entry.facts.track(path) if entry.facts else None
    return RemoteEntry(
        entry.name, str(path), entry.is_folder, _to_listed_file(track) if track else None
    )


def _look_up_listed(path: Path) -> ListedFile | Failure | None:
    """Return what an object is, None where it is gone since it was listed."""
    assert isinstance(path, RemotePath)
    try:
        track = storage.look_up_object(path)
    except AccessError as error:
        return Failure.without_stat(path, str(error))
    return _to_listed_file(track) if track else None


def _to_listed_file(track: Track) -> ListedFile:
    return ListedFile(track.path.name, track.size, track.mtime_ns, track.inode, track.links)


def crawl(paths: Sequence[Path], scope: Scope) -> Iterator[Track | Failure]:
    """Yield the tracks of all listings one by one; else as `crawl_folders`."""
    return chain.from_iterable(map(_make_tracks, crawl_folders(paths, scope)))


def _make_tracks(found: Listing | Failure) -> Iterator[Track | Failure]:
    return map(found.track, found.files) if isinstance(found, Listing) else iter((found,))


def crawl_folders(paths: Sequence[Path], scope: Scope) -> Iterator[Listing | Failure]:
    """Yield every audio file below `paths` once: the files named, then folder by folder, by name.

    The files of a folder come before the folders in it. Paths come out absolute. A folder or file
    that the system will not show is a Failure. A link is passed over, or with `follow_symlinks`
    stands for what it leads to. What lies elsewhere comes after what lies here.
    Raises LibraryError at once where one of `paths` is not there or no part of a library.
    """
    here = [find_root(path, scope) for path in paths if not isinstance(path, RemotePath)]
    elsewhere = [path for path in paths if isinstance(path, RemotePath)]
    folders = {path for path in here if path.is_dir()}
    folders |= {path for path in elsewhere if is_remote_folder(path, scope)}
    return chain(
        _walk_roots(here, folders, DiskWalk(scope)),
        _walk_roots(elsewhere, folders, RemoteWalk(scope)),
    )


def _walk_roots(
    roots: Sequence[Path], folders: Collection[Path], walk: DiskWalk | RemoteWalk
) -> Iterator[Listing | Failure]:
    return chain(
        chain.from_iterable(walk.named(root) for root in roots if root not in folders),
        chain.from_iterable(walk.below(root) for root in roots if root in folders),
    )


def look_up_file(path: Path) -> Track | None:
    """Return the file at a path as it is now, None where there is none. Raises AccessError."""
    if isinstance(path, RemotePath):
        return storage.look_up_object(path)
    try:
        return Track.from_stat(path, path.lstat())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AccessError(f"cannot be looked at: {error.strerror}") from error
