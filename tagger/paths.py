"""Paths as they are written down, and those that no disk here holds."""

import os
import re
import sys
from pathlib import Path, PosixPath
from typing import Any, Self
from urllib.parse import unquote_to_bytes

FILENAME_CODEC = (sys.getfilesystemencoding(), sys.getfilesystemencodeerrors())
"""How os.fsencode and os.fsdecode go to work; called for each file, they take longer over it."""

URL_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
LOCAL_FILE_URL = re.compile(r"file://(?:localhost)?(?=/)", re.IGNORECASE)
"""How the URL of a file on this machine begins (RFC 8089)."""


class RemotePath(PosixPath):
    """Where something lies that no disk here holds: a URL, to the letter, as `str` and `os.fspath`.

    pathlib would make one slash of two, and so another place. What is lexical works as with any
    Path; what would ask the system does not.
    """

    _url: str

    def __new__(cls, url: str) -> Self:
        path = super().__new__(cls, url)
        path._url = url
        return path

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (self._url,)

    def __str__(self) -> str:
        return self._url

    def __fspath__(self) -> str:
        return self._url

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and self._url == other._url

    def __hash__(self) -> int:
        return hash(self._url)

    @property
    def scheme(self) -> str:
        return self._url.partition("://")[0]

    @property
    def place(self) -> str:
        """What stands behind the scheme: of an object, its bucket and its key."""
        return self._url.partition("://")[2]

    @property
    def name(self) -> str:
        return self.place.rpartition("/")[2]

    @property
    def parent(self) -> Self:
        """The folder; a bucket or a host is in none but itself."""
        place = self.place.rpartition("/")[0] or self.place
        return type(self)(f"{self.scheme}://{place}")

    def with_name(self, name: str) -> Self:
        return self.parent / name

    def joinpath(self, *segments: str | os.PathLike[str]) -> Self:
        return type(self)("/".join([self._url, *(os.fspath(each) for each in segments)]))

    def __truediv__(self, key: str | os.PathLike[str]) -> Self:
        return self.joinpath(key)

    def is_relative_to(self, *other: Any) -> bool:
        (root,) = other
        return isinstance(root, RemotePath) and f"{self}/".startswith(f"{root}/")

    def absolute(self) -> Self:
        return self

    def resolve(self, strict: bool = False) -> Self:  # noqa: ARG002, FBT001, FBT002 - as Path's
        return self

    def expanduser(self) -> Self:
        return self


def parse_path(text: str) -> Path:
    """Return the path that a text names: a RemotePath for a URL, but a plain one for `file://`.

    Slashes at the end of a URL do not count.
    """
    if text.startswith("/") or not (found := URL_SCHEME.match(text)):
        return Path(text)
    if here := LOCAL_FILE_URL.match(text):
        return Path(os.fsdecode(unquote_to_bytes(text[here.end() :])))
    return RemotePath(f"{found[1].lower()}://{text[found.end() :].rstrip('/')}")


def display_path(path: Path) -> str:
    """Return a path as text that any UTF-8 file can hold, with hex escapes for other bytes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def parse_displayed_path(text: str) -> Path:
    """Return the path that `displayed` shows as this text, if no name has such escapes itself."""
    raw = re.sub(
        rb"\\x(?!00)([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), text.encode()
    )
    return parse_path(os.fsdecode(raw))


def to_one_line(text: str) -> str:
    """Return foreign text as one line that files and terminals show as text and nothing else."""
    try:
        shown = os.fsencode(text).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # JSON can hold half of a surrogate pair, file names cannot
        shown = text
    return " ".join("".join(char if char.isprintable() else " " for char in shown).split())


def write_file_whole(path: Path, content: bytes) -> None:
    """Write a file: a reader finds the old content or the new one, never a part. Raises OSError."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
