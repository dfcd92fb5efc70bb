"""ASF files (WMA): the attributes in their head ("Advanced Systems Format Specification" 01.20).

An item is an attribute with a letter before it for the object that holds the attribute. X is the
extended content description, which has each name once. L is the metadata library, for more values
of a name and for values of 64 KiB or more.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import BinaryIO

from mutagen import PaddingInfo

from tagger.errors import FailureKind, TagError
from tagger.records import ExtraField
from tagger.tags.tag import (
    NamedParts,
    Tag,
    TagFormat,
    Values,
    get_size,
    hash_range,
    make_content_error,
    name_extra_fields,
    read_at,
    splice,
)

ASF_OBJECT_HEAD = struct.Struct("<16sQ")
ASF_HEADER = struct.Struct("<16sQIH")
ASF_SHORT, ASF_LONG = struct.Struct("<H"), struct.Struct("<HHHHI")
EXTENDED_ITEM, LIBRARY_ITEM = b"X", b"L"
SHORT_LIMIT = 1 << 16
ASF_UNICODE, ASF_BOOL = 0, 2
EXTENSION_HEAD = 22
FILE_SIZE_OFFSET = 16
"""Where the file properties hold the size of the file."""
ASF_GENRE_NAMES = ("wm/genre", "genre", "wm/genreid")
"""The attributes, in lower case, that FFmpeg, exiftool or mediainfo shows as the genre."""
ASF_AUTHOR = "Author"
"""The artist. It has a place of its own in the content description, so it is no attribute."""

HEADER_GUID = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
DESCRIPTION_GUID = bytes.fromhex("3326b2758e66cf11a6d900aa0062ce6c")
PROPERTIES_GUID = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
EXTENSION_GUID = bytes.fromhex("b503bf5f2ea9cf118ee300c00c205365")
EXTENDED_GUID = bytes.fromhex("40a4d0d207e3d21197f000a0c95ea850")
METADATA_GUID = bytes.fromhex("eacbf8c5af5b77488467aa8c44fa4cca")
LIBRARY_GUID = bytes.fromhex("941c23449894d149a1411d134e457054")
PADDING_GUID = bytes.fromhex("74d40618dfca0945a4ba9aabcb96aae8")
NEW_EXTENSION = bytes.fromhex("11d2d3abbaa9cf118ee600c00c2053650600") + bytes(4)


@dataclass(frozen=True, slots=True)
class AsfObject:
    """An object of the head: its type and its content."""

    guid: bytes
    content: bytes

    def render(self) -> bytes:
        return (
            ASF_OBJECT_HEAD.pack(self.guid, ASF_OBJECT_HEAD.size + len(self.content)) + self.content
        )


def open_asf(file: BinaryIO) -> Tag:
    objects, head_size, reserved = _read_asf_header(file)
    inner = _get_inner_objects(objects)
    items = [
        letter + item
        for letter, guid, container, split_items in (
            (EXTENDED_ITEM, EXTENDED_GUID, objects, _split_extended_items),
            (LIBRARY_ITEM, LIBRARY_GUID, inner, _split_library_items),
        )
        for each in container
        if each.guid == guid
        for item in split_items(each.content)
    ]

    def list_other_parts(file: BinaryIO) -> NamedParts:
        edited = (EXTENSION_GUID, EXTENDED_GUID, PADDING_GUID)
        others = [each for each in objects if each.guid not in edited]
        others += [each for each in inner if each.guid != LIBRARY_GUID]
        for number, each in enumerate(others):
            content = _set_file_size(each, get_size(file), 0).content
            yield f"object {number} ({each.guid.hex()})", sha256(content).hexdigest()
        yield "the sound", hash_range(file, head_size, get_size(file))

    def save_items(file: BinaryIO, items: Sequence[bytes]) -> None:
        old_size = get_size(file)
        sound_size = old_size - head_size
        new = _replace_items(objects, items)
        head = _build_asf_header(new, head_size, sound_size, reserved)
        new_size = sound_size + len(head)
        if new_size != old_size:  # the new size in the properties changes no other size
            new = [_set_file_size(each, old_size, new_size) for each in new]
            head = _build_asf_header(new, head_size, sound_size, reserved)
        splice(file, 0, head_size, head)

    def read_author(_: BinaryIO) -> dict[str, str]:
        description = _find_object(objects, DESCRIPTION_GUID)
        return {ASF_AUTHOR: _decode_author(description) if description else ""}

    def read_other_genres(_: BinaryIO) -> Values:
        others = [
            LIBRARY_ITEM + item
            for each in inner
            if each.guid == METADATA_GUID
            for item in _split_library_items(each.content)
        ]
        return tuple(
            text
            for item in [*items, *others]
            if _get_asf_name(item).casefold() in ASF_GENRE_NAMES
            for text in _decode_asf_item(item)
        )

    return Tag(
        ASF_FORMAT,
        tuple(items),
        save_items,
        list_other_parts,
        read_fallback_genres=read_other_genres,
        read_fallback_fields=read_author,
    )


def _read_asf_header(file: BinaryIO) -> tuple[list[AsfObject], int, int]:
    """Return the objects of the file's head, its size, and its two reserved bytes."""
    start = read_at(file, 0, ASF_HEADER.size)
    if len(start) < ASF_HEADER.size or start[:16] != HEADER_GUID:
        raise make_content_error("ASF sound")
    # The number of objects is ignored: FFmpeg writes a wrong one if there are chapters.
    _, size, _, reserved = ASF_HEADER.unpack(start)
    if size > get_size(file):
        raise TagError("its head is cut off", FailureKind.TRUNCATED)
    objects = list(_split_objects(read_at(file, ASF_HEADER.size, size - ASF_HEADER.size)))
    return objects, size, reserved


def _split_objects(data: bytes) -> Iterator[AsfObject]:
    position = 0
    while position < len(data):
        guid, size = ASF_OBJECT_HEAD.unpack_from(data, position)
        if size < ASF_OBJECT_HEAD.size or position + size > len(data):
            raise TagError(
                "its head is broken: an object is larger than the head", FailureKind.DAMAGED
            )
        yield AsfObject(guid, data[position + ASF_OBJECT_HEAD.size : position + size])
        position += size


def _find_object(objects: Sequence[AsfObject], guid: bytes) -> AsfObject | None:
    return next((each for each in objects if each.guid == guid), None)


def _decode_author(description: AsfObject) -> str:
    """Return the author of a content description, which has five sizes, the title, the author."""
    title, author = struct.unpack_from("<HH", description.content)
    start = 5 * ASF_SHORT.size + title
    text = description.content[start : start + author]
    return text.decode("utf-16-le", "replace").rstrip("\0")


def _get_inner_objects(objects: Sequence[AsfObject]) -> list[AsfObject]:
    """Return the objects in the header extension object."""
    extension = _find_object(objects, EXTENSION_GUID)
    return list(_split_objects(extension.content[EXTENSION_HEAD:])) if extension else []


def _split_extended_items(content: bytes) -> Iterator[bytes]:
    position = ASF_SHORT.size
    for _ in range(ASF_SHORT.unpack_from(content)[0]):
        start = position
        position += 2 + ASF_SHORT.unpack_from(content, position)[0] + 2
        position += 2 + ASF_SHORT.unpack_from(content, position)[0]
        yield _cut_item(content, start, position)


def _split_library_items(content: bytes) -> Iterator[bytes]:
    position = ASF_SHORT.size
    for _ in range(ASF_SHORT.unpack_from(content)[0]):
        _, _, name_size, _, size = ASF_LONG.unpack_from(content, position)
        start, position = position, position + ASF_LONG.size + name_size + size
        yield _cut_item(content, start, position)


def _cut_item(content: bytes, start: int, stop: int) -> bytes:
    if stop > len(content):
        raise TagError(
            "its head is broken: an attribute is larger than its object", FailureKind.DAMAGED
        )
    return content[start:stop]


def _replace_items(objects: Sequence[AsfObject], items: Sequence[bytes]) -> list[AsfObject]:
    """Return the objects with these attributes; an object without attributes is left out."""
    extended = [item[1:] for item in items if item.startswith(EXTENDED_ITEM)]
    library = [item[1:] for item in items if item.startswith(LIBRARY_ITEM)]
    new_library = AsfObject(LIBRARY_GUID, _join_items(library))
    inner = _replace_object(_get_inner_objects(objects), new_library, keep=bool(library))
    old = _find_object(objects, EXTENSION_GUID)
    head = (old.content if old else NEW_EXTENSION)[: EXTENSION_HEAD - 4]
    body = b"".join(each.render() for each in inner)
    new_extension = AsfObject(EXTENSION_GUID, head + struct.pack("<I", len(body)) + body)
    new_extended = AsfObject(EXTENDED_GUID, _join_items(extended))
    result = _replace_object(objects, new_extended, keep=bool(extended))
    return _replace_object(result, new_extension, keep=bool(body or old))


def _join_items(items: Sequence[bytes]) -> bytes:
    if len(items) >= SHORT_LIMIT:
        raise TagError("its head would hold more attributes than it can")
    return ASF_SHORT.pack(len(items)) + b"".join(items)


def _replace_object(objects: Sequence[AsfObject], new: AsfObject, *, keep: bool) -> list[AsfObject]:
    """Return the objects with the new one in place of those of its type, else behind all others.

    keep: whether the new object is put in at all.
    """
    place = next((n for n, each in enumerate(objects) if each.guid == new.guid), len(objects))
    others = [each for each in objects if each.guid != new.guid]
    return others[:place] + [new] * keep + others[place:]


def _build_asf_header(
    objects: Sequence[AsfObject], room: int, following: int, reserved: int
) -> bytes:
    """Return a head with padding. room: the size of the old head; following: of the file behind."""
    rendered = [each.render() for each in objects if each.guid != PADDING_GUID]
    needed = ASF_HEADER.size + sum(map(len, rendered)) + ASF_OBJECT_HEAD.size
    padding = PaddingInfo(room - needed, following).get_default_padding()
    rendered.append(AsfObject(PADDING_GUID, bytes(padding)).render())
    body = b"".join(rendered)
    return ASF_HEADER.pack(HEADER_GUID, ASF_HEADER.size + len(body), len(rendered), reserved) + body


def _set_file_size(properties: AsfObject, old: int, new: int) -> AsfObject:
    """Return the file properties with a new file size, if they had the old one; else the object."""
    content, stop = properties.content, FILE_SIZE_OFFSET + 8
    size = int.from_bytes(content[FILE_SIZE_OFFSET:stop], "little")
    if properties.guid != PROPERTIES_GUID or size != old:
        return properties
    new_content = content[:FILE_SIZE_OFFSET] + struct.pack("<Q", new) + content[stop:]
    return replace(properties, content=new_content)


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


def _encode_asf_field(name: str, values: Values) -> list[bytes]:
    return [_make_asf_item(name, value, first=not number) for number, value in enumerate(values)]


def _make_asf_item(name: str, value: str, *, first: bool) -> bytes:
    key, content = f"{name}\0".encode("utf-16-le"), f"{value}\0".encode("utf-16-le")
    if first and len(content) < SHORT_LIMIT:
        head = ASF_SHORT.pack(len(key)) + key
        return EXTENDED_ITEM + head + struct.pack("<HH", ASF_UNICODE, len(content)) + content
    return LIBRARY_ITEM + ASF_LONG.pack(0, 0, len(key), ASF_UNICODE, len(content)) + key + content


ASF_FORMAT = TagFormat(
    "WM/Genre",
    "TAGGER/SCORES",
    "TAGGER/MODEL",
    "TAGGER/GENRE",
    _get_asf_name,
    _decode_asf_item,
    _encode_asf_field,
    extras=name_extra_fields(
        {
            ExtraField.STYLE: "WM/Style",
            ExtraField.GROUPING: "WM/ContentGroupDescription",
            ExtraField.MOOD: "WM/Mood",
            ExtraField.VOICE: "VOICE",
        },
        "TAGGER/{}",
    ),
    artists=("WM/AlbumArtist", ASF_AUTHOR),
    album="WM/AlbumTitle",
    compilation="WM/IsCompilation",
)
