"""Ogg files: their pages (RFC 3533), and the packet of comments of the first stream with sound.

mutagen makes the bytes of a page. The number and sizes of the pages are computed here, because
mutagen takes minutes over comments with a large picture, and renumbers the pages of the next
stream in a chained file.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, BinaryIO

from mutagen import PaddingInfo
from mutagen.ogg import OggPage

from tagger.errors import FailureKind, TagError
from tagger.tags.id3 import skip_id3_tags
from tagger.tags.tag import (
    NamedParts,
    Tag,
    Values,
    get_size,
    hash_range,
    make_content_error,
    read_at,
    splice,
)
from tagger.tags.vorbis import (
    BLOCK_HEADER_BYTES,
    VORBIS_FORMAT,
    VorbisComments,
    build_comments,
    build_flac_block,
    decode_genres,
    read_comments,
)

PAGE_HEADER = struct.Struct("<4sBBqIIIB")
CHECKSUM_START, CHECKSUM_STOP = 22, 26
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""The table for `bytes.translate` that puts the bits of each byte in the opposite order."""
FIRST_PAGE_FLAG = 2
MAX_LACING = 255
SMALL_PAGE_BYTES, LARGE_PAGE_BYTES = 16 * MAX_LACING, 250 * MAX_LACING
"""The sizes of new pages: small as mutagen makes them, large for comments with large pictures."""
LARGE_PAGES_FROM_BYTES = 16 * LARGE_PAGE_BYTES
NO_POSITION = -1
"""The position of a page on which no packet ends."""
SHARED_PAGE = "its sound begins on the page of its comments, where no encoder puts it"


@dataclass(frozen=True, slots=True)
class PageSpan:
    """A page: where it and its body start and where it stops; the other fields are its header's."""

    start: int
    body: int
    stop: int
    flags: int
    position: int
    serial: int
    number: int


def iterate_pages(file: BinaryIO, start: int) -> Iterator[PageSpan]:
    """Yield the pages from this place on, up to the first bytes that are no page."""
    while True:
        head = read_at(file, start, PAGE_HEADER.size)
        if len(head) < PAGE_HEADER.size or not head.startswith(b"OggS"):
            return
        _, _, flags, position, serial, number, _, count = PAGE_HEADER.unpack(head)
        lacing = file.read(count)
        body = start + PAGE_HEADER.size + count
        stop = body + sum(lacing)
        yield PageSpan(start, body, stop, flags, position, serial, number)
        start = stop


def has_right_checksum(page: bytes) -> bool:
    """Tell whether the checksum of a page is right (RFC 3533, section 6). Decoders skip others.

    It is zlib's CRC with the bits of each byte in the opposite order, from 0 and not inverted.
    """
    content = page[:CHECKSUM_START] + bytes(4) + page[CHECKSUM_STOP:]
    checksum = ~zlib.crc32(content.translate(REVERSED_BITS), 0xFFFFFFFF) & 0xFFFFFFFF
    stored = page[CHECKSUM_START:CHECKSUM_STOP]
    return checksum.to_bytes(4, "big").translate(REVERSED_BITS) == stored


def fill_same_pages(pages: Sequence[Any], packet: bytes) -> list[Any]:
    """Return the pages with a new first packet, which has the size of the old one."""
    position = 0
    for page in pages:
        size = len(page.packets[0])
        page.packets[0] = packet[position : position + size]
        position += size
    return list(pages)


def lay_out_pages(packets: Sequence[bytes]) -> list[Any]:
    """Return pages for the packets of headers; small packets share a page."""
    size = LARGE_PAGE_BYTES if max(map(len, packets)) > LARGE_PAGES_FROM_BYTES else SMALL_PAGE_BYTES
    pages: list[Any] = [OggPage()]
    for packet in packets:
        if pages[-1].packets and sum(map(len, pages[-1].packets)) + len(packet) > size:
            pages.append(OggPage())
        for start in range(0, len(packet) or 1, size):
            if start:
                pages[-1].complete, pages[-1].position = False, _get_end_position(pages[-1])
                pages.append(OggPage())
                pages[-1].continued = True
            pages[-1].packets.append(packet[start : start + size])
    return pages


def _get_end_position(page: Any) -> int:
    return 0 if len(page.packets) > 1 else NO_POSITION


def renumber_pages(file: BinaryIO, start: int, serial: int, shift: int) -> None:
    """Add to the page numbers of a stream, but not to those of a stream chained behind it.

    Some encoders mark several pages as the last one of the stream.
    """
    for page in iterate_pages(file, start):
        if page.serial != serial:
            continue
        if page.flags & FIRST_PAGE_FLAG:
            return
        file.seek(page.start)
        renumbered = OggPage(file)
        renumbered.sequence += shift
        file.seek(page.start)
        file.write(renumbered.write())


@dataclass(frozen=True, slots=True)
class CommentLayout:
    """How the packet of comments begins, and whether a framing bit ends the comments.

    head_bytes: the size of what stands before the prefix. is_audio: whether the stream is sound.
    """

    prefix: bytes
    framing: bytes = b""
    head_bytes: int = 0
    is_audio: bool = True


COMMENT_LAYOUTS = {
    b"\x01vorbis": CommentLayout(b"\x03vorbis", b"\x01"),
    b"OpusHead": CommentLayout(b"OpusTags"),
    b"Speex   ": CommentLayout(b""),
    b"\x7fFLAC": CommentLayout(b"", head_bytes=BLOCK_HEADER_BYTES),
    b"\x80theora": CommentLayout(b"\x81theora", is_audio=False),
}


@dataclass(frozen=True, slots=True)
class CommentPages:
    """The pages that hold the comments.

    packets: all packets of these pages, the comments first. other_pages: the bytes of pages of
    other streams between them.
    """

    pages: tuple[Any, ...]
    packets: tuple[bytes, ...]
    other_pages: tuple[bytes, ...]
    start: int
    stop: int


def open_ogg(file: BinaryIO) -> Tag:
    start = skip_id3_tags(file)
    streams = [(page, layout) for page, layout in _find_streams(file, start) if layout.is_audio]
    if not streams:
        raise make_content_error("Ogg Vorbis, Opus, FLAC or Speex")
    first_page, layout = streams[0]  # FFmpeg plays the first stream with sound, too
    header = _read_comment_pages(file, first_page)
    packet = header.packets[0]
    block_head, comments = _split_comment_packet(packet, layout)
    tail = comments.tail[len(layout.framing) :]
    tail = tail if tail.strip(b"\0") else b""

    def list_other_parts(file: BinaryIO) -> NamedParts:
        yield "the bytes before the Ogg pages", hash_range(file, 0, start)
        yield "vendor", repr((block_head[:1], comments.vendor))
        yield "the bytes behind the comments", tail.hex()
        yield from _list_other_pages(file, start, header)

    def save_items(file: BinaryIO, items: Sequence[bytes]) -> None:
        body = layout.prefix + build_comments(comments.vendor, items) + layout.framing
        if block_head:
            new = build_flac_block(block_head[0], body + tail)
        else:
            room = len(packet) - len(body)
            padding = PaddingInfo(room, get_size(file) - len(packet)).get_default_padding()
            new = body + (tail or bytes(padding))
        _replace_comments(file, header, new)

    has_sound = len(header.packets) > 1 and header.pages[-1].position > 0
    refusal = TagError(SHARED_PAGE) if has_sound else None
    return Tag(
        VORBIS_FORMAT,
        comments.items,
        save_items,
        list_other_parts,
        read_fallback_genres=_read_genres_of_all_streams,
        refusal=refusal,
    )


def _read_genres_of_all_streams(file: BinaryIO) -> Values:
    genres: list[str] = []
    for page, layout in _find_streams(file, skip_id3_tags(file)):
        packet = _read_comment_pages(file, page).packets[0]
        genres += decode_genres(_split_comment_packet(packet, layout)[1])
    return tuple(genres)


def _find_streams(file: BinaryIO, start: int) -> Iterator[tuple[PageSpan, CommentLayout]]:
    """Yield the first page of each stream that has comments. All first pages stand in front."""
    for page in iterate_pages(file, start):
        if not page.flags & FIRST_PAGE_FLAG:
            return
        packet = read_at(file, page.body, 8)
        for magic, layout in COMMENT_LAYOUTS.items():
            if packet.startswith(magic):
                yield page, layout


def _split_comment_packet(packet: bytes, layout: CommentLayout) -> tuple[bytes, VorbisComments]:
    """Return the head of a packet of comments, and the comments.

    Only Ogg FLAC has a head: its packets are metadata blocks.
    """
    head = packet[: layout.head_bytes]
    if not packet.startswith(layout.prefix, layout.head_bytes):
        raise TagError("its second packet holds no comments", FailureKind.DAMAGED)
    return head, read_comments(packet[len(head) + len(layout.prefix) :])


def _read_comment_pages(file: BinaryIO, first_page: PageSpan) -> CommentPages:
    """Return the pages with the second packet of a stream."""
    file.seek(first_page.stop)
    pages: list[Any] = []
    other_pages = []
    while not pages or not (pages[-1].complete or len(pages[-1].packets) > 1):
        page = OggPage(file)
        if page.serial == first_page.serial:
            pages.append(page)
        elif pages:
            other_pages.append(page.write())
    packets = tuple(OggPage.to_packets(pages))
    return CommentPages(tuple(pages), packets, tuple(other_pages), pages[0].offset, file.tell())


def _replace_comments(file: BinaryIO, header: CommentPages, packet: bytes) -> None:
    """Replace the comments. If that takes more or fewer pages, later pages are renumbered."""
    first, last = header.pages[0], header.pages[-1]
    if len(packet) == len(header.packets[0]):
        new = fill_same_pages(header.pages, packet)
    else:
        new = lay_out_pages([packet, *header.packets[1:]])
        new[-1].position = last.position
    for number, page in enumerate(new):
        page.serial, page.sequence = first.serial, first.sequence + number
        page.continued = page.continued if number else first.continued
    new[-1].last, new[-1].complete = last.last, last.complete
    if not last.complete and len(new[-1].packets) == 1:
        new[-1].position = NO_POSITION
    shift = len(new) - len(header.pages)
    data = b"".join([*(page.write() for page in new), *header.other_pages])
    splice(file, header.start, header.stop, data)
    if shift:
        renumber_pages(file, header.start + len(data), first.serial, shift)


def _list_other_pages(file: BinaryIO, start: int, header: CommentPages) -> NamedParts:
    """Yield a digest of each stream without its comments, and of the bytes behind the pages.

    The packets of headers count without their pages, which new comments may change. A page with
    sound, and each page behind it, counts with its header, but for checksum and page number. The
    distance of the number from that of the page before counts instead, and whether the checksum is
    right.
    """
    comment_serial = header.pages[0].serial
    digests: dict[int, Any] = {}
    numbers: dict[int, int] = {}
    sounding: set[int] = set()
    stop = start
    for page in iterate_pages(file, start):
        stop = page.stop
        digest = digests.setdefault(page.serial, sha256())
        step = page.number - (0 if page.flags & FIRST_PAGE_FLAG else numbers.get(page.serial, 0))
        numbers[page.serial] = page.number
        if page.serial == comment_serial and header.start <= page.start < header.stop:
            if page.start == header.start:
                digest.update(b"".join(header.packets[1:]))
            continue
        if page.position > 0:
            sounding.add(page.serial)
        content = read_at(file, page.start, page.stop - page.start)
        body_start = page.body - page.start
        if page.start < header.start or page.serial in sounding:
            is_right = has_right_checksum(content)
            digest.update(f"{page.flags} {page.position} {step} {is_right}".encode())
            digest.update(content[PAGE_HEADER.size : body_start])
        digest.update(content[body_start:])
    for serial, digest in digests.items():
        yield f"the sound (stream {serial:x})", digest.hexdigest()
    yield "the bytes behind the Ogg pages", hash_range(file, stop, get_size(file))
