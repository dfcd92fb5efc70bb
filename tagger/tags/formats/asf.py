"""ASF files (WMA): the attributes in their head ("Advanced Systems Format Specification" 01.20).

An item is an attribute behind the letter of the object that holds it: X, the extended content
description, has names once each; what does not fit there stands in L, the metadata library.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import BinaryIO

from mutagen import PaddingInfo

from tagger.errors import TagError
from tagger.tags.items import Codec, Rest, Tag, Values
from tagger.tags.regions import digest, read_at, size_of, splice

OBJECT = struct.Struct("<16sQ")
HEAD = struct.Struct("<16sQIH")
SHORT, LONG = struct.Struct("<H"), struct.Struct("<HHHHI")
X, L = b"X", b"L"
SHORT_LIMIT = 1 << 16
UNICODE, BOOL = 0, 2
EXTENSION_HEAD = 22
SIZE_AT = 16
"""Where the file's size stands in its properties."""

HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
DESCRIPTION = bytes.fromhex("3326b2758e66cf11a6d900aa0062ce6c")
PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
EXTENSION = bytes.fromhex("b503bf5f2ea9cf118ee300c00c205365")
EXTENDED = bytes.fromhex("40a4d0d207e3d21197f000a0c95ea850")
LIBRARY = bytes.fromhex("941c23449894d149a1411d134e457054")
PADDING = bytes.fromhex("74d40618dfca0945a4ba9aabcb96aae8")
NEW_EXTENSION = bytes.fromhex("11d2d3abbaa9cf118ee600c00c2053650600") + bytes(4)


@dataclass(frozen=True, slots=True)
class Part:
    """An object: what it is and what it holds."""

    guid: bytes
    content: bytes

    def render(self) -> bytes:
        return OBJECT.pack(self.guid, OBJECT.size + len(self.content)) + self.content


def open_asf(file: BinaryIO) -> Tag:
    parts, size, reserved = _read_head(file)
    inner = _inner(parts)
    items = [X + item for part in parts if part.guid == EXTENDED for item in _short_items(part)]
    items += [L + item for part in inner if part.guid == LIBRARY for item in _long_items(part)]

    def rest(file: BinaryIO) -> Rest:
        others = [part for part in parts if part.guid not in (EXTENSION, EXTENDED, PADDING)]
        others += [part for part in inner if part.guid != LIBRARY]
        for number, part in enumerate(others):
            content = _without_size(part, size_of(file))
            yield f"object {number} ({part.guid.hex()})", sha256(content).hexdigest()
        yield "the sound", digest(file, size, size_of(file))

    def save(file: BinaryIO, items: Sequence[bytes]) -> None:
        whole = size_of(file)
        head = _build(_with_items(parts, items), size, whole - size, reserved)
        new_whole = whole - size + len(head)
        if new_whole != whole:  # no padding changes any more, only a number
            sized = [_with_size(part, whole, new_whole) for part in parts]
            head = _build(_with_items(sized, items), size, whole - size, reserved)
        splice(file, 0, size, head)

    def description(_: BinaryIO) -> dict[str, str]:
        return {AUTHOR: next((_author(part) for part in parts if part.guid == DESCRIPTION), "")}

    return Tag(CODEC, tuple(items), save, rest, fields_elsewhere=description)


def _read_head(file: BinaryIO) -> tuple[list[Part], int, int]:
    """Return the objects of the file's head, its size, and two bytes that are always the same."""
    start = read_at(file, 0, HEAD.size)
    if len(start) < HEAD.size or start[:16] != HEADER:
        raise TagError("it holds no ASF sound, whatever its name says")
    _, size, _, reserved = HEAD.unpack(start)  # FFmpeg miscounts its objects if there are chapters
    if size > size_of(file):
        raise TagError("its head is cut off")
    parts = list(_parts(read_at(file, HEAD.size, size - HEAD.size)))
    return parts, size, reserved


def _parts(data: bytes) -> Iterator[Part]:
    position = 0
    while position < len(data):
        guid, size = OBJECT.unpack_from(data, position)
        if size < OBJECT.size or position + size > len(data):
            raise TagError("its head is broken: an object is larger than the head")
        yield Part(guid, data[position + OBJECT.size : position + size])
        position += size


def _author(part: Part) -> str:
    """Return the author, which stands behind the title, and in no attribute."""
    title, author = struct.unpack_from("<HH", part.content)
    start = 5 * SHORT.size + title
    return part.content[start : start + author].decode("utf-16-le", "replace").rstrip("\0")


def _inner(parts: Sequence[Part]) -> list[Part]:
    content = next((part.content for part in parts if part.guid == EXTENSION), b"")
    return list(_parts(content[EXTENSION_HEAD:]))


def _short_items(part: Part) -> Iterator[bytes]:
    position = SHORT.size
    for _ in range(SHORT.unpack_from(part.content)[0]):
        start = position
        position += 2 + SHORT.unpack_from(part.content, position)[0] + 2
        position += 2 + SHORT.unpack_from(part.content, position)[0]
        yield _cut(part.content, start, position)


def _long_items(part: Part) -> Iterator[bytes]:
    position = SHORT.size
    for _ in range(SHORT.unpack_from(part.content)[0]):
        _, _, name_size, _, size = LONG.unpack_from(part.content, position)
        start, position = position, position + LONG.size + name_size + size
        yield _cut(part.content, start, position)


def _cut(content: bytes, start: int, stop: int) -> bytes:
    if stop > len(content):
        raise TagError("its head is broken: an attribute is larger than its object")
    return content[start:stop]


def _with_items(parts: Sequence[Part], items: Sequence[bytes]) -> list[Part]:
    """Return the objects with these attributes; an object that holds none is left out."""
    short = [item[1:] for item in items if item[:1] == X]
    long = [item[1:] for item in items if item[:1] == L]
    inner = _replaced(_inner(parts), Part(LIBRARY, _listed(long)), keep=bool(long))
    old = next((part.content for part in parts if part.guid == EXTENSION), NEW_EXTENSION)
    body = b"".join(part.render() for part in inner)
    extension = Part(EXTENSION, old[: EXTENSION_HEAD - 4] + struct.pack("<I", len(body)) + body)
    has_extension = any(part.guid == EXTENSION for part in parts)
    result = _replaced(parts, Part(EXTENDED, _listed(short)), keep=bool(short))
    return _replaced(result, extension, keep=bool(body) or has_extension)


def _listed(items: Sequence[bytes]) -> bytes:
    if len(items) >= SHORT_LIMIT:
        raise TagError("its head would hold more attributes than it can")
    return SHORT.pack(len(items)) + b"".join(items)


def _replaced(parts: Sequence[Part], new: Part, *, keep: bool) -> list[Part]:
    """Return the objects with the first of this kind replaced, or the new one behind them."""
    at = next((n for n, part in enumerate(parts) if part.guid == new.guid), len(parts))
    others = [part for part in parts if part.guid != new.guid]
    return others[:at] + [new] * keep + others[at:]


def _build(parts: Sequence[Part], room: int, following: int, reserved: int) -> bytes:
    kept = [part.render() for part in parts if part.guid != PADDING]
    needed = HEAD.size + sum(map(len, kept)) + OBJECT.size
    padding = PaddingInfo(room - needed, following).get_default_padding()
    kept.append(Part(PADDING, bytes(padding)).render())
    body = b"".join(kept)
    return HEAD.pack(HEADER, HEAD.size + len(body), len(kept), reserved) + body


def _size_in(part: Part) -> int:
    return int.from_bytes(part.content[SIZE_AT : SIZE_AT + 8], "little")


def _with_size(part: Part, old: int, new: int) -> Part:
    """Return the file's properties with its new size, if they knew the old one."""
    if part.guid != PROPERTIES or _size_in(part) != old:
        return part
    size = struct.pack("<Q", new)
    return replace(part, content=part.content[:SIZE_AT] + size + part.content[SIZE_AT + 8 :])


def _without_size(part: Part, size: int) -> bytes:
    return _with_size(part, size, 0).content


def _split(item: bytes) -> tuple[str, int, bytes]:
    """Return the name, the type and the value of an attribute."""
    if item[:1] == X:
        (size,) = SHORT.unpack_from(item, 1)
        name, value = item[3 : 3 + size], item[3 + size :]
        kind, content = SHORT.unpack_from(value)[0], value[4:]
    else:
        _, _, size, kind, _ = LONG.unpack_from(item, 1)
        start = 1 + LONG.size
        name, content = item[start : start + size], item[start + size :]
    return name.decode("utf-16-le", "replace").rstrip("\0"), kind, content


def _name_of(item: bytes) -> str:
    return _split(item)[0]


def _texts_of(item: bytes) -> Values:
    _, kind, content = _split(item)
    if kind == BOOL:
        return (str(int(any(content))),)
    return (content.decode("utf-16-le", "replace").rstrip("\0"),) if kind == UNICODE else ()


def _items_for(name: str, values: Values) -> list[bytes]:
    return [_item(name, value, first=not number) for number, value in enumerate(values)]


def _item(name: str, value: str, *, first: bool) -> bytes:
    key, content = f"{name}\0".encode("utf-16-le"), f"{value}\0".encode("utf-16-le")
    if first and len(content) < SHORT_LIMIT:
        head = SHORT.pack(len(key)) + key
        return X + head + struct.pack("<HH", UNICODE, len(content)) + content
    return L + LONG.pack(0, 0, len(key), UNICODE, len(content)) + key + content


AUTHOR = "Author"
CODEC = Codec(
    "WM/Genre",
    "TAGGER/SCORES",
    "TAGGER/MODEL",
    "TAGGER/GENRE",
    _name_of,
    _texts_of,
    _items_for,
    artists=("WM/AlbumArtist", AUTHOR),
    album="WM/AlbumTitle",
    compilation="WM/IsCompilation",
)
