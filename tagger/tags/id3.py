"""ID3v2 tags as bytes: frames, and the text of frames."""

import re
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import BinaryIO

from mutagen import PaddingInfo
from mutagen.id3 import TCON, TXXX, BitPaddedInt, Encoding
from mutagen.id3._id3v1 import ParseID3v1
from mutagen.id3._tags import save_frame
from mutagen.id3._util import ID3SaveConfig, unsynch

from tagger.errors import TagError
from tagger.tags.tag import TagCodec, Values, read_at

ID3_HEADER_BYTES = 10
MAX_ID3_SIZE = 1 << 28

UNSYNCHRONISED_FLAG, EXTENDED_FLAG, FOOTER_FLAG = 0x80, 0x40, 0x10
V2_2, V2_3, V2_4 = 2, 3, 4
NEW_VERSION = V2_4
"""ID3v2.4 for a file that has no tag: the version in which several genres are standard."""
FRAME_NAMES = {
    V2_2: re.compile(rb"[A-Z][A-Z0-9]{2}"),
    V2_3: re.compile(rb"[A-Z][A-Z0-9]{2}[A-Z0-9 \0]"),  # some write names of 2.2 into 2.3
    V2_4: re.compile(rb"[A-Z][A-Z0-9]{2}[A-Z0-9 \0]"),
}


@dataclass(frozen=True, slots=True)
class Id3Tag:
    """An ID3v2 tag: its frames, what stands behind them and is no padding, its size in bytes."""

    version: int
    frames: tuple[bytes, ...]
    tail: bytes
    size: int


def read_id3_tag(file: BinaryIO, start: int) -> Id3Tag | None:
    """Return the ID3v2 tag at this place, None where there is none.

    The frames are free of the unsynchronisation that 2.3 spreads over a whole tag, and say
    themselves whether they have that of 2.4: a tag is written without.
    """
    head = read_at(file, start, ID3_HEADER_BYTES)
    if len(head) < ID3_HEADER_BYTES or not head.startswith(b"ID3"):
        return None
    version, flags = head[3], head[5]
    if version not in FRAME_NAMES:
        raise TagError(f"its tag is ID3v2.{version}, a version that does not exist")
    size = BitPaddedInt(head[6:])
    body = file.read(size)
    if len(body) < size or max(head[6:]) >> 7:
        raise TagError("its ID3v2 tag is cut off, or its size is wrong")
    if flags & UNSYNCHRONISED_FLAG and version < V2_4:
        body = undo_unsynchronisation(body)
    if flags & EXTENDED_FLAG:
        body = body[_get_extended_header_size(body, version) :]
    frames, tail = _split_frames(body, version)
    if flags & UNSYNCHRONISED_FLAG and version == V2_4:
        frames = [_flag_unsynchronised(frame) for frame in frames]
    footer = ID3_HEADER_BYTES if version == V2_4 and flags & FOOTER_FLAG else 0
    return Id3Tag(version, tuple(frames), tail.rstrip(b"\0"), ID3_HEADER_BYTES + size + footer)


def undo_unsynchronisation(data: bytes) -> bytes:
    with suppress(ValueError):  # some set the flag and write the bytes as they are
        data = unsynch.decode(data)
    return data


def _get_extended_header_size(body: bytes, version: int) -> int:
    """Return the size of the extended header; it may be missing for all that the flag says."""
    if FRAME_NAMES[version].match(body):
        return 0
    if version == V2_4:
        return int(BitPaddedInt(body[:4]))
    return 4 + int.from_bytes(body[:4], "big")


def _split_frames(body: bytes, version: int) -> tuple[list[bytes], bytes]:
    """Cut a tag's content into frames and what is none; sizes come out as the version has them."""
    if version == V2_4:
        frames, tail = _split_frames_by(body, version, 7)
        if not tail.strip(b"\0"):
            return frames, tail
        plain, no_tail = _split_frames_by(body, version, 8)  # as old iTunes wrote them
        if no_tail.strip(b"\0"):
            return frames, tail
        sizes = [BitPaddedInt.to_str(len(frame) - ID3_HEADER_BYTES, width=4) for frame in plain]
        return [f[:4] + s + f[8:] for f, s in zip(plain, sizes, strict=True)], no_tail
    return _split_frames_by(body, version, 8)


def _split_frames_by(body: bytes, version: int, bits: int) -> tuple[list[bytes], bytes]:
    width, head = (3, 6) if version == V2_2 else (4, ID3_HEADER_BYTES)
    frames, position = [], 0
    while position + head <= len(body) and FRAME_NAMES[version].match(body, position):
        digits = body[position + width : position + 2 * width]
        size = sum(byte << bits * i for i, byte in enumerate(reversed(digits)))
        stop = position + head + size
        if stop > len(body) or max(digits) >> bits:
            break
        frames.append(body[position:stop])
        position = stop
    return frames, body[position:]


def _flag_unsynchronised(frame: bytes) -> bytes:
    """Return a frame of an unsynchronised tag of 2.4 so that it says by itself what it is."""
    if undo_unsynchronisation(frame[ID3_HEADER_BYTES:]) == frame[ID3_HEADER_BYTES:]:
        return frame
    return frame[:9] + bytes([frame[9] | 2]) + frame[ID3_HEADER_BYTES:]


def build_id3_tag(old: Id3Tag | None, frames: Sequence[bytes], *, following: int) -> bytes:
    """Return a tag with these frames in the place of an old one; no bytes where it holds nothing.

    following: the size of what stands behind, by which mutagen reckons how much padding to leave.
    """
    body = b"".join(frames) + (old.tail if old else b"")
    if not body:
        return b""
    room = (old.size if old else 0) - ID3_HEADER_BYTES - len(body)
    body += bytes(PaddingInfo(room, following).get_default_padding())
    if len(body) >= MAX_ID3_SIZE:
        raise TagError("its ID3v2 tag would be larger than the 256 MB that such a tag can be")
    version = old.version if old else NEW_VERSION
    return b"ID3" + bytes([version, 0, 0]) + BitPaddedInt.to_str(len(body), width=4) + body


def make_frames_from_id3v1(trailer: bytes) -> list[bytes]:
    """Return what an ID3v1 tag says as frames of the version for new tags."""
    found = ParseID3v1(trailer, NEW_VERSION) or {}
    return [render_frame(frame, NEW_VERSION) for frame in found.values()]


def render_frame(frame: object, version: int) -> bytes:
    # v23_sep=None: several values stay several in 2.3 too, divided by null as in 2.4
    return bytes(save_frame(frame, config=ID3SaveConfig(version, None)))


MAX_UNPACKED_TEXT = 1 << 16
"""No genre unfolds to more, but a few compressed bytes may hold gigabytes."""

ID3_2_2_NAMES = {
    "TCO": "TCON",
    "TXX": "TXXX",
    "TP1": "TPE1",
    "TP2": "TPE2",
    "TAL": "TALB",
    "TCP": "TCMP",
}
ID3_ARTIST, ID3_ALBUM = "TPE1", "TALB"
UTF16_ENCODINGS = {1: "utf-16-le", 2: "utf-16-be"}
BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
BYTE_ENCODINGS = {0: "latin-1", 3: "utf-8"}


@cache
def get_id3_codec(version: int) -> TagCodec:
    return TagCodec(
        "TCON",
        "TXXX:TAGGER_SCORES",
        "TXXX:TAGGER_MODEL",
        "TXXX:TAGGER_GENRE",
        name_of=partial(_get_frame_name, version),
        texts_of=partial(_decode_frame, version),
        items_for=partial(_make_frames, version),
        genre_names=_resolve_genre_numbers,
        artists=("TPE2", ID3_ARTIST),
        album=ID3_ALBUM,
        compilation="TCMP",
    )


def _get_frame_name(version: int, frame: bytes) -> str:
    name = frame[: 3 if version == V2_2 else 4].rstrip(b" \0").decode("latin-1")
    name = ID3_2_2_NAMES.get(name, name)
    return f"TXXX:{''.join(_decode_frame_texts(version, frame)[:1])}" if name == "TXXX" else name


def _decode_frame(version: int, frame: bytes) -> Values:
    own = _get_frame_name(version, frame).startswith("TXXX")
    return tuple(_decode_frame_texts(version, frame)[own:])


def _decode_frame_texts(version: int, frame: bytes) -> list[str]:
    """Return the texts of a frame, none where they cannot be told."""
    data = _unpack_frame(version, frame)
    if data[:1] in (b"\1", b"\2"):
        return _decode_utf16_texts(data[1:], data[0])
    if not data or data[0] not in BYTE_ENCODINGS:
        return []
    texts = data[1:].decode(BYTE_ENCODINGS[data[0]], "replace").split("\0")
    return texts if texts[-1] else texts[:-1]


def _decode_utf16_texts(data: bytes, encoding: int) -> list[str]:
    """Decode UTF-16, where each text may begin with a mark of its own."""
    units = [data[i : i + 2] for i in range(0, len(data) - 1, 2)]
    stops = [2 * i for i, unit in enumerate(units) if unit == b"\0\0"]
    texts, name, start = [], UTF16_ENCODINGS[encoding], 0
    for stop in [*stops, 2 * len(units)]:
        piece, start = data[start:stop], stop + 2
        name = BYTE_ORDER_MARKS.get(piece[:2], name)
        piece = piece[2:] if piece[:2] in BYTE_ORDER_MARKS else piece
        texts.append(piece.decode(name, "replace"))
    return texts if texts[-1] else texts[:-1]


def _unpack_frame(version: int, frame: bytes) -> bytes:
    """Return what a frame holds, unfolded; nothing where it is encrypted or broken."""
    if version == V2_2:
        return frame[6:]
    flags, data = frame[9], frame[ID3_HEADER_BYTES:]
    if version == V2_3:
        folded, secret, grouped, length, shifted = (flags & bit for bit in (128, 64, 32, 128, 0))
    else:
        folded, secret, grouped, length, shifted = (flags & bit for bit in (8, 4, 64, 1, 2))
    if secret:
        return b""
    data = data[(1 if grouped else 0) + (4 if length else 0) :]
    data = undo_unsynchronisation(data) if shifted else data
    if folded:
        try:
            data = zlib.decompressobj().decompress(data, MAX_UNPACKED_TEXT)
        except zlib.error:
            return b""
    return data


def _make_frames(version: int, name: str, values: Values) -> list[bytes]:
    version = max(version, V2_3)  # nothing is written into 2.2
    kind, _, description = name.partition(":")
    # UTF-16 is the only Unicode that ID3v2.3 knows, and 2.4 prefers UTF-8.
    encoding = Encoding.UTF8 if version == V2_4 else Encoding.UTF16
    text = list(values)
    frame = (
        TXXX(encoding=encoding, desc=description, text=text)
        if kind == "TXXX"
        else TCON(encoding=encoding, text=text)
    )
    return [render_frame(frame, version)] if values else []


def _resolve_genre_numbers(genres: Values) -> Values:
    """Return genres as names: ID3 also knows them by number, such as `17` or `(17)`."""
    return tuple(TCON(text=list(genres)).genres) if genres else ()
