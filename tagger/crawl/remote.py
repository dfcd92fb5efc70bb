"""Folders that lie on no disk here: what the names of objects have in common up to a slash."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tagger import storage
from tagger.crawl.walk import Found, Listing, Scope, Seen, Walk
from tagger.errors import AccessError, LibraryError
from tagger.paths import RemotePath
from tagger.records import Failure, Track

NAMELESS = "its name has an empty part (//), which a path cannot keep: it is not looked at"


@dataclass(frozen=True, slots=True)
class Item:
    """What a folder holds, with its whole path. seen: of a file, if the listing tells enough."""

    name: str
    path: str
    is_folder: bool
    seen: Seen | None


def is_folder(root: RemotePath, scope: Scope) -> bool:
    """Tell whether a root is a folder, or a file. Raises LibraryError where it is neither."""
    try:
        if root.suffix.lower() in scope.suffixes and storage.look_at(root):
            return False
        if storage.has_folder(root):
            return True
    except AccessError as error:
        raise LibraryError(f"cannot read {root}: {error}") from error
    raise LibraryError(f"cannot read {root}: nothing is there that tagger knows")


@dataclass(slots=True)
class RemoteWalk(Walk[Item]):
    """A walk through a store, which has no links."""

    folders: set[Path] = field(default_factory=set)

    def named(self, path: Path) -> Iterator[Listing | Failure]:
        if path.parent in self.folders or str(path) in self.files:
            return
        self.files.add(str(path))
        if self.scope.has(b".", path.name):
            found = _look_at(path)
            if isinstance(found, Failure):
                yield found
            elif found:
                yield Listing(str(path.parent), [found])

    def _entries(self, folder: Path, root: Path) -> list[Item]:
        assert isinstance(folder, RemotePath)
        if folder in self.folders:
            return []
        self.folders.add(folder)
        return self._counting([_item(folder, each) for each in storage.entries(folder)], root)

    def _file(self, entry: Item) -> Seen | Failure | None:
        if not self._is_audio(entry.name) or entry.is_folder or entry.path in self.files:
            return None
        return entry.seen or _look_at(RemotePath(entry.path))

    def _beyond(self, entry: Item) -> Iterator[Found]:
        if not entry.name:
            yield Failure.unseen(RemotePath(entry.path), NAMELESS)
        elif entry.is_folder:
            yield RemotePath(entry.path)


def _item(folder: RemotePath, entry: storage.Entry) -> Item:
    path = folder / entry.name
    track = entry.facts.track(path) if entry.facts else None
    return Item(entry.name, str(path), entry.is_folder, _seen(track) if track else None)


def _look_at(path: Path) -> Seen | Failure | None:
    """Return what an object is, None where it is gone since it was listed."""
    assert isinstance(path, RemotePath)
    try:
        track = storage.look_at(path)
    except AccessError as error:
        return Failure.unseen(path, str(error))
    return _seen(track) if track else None


def _seen(track: Track) -> Seen:
    return Seen(track.path.name, track.size, track.mtime_ns, track.inode, track.links)
