"""ID3v2 tags as bytes: their frames, and a tag made of frames.

By the documents of id3.org: "ID3 tag version 2.3.0", and "2.4.0 - Main Structure".
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

from mutagen import PaddingInfo
from mutagen.id3 import BitPaddedInt
from mutagen.id3._id3v1 import ParseID3v1
from mutagen.id3._tags import save_frame
from mutagen.id3._util import ID3SaveConfig, unsynch

from tagger.errors import TagError
from tagger.tags.regions import read_at

HEAD = 10
SIZE_LIMIT = 1 << 28

UNSYNCHRONISED, EXTENDED, FOOTER = 0x80, 0x40, 0x10
V2_2, V2_3, V2_4 = 2, 3, 4
NEW_VERSION = V2_4
"""ID3v2.4 for a file that has no tag: the version in which several genres are standard."""
NAMES = {
    V2_2: re.compile(rb"[A-Z][A-Z0-9]{2}"),
    V2_3: re.compile(rb"[A-Z][A-Z0-9]{2}[A-Z0-9 \0]"),  # some write names of 2.2 into 2.3
    V2_4: re.compile(rb"[A-Z][A-Z0-9]{2}[A-Z0-9 \0]"),
}


@dataclass(frozen=True, slots=True)
class Frames:
    """An ID3v2 tag: its frames, what stands behind them and is no padding, its size in bytes."""

    version: int
    frames: tuple[bytes, ...]
    tail: bytes
    size: int


def read_frames(file: BinaryIO, start: int) -> Frames | None:
    """Return the ID3v2 tag at this place, None where there is none.

    The frames are free of the unsynchronisation that 2.3 spreads over a whole tag, and say
    themselves whether they have that of 2.4: a tag is written without.
    """
    head = read_at(file, start, HEAD)
    if len(head) < HEAD or not head.startswith(b"ID3"):
        return None
    version, flags = head[3], head[5]
    if version not in NAMES:
        raise TagError(f"its tag is ID3v2.{version}, a version that does not exist")
    size = BitPaddedInt(head[6:])
    body = file.read(size)
    if len(body) < size or max(head[6:]) >> 7:
        raise TagError("its ID3v2 tag is cut off, or its size is wrong")
    if flags & UNSYNCHRONISED and version < V2_4:
        body = synchronised(body)
    if flags & EXTENDED:
        body = body[_extended_size(body, version) :]
    frames, tail = _split(body, version)
    if flags & UNSYNCHRONISED and version == V2_4:
        frames = [_flagged(frame) for frame in frames]
    footer = HEAD if version == V2_4 and flags & FOOTER else 0
    return Frames(version, tuple(frames), tail.rstrip(b"\0"), HEAD + size + footer)


def synchronised(data: bytes) -> bytes:
    with suppress(ValueError):  # some set the flag and write the bytes as they are
        data = unsynch.decode(data)
    return data


def _extended_size(body: bytes, version: int) -> int:
    """Return the size of the extended header; it may be missing for all that the flag says."""
    if NAMES[version].match(body):
        return 0
    if version == V2_4:
        return int(BitPaddedInt(body[:4]))
    return 4 + int.from_bytes(body[:4], "big")


def _split(body: bytes, version: int) -> tuple[list[bytes], bytes]:
    """Cut a tag's content into frames and what is none; sizes come out as the version has them."""
    if version == V2_4:
        frames, tail = _split_by(body, version, 7)
        if not tail.strip(b"\0"):
            return frames, tail
        plain, no_tail = _split_by(body, version, 8)  # as old iTunes wrote them
        if no_tail.strip(b"\0"):
            return frames, tail
        sizes = [BitPaddedInt.to_str(len(frame) - HEAD, width=4) for frame in plain]
        return [f[:4] + s + f[8:] for f, s in zip(plain, sizes, strict=True)], no_tail
    return _split_by(body, version, 8)


def _split_by(body: bytes, version: int, bits: int) -> tuple[list[bytes], bytes]:
    width, head = (3, 6) if version == V2_2 else (4, HEAD)
    frames, position = [], 0
    while position + head <= len(body) and NAMES[version].match(body, position):
        digits = body[position + width : position + 2 * width]
        size = sum(byte << bits * i for i, byte in enumerate(reversed(digits)))
        stop = position + head + size
        if stop > len(body) or max(digits) >> bits:
            break
        frames.append(body[position:stop])
        position = stop
    return frames, body[position:]


def _flagged(frame: bytes) -> bytes:
    """Return a frame of an unsynchronised tag of 2.4 so that it says by itself what it is."""
    if synchronised(frame[HEAD:]) == frame[HEAD:]:
        return frame
    return frame[:9] + bytes([frame[9] | 2]) + frame[HEAD:]


def build_tag(old: Frames | None, frames: Sequence[bytes], *, following: int) -> bytes:
    """Return a tag with these frames in the place of an old one; no bytes where it holds nothing.

    following: the size of what stands behind, by which mutagen reckons how much padding to leave.
    """
    body = b"".join(frames) + (old.tail if old else b"")
    if not body:
        return b""
    room = (old.size if old else 0) - HEAD - len(body)
    body += bytes(PaddingInfo(room, following).get_default_padding())
    if len(body) >= SIZE_LIMIT:
        raise TagError("its ID3v2 tag would be larger than the 256 MB that such a tag can be")
    version = old.version if old else NEW_VERSION
    return b"ID3" + bytes([version, 0, 0]) + BitPaddedInt.to_str(len(body), width=4) + body


def frames_of_v1(trailer: bytes) -> list[bytes]:
    """Return what an ID3v1 tag says as frames of the version for new tags."""
    found = ParseID3v1(trailer, NEW_VERSION) or {}
    return [rendered(frame, NEW_VERSION) for frame in found.values()]


def rendered(frame: object, version: int) -> bytes:
    # v23_sep=None: several values stay several in 2.3 too, divided by null as in 2.4
    return bytes(save_frame(frame, config=ID3SaveConfig(version, None)))
