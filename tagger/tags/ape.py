"""APEv2 tags: of Monkey's Audio, WavPack and Musepack files, and of MP3s that have one too.

By the "APEv2 specification" of the Hydrogenaudio knowledge base. mutagen finds the tag, which may
stand at either end, broken in several known ways. It is written here, for mutagen cuts off an
ID3v1 tag behind it and forgets which items are read-only.
"""

import errno
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from mutagen.apev2 import APENoHeaderError, _APEv2Data

from tagger.errors import TagError
from tagger.tags.tag import (
    NamedParts,
    Tag,
    TagCodec,
    Values,
    get_size,
    hash_range,
    read_at,
    read_id3v1,
    splice,
)

APE_MAGIC = b"APETAGEX"
APE_FILE_MAGICS = (b"MAC ", b"wvpk", b"MPCK", b"MP+", b"ID3", APE_MAGIC[:4])
APE_HEADER_BYTES = 32
APE_VERSION = 2000
HAS_HEADER, IS_HEADER = 1 << 31, 1 << 29
APE_ITEM_HEAD = struct.Struct("<II")
APE_KIND_MASK, APE_TEXT_KIND = 0b110, 0


@dataclass(frozen=True, slots=True)
class ApeTag:
    """Where an APE tag stands in a file, and its items."""

    start: int
    stop: int
    version: int
    items: tuple[bytes, ...]


def open_ape(file: BinaryIO) -> Tag:
    """Open a file with an APEv2 tag; its sound is none of our business here.

    mutagen's reader of Musepack streams does not come back from some broken ones (1.48).
    """
    if not read_at(file, 0, 4).startswith(APE_FILE_MAGICS):
        raise TagError("it holds no Monkey's Audio, WavPack or Musepack, whatever its name says")
    found = _find_ape_tag(file)
    end = get_size(file)
    new_start = end - len(read_id3v1(file))  # an ID3v1 tag is looked for at the very end
    start, stop = (found.start, found.stop) if found else (new_start, new_start)

    def rest(file: BinaryIO) -> NamedParts:
        yield "the sound", hash_range(file, 0, start)
        yield "what stands behind the APE tag", hash_range(file, stop, end)

    def save(file: BinaryIO, items: Sequence[bytes]) -> None:
        splice(file, start, stop, _build_ape_tag(items) if items else b"")

    old = found is not None and found.version < APE_VERSION
    refusal = "its tag is APEv1, which holds no Unicode; a tag editor can make it APEv2"
    items = found.items if found else ()
    return Tag(APE_CODEC, items, save, rest, refusal=refusal if old else "")


def read_ape_genres(file: BinaryIO) -> Values:
    """Return the genres of the APE tag of a file of another kind."""
    found = _find_ape_tag(file)
    items = found.items if found else ()
    return tuple(
        text
        for item in items
        if _get_ape_name(item) == APE_CODEC.genre
        for text in _decode_ape_item(item)
    )


class _ErrorKeepingFile:
    """A file that remembers a refusal of the system, for mutagen goes on over it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.refusal: OSError | None = None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            try:
                return getattr(self.file, name)(*args)
            except OSError as error:
                if error.errno != errno.EINVAL:  # a place before the start of the file
                    self.refusal = error
                raise

        return call


def _find_ape_tag(file: BinaryIO) -> ApeTag | None:
    file.seek(0)
    remembering: Any = _ErrorKeepingFile(file)
    try:
        data: Any = _APEv2Data(remembering)
    except APENoHeaderError:
        return None
    finally:
        if remembering.refusal:
            raise remembering.refusal
    if data.start is None or data.tag is None:
        return None
    start, stop = min(data.start, data.header), data.end
    head = read_at(file, data.header, len(APE_MAGIC)) if data.header != data.data else APE_MAGIC
    if start < 0 or head != APE_MAGIC:
        raise TagError("its APE tag is broken: it does not begin where its end says")
    version = int.from_bytes(data.version, "little")
    return ApeTag(start, stop, version, tuple(_split_ape_items(data.tag)))


def _split_ape_items(content: bytes) -> list[bytes]:
    items, position = [], 0
    while position + APE_ITEM_HEAD.size < len(content):
        size, _ = APE_ITEM_HEAD.unpack_from(content, position)
        stop = content.index(b"\0", position + APE_ITEM_HEAD.size) + 1 + size
        if stop > len(content):
            raise TagError("its APE tag is broken: an item is longer than the tag")
        items.append(content[position:stop])
        position = stop
    if content[position:].strip(b"\0"):
        raise TagError("its APE tag is broken: there is more in it than items")
    return items


def _build_ape_tag(items: Sequence[bytes]) -> bytes:
    body = b"".join(items)
    head = APE_MAGIC + struct.pack("<III", APE_VERSION, len(body) + APE_HEADER_BYTES, len(items))
    flags = (HAS_HEADER | IS_HEADER, HAS_HEADER)
    first, last = (head + struct.pack("<I8x", each) for each in flags)
    return first + body + last


def _get_ape_name(item: bytes) -> str:
    key = item[APE_ITEM_HEAD.size : item.index(b"\0", APE_ITEM_HEAD.size)].decode("latin-1")
    return APE_FIELD_NAMES.get(key.lower(), key.lower())


def _decode_ape_item(item: bytes) -> Values:
    _, flags = APE_ITEM_HEAD.unpack_from(item)
    content = item[item.index(b"\0", APE_ITEM_HEAD.size) + 1 :]
    text = content.decode("utf-8", "replace") if flags & APE_KIND_MASK == APE_TEXT_KIND else ""
    return tuple(text.split("\0")) if text else ()


def _make_ape_items(name: str, values: Values) -> list[bytes]:
    content = "\0".join(values).encode()
    return (
        [APE_ITEM_HEAD.pack(len(content), APE_TEXT_KIND) + name.encode() + b"\0" + content]
        if values
        else []
    )


APE_CODEC = TagCodec(
    "Genre",
    "TAGGER_SCORES",
    "TAGGER_MODEL",
    "TAGGER_GENRE",
    _get_ape_name,
    _decode_ape_item,
    _make_ape_items,
    artists=("album artist", "albumartist", "artist"),
    album="album",
    compilation="compilation",
)
APE_FIELD_NAMES = {name.lower(): name for name in APE_CODEC.fields}
