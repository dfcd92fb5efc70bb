"""Objects on servers, as all stores describe them, and the stores that fsspec reaches.

Owns fsspec, which is loaded late.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

from tagger.errors import AccessError, FailureKind, MissingExtraError, TaggerError
from tagger.paths import RemotePath
from tagger.records import Track
from tagger.storage.filesystem import CANNOT_READ

LOCAL_SCHEMES = {"file", "local"}
"""Schemes that fsspec takes for a path on this machine, whatever host the URL names."""

VERSION_KEYS = {
    "etag", "md5", "md5hash", "content_md5", "content-md5", "digest", "checksum", "sha", "sha256",
    "generation", "version", "mtime", "modify", "modified", "last_modified", "lastmodified",
    "last-modified", "updated",
}  # fmt: skip
"""The names that servers have for properties that change with the content of an object."""

MAX_MESSAGE_LENGTH = 300
UNAUTHORIZED, FORBIDDEN = 401, 403


@contextmanager
def translate_storage_errors(step: str) -> Iterator[None]:
    """Raise AccessError for every error of a foreign library: each library has its own."""
    try:
        yield
    except TaggerError:
        raise
    except Exception as error:
        is_refused = get_http_status(error) in (UNAUTHORIZED, FORBIDDEN)
        kind = FailureKind.NO_ACCESS if is_refused else FailureKind.SERVER
        raise AccessError(f"{step}: {describe_storage_error(error)}", kind) from error


def describe_storage_error(error: BaseException) -> str:
    """Return the message of a foreign error in one line."""
    details = get_response(error).get("Error", {})
    code, message = details.get("Code", ""), details.get("Message", "")
    if message:
        text = f"{message} ({code})" if code and not code.isdecimal() else message
    else:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    line = " ".join(text.split())
    return line if len(line) <= MAX_MESSAGE_LENGTH else f"{line[:MAX_MESSAGE_LENGTH]}…"


def get_response(error: BaseException) -> Any:
    """Return the answer of the server that a botocore error keeps, {} where there was none."""
    return getattr(error, "response", None) or {}


def get_http_status(error: BaseException) -> int:
    """Return the HTTP status of the answer, 0 where there was none."""
    status: int = get_response(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status


def make_length_error(received: int, requested: int) -> AccessError:
    """Return the error for a server that sent less or more than was asked for."""
    reason = f"{CANNOT_READ}: its server sent {received} bytes for {requested}"
    return AccessError(reason, FailureKind.SERVER)


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as its server describes it. version: differs for different content, as an ETag."""

    size: int
    mtime_ns: int
    version: str

    def make_track(self, path: RemotePath) -> Track:
        return Track(path, self.size, self.mtime_ns, self.make_inode(path))

    def make_inode(self, path: RemotePath) -> int:
        """Return a number in place of an inode: 63 bits of a digest of the URL and the version."""
        digest = sha256(f"{path}\0{self.version}".encode(errors="surrogateescape")).digest()
        return int.from_bytes(digest[:8]) >> 1


@dataclass(frozen=True, slots=True)
class ObjectEntry:
    """An object or a folder in a folder; see FolderEntry. info: None if the listing has too little.

    An empty name stands for all objects whose keys have an empty part there.
    """

    location: RemotePath
    is_folder: bool
    info: ObjectInfo | None = None

    @property
    def name(self) -> str:
        return self.location.name

    @property
    def path(self) -> str:
        return str(self.location)

    def is_symlink(self) -> bool:
        return False

    def is_dir(self) -> bool:
        return self.is_folder


class ObjectStore(Protocol):
    """One kind of server. The methods raise the errors of the library behind them."""

    def look_up(self, path: RemotePath) -> ObjectInfo | None:
        """Return an object as it is now, None where there is none."""

    def has_folder(self, path: RemotePath) -> bool:
        """Tell whether there is a folder or a bucket."""

    def list_folder(self, folder: RemotePath) -> Iterator[ObjectEntry]:
        """Yield the entries of a folder, in any order."""

    def read_range(self, path: RemotePath, info: ObjectInfo, start: int, stop: int) -> bytes:
        """Return the bytes from start to stop, or fewer where the server sends fewer."""


class FsspecStore:
    """A server by its fsspec file system: reading only, by what all of these have in common."""

    def __init__(self, path: RemotePath) -> None:
        """Connect. Raises AccessError for an unknown scheme, MissingExtraError.

        fsspec gets the URL of the host alone: it takes `::` in a longer URL for a chain of URLs.
        """
        from fsspec.core import url_to_fs

        host, _, rest = path.location.partition("/")
        if "::" in host:
            raise AccessError("fsspec cannot read a host name with ::", FailureKind.OTHER)
        unknown = f"tagger knows no server for {path.scheme}://"
        if path.scheme in LOCAL_SCHEMES:
            raise AccessError(unknown, FailureKind.OTHER)
        try:
            self.fs, root = url_to_fs(f"{path.scheme}://{host}")
        except ImportError as error:
            reason = f"{path.scheme}:// needs a package that is missing: {error}"
            raise MissingExtraError(reason) from error
        except ValueError as error:
            raise AccessError(unknown, FailureKind.OTHER) from error
        folder = f"{root}/{rest}".strip("/")
        self.name_prefix = f"{folder}/" if folder else ""

    def look_up(self, path: RemotePath) -> ObjectInfo | None:
        with suppress(FileNotFoundError):
            properties = self.fs.info(str(path))
            if properties["type"] == "file":
                return _parse_properties(properties)
        return None

    def has_folder(self, path: RemotePath) -> bool:
        with suppress(FileNotFoundError):
            self._list(path)
            return True
        return False

    def list_folder(self, folder: RemotePath) -> Iterator[ObjectEntry]:
        for properties in self._list(folder):
            full_name = properties["name"].strip("/")
            name = full_name.removeprefix(self.name_prefix)
            if full_name.startswith(self.name_prefix) and name and "/" not in name:
                yield ObjectEntry(folder / name, properties["type"] == "directory")

    def read_range(self, path: RemotePath, info: ObjectInfo, start: int, stop: int) -> bytes:
        del info
        content: bytes = self.fs.cat_file(str(path), start=start, end=stop)
        return content

    def _list(self, folder: RemotePath) -> Any:
        self.fs.invalidate_cache()
        return self.fs.ls(str(folder), detail=True)


def _parse_properties(properties: dict[str, Any]) -> ObjectInfo:
    """Turn fsspec's properties into an ObjectInfo. Times have many forms: the version has them."""
    if properties.get("size") is None:
        raise AccessError("its server does not say how long it is", FailureKind.SERVER)
    by_key = {str(name).lower(): value for name, value in properties.items()}
    version = repr([(name, by_key[name]) for name in sorted(VERSION_KEYS & by_key.keys())])
    return ObjectInfo(properties["size"], 0, version)
