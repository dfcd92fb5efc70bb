"""The pages of Ogg files (RFC 3533): found, laid out anew, numbered on.

mutagen makes the pages' bytes. Which pages, and how large, is reckoned here: mutagen takes minutes
over comments with a large picture, and numbers on into the next stream of a chained file.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from mutagen.ogg import OggPage

from tagger.tags.regions import read_at

PAGE = struct.Struct("<4sBBqIIIB")
FIRST, LAST = 2, 4
LACING = 255
SMALL_PAGE, LARGE_PAGE = 16 * LACING, 250 * LACING
"""Sizes of the pages of new comments: as mutagen makes them, and for those with large pictures."""
NO_POSITION = -1  # of a page on which no packet ends


@dataclass(frozen=True, slots=True)
class Page:
    """A page by its place in the file; flags, position, serial and number as its head says."""

    start: int
    body: int
    stop: int
    flags: int
    position: int
    serial: int
    number: int


def pages_from(file: BinaryIO, start: int) -> Iterator[Page]:
    """Yield the pages from this place on, up to what is no page."""
    while True:
        head = read_at(file, start, PAGE.size)
        if len(head) < PAGE.size or not head.startswith(b"OggS"):
            return
        _, _, flags, position, serial, number, _, count = PAGE.unpack(head)
        lacing = file.read(count)
        body = start + PAGE.size + count
        stop = body + sum(lacing)
        yield Page(start, body, stop, flags, position, serial, number)
        start = stop


def same_layout(pages: Sequence[Any], packet: bytes) -> list[Any]:
    """Return pages with another first packet of the same size."""
    position = 0
    for page in pages:
        size = len(page.packets[0])
        page.packets[0] = packet[position : position + size]
        position += size
    return list(pages)


def new_layout(packets: Sequence[bytes]) -> list[Any]:
    """Return pages for packets of headers; small ones share a page."""
    size = LARGE_PAGE if max(map(len, packets)) > 16 * LARGE_PAGE else SMALL_PAGE
    pages: list[Any] = [OggPage()]
    for each in packets:
        if pages[-1].packets and sum(map(len, pages[-1].packets)) + len(each) > size:
            pages.append(OggPage())
        for start in range(0, len(each) or 1, size):
            if start:
                pages[-1].complete, pages[-1].position = False, _ended(pages[-1])
                pages.append(OggPage())
                pages[-1].continued = True
            pages[-1].packets.append(each[start : start + size])
    return pages


def _ended(page: Any) -> int:
    return 0 if len(page.packets) > 1 else NO_POSITION


def renumber(file: BinaryIO, start: int, serial: int, shift: int) -> None:
    """Add to the numbers of a stream's pages; a stream that is chained behind has its own."""
    for page in pages_from(file, start):
        if page.serial != serial:
            continue
        if page.flags & FIRST:
            return
        file.seek(page.start)
        whole = OggPage(file)
        whole.sequence += shift
        file.seek(page.start)
        file.write(whole.write())
        if page.flags & LAST:
            return
