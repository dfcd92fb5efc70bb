"""Where a file lies: a path of this machine, or the URL of an object."""

import os
import re
import sys
from codecs import utf_8_decode
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeGuard
from urllib.parse import unquote_to_bytes

from tagger.errors import DISK_FULL_ERRNOS, DiskFullError, ReportError, SettingsError

FILENAME_CODEC = (sys.getfilesystemencoding(), sys.getfilesystemencodeerrors())
"""What os.fsencode and os.fsdecode use. To call these functions for each file takes longer."""

URL_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
LOCAL_FILE_URL = re.compile(r"file://(?:localhost)?(?=/)", re.IGNORECASE)
"""How the URL of a file on this machine begins (RFC 8089)."""


@dataclass(frozen=True, slots=True)
class RemotePath(os.PathLike[str]):
    """The URL of an object or a folder on a server, kept to the letter.

    It has the lexical methods of a Path that tagger uses, and no others: it is no Path, because
    pathlib makes one slash of two, and so names another object.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __fspath__(self) -> str:
        """Return the URL, for os.fsencode: paths are stored as bytes."""
        return self.url

    @property
    def scheme(self) -> str:
        return self.url.partition("://")[0]

    @property
    def location(self) -> str:
        """What follows the scheme. In S3: the bucket and the key."""
        return self.url.partition("://")[2]

    @property
    def name(self) -> str:
        return self.location.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return PurePosixPath("x", self.name).suffix

    @property
    def parent(self) -> "RemotePath":
        """The folder. The parent of a bucket or a host is the bucket or the host."""
        parent = self.location.rpartition("/")[0] or self.location
        return RemotePath(f"{self.scheme}://{parent}")

    def joinpath(self, *segments: str) -> "RemotePath":
        return RemotePath("/".join([self.url, *segments]))

    def __truediv__(self, name: str) -> "RemotePath":
        return self.joinpath(name)

    def is_relative_to(self, other: "AnyPath") -> bool:
        return is_remote(other) and f"{self}/".startswith(f"{other}/")

    def with_name(self, name: str) -> "RemotePath":
        return self.parent / name

    def resolve(self) -> "RemotePath":
        return self

    def expanduser(self) -> "RemotePath":
        return self


AnyPath = Path | RemotePath


def is_remote(path: object) -> TypeGuard[RemotePath]:
    return isinstance(path, RemotePath)


def parse_path(text: str) -> AnyPath:
    """Return the path that a text names: a RemotePath for a URL, a Path for a `file://` URL.

    Slashes at the end of a URL do not count.
    """
    if text.startswith("/") or not (scheme := URL_SCHEME.match(text)):
        return Path(text)
    if local := LOCAL_FILE_URL.match(text):
        return Path(os.fsdecode(unquote_to_bytes(text[local.end() :])))
    return RemotePath(f"{scheme[1].lower()}://{text[scheme.end() :].rstrip('/')}")


def join_path(folder: str, name: str) -> AnyPath:
    """Return the path of a file in an absolute folder, in one step because this is done often."""
    return Path(folder, name) if folder.startswith("/") else parse_path(folder) / name


def display_path(path: AnyPath) -> str:
    """Return a path as text that any UTF-8 file can hold, with hex escapes for other bytes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def parse_displayed_path(text: str) -> AnyPath:
    """Return the path that `display_path` shows as a text, if no name has such escapes itself."""
    raw = re.sub(
        rb"\\x(?!00)([0-9a-f]{2})", lambda escape: bytes.fromhex(escape[1].decode()), text.encode()
    )
    return parse_path(os.fsdecode(raw))


def to_one_line(text: str) -> str:
    """Return foreign text as one line without control characters."""
    try:
        shown = os.fsencode(text).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # JSON can hold half of a surrogate pair, file names cannot
        shown = text
    return " ".join("".join(char if char.isprintable() else " " for char in shown).split())


def decode_foreign_bytes(data: bytes) -> str:
    """Decode bytes that are UTF-8 or of an unknown encoding; the latter as Latin-1.

    A field of fixed size may cut the last character of UTF-8, which is then left out.
    """
    with suppress(UnicodeDecodeError):
        text, decoded_bytes = utf_8_decode(data, "strict", False)
        if decoded_bytes == len(data) or not text.isascii():
            return text
    return data.decode("latin-1")


def check_overwrite(path: Path, start: bytes, option: str) -> None:
    """Raise SettingsError for a folder, and for a file that does not begin with `start`.

    Such a file is not tagger's; it may be a song. Raises OSError if it cannot be read.
    """
    if path.is_dir():
        raise SettingsError(f"{option} names a folder: {path}")
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            if file.read(len(start)) != start:
                raise SettingsError(f"{option} would overwrite {path}, which is no file of tagger")


def check_replacement(path: Path, start: bytes, option: str) -> None:
    """Do the same for a file that is written whole. A device or a pipe cannot be replaced."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise SettingsError(f"{option} must name a file, not a device or a pipe: {path}")
    check_overwrite(path, start, option)


def make_write_error(what: str, path: Path, error: OSError) -> ReportError | DiskFullError:
    """Translate an error of the system. what: the kind of file, for the message."""
    error_class = DiskFullError if error.errno in DISK_FULL_ERRNOS else ReportError
    return error_class(f"cannot write the {what} {path}: {error.strerror}")


def write_file_whole(path: Path, content: bytes) -> None:
    """Write a file: a reader finds the old content or the new one, never a part. Raises OSError.

    A link stays, and the file that it leads to is written.
    """
    path = Path(os.path.realpath(path))
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
