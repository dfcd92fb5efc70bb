"""Places that fsspec reaches: what lies there, and stretches of it. Owns fsspec."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

from tagger.errors import AccessError, MissingExtraError
from tagger.paths import RemotePath
from tagger.records import Track

LOCAL_SCHEMES = {"file", "local"}
"""What fsspec would take for a path on this machine, whatever host it names."""

VERSION_KEYS = {
    "etag", "md5", "md5hash", "content_md5", "content-md5", "digest", "checksum", "sha", "sha256",
    "generation", "version", "mtime", "modify", "modified", "last_modified", "lastmodified",
    "last-modified", "updated",
}  # fmt: skip
"""Facts, by the names that servers have for them, that change if the content does."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a server says of an object. version: another one for any other content, as an ETag."""

    size: int
    mtime_ns: int
    version: str

    def track(self, path: RemotePath) -> Track:
        return Track(path, self.size, self.mtime_ns, self.number(path))

    def number(self, path: RemotePath) -> int:
        """Return what stands for an inode: 63 bits of a digest over the URL and the version."""
        digest = sha256(f"{path}\0{self.version}".encode(errors="surrogateescape")).digest()
        return int.from_bytes(digest[:8]) >> 1


class FolderEntry(NamedTuple):
    """What a folder holds. facts: of a file, where the listing tells them."""

    name: str
    is_folder: bool
    facts: ObjectInfo | None = None


class ObjectStore(Protocol):
    """One kind of place. Raises whatever the library behind it does."""

    def look(self, path: RemotePath) -> ObjectInfo | None:
        """Return what is to be said of an object, None where there is none."""

    def has_folder(self, path: RemotePath) -> bool: ...

    def entries(self, folder: RemotePath) -> Iterator[FolderEntry]:
        """Yield what is in a folder, in any order. An empty name stands for what has none."""

    def fetch(self, path: RemotePath, facts: ObjectInfo, start: int, stop: int) -> bytes:
        """Return the bytes from start to stop, or fewer where the server has no more."""


def get_filesystem_class(scheme: str) -> Any:
    """Return fsspec's class for a scheme. Raises AccessError, and MissingExtraError."""
    from fsspec import get_filesystem_class

    try:
        return None if scheme in LOCAL_SCHEMES else get_filesystem_class(scheme)
    except ImportError as error:
        needs = f"pip install 'tagger[{scheme}]'" if scheme == "s3" else str(error)
        raise MissingExtraError(f"{scheme}:// needs a package that is missing: {needs}") from error
    except ValueError:
        return None


class FsspecStore:
    """What fsspec knows, as far as all of its file systems go."""

    def __init__(self, path: RemotePath) -> None:
        kind = get_filesystem_class(path.scheme)
        if kind is None:
            raise AccessError(f"tagger knows nothing of {path.scheme}://")
        self.fs = kind(**kind._get_kwargs_from_urls(str(path)))  # noqa: SLF001 - as fsspec.open

    def look(self, path: RemotePath) -> ObjectInfo | None:
        with suppress(FileNotFoundError):
            found = self.fs.info(self._named(path))
            if found["type"] == "file":
                return _make_info(found)
        return None

    def has_folder(self, path: RemotePath) -> bool:
        with suppress(FileNotFoundError):
            self._list(path)
            return True
        return False

    def entries(self, folder: RemotePath) -> Iterator[FolderEntry]:
        start = f"{self._named(folder).rstrip('/')}/"
        for found in self._list(folder):
            name = found["name"].removeprefix(start).removesuffix("/")
            if found["name"].startswith(start) and name and "/" not in name:
                yield FolderEntry(name, found["type"] == "directory")

    def fetch(self, path: RemotePath, facts: ObjectInfo, start: int, stop: int) -> bytes:
        del facts
        content: bytes = self.fs.cat_file(self._named(path), start=start, end=stop)
        return content

    def _named(self, path: RemotePath) -> str:
        name: str = self.fs._strip_protocol(str(path))  # noqa: SLF001
        return name

    def _list(self, path: RemotePath) -> Any:
        self.fs.invalidate_cache()
        return self.fs.ls(self._named(path), detail=True)


def _make_info(found: Any) -> ObjectInfo:
    """Make facts of what fsspec says; times have many forms, so they are a part of the version."""
    if found.get("size") is None:
        raise AccessError("its server does not tell how long it is")
    told = {str(name).lower(): value for name, value in found.items()}
    version = repr([(name, told[name]) for name in sorted(VERSION_KEYS & told.keys())])
    return ObjectInfo(found["size"], 0, version)
