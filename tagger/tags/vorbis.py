"""Vorbis comments, and FLAC files, which keep them in a metadata block."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from mutagen import PaddingInfo
from mutagen.id3 import BitPaddedInt

from tagger.errors import TagError
from tagger.tags.tag import NamedParts, Tag, TagCodec, Values, get_size, hash_range, read_at, splice


@dataclass(frozen=True, slots=True)
class VorbisComments:
    """A block of comments: who made the stream, the comments, and what stands behind them."""

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
        raise TagError("its comments are broken: one is longer than the block they stand in")
    return data[position + 4 : stop], stop


def build_comments(vendor: bytes, items: Sequence[bytes]) -> bytes:
    parts = [vendor, *items]
    sized = [struct.pack("<I", len(part)) + part for part in parts]
    return b"".join([sized[0], struct.pack("<I", len(items)), *sized[1:]])


def _get_comment_name(item: bytes) -> str:
    key = item.partition(b"=")[0].decode("ascii", "backslashreplace")
    return key.upper() if key.upper() in VORBIS_CODEC.fields and b"=" in item else key.lower()


def _decode_comment(item: bytes) -> Values:
    return (item.partition(b"=")[2].decode("utf-8", "replace"),)


def _make_comments(name: str, values: Values) -> list[bytes]:
    return [f"{name}={value}".encode() for value in values]


VORBIS_CODEC = TagCodec(
    "GENRE",
    "TAGGER_SCORES",
    "TAGGER_MODEL",
    "TAGGER_GENRE",
    _get_comment_name,
    _decode_comment,
    _make_comments,
    artists=("albumartist", "album artist", "artist"),
    album="album",
    compilation="compilation",
)


FLAC_MAGIC = b"fLaC"
BLOCK_HEADER_BYTES = 4
PADDING_BLOCK, COMMENT_BLOCK = 1, 4
LAST_BLOCK_FLAG = 0x80
MAX_BLOCK_SIZE = 1 << 24
ID3_HEADER_BYTES = 10
BLOCK_NAMES = {0: "stream info", 2: "application", 3: "seek table", 5: "cue sheet", 6: "picture"}


@dataclass(frozen=True, slots=True)
class MetadataBlock:
    """A metadata block: its kind, where its content starts and how many bytes that is."""

    kind: int
    start: int
    size: int


def open_flac(file: BinaryIO) -> Tag:
    first = _find_stream_start(file)
    blocks = _read_blocks(file, first)
    sound = blocks[-1].start + blocks[-1].size
    ours = next((block for block in blocks if block.kind == COMMENT_BLOCK), None)
    comments = read_comments(read_at(file, ours.start, ours.size)) if ours else VorbisComments()
    if comments.tail.strip(b"\0"):
        raise TagError("its block of comments is broken: there is more in it than comments")

    def rest(file: BinaryIO) -> NamedParts:
        yield "what stands before the FLAC stream", hash_range(file, 0, first)
        yield "vendor", repr(comments.vendor)
        others = [block for block in blocks if block.kind != PADDING_BLOCK and block != ours]
        for number, block in enumerate(others):
            content = hash_range(file, block.start, block.start + block.size)
            yield f"block {number} ({BLOCK_NAMES.get(block.kind, block.kind)})", content
        yield "the sound", hash_range(file, sound, get_size(file))

    def save(file: BinaryIO, items: Sequence[bytes]) -> None:
        held = bool(items or comments.vendor)  # else it is a block that only we could have added
        new = build_comments(comments.vendor, items) if held else None
        contents = [
            (block.kind, new if block == ours else read_at(file, block.start, block.size))
            for block in (blocks if ours else [*blocks, MetadataBlock(COMMENT_BLOCK, 0, 0)])
            if block.kind != PADDING_BLOCK
        ]
        if not ours:
            contents[-1] = (COMMENT_BLOCK, new)
        following = get_size(file) - sound
        splice(
            file,
            first + len(FLAC_MAGIC),
            sound,
            _build_blocks(contents, sound - first - 4, following),
        )

    return Tag(VORBIS_CODEC, comments.items, save, rest)


def _find_stream_start(file: BinaryIO) -> int:
    """Return where the stream begins: behind an ID3 tag, which has no place in FLAC but is met."""
    head = read_at(file, 0, ID3_HEADER_BYTES)
    start = ID3_HEADER_BYTES + BitPaddedInt(head[6:]) if head.startswith(b"ID3") else 0
    if read_at(file, start, len(FLAC_MAGIC)) != FLAC_MAGIC:
        raise TagError("it holds no FLAC stream, whatever its name says")
    return start


def _read_blocks(file: BinaryIO, first: int) -> list[MetadataBlock]:
    """Return the metadata blocks. Raises TagError where they do not lead to sound."""
    blocks, position, last = [], first + len(FLAC_MAGIC), False
    while not last:
        head = read_at(file, position, BLOCK_HEADER_BYTES)
        if len(head) < BLOCK_HEADER_BYTES:
            raise TagError("its metadata blocks are cut off")
        block = MetadataBlock(
            head[0] & ~LAST_BLOCK_FLAG,
            position + BLOCK_HEADER_BYTES,
            int.from_bytes(head[1:], "big"),
        )
        blocks.append(block)
        position, last = block.start + block.size, bool(head[0] & LAST_BLOCK_FLAG)
    sync = int.from_bytes(read_at(file, position, 2), "big")
    if sync >> 2 != 0x3FFE:  # noqa: PLR2004 - how each frame of sound begins
        raise TagError("the size of a metadata block is wrong (a picture of more than 16 MB?)")
    return blocks


def _build_blocks(contents: list[tuple[int, bytes | None]], room: int, following: int) -> bytes:
    """Return metadata blocks with one of padding at the end, as large as mutagen reckons."""
    parts = []
    for kind, content in contents:
        if content is None:
            continue
        if len(content) >= MAX_BLOCK_SIZE:
            raise TagError("its comments would be larger than the 16 MB that a FLAC block can be")
        parts.append(bytes([kind]) + len(content).to_bytes(3, "big") + content)
    left = room - sum(map(len, parts)) - BLOCK_HEADER_BYTES
    padding = min(PaddingInfo(left, following).get_default_padding(), MAX_BLOCK_SIZE - 1)
    parts.append(
        bytes([PADDING_BLOCK | LAST_BLOCK_FLAG]) + padding.to_bytes(3, "big") + bytes(padding)
    )
    return b"".join(parts)
