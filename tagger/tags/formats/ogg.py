"""Ogg files: the packet of comments of their first stream, and all that is no comment."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, BinaryIO

from mutagen import PaddingInfo
from mutagen.ogg import OggPage

from tagger.errors import TagError
from tagger.tags.formats.ogg_pages import (
    FIRST,
    NO_POSITION,
    PAGE,
    new_layout,
    pages_from,
    renumber,
    same_layout,
)
from tagger.tags.formats.vorbis import CODEC, build_comments, read_comments
from tagger.tags.items import Rest, Tag
from tagger.tags.regions import digest, read_at, size_of, splice

SHARED = "its sound begins on the page of its comments, where no encoder puts it"
OGG_FLAC = b"\x7fFLAC"
BLOCK_LIMIT = 1 << 24


@dataclass(frozen=True, slots=True)
class Kind:
    """How the packet of comments begins, and whether a framing bit ends the comments."""

    prefix: bytes
    framing: bytes = b""


KINDS = {
    b"\x01vorbis": Kind(b"\x03vorbis", b"\x01"),
    b"OpusHead": Kind(b"OpusTags"),
    b"Speex   ": Kind(b""),
    OGG_FLAC: Kind(b""),
}


@dataclass(frozen=True, slots=True)
class Header:
    """The pages from the one on which the comments begin to the one on which they end.

    packets: those of these pages, the comments first; others: pages of other streams in between.
    """

    pages: tuple[Any, ...]
    packets: tuple[bytes, ...]
    others: tuple[bytes, ...]
    start: int
    stop: int


def open_ogg(file: BinaryIO) -> Tag:
    magic, kind = _kind(file)
    header = _header(file)
    block_head = 4 if magic == OGG_FLAC else 0
    packet = header.packets[0]
    if not packet.startswith(kind.prefix):
        raise TagError("its second packet holds no comments")
    comments = read_comments(packet[block_head + len(kind.prefix) :])
    tail = comments.tail[len(kind.framing) :]
    tail = tail if tail.strip(b"\0") else b""

    def rest(file: BinaryIO) -> Rest:
        yield "vendor", repr((packet[: 1 if block_head else 0], comments.vendor))
        yield "what stands behind the comments", tail.hex()
        yield from _other_pages(file, header)

    def save(file: BinaryIO, items: Sequence[bytes]) -> None:
        body = kind.prefix + build_comments(comments.vendor, items) + kind.framing
        if magic == OGG_FLAC:
            new = _flac_block(packet[:1], body + tail)
        else:
            following = size_of(file) - len(packet)
            room = PaddingInfo(len(packet) - len(body), following)
            new = body + (tail or bytes(room.get_default_padding()))
        _replace(file, header, new)

    has_sound = len(header.packets) > 1 and header.pages[-1].position > 0
    return Tag(CODEC, comments.items, save, rest, refusal=SHARED if has_sound else "")


def _kind(file: BinaryIO) -> tuple[bytes, Kind]:
    """Tell the codec by the first packet; any suffix stands for any."""
    first = next(pages_from(file, 0), None)
    packet = read_at(file, first.body, 8) if first else b""
    for magic, kind in KINDS.items():
        if packet.startswith(magic):
            return magic, kind
    raise TagError("it holds no Ogg Vorbis, Opus, FLAC or Speex, whatever its name says")


def _flac_block(code: bytes, body: bytes) -> bytes:
    if len(body) >= BLOCK_LIMIT:
        raise TagError("its comments would be larger than the 16 MB that a FLAC block can be")
    return code + len(body).to_bytes(3, "big") + body


def _header(file: BinaryIO) -> Header:
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
    return Header(tuple(pages), packets, tuple(others), pages[0].offset, file.tell())


def _replace(file: BinaryIO, header: Header, packet: bytes) -> None:
    """Put new comments in the place of the old ones; later pages of the stream are renumbered."""
    first, last = header.pages[0], header.pages[-1]
    sizes = [len(each) for each in header.packets]
    if len(packet) == sizes[0]:
        new = same_layout(header.pages, packet)
    else:
        new = new_layout([packet, *header.packets[1:]])
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
        renumber(file, header.start + len(data), first.serial, shift)


def _other_pages(file: BinaryIO, header: Header) -> Rest:
    """Tell a digest of each stream but for the comments, and of what is no page.

    Headers count as packets, for new comments lay them out anew; from the first sound on, a page
    counts with all that it says but its number and checksum, and with its distance to the last.
    """
    ours = header.pages[0].serial
    streams: dict[int, Any] = {}
    numbers: dict[int, int] = {}
    sounding: set[int] = set()
    stop = 0
    for page in pages_from(file, 0):
        stop = page.stop
        found = streams.setdefault(page.serial, sha256())
        step = page.number - (0 if page.flags & FIRST else numbers.get(page.serial, 0))
        numbers[page.serial] = page.number
        if page.serial == ours and header.start <= page.start < header.stop:
            found.update(b"".join(header.packets[1:]) if page.start == header.start else b"")
            continue
        if page.start < header.start or page.position > 0 or page.serial in sounding:
            sounding |= {page.serial} if page.position > 0 else set()
            found.update(f"{page.flags} {page.position} {step}".encode())
            found.update(read_at(file, page.start + PAGE.size, page.body - page.start - PAGE.size))
        found.update(read_at(file, page.body, page.stop - page.body))
    for serial, found in streams.items():
        yield f"the sound (stream {serial:x})", found.hexdigest()
    yield "what stands behind the Ogg pages", digest(file, stop, size_of(file))
