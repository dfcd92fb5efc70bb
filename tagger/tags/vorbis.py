"""Vorbis comments (Xiph, "Vorbis comment header"), and FLAC files (RFC 9639).

A FLAC file keeps the comments in a metadata block; the first such block counts. Ogg files have the
same comments in a packet, see ogg.py.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from mutagen import PaddingInfo

from tagger.errors import FailureKind, TagError
from tagger.records import MOOD_NUMBERS, ExtraField
from tagger.tags.id3 import find_hiding_refusal, skip_id3_tags
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

FLAC_MAGIC = b"fLaC"
BLOCK_HEADER_BYTES = 4
PADDING_BLOCK, COMMENT_BLOCK = 1, 4
LAST_BLOCK_FLAG = 0x80
FLAC_BLOCK_LIMIT = 1 << 24
"""A block is smaller than this many bytes."""
FRAME_SYNC = 0x3FFE
"""The first 14 bits of each frame of sound."""
BLOCK_NAMES = {0: "stream info", 2: "application", 3: "seek table", 5: "cue sheet", 6: "picture"}


@dataclass(frozen=True, slots=True)
class VorbisComments:
    """A block of comments. vendor: the encoder. tail: the bytes behind the comments."""

    vendor: bytes = b""
    items: tuple[bytes, ...] = ()
    tail: bytes = field(default=b"", repr=False)


def read_comments(data: bytes) -> VorbisComments:
    vendor, position = _read_sized(data, 0)
    (count,) = struct.unpack_from("<I", data, position)
    position += 4
    items = []
    for _ in range(count):
        item, position = _read_sized(data, position)
        items.append(item)
    return VorbisComments(vendor, tuple(items), data[position:])


def _read_sized(data: bytes, position: int) -> tuple[bytes, int]:
    (size,) = struct.unpack_from("<I", data, position)
    stop = position + 4 + size
    if stop > len(data):
        raise TagError(
            "its comments are broken: one is longer than the block that holds them",
            FailureKind.DAMAGED,
        )
    return data[position + 4 : stop], stop


def decode_genres(comments: VorbisComments) -> Values:
    return tuple(
        text
        for item in comments.items
        if _get_comment_name(item) == VORBIS_FORMAT.genre
        for text in _decode_comment(item)
    )


def build_comments(vendor: bytes, items: Sequence[bytes]) -> bytes:
    parts = [vendor, *items]
    sized = [struct.pack("<I", len(part)) + part for part in parts]
    return b"".join([sized[0], struct.pack("<I", len(items)), *sized[1:]])


def _get_comment_name(item: bytes) -> str:
    key = item.partition(b"=")[0].decode("ascii", "backslashreplace")
    return key.upper() if key.upper() in VORBIS_FIELD_NAMES and b"=" in item else key.lower()


def _decode_comment(item: bytes) -> Values:
    return (item.partition(b"=")[2].decode("utf-8", "replace"),)


def _encode_comments(name: str, values: Values) -> list[bytes]:
    return [f"{name}={value}".encode() for value in values]


VORBIS_FORMAT = TagFormat(
    "GENRE",
    "TAGGER_SCORES",
    "TAGGER_MODEL",
    "TAGGER_GENRE",
    _get_comment_name,
    _decode_comment,
    _encode_comments,
    extras=name_extra_fields(
        {each: each.name for each in ExtraField if each not in MOOD_NUMBERS.values()}, "TAGGER_{}"
    ),
    artists=("albumartist", "album artist", "artist"),
    album="album",
    compilation="compilation",
)
VORBIS_FIELD_NAMES = frozenset(VORBIS_FORMAT.list_fields(ExtraField))


@dataclass(frozen=True, slots=True)
class MetadataBlock:
    """A metadata block: its kind, where its content starts and how many bytes that is."""

    kind: int
    start: int
    size: int


def open_flac(file: BinaryIO) -> Tag:
    stream_start = skip_id3_tags(file)  # some programs put them before the stream
    if read_at(file, stream_start, len(FLAC_MAGIC)) != FLAC_MAGIC:
        raise make_content_error("FLAC stream")
    blocks = _read_blocks(file, stream_start)
    sound_start = blocks[-1].start + blocks[-1].size
    comment_block = next((block for block in blocks if block.kind == COMMENT_BLOCK), None)
    comments = VorbisComments()
    if comment_block:
        comments = read_comments(read_at(file, comment_block.start, comment_block.size))
    if comments.tail.strip(b"\0"):
        raise TagError(
            "its block of comments is broken: it holds more than comments", FailureKind.DAMAGED
        )
    others = [block for block in blocks if block.kind != PADDING_BLOCK and block != comment_block]

    def list_other_parts(file: BinaryIO) -> NamedParts:
        yield "the bytes before the FLAC stream", hash_range(file, 0, stream_start)
        yield "vendor", repr(comments.vendor)
        for number, block in enumerate(others):
            content = hash_range(file, block.start, block.start + block.size)
            yield f"block {number} ({BLOCK_NAMES.get(block.kind, block.kind)})", content
        yield "the sound", hash_range(file, sound_start, get_size(file))

    def save_items(file: BinaryIO, items: Sequence[bytes]) -> None:
        contents = [(block.kind, read_at(file, block.start, block.size)) for block in others]
        if items or comments.vendor:  # only tagger adds a block without a vendor
            place = blocks.index(comment_block) if comment_block else len(blocks)
            place = sum(block.kind != PADDING_BLOCK for block in blocks[:place])
            contents.insert(place, (COMMENT_BLOCK, build_comments(comments.vendor, items)))
        blocks_start = stream_start + len(FLAC_MAGIC)
        new = _build_blocks(contents, sound_start - blocks_start, get_size(file) - sound_start)
        splice(file, blocks_start, sound_start, new)

    def read_genres_of_all_blocks(file: BinaryIO) -> Values:
        return tuple(
            genre
            for block in blocks
            if block.kind == COMMENT_BLOCK
            for genre in decode_genres(read_comments(read_at(file, block.start, block.size)))
        )

    return Tag(
        VORBIS_FORMAT,
        comments.items,
        save_items,
        list_other_parts,
        read_fallback_genres=read_genres_of_all_blocks,
        refusal=None if comments.items else find_hiding_refusal(file),
    )


def _read_blocks(file: BinaryIO, stream_start: int) -> list[MetadataBlock]:
    """Return the metadata blocks. Raises TagError if no sound follows them."""
    blocks, position, is_last = [], stream_start + len(FLAC_MAGIC), False
    while not is_last:
        head = read_at(file, position, BLOCK_HEADER_BYTES)
        if len(head) < BLOCK_HEADER_BYTES:
            raise TagError("its metadata blocks are cut off", FailureKind.TRUNCATED)
        block = MetadataBlock(
            head[0] & ~LAST_BLOCK_FLAG,
            position + BLOCK_HEADER_BYTES,
            int.from_bytes(head[1:], "big"),
        )
        blocks.append(block)
        position, is_last = block.start + block.size, bool(head[0] & LAST_BLOCK_FLAG)
    if position >= get_size(file):
        raise TagError("it is cut off before its sound begins", FailureKind.TRUNCATED)
    sync = int.from_bytes(read_at(file, position, 2), "big")
    if sync >> 2 != FRAME_SYNC:
        raise TagError(
            "the size of a metadata block is wrong (a picture of more than 16 MB?)",
            FailureKind.DAMAGED,
        )
    return blocks


def _build_blocks(contents: Sequence[tuple[int, bytes]], room: int, following: int) -> bytes:
    """Return metadata blocks of these kinds and contents, and one of padding behind them.

    room: the size in bytes of the old blocks; following: the size of the file behind them. mutagen
    computes the padding from both.
    """
    parts = [build_flac_block(kind, content) for kind, content in contents]
    rest = room - sum(map(len, parts)) - BLOCK_HEADER_BYTES
    padding = min(PaddingInfo(rest, following).get_default_padding(), FLAC_BLOCK_LIMIT - 1)
    return b"".join([*parts, build_flac_block(PADDING_BLOCK | LAST_BLOCK_FLAG, bytes(padding))])


def build_flac_block(kind: int, content: bytes) -> bytes:
    """Return a metadata block of FLAC. Raises TagError if it would be too large."""
    if len(content) >= FLAC_BLOCK_LIMIT:
        raise TagError("its comments would be larger than the 16 MB that a FLAC block can be")
    return bytes([kind]) + len(content).to_bytes(3, "big") + content
