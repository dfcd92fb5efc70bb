"""APEv2 tags: of Monkey's Audio, WavPack and Musepack files, and of MP3s that have one too.

By the "APEv2 specification" of the Hydrogenaudio knowledge base. The bytes are read and written
here, because mutagen removes an ID3v1 tag behind the APE tag, and forgets which items are
read-only.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from tagger.errors import FailureKind, TagError
from tagger.paths import decode_foreign_bytes
from tagger.records import MOOD_NUMBERS, ExtraField
from tagger.tags.id3 import decode_id3v1_genre, find_hiding_refusal, skip_id3_tags
from tagger.tags.tag import (
    ID3V1_BYTES,
    NamedParts,
    Tag,
    TagFormat,
    Values,
    get_size,
    hash_range,
    make_content_error,
    name_extra_fields,
    parse_id3v1,
    read_at,
    read_id3v1,
    remove_copied_items,
    splice,
)

APE_MAGIC = b"APETAGEX"
APE_FILE_MAGICS = (b"MAC ", b"wvpk", b"MPCK", b"MP+", APE_MAGIC[:4])
APE_HEADER_BYTES = 32
"""The size of the header of a tag, and of its footer."""
APE_STRAY_HEADER_BYTES = 24
"""What old PyMusepack left of the header before a tag each time it replaced the tag."""
APE_VERSION = 2000
APE_V1_REFUSAL = "its tag is APEv1, which holds no Unicode; a tag editor can make it APEv2"
HAS_HEADER, IS_HEADER = 1 << 31, 1 << 29
APE_ITEM_HEAD = struct.Struct("<II")
APE_KIND_MASK, APE_TEXT_KIND = 0b110, 0

LYRICS_END = b"LYRICS200"
LYRICS_SIZE_DIGITS = 6
"""How a Lyrics3v2 tag ends: its size in digits, then this mark (id3.org/Lyrics3v2)."""


@dataclass(frozen=True, slots=True)
class ApeTag:
    """An APE tag: where it starts and stops in the file, and its items."""

    start: int
    stop: int
    version: int
    items: tuple[bytes, ...]


def open_ape(file: BinaryIO) -> Tag:
    """Open a file with an APEv2 tag. The sound itself is not checked.

    mutagen's reader of Musepack streams never returns from some broken ones (1.48).
    """
    if not read_at(file, skip_id3_tags(file), 4).startswith(APE_FILE_MAGICS):
        raise make_content_error("Monkey's Audio, WavPack or Musepack")
    old = find_ape_tag(file)
    end = get_size(file)
    new_start = end - len(read_id3v1(file))  # players look for an ID3v1 tag at the very end
    start, stop = (old.start, old.stop) if old else (new_start, new_start)

    def list_other_parts(file: BinaryIO) -> NamedParts:
        yield "the sound", hash_range(file, 0, start)
        yield "the bytes behind the APE tag", hash_range(file, stop, end)

    def save_items(file: BinaryIO, items: Sequence[bytes]) -> None:
        needed = remove_copied_items(items, copied, _is_shown_item)
        splice(file, start, stop, _build_ape_tag(needed) if needed else b"")

    old_items = old.items if old else ()
    copied = _make_items_from_id3v1(read_id3v1(file))
    has_texts = any(map(_is_shown_item, old_items))

    is_ape_v1 = old is not None and old.version < APE_VERSION
    refusal = None if has_texts else find_hiding_refusal(file)
    if is_ape_v1:
        refusal = TagError(APE_V1_REFUSAL)
    return Tag(
        APE_FORMAT,
        old_items if has_texts else (*old_items, *copied),
        save_items,
        list_other_parts,
        refusal=refusal,
    )


def _make_items_from_id3v1(trailer: bytes) -> list[bytes]:
    """Return the fields of an ID3v1 tag: players ignore it if an APE tag has any text."""
    if not trailer:
        return []
    id3v1 = parse_id3v1(trailer)
    fields = {
        "Title": decode_foreign_bytes(id3v1.title),
        "Artist": decode_foreign_bytes(id3v1.artist),
        "Album": decode_foreign_bytes(id3v1.album),
        "Year": decode_foreign_bytes(id3v1.year),
        "Comment": decode_foreign_bytes(id3v1.comment),
        "Track": str(id3v1.track or ""),
        "Genre": "".join(decode_id3v1_genre(id3v1)),
    }
    return [
        item for name, text in fields.items() if text for item in _encode_ape_field(name, (text,))
    ]


def _is_shown_item(item: bytes) -> bool:
    """Tell whether players show an item as text. If there is none, they show the ID3v1 tag."""
    return bool(_decode_ape_item(item))


def read_ape_genres(file: BinaryIO) -> Values:
    """Return the genres of the APE tag in a file of another kind, such as an MP3."""
    tag = find_ape_tag(file)
    items = tag.items if tag else ()
    return tuple(
        text
        for item in items
        if _get_ape_name(item) == APE_FORMAT.genre
        for text in _decode_ape_item(item)
    )


def find_ape_tag(file: BinaryIO) -> ApeTag | None:
    """Return the APE tag at the end or the start of a file. Raises TagError for a broken one."""
    end = get_size(file)
    footer = _find_ape_footer(file, end)
    if footer is None and read_at(file, 0, len(APE_MAGIC)) != APE_MAGIC:
        return None
    described_by = read_at(file, footer or 0, APE_HEADER_BYTES)
    if len(described_by) < APE_HEADER_BYTES:
        raise TagError("its APE tag is cut off", FailureKind.TRUNCATED)
    version, size, _, flags = struct.unpack_from("<IIII", described_by, len(APE_MAGIC))
    if footer is None:  # the tag is in front of the sound, and its header describes it
        start, content_start = 0, APE_HEADER_BYTES
        stop = content_start + size
        has_footer = read_at(file, stop - APE_HEADER_BYTES, len(APE_MAGIC)) == APE_MAGIC
    else:
        stop, has_footer = footer + APE_HEADER_BYTES, True
        content_start = stop - size
        start = content_start - (APE_HEADER_BYTES if flags & HAS_HEADER else 0)
    content_stop = stop - (APE_HEADER_BYTES if has_footer else 0)
    if (
        start < 0
        or content_stop < content_start
        or stop > end
        or (start < content_start and read_at(file, start, len(APE_MAGIC)) != APE_MAGIC)
    ):
        raise TagError(
            "its APE tag is broken: it does not begin where its end says", FailureKind.DAMAGED
        )
    content = read_at(file, content_start, content_stop - content_start)
    while start >= APE_STRAY_HEADER_BYTES and (
        read_at(file, start - APE_STRAY_HEADER_BYTES, len(APE_MAGIC)) == APE_MAGIC
    ):
        start -= APE_STRAY_HEADER_BYTES
    return ApeTag(start, stop, version, tuple(_split_ape_items(content)))


def _find_ape_footer(file: BinaryIO, end: int) -> int | None:
    """Return where the footer of a tag at the end of the file starts.

    An ID3v1 tag may stand behind the footer, and a Lyrics3v2 tag between the two.
    """
    stops = [end]
    if read_id3v1(file):
        id3v1 = end - ID3V1_BYTES
        stops.append(id3v1)
        digits_start = id3v1 - len(LYRICS_END) - LYRICS_SIZE_DIGITS
        lyrics_end = read_at(file, max(digits_start, 0), id3v1 - max(digits_start, 0))
        digits = lyrics_end[:LYRICS_SIZE_DIGITS]
        if lyrics_end.endswith(LYRICS_END) and digits.isdigit():
            stops.append(digits_start - int(digits))
    for footer in (stop - APE_HEADER_BYTES for stop in stops):
        if footer >= 0 and read_at(file, footer, len(APE_MAGIC)) == APE_MAGIC:
            return footer
    return None


def _split_ape_items(content: bytes) -> list[bytes]:
    items, position = [], 0
    while position + APE_ITEM_HEAD.size < len(content):
        size, _ = APE_ITEM_HEAD.unpack_from(content, position)
        stop = content.index(b"\0", position + APE_ITEM_HEAD.size) + 1 + size
        if stop > len(content):
            raise TagError(
                "its APE tag is broken: an item is longer than the tag", FailureKind.DAMAGED
            )
        items.append(content[position:stop])
        position = stop
    if content[position:].strip(b"\0"):
        raise TagError("its APE tag is broken: it holds more than items", FailureKind.DAMAGED)
    return items


def _build_ape_tag(items: Sequence[bytes]) -> bytes:
    body = b"".join(items)
    head = APE_MAGIC + struct.pack("<III", APE_VERSION, len(body) + APE_HEADER_BYTES, len(items))
    header = head + struct.pack("<I8x", HAS_HEADER | IS_HEADER)
    return header + body + head + struct.pack("<I8x", HAS_HEADER)


def _get_ape_name(item: bytes) -> str:
    key = item[APE_ITEM_HEAD.size : item.index(b"\0", APE_ITEM_HEAD.size)].decode("latin-1")
    return APE_FIELD_NAMES.get(key.lower(), key.lower())


def _decode_ape_item(item: bytes) -> Values:
    _, flags = APE_ITEM_HEAD.unpack_from(item)
    content = item[item.index(b"\0", APE_ITEM_HEAD.size) + 1 :]
    text = content.decode("utf-8", "replace") if flags & APE_KIND_MASK == APE_TEXT_KIND else ""
    return tuple(text.split("\0")) if text else ()


def _encode_ape_field(name: str, values: Values) -> list[bytes]:
    if not values:
        return []
    content = "\0".join(values).encode()
    return [APE_ITEM_HEAD.pack(len(content), APE_TEXT_KIND) + name.encode() + b"\0" + content]


APE_FORMAT = TagFormat(
    "Genre",
    "TAGGER_SCORES",
    "TAGGER_MODEL",
    "TAGGER_GENRE",
    _get_ape_name,
    _decode_ape_item,
    _encode_ape_field,
    extras=name_extra_fields(
        {each: each.name.capitalize() for each in ExtraField if each not in MOOD_NUMBERS.values()},
        "TAGGER_{}",
    ),
    artists=("album artist", "albumartist", "artist"),
    album="album",
    compilation="compilation",
)
APE_FIELD_NAMES = {name.lower(): name for name in APE_FORMAT.list_fields(ExtraField)}
