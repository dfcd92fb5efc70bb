"""What lies on no disk of this machine, by its URL; owns fsspec and s3fs, which it loads late."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from tagger.errors import AccessError, MissingExtraError, SettingsError
from tagger.paths import RemotePath
from tagger.records import Track
from tagger.storage import s3
from tagger.storage.ranged import RangedFile
from tagger.storage.refusals import FILE_CHANGED, translate_storage_errors
from tagger.storage.stores import FolderEntry, FsspecStore, ObjectStore

__all__ = [
    "FILE_CHANGED",
    "NO_TIME",
    "FolderEntry",
    "Holding",
    "check_writable",
    "entries",
    "has_folder",
    "hold",
    "is_reachable",
    "look_at",
    "reading",
]

CANNOT_OPEN = "cannot open"
CANNOT_LOOK_UP = "cannot be looked at"
CANNOT_LIST = "cannot list the folder"
NO_PRESERVED_MTIME = (
    "a store sets the time of its objects itself: --preserve-mtime is not possible there"
)
READ_ONLY = "tagger can read {scheme}:// but not write there: only a dry run is possible (-n)"


@contextmanager
def open_for_reading(path: Path) -> Iterator[BinaryIO]:
    """Open a file, here or elsewhere, to read what is asked for and nothing else.

    Of a file here the errors are the system's. Elsewhere AccessError comes of all that goes wrong,
    at the end too where who read took a failure for the end of the file.
    """
    if not isinstance(path, RemotePath):
        with path.open("rb") as file:
            yield file
        return
    with translate_storage_errors(CANNOT_OPEN):
        store = _get_store(path)
        facts = store.look(path)
    if facts is None:
        raise AccessError(f"{CANNOT_OPEN}: it is not there")

    def fetch(start: int, stop: int) -> bytes:
        with translate_storage_errors("cannot be read"):
            return store.fetch(path, facts, start, stop)

    source = RangedFile(str(path), facts.size, fetch)
    try:
        with BufferedReader(source) as buffered:
            yield buffered
    finally:
        if source.failure:
            raise AccessError(source.failure)


def look_up_object(path: RemotePath) -> Track | None:
    """Return an object as it is now, None where there is none. Raises AccessError."""
    with translate_storage_errors(CANNOT_LOOK_UP):
        facts = _get_store(path).look(path)
        return facts.track(path) if facts else None


def has_folder(path: RemotePath) -> bool:
    """Tell whether there is a folder, or a bucket. Raises AccessError."""
    with translate_storage_errors(CANNOT_LIST):
        return _get_store(path).has_folder(path)


def list_folder(folder: RemotePath) -> list[FolderEntry]:
    """Return what is in a folder, sorted by the bytes of the names. Raises AccessError."""
    with translate_storage_errors(CANNOT_LIST):
        found = _get_store(folder).entries(folder)
        return sorted(found, key=lambda entry: entry.name.encode("utf-8", "surrogateescape"))


def is_reachable(path: RemotePath) -> bool:
    """Tell whether the place of an object answers at all."""
    try:
        look_up_object(path)
    except (AccessError, MissingExtraError):
        return False
    return True


def check_writable(paths: Iterable[Path], *, preserve_mtime: bool) -> None:
    """Raise SettingsError if one of these is where nothing can be replaced under a condition.

    Nor can the time of an object be kept.
    """
    for path in paths:
        if isinstance(path, RemotePath):
            if path.scheme != s3.S3_SCHEME:
                raise SettingsError(READ_ONLY.format(scheme=path.scheme))
            if preserve_mtime:
                raise SettingsError(NO_PRESERVED_MTIME)


@dataclass(frozen=True, slots=True)
class ObjectReplacement:
    """An object that is to be replaced, as long as it is what it was when it was looked at."""

    store: s3.S3Store
    held: s3.ObjectVersion

    def download(self, file: BinaryIO) -> None:
        """Write all of it into a file. Raises AccessError; OSError is about the file."""
        pieces = self.store.pieces(self.held.path, self.held.facts)
        while True:
            with translate_storage_errors("cannot be read"):
                piece = next(pieces, None)
            if piece is None:
                return
            file.write(piece)

    def put(self, file: BinaryIO) -> Track:
        """Put a file in its place. Raises AccessError, UnfinishedError."""
        with translate_storage_errors("cannot be written"):
            return self.store.put(self.held, file)


def prepare_replacement(track: Track) -> ObjectReplacement:
    """Look at an object that is to be replaced. Raises AccessError, TagError."""
    path = track.path
    assert isinstance(path, RemotePath)
    if path.scheme != s3.S3_SCHEME:
        raise AccessError(READ_ONLY.format(scheme=path.scheme))
    with translate_storage_errors(CANNOT_LOOK_UP):
        store = _get_s3_store(path)
        return ObjectReplacement(store, store.hold(track, path))


def _get_store(path: RemotePath) -> ObjectStore:
    """Return the store of a path. Raises AccessError for what names no place, MissingExtraError."""
    return _get_s3_store(path) if path.scheme == s3.S3_SCHEME else FsspecStore(_check_path(path))


def _get_s3_store(path: RemotePath) -> s3.S3Store:
    _check_path(path)
    return s3.S3Store()


def _check_path(path: RemotePath) -> RemotePath:
    """Refuse what another name may stand for on the way to the server, or is no name at all."""
    if not path.place:
        raise AccessError("it names no bucket and no host")
    user, _, _ = path.place.partition("/")[0].rpartition("@")
    if ":" in user:
        reason = (
            "a path is kept in reports and must hold no password (see fsspec's FSSPEC_ variables)"
        )
        raise AccessError(reason)
    parts = path.place.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        reason = "a part of its name is empty, . or .. or has a NUL: no path can name it faithfully"
        raise AccessError(reason)
    return path
