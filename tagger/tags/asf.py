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
from tagger.tags.tag import NamedParts, Tag, TagCodec, Values, get_size, hash_range, read_at, splice

ASF_OBJECT_HEAD = struct.Struct("<16sQ")
ASF_HEADER = struct.Struct("<16sQIH")
ASF_SHORT, ASF_LONG = struct.Struct("<H"), struct.Struct("<HHHHI")
EXTENDED_ITEM, LIBRARY_ITEM = b"X", b"L"
SHORT_LIMIT = 1 << 16
ASF_UNICODE, ASF_BOOL = 0, 2
EXTENSION_HEAD = 22
FILE_SIZE_OFFSET = 16
"""Where the file's size stands in its properties."""

HEADER_GUID = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
DESCRIPTION_GUID = bytes.fromhex("3326b2758e66cf11a6d900aa0062ce6c")
PROPERTIES_GUID = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
EXTENSION_GUID = bytes.fromhex("b503bf5f2ea9cf118ee300c00c205365")
EXTENDED_GUID = bytes.fromhex("40a4d0d207e3d21197f000a0c95ea850")
LIBRARY_GUID = bytes.fromhex("941c23449894d149a1411d134e457054")
PADDING_GUID = bytes.fromhex("74d40618dfca0945a4ba9aabcb96aae8")
NEW_EXTENSION = bytes.fromhex("11d2d3abbaa9cf118ee600c00c2053650600") + bytes(4)


@dataclass(frozen=True, slots=True)
class AsfObject:
    """An object: what it is and what it holds."""

    guid: bytes
    content: bytes

    def render(self) -> bytes:
        return (
            ASF_OBJECT_HEAD.pack(self.guid, ASF_OBJECT_HEAD.size + len(self.content)) + self.content
        )


def open_asf(file: BinaryIO) -> Tag:
    parts, size, reserved = _read_asf_header(file)
    inner = _get_inner_objects(parts)
    items = [
        EXTENDED_ITEM + item
        for part in parts
        if part.guid == EXTENDED_GUID
        for item in _split_extended_items(part)
    ]
    items += [
        LIBRARY_ITEM + item
        for part in inner
        if part.guid == LIBRARY_GUID
        for item in _split_library_items(part)
    ]

    def rest(file: BinaryIO) -> NamedParts:
        others = [
            part for part in parts if part.guid not in (EXTENSION_GUID, EXTENDED_GUID, PADDING_GUID)
        ]
        others += [part for part in inner if part.guid != LIBRARY_GUID]
        for number, part in enumerate(others):
            content = _clear_file_size(part, get_size(file))
            yield f"object {number} ({part.guid.hex()})", sha256(content).hexdigest()
        yield "the sound", hash_range(file, size, get_size(file))

    def save(file: BinaryIO, items: Sequence[bytes]) -> None:
        whole = get_size(file)
        head = _build_asf_header(_with_items(parts, items), size, whole - size, reserved)
        new_whole = whole - size + len(head)
        if new_whole != whole:  # no padding changes any more, only a number
            sized = [_set_file_size(part, whole, new_whole) for part in parts]
            head = _build_asf_header(_with_items(sized, items), size, whole - size, reserved)
        splice(file, 0, size, head)

    def description(_: BinaryIO) -> dict[str, str]:
        return {
            ASF_AUTHOR: next(
                (_read_author(part) for part in parts if part.guid == DESCRIPTION_GUID), ""
            )
        }

    return Tag(ASF_CODEC, tuple(items), save, rest, fields_elsewhere=description)


def _read_asf_header(file: BinaryIO) -> tuple[list[AsfObject], int, int]:
    """Return the objects of the file's head, its size, and two bytes that are always the same."""
    start = read_at(file, 0, ASF_HEADER.size)
    if len(start) < ASF_HEADER.size or start[:16] != HEADER_GUID:
        raise TagError("it holds no ASF sound, whatever its name says")
    _, size, _, reserved = ASF_HEADER.unpack(
        start
    )  # FFmpeg miscounts its objects if there are chapters
    if size > get_size(file):
        raise TagError("its head is cut off")
    parts = list(_split_objects(read_at(file, ASF_HEADER.size, size - ASF_HEADER.size)))
    return parts, size, reserved


def _split_objects(data: bytes) -> Iterator[AsfObject]:
    position = 0
    while position < len(data):
        guid, size = ASF_OBJECT_HEAD.unpack_from(data, position)
        if size < ASF_OBJECT_HEAD.size or position + size > len(data):
            raise TagError("its head is broken: an object is larger than the head")
        yield AsfObject(guid, data[position + ASF_OBJECT_HEAD.size : position + size])
        position += size


def _read_author(part: AsfObject) -> str:
    """Return the author, which stands behind the title, and in no attribute."""
    title, author = struct.unpack_from("<HH", part.content)
    start = 5 * ASF_SHORT.size + title
    return part.content[start : start + author].decode("utf-16-le", "replace").rstrip("\0")


def _get_inner_objects(parts: Sequence[AsfObject]) -> list[AsfObject]:
    content = next((part.content for part in parts if part.guid == EXTENSION_GUID), b"")
    return list(_split_objects(content[EXTENSION_HEAD:]))


def _split_extended_items(part: AsfObject) -> Iterator[bytes]:
    position = ASF_SHORT.size
    for _ in range(ASF_SHORT.unpack_from(part.content)[0]):
        start = position
        position += 2 + ASF_SHORT.unpack_from(part.content, position)[0] + 2
        position += 2 + ASF_SHORT.unpack_from(part.content, position)[0]
        yield _cut_item(part.content, start, position)


def _split_library_items(part: AsfObject) -> Iterator[bytes]:
    position = ASF_SHORT.size
    for _ in range(ASF_SHORT.unpack_from(part.content)[0]):
        _, _, name_size, _, size = ASF_LONG.unpack_from(part.content, position)
        start, position = position, position + ASF_LONG.size + name_size + size
        yield _cut_item(part.content, start, position)


def _cut_item(content: bytes, start: int, stop: int) -> bytes:
    if stop > len(content):
        raise TagError("its head is broken: an attribute is larger than its object")
    return content[start:stop]


def _with_items(parts: Sequence[AsfObject], items: Sequence[bytes]) -> list[AsfObject]:
    """Return the objects with these attributes; an object that holds none is left out."""
    short = [item[1:] for item in items if item[:1] == EXTENDED_ITEM]
    long = [item[1:] for item in items if item[:1] == LIBRARY_ITEM]
    inner = _replace_object(
        _get_inner_objects(parts), AsfObject(LIBRARY_GUID, _join_items(long)), keep=bool(long)
    )
    old = next((part.content for part in parts if part.guid == EXTENSION_GUID), NEW_EXTENSION)
    body = b"".join(part.render() for part in inner)
    extension = AsfObject(
        EXTENSION_GUID, old[: EXTENSION_HEAD - 4] + struct.pack("<I", len(body)) + body
    )
    has_extension = any(part.guid == EXTENSION_GUID for part in parts)
    result = _replace_object(parts, AsfObject(EXTENDED_GUID, _join_items(short)), keep=bool(short))
    return _replace_object(result, extension, keep=bool(body) or has_extension)


def _join_items(items: Sequence[bytes]) -> bytes:
    if len(items) >= SHORT_LIMIT:
        raise TagError("its head would hold more attributes than it can")
    return ASF_SHORT.pack(len(items)) + b"".join(items)


def _replace_object(parts: Sequence[AsfObject], new: AsfObject, *, keep: bool) -> list[AsfObject]:
    """Return the objects with the first of this kind replaced, or the new one behind them."""
    at = next((n for n, part in enumerate(parts) if part.guid == new.guid), len(parts))
    others = [part for part in parts if part.guid != new.guid]
    return others[:at] + [new] * keep + others[at:]


def _build_asf_header(
    parts: Sequence[AsfObject], room: int, following: int, reserved: int
) -> bytes:
    kept = [part.render() for part in parts if part.guid != PADDING_GUID]
    needed = ASF_HEADER.size + sum(map(len, kept)) + ASF_OBJECT_HEAD.size
    padding = PaddingInfo(room - needed, following).get_default_padding()
    kept.append(AsfObject(PADDING_GUID, bytes(padding)).render())
    body = b"".join(kept)
    return ASF_HEADER.pack(HEADER_GUID, ASF_HEADER.size + len(body), len(kept), reserved) + body


def _get_file_size(part: AsfObject) -> int:
    return int.from_bytes(part.content[FILE_SIZE_OFFSET : FILE_SIZE_OFFSET + 8], "little")


def _set_file_size(part: AsfObject, old: int, new: int) -> AsfObject:
    """Return the file's properties with its new size, if they knew the old one."""
    if part.guid != PROPERTIES_GUID or _get_file_size(part) != old:
        return part
    size = struct.pack("<Q", new)
    return replace(
        part, content=part.content[:FILE_SIZE_OFFSET] + size + part.content[FILE_SIZE_OFFSET + 8 :]
    )


def _clear_file_size(part: AsfObject, size: int) -> bytes:
    return _set_file_size(part, size, 0).content


def _split_asf_item(item: bytes) -> tuple[str, int, bytes]:
    """Return the name, the type and the value of an attribute."""
    if item[:1] == EXTENDED_ITEM:
        (size,) = ASF_SHORT.unpack_from(item, 1)
        name, value = item[3 : 3 + size], item[3 + size :]
        kind, content = ASF_SHORT.unpack_from(value)[0], value[4:]
    else:
        _, _, size, kind, _ = ASF_LONG.unpack_from(item, 1)
        start = 1 + ASF_LONG.size
        name, content = item[start : start + size], item[start + size :]
    return name.decode("utf-16-le", "replace").rstrip("\0"), kind, content


def _get_asf_name(item: bytes) -> str:
    return _split_asf_item(item)[0]


def _decode_asf_item(item: bytes) -> Values:
    _, kind, content = _split_asf_item(item)
    if kind == ASF_BOOL:
        return (str(int(any(content))),)
    return (content.decode("utf-16-le", "replace").rstrip("\0"),) if kind == ASF_UNICODE else ()


def _make_asf_items(name: str, values: Values) -> list[bytes]:
    return [_make_asf_item(name, value, first=not number) for number, value in enumerate(values)]


def _make_asf_item(name: str, value: str, *, first: bool) -> bytes:
    key, content = f"{name}\0".encode("utf-16-le"), f"{value}\0".encode("utf-16-le")
    if first and len(content) < SHORT_LIMIT:
        head = ASF_SHORT.pack(len(key)) + key
        return EXTENDED_ITEM + head + struct.pack("<HH", ASF_UNICODE, len(content)) + content
    return LIBRARY_ITEM + ASF_LONG.pack(0, 0, len(key), ASF_UNICODE, len(content)) + key + content


ASF_AUTHOR = "Author"
ASF_CODEC = TagCodec(
    "WM/Genre",
    "TAGGER/SCORES",
    "TAGGER/MODEL",
    "TAGGER/GENRE",
    _get_asf_name,
    _decode_asf_item,
    _make_asf_items,
    artists=("WM/AlbumArtist", ASF_AUTHOR),
    album="WM/AlbumTitle",
    compilation="WM/IsCompilation",
)
