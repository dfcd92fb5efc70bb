"""Ogg files: their pages, and the packet of comments of their first stream (RFC 3533)."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, BinaryIO

from mutagen import PaddingInfo
from mutagen.ogg import OggPage

from tagger.errors import TagError
from tagger.tags.tag import NamedParts, Tag, get_size, hash_range, read_at, splice
from tagger.tags.vorbis import VORBIS_CODEC, build_comments, read_comments

PAGE_HEADER = struct.Struct("<4sBBqIIIB")
FIRST_PAGE_FLAG, LAST_PAGE_FLAG = 2, 4
MAX_LACING = 255
SMALL_PAGE_BYTES, LARGE_PAGE_BYTES = 16 * MAX_LACING, 250 * MAX_LACING
"""Sizes of the pages of new comments: as mutagen makes them, and for those with large pictures."""
NO_POSITION = -1  # of a page on which no packet ends


@dataclass(frozen=True, slots=True)
class PageSpan:
    """A page by its place in the file; flags, position, serial and number as its head says."""

    start: int
    body: int
    stop: int
    flags: int
    position: int
    serial: int
    number: int


def iterate_pages(file: BinaryIO, start: int) -> Iterator[PageSpan]:
    """Yield the pages from this place on, up to what is no page."""
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


def fill_same_pages(pages: Sequence[Any], packet: bytes) -> list[Any]:
    """Return pages with another first packet of the same size."""
    position = 0
    for page in pages:
        size = len(page.packets[0])
        page.packets[0] = packet[position : position + size]
        position += size
    return list(pages)


def lay_out_pages(packets: Sequence[bytes]) -> list[Any]:
    """Return pages for packets of headers; small ones share a page."""
    size = LARGE_PAGE_BYTES if max(map(len, packets)) > 16 * LARGE_PAGE_BYTES else SMALL_PAGE_BYTES
    pages: list[Any] = [OggPage()]
    for each in packets:
        if pages[-1].packets and sum(map(len, pages[-1].packets)) + len(each) > size:
            pages.append(OggPage())
        for start in range(0, len(each) or 1, size):
            if start:
                pages[-1].complete, pages[-1].position = False, _get_end_position(pages[-1])
                pages.append(OggPage())
                pages[-1].continued = True
            pages[-1].packets.append(each[start : start + size])
    return pages


def _get_end_position(page: Any) -> int:
    return 0 if len(page.packets) > 1 else NO_POSITION


def renumber_pages(file: BinaryIO, start: int, serial: int, shift: int) -> None:
    """Add to the numbers of a stream's pages; a stream that is chained behind has its own."""
    for page in iterate_pages(file, start):
        if page.serial != serial:
            continue
        if page.flags & FIRST_PAGE_FLAG:
            return
        file.seek(page.start)
        whole = OggPage(file)
        whole.sequence += shift
        file.seek(page.start)
        file.write(whole.write())
        if page.flags & LAST_PAGE_FLAG:
            return


SHARED_PAGE = "its sound begins on the page of its comments, where no encoder puts it"
OGG_FLAC = b"\x7fFLAC"
MAX_FLAC_BLOCK = 1 << 24


@dataclass(frozen=True, slots=True)
class CommentLayout:
    """How the packet of comments begins, and whether a framing bit ends the comments."""

    prefix: bytes
    framing: bytes = b""


COMMENT_LAYOUTS = {
    b"\x01vorbis": CommentLayout(b"\x03vorbis", b"\x01"),
    b"OpusHead": CommentLayout(b"OpusTags"),
    b"Speex   ": CommentLayout(b""),
    OGG_FLAC: CommentLayout(b""),
}


@dataclass(frozen=True, slots=True)
class CommentPages:
    """The pages from the one on which the comments begin to the one on which they end.

    packets: those of these pages, the comments first; others: pages of other streams in between.
    """

    pages: tuple[Any, ...]
    packets: tuple[bytes, ...]
    others: tuple[bytes, ...]
    start: int
    stop: int


def open_ogg(file: BinaryIO) -> Tag:
    magic, kind = _find_layout(file)
    header = _read_comment_pages(file)
    block_head = 4 if magic == OGG_FLAC else 0
    packet = header.packets[0]
    if not packet.startswith(kind.prefix):
        raise TagError("its second packet holds no comments")
    comments = read_comments(packet[block_head + len(kind.prefix) :])
    tail = comments.tail[len(kind.framing) :]
    tail = tail if tail.strip(b"\0") else b""

    def rest(file: BinaryIO) -> NamedParts:
        yield "vendor", repr((packet[: 1 if block_head else 0], comments.vendor))
        yield "what stands behind the comments", tail.hex()
        yield from _name_other_pages(file, header)

    def save(file: BinaryIO, items: Sequence[bytes]) -> None:
        body = kind.prefix + build_comments(comments.vendor, items) + kind.framing
        if magic == OGG_FLAC:
            new = _build_flac_block(packet[:1], body + tail)
        else:
            following = get_size(file) - len(packet)
            room = PaddingInfo(len(packet) - len(body), following)
            new = body + (tail or bytes(room.get_default_padding()))
        _replace_comments(file, header, new)

    has_sound = len(header.packets) > 1 and header.pages[-1].position > 0
    return Tag(VORBIS_CODEC, comments.items, save, rest, refusal=SHARED_PAGE if has_sound else "")


def _find_layout(file: BinaryIO) -> tuple[bytes, CommentLayout]:
    """Tell the codec by the first packet; any suffix stands for any."""
    first = next(iterate_pages(file, 0), None)
    packet = read_at(file, first.body, 8) if first else b""
    for magic, kind in COMMENT_LAYOUTS.items():
        if packet.startswith(magic):
            return magic, kind
    raise TagError("it holds no Ogg Vorbis, Opus, FLAC or Speex, whatever its name says")


def _build_flac_block(code: bytes, body: bytes) -> bytes:
    if len(body) >= MAX_FLAC_BLOCK:
        raise TagError("its comments would be larger than the 16 MB that a FLAC block can be")
    return code + len(body).to_bytes(3, "big") + body


def _read_comment_pages(file: BinaryIO) -> CommentPages:
    file.seek(0)
    serial = OggPage(file).serial
    pages: list[Any] = []
    others = []
    while not pages or not (pages[-1].complete or len(pages[-1].packets) > 1):
        page = OggPage(file)
        if page.serial == serial:
            pages.append(page)
        elif pages:
            others.append(page.write())
    packets = tuple(OggPage.to_packets(pages))
    return CommentPages(tuple(pages), packets, tuple(others), pages[0].offset, file.tell())


def _replace_comments(file: BinaryIO, header: CommentPages, packet: bytes) -> None:
    """Put new comments in the place of the old ones; later pages of the stream are renumbered."""
    first, last = header.pages[0], header.pages[-1]
    sizes = [len(each) for each in header.packets]
    if len(packet) == sizes[0]:
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
    data = b"".join([*(page.write() for page in new), *header.others])
    splice(file, header.start, header.stop, data)
    if shift:
        renumber_pages(file, header.start + len(data), first.serial, shift)


def _name_other_pages(file: BinaryIO, header: CommentPages) -> NamedParts:
    """Tell a digest of each stream but for the comments, and of what is no page.

    Headers count as packets, for new comments lay them out anew; from the first sound on, a page
    counts with all that it says but its number and checksum, and with its distance to the last.
    """
    ours = header.pages[0].serial
    streams: dict[int, Any] = {}
    numbers: dict[int, int] = {}
    sounding: set[int] = set()
    stop = 0
    for page in iterate_pages(file, 0):
        stop = page.stop
        found = streams.setdefault(page.serial, sha256())
        step = page.number - (0 if page.flags & FIRST_PAGE_FLAG else numbers.get(page.serial, 0))
        numbers[page.serial] = page.number
        if page.serial == ours and header.start <= page.start < header.stop:
            found.update(b"".join(header.packets[1:]) if page.start == header.start else b"")
            continue
        if page.start < header.start or page.position > 0 or page.serial in sounding:
            sounding |= {page.serial} if page.position > 0 else set()
            found.update(f"{page.flags} {page.position} {step}".encode())
            found.update(
                read_at(
                    file, page.start + PAGE_HEADER.size, page.body - page.start - PAGE_HEADER.size
                )
            )
        found.update(read_at(file, page.body, page.stop - page.body))
    for serial, found in streams.items():
        yield f"the sound (stream {serial:x})", found.hexdigest()
    yield "what stands behind the Ogg pages", hash_range(file, stop, get_size(file))
