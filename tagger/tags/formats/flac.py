"""FLAC files: their metadata blocks, of which the first with comments is ours (RFC 9639)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from mutagen import PaddingInfo
from mutagen.id3 import BitPaddedInt

from tagger.errors import TagError
from tagger.tags.formats.vorbis import CODEC, Comments, build_comments, read_comments
from tagger.tags.items import Rest, Tag
from tagger.tags.regions import digest, read_at, size_of, splice

MAGIC = b"fLaC"
HEAD = 4
PADDING, COMMENTS = 1, 4
LAST = 0x80
SIZE_LIMIT = 1 << 24
ID3_HEAD = 10
KINDS = {0: "stream info", 2: "application", 3: "seek table", 5: "cue sheet", 6: "picture"}


@dataclass(frozen=True, slots=True)
class Block:
    """A metadata block: its kind, where its content starts and how many bytes that is."""

    kind: int
    start: int
    size: int


def open_flac(file: BinaryIO) -> Tag:
    first = _begin(file)
    blocks = _blocks(file, first)
    sound = blocks[-1].start + blocks[-1].size
    ours = next((block for block in blocks if block.kind == COMMENTS), None)
    comments = read_comments(read_at(file, ours.start, ours.size)) if ours else Comments()
    if comments.tail.strip(b"\0"):
        raise TagError("its block of comments is broken: there is more in it than comments")

    def rest(file: BinaryIO) -> Rest:
        yield "what stands before the FLAC stream", digest(file, 0, first)
        yield "vendor", repr(comments.vendor)
        others = [block for block in blocks if block.kind != PADDING and block != ours]
        for number, block in enumerate(others):
            content = digest(file, block.start, block.start + block.size)
            yield f"block {number} ({KINDS.get(block.kind, block.kind)})", content
        yield "the sound", digest(file, sound, size_of(file))

    def save(file: BinaryIO, items: Sequence[bytes]) -> None:
        held = bool(items or comments.vendor)  # else it is a block that only we could have added
        new = build_comments(comments.vendor, items) if held else None
        contents = [
            (block.kind, new if block == ours else read_at(file, block.start, block.size))
            for block in (blocks if ours else [*blocks, Block(COMMENTS, 0, 0)])
            if block.kind != PADDING
        ]
        if not ours:
            contents[-1] = (COMMENTS, new)
        following = size_of(file) - sound
        splice(file, first + len(MAGIC), sound, _build(contents, sound - first - 4, following))

    return Tag(CODEC, comments.items, save, rest)


def _begin(file: BinaryIO) -> int:
    """Return where the stream begins: behind an ID3 tag, which has no place in FLAC but is met."""
    head = read_at(file, 0, ID3_HEAD)
    start = ID3_HEAD + BitPaddedInt(head[6:]) if head.startswith(b"ID3") else 0
    if read_at(file, start, len(MAGIC)) != MAGIC:
        raise TagError("it holds no FLAC stream, whatever its name says")
    return start


def _blocks(file: BinaryIO, first: int) -> list[Block]:
    """Return the metadata blocks. Raises TagError where they do not lead to sound."""
    blocks, position, last = [], first + len(MAGIC), False
    while not last:
        head = read_at(file, position, HEAD)
        if len(head) < HEAD:
            raise TagError("its metadata blocks are cut off")
        block = Block(head[0] & ~LAST, position + HEAD, int.from_bytes(head[1:], "big"))
        blocks.append(block)
        position, last = block.start + block.size, bool(head[0] & LAST)
    sync = int.from_bytes(read_at(file, position, 2), "big")
    if sync >> 2 != 0x3FFE:  # noqa: PLR2004 - how each frame of sound begins
        raise TagError("the size of a metadata block is wrong (a picture of more than 16 MB?)")
    return blocks


def _build(contents: list[tuple[int, bytes | None]], room: int, following: int) -> bytes:
    """Return metadata blocks with one of padding at the end, as large as mutagen reckons."""
    parts = []
    for kind, content in contents:
        if content is None:
            continue
        if len(content) >= SIZE_LIMIT:
            raise TagError("its comments would be larger than the 16 MB that a FLAC block can be")
        parts.append(bytes([kind]) + len(content).to_bytes(3, "big") + content)
    left = room - sum(map(len, parts)) - HEAD
    padding = min(PaddingInfo(left, following).get_default_padding(), SIZE_LIMIT - 1)
    parts.append(bytes([PADDING | LAST]) + padding.to_bytes(3, "big") + bytes(padding))
    return b"".join(parts)
