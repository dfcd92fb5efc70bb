"""Vorbis comments, whatever stream or block holds them (the "Vorbis comment header" of Xiph)."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from tagger.errors import TagError
from tagger.tags.items import Codec, Values


@dataclass(frozen=True, slots=True)
class Comments:
    """A block of comments: who made the stream, the comments, and what stands behind them."""

    vendor: bytes = b""
    items: tuple[bytes, ...] = ()
    tail: bytes = field(default=b"", repr=False)


def read_comments(data: bytes) -> Comments:
    vendor, position = _sized(data, 0)
    (count,) = struct.unpack_from("<I", data, position)
    position += 4
    items = []
    for _ in range(count):
        item, position = _sized(data, position)
        items.append(item)
    return Comments(vendor, tuple(items), data[position:])


def _sized(data: bytes, position: int) -> tuple[bytes, int]:
    (size,) = struct.unpack_from("<I", data, position)
    stop = position + 4 + size
    if stop > len(data):
        raise TagError("its comments are broken: one is longer than the block they stand in")
    return data[position + 4 : stop], stop


def build_comments(vendor: bytes, items: Sequence[bytes]) -> bytes:
    parts = [vendor, *items]
    sized = [struct.pack("<I", len(part)) + part for part in parts]
    return b"".join([sized[0], struct.pack("<I", len(items)), *sized[1:]])


def _name_of(item: bytes) -> str:
    key = item.partition(b"=")[0].decode("ascii", "backslashreplace")
    return key.upper() if key.upper() in CODEC.fields and b"=" in item else key.lower()


def _texts_of(item: bytes) -> Values:
    return (item.partition(b"=")[2].decode("utf-8", "replace"),)


def _items_for(name: str, values: Values) -> list[bytes]:
    return [f"{name}={value}".encode() for value in values]


CODEC = Codec(
    "GENRE",
    "TAGGER_SCORES",
    "TAGGER_MODEL",
    "TAGGER_GENRE",
    _name_of,
    _texts_of,
    _items_for,
    artists=("albumartist", "album artist", "artist"),
    album="album",
    compilation="compilation",
)
