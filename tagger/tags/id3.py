"""ID3v2 tags as bytes: their frames, the texts of frames, and new frames.

By "ID3 tag version 2.4.0", 2.3.0 and 2.2.0, and for ID3v1 by id3.org/ID3v1. Frames stay the bytes
that they are: mutagen would drop or rewrite those that it cannot parse.
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import BinaryIO

from mutagen import PaddingInfo
from mutagen.id3 import TCON

from tagger.errors import FailureKind, TagError
from tagger.paths import decode_foreign_bytes
from tagger.records import ExtraField
from tagger.tags.tag import (
    ID3_HEADER_BYTES,
    ID3V1_BYTES,
    Id3v1,
    TagFormat,
    Values,
    decode_syncsafe,
    encode_syncsafe,
    get_size,
    name_extra_fields,
    parse_id3v1,
    read_at,
    read_id3v1,
)

UNSYNCHRONISED_FLAG, EXTENDED_FLAG, FOOTER_FLAG = 0x80, 0x40, 0x10
FRAME_UNSYNCHRONISED_FLAG = 0x02
FRAME_FLAGS = {3: (0x80, 0x40, 0x20, 0x80, 0), 4: (0x08, 0x04, 0x40, 0x01, 0x02)}
"""By version: compressed, encrypted, grouped, with a length, unsynchronised."""
SYNCHRONISATION = re.compile(rb"\xff(?![\x00-\xdf])")
"""Bytes that no unsynchronised tag holds, because they look like the start of MPEG sound."""
V2_2, V2_3, V2_4 = 2, 3, 4
NEW_VERSION = V2_4
"""The version for files without a tag: the first one in which several genres are standard."""
FRAME_NAMES = {
    V2_2: re.compile(rb"[A-Z][A-Z0-9]{2}"),
    V2_3: re.compile(rb"[A-Z][A-Z0-9]{2}[A-Z0-9 \0]"),  # some programs write names of 2.2 here
    V2_4: re.compile(rb"[A-Z][A-Z0-9]{2}[A-Z0-9 \0]"),
}
MAX_UNPACKED_TEXT_BYTES = 1 << 16
"""No genre is longer, but a few compressed bytes may unpack to gigabytes."""

ID3_2_2_NAMES = {
    "TCO": "TCON",
    "TXX": "TXXX",
    "TP1": "TPE1",
    "TP2": "TPE2",
    "TAL": "TALB",
    "TCP": "TCMP",
}
ID3_EXTRA_NAMES = {
    ExtraField.STYLE: "TXXX:STYLE",
    ExtraField.GROUPING: "GRP1",  # TIT1 is the work, for iTunes, Navidrome and Mp3tag
    ExtraField.MOOD: "TMOO",  # of 2.4; readers of 2.3 take it too
    ExtraField.VOICE: "TXXX:VOICE",
}
ID3_FREE_NAMES = {
    "TXXX:MOOD": "TMOO", "TXXX:GROUPING": "GRP1", "TXXX:STYLE": "TXXX:STYLE",
    "TXXX:VOICE": "TXXX:VOICE",
}  # fmt: skip
"""Names that some programs give to extra fields, in any case of letters."""
ENHANCED_BYTES, ENHANCED_GENRE = 227, slice(185, 215)
"""The size of an enhanced ID3v1 tag (TAG+), and where its genre stands."""
ID3_ARTIST, ID3_ALBUM = "TPE1", "TALB"

LATIN1, UTF16, UTF16_BE, UTF8 = 0, 1, 2, 3
"""The first byte of a text frame says how its texts are encoded."""
BYTE_ENCODINGS = {LATIN1: "latin-1", UTF8: "utf-8"}
UTF16_ENCODINGS = {UTF16: "utf-16-le", UTF16_BE: "utf-16-be"}
BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}


@dataclass(frozen=True, slots=True)
class Id3Tag:
    """An ID3v2 tag.

    tail: the bytes behind the frames that are no padding. size: of the whole tag, in bytes.
    """

    version: int
    frames: tuple[bytes, ...]
    tail: bytes
    size: int


def read_id3_tag(file: BinaryIO, start: int) -> Id3Tag | None:
    """Return the ID3v2 tag at this place, or None if there is none. Raises TagError.

    ID3v2.3 can unsynchronise a whole tag; the returned frames are the original ones. A frame of
    2.4 keeps its unsynchronised bytes, and its own flag says so. New tags are not unsynchronised.
    """
    head = read_at(file, start, ID3_HEADER_BYTES)
    if len(head) < ID3_HEADER_BYTES or not head.startswith(b"ID3"):
        return None
    version, flags = head[3], head[5]
    if version not in FRAME_NAMES:
        raise TagError(f"its tag is ID3v2.{version}, a version that does not exist")
    size = decode_syncsafe(head[6:])
    body = file.read(size)
    if len(body) < size or max(head[6:]) >> 7:
        raise TagError("its ID3v2 tag is cut off, or its size is wrong", FailureKind.TRUNCATED)
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
    """Remove the zero bytes that unsynchronisation put behind bytes of 0xFF.

    Some programs set the flag and write the bytes as they are: such bytes are returned unchanged.
    """
    return data if SYNCHRONISATION.search(data) else data.replace(b"\xff\0", b"\xff")


def _get_extended_header_size(body: bytes, version: int) -> int:
    """Return the size of the extended header, 0 if it is missing although the flag is set."""
    if FRAME_NAMES[version].match(body):
        return 0
    if version == V2_4:
        return decode_syncsafe(body[:4])
    return 4 + int.from_bytes(body[:4], "big")


def _split_frames(body: bytes, version: int) -> tuple[list[bytes], bytes]:
    """Return the frames of a tag and the bytes behind them.

    Old versions of iTunes wrote the sizes of 2.3 into tags of 2.4; they are corrected here.
    """
    if version != V2_4:
        return _split_frames_by_size(body, version, 8)
    frames, tail = _split_frames_by_size(body, version, 7)
    if not tail.strip(b"\0"):
        return frames, tail
    itunes_frames, itunes_tail = _split_frames_by_size(body, version, 8)
    if itunes_tail.strip(b"\0"):
        return frames, tail
    return [
        frame[:4] + encode_syncsafe(len(frame) - ID3_HEADER_BYTES) + frame[8:]
        for frame in itunes_frames
    ], itunes_tail


def _split_frames_by_size(
    body: bytes, version: int, bits_per_byte: int
) -> tuple[list[bytes], bytes]:
    width, head = (3, 6) if version == V2_2 else (4, ID3_HEADER_BYTES)
    frames, position = [], 0
    while position + head <= len(body) and FRAME_NAMES[version].match(body, position):
        digits = body[position + width : position + 2 * width]
        size = sum(byte << bits_per_byte * i for i, byte in enumerate(reversed(digits)))
        stop = position + head + size
        if stop > len(body) or max(digits) >> bits_per_byte:
            break
        frames.append(body[position:stop])
        position = stop
    return frames, body[position:]


def _flag_unsynchronised(frame: bytes) -> bytes:
    """Return a frame of an unsynchronised 2.4 tag with the flag that says so in the frame."""
    if undo_unsynchronisation(frame[ID3_HEADER_BYTES:]) == frame[ID3_HEADER_BYTES:]:
        return frame
    return frame[:9] + bytes([frame[9] | FRAME_UNSYNCHRONISED_FLAG]) + frame[ID3_HEADER_BYTES:]


def build_id3_tag(old: Id3Tag | None, frames: Sequence[bytes], *, following: int) -> bytes:
    """Return a tag with these frames to replace an old one; no bytes if no tag is needed.

    An old tag of another version than new tags was not made by tagger, so it stays without frames.
    following: the size in bytes of the file behind the tag. mutagen computes the padding from it.
    """
    body = b"".join(frames) + (old.tail if old else b"")
    version = old.version if old else NEW_VERSION
    if not body and version == NEW_VERSION:
        return b""
    room = (old.size if old else 0) - ID3_HEADER_BYTES - len(body)
    body += bytes(PaddingInfo(room, following).get_default_padding())
    return b"ID3" + bytes([version, 0, 0]) + encode_syncsafe(len(body)) + body


def make_frames_from_id3v1(trailer: bytes, version: int) -> list[bytes]:
    """Return the fields of an ID3v1 tag as frames of 2.3 or 2.4."""
    id3v1 = parse_id3v1(trailer)
    contents = [
        ("TIT2", b"", id3v1.title),
        ("TPE1", b"", id3v1.artist),
        ("TALB", b"", id3v1.album),
        ("TDRC" if version == V2_4 else "TYER", b"", id3v1.year),
        ("COMM", b"eng\0", id3v1.comment),  # players show only comments without a description
        ("TRCK", b"", b"%d" % id3v1.track if id3v1.track else b""),
        ("TCON", b"", b"" if id3v1.genre is None else b"%d" % id3v1.genre),
    ]
    return [
        _make_frame_from_bytes(version, name, prefix, text)
        for name, prefix, text in contents
        if text
    ]


def _make_frame_from_bytes(version: int, name: str, prefix: bytes, text: bytes) -> bytes:
    """Return a text frame with bytes of an unknown encoding. prefix: what stands before the text.

    Bytes that are UTF-8 are text in UTF-8. All others stay as they are, as if they were Latin-1.
    """
    decoded = decode_foreign_bytes(text)
    if decoded.isascii() or decoded == text.decode("latin-1"):
        return build_frame(version, name, bytes([LATIN1]) + prefix + text + b"\0")
    if version == V2_4:
        return build_frame(version, name, bytes([UTF8]) + prefix + f"{decoded}\0".encode())
    texts = [prefix[3:-1].decode("ascii"), decoded] if prefix else [decoded]
    encoded = b"".join(map(_encode_utf16, texts))
    return build_frame(version, name, bytes([UTF16]) + prefix[:3] + encoded)


def build_frame(version: int, name: str, content: bytes) -> bytes:
    """Return a frame of 2.3 or 2.4 without flags."""
    size = len(content)
    digits = encode_syncsafe(size) if version == V2_4 else size.to_bytes(4, "big")
    return name.encode("ascii") + digits + bytes(2) + content


def is_shown_frame(frame: bytes) -> bool:
    """Tell whether players show a frame as text. If there is none, they show the ID3v1 tag."""
    return frame.startswith((b"T", b"COM", b"USLT", b"ULT"))


@cache
def get_id3_format(version: int) -> TagFormat:
    return TagFormat(
        "TCON",
        "TXXX:TAGGER_SCORES",
        "TXXX:TAGGER_MODEL",
        "TXXX:TAGGER_GENRE",
        get_name=partial(_get_frame_name, version),
        decode_item=partial(_decode_frame, version),
        encode_field=partial(encode_text_frames, version),
        resolve_genres=_resolve_genre_numbers,
        extras=name_extra_fields(ID3_EXTRA_NAMES, "TXXX:TAGGER_{}"),
        artists=("TPE2", ID3_ARTIST),
        album=ID3_ALBUM,
        compilation="TCMP",
    )


def decode_id3_genres(tag: Id3Tag) -> Values:
    """Return all genres of a tag, also those in a TXXX frame, which FFmpeg shows alike."""
    tag_format = get_id3_format(tag.version)
    texts = (
        text
        for frame in tag.frames
        if tag_format.get_name(frame).casefold() in ("tcon", "txxx:genre")
        for text in tag_format.decode_item(frame)
    )
    return tag_format.resolve_genres(tuple(texts))


def read_id3v1_genres(file: BinaryIO) -> Values:
    """Return the genre of an ID3v1 tag at the end, and that of an enhanced tag before it."""
    trailer = read_id3v1(file)
    if not trailer:
        return ()
    enhanced = read_at(file, max(get_size(file) - ID3V1_BYTES - ENHANCED_BYTES, 0), ENHANCED_BYTES)
    if enhanced.startswith(b"TAG+"):
        text = decode_foreign_bytes(enhanced[ENHANCED_GENRE].split(b"\0")[0]).strip()
        if text:
            return (text,)
    return decode_id3v1_genre(parse_id3v1(trailer))


def decode_id3v1_genre(id3v1: Id3v1) -> Values:
    is_known = id3v1.genre is not None and id3v1.genre < len(TCON.GENRES)
    return _resolve_genre_numbers((str(id3v1.genre),)) if is_known else ()


def read_leading_id3_tags(file: BinaryIO) -> Iterator[Id3Tag]:
    """Yield the ID3v2 tags at the start of a file, each behind the one before."""
    start = 0
    while tag := read_id3_tag(file, start):
        yield tag
        start += tag.size


def skip_id3_tags(file: BinaryIO) -> int:
    """Return where the file goes on behind the ID3v2 tags at its start."""
    return sum(tag.size for tag in read_leading_id3_tags(file))


def find_hiding_refusal(file: BinaryIO) -> TagError | None:
    """Return why a file without texts in its own tag cannot get one, or None if it can.

    FFmpeg shows the ID3v2 tag in front of such a file only as long as there is no other tag.
    """
    tags = read_leading_id3_tags(file)
    if any(is_shown_frame(frame) for tag in tags for frame in tag.frames):
        return TagError(
            "an ID3v2 tag stands in front of its sound, and players would not show it beside a new"
            " tag; a tag editor can move its texts into the tag that such a file should have"
        )
    return None


def read_trailing_id3_tag(file: BinaryIO) -> Id3Tag | None:
    """Return the ID3v2 tag at the end of a file, or before its ID3v1 tag; its footer shows it."""
    stop = get_size(file) - len(read_id3v1(file))
    footer = read_at(file, max(stop - ID3_HEADER_BYTES, 0), ID3_HEADER_BYTES)
    start = stop - 2 * ID3_HEADER_BYTES - decode_syncsafe(footer[6:])
    return read_id3_tag(file, start) if footer.startswith(b"3DI") and start >= 0 else None


def _get_frame_name(version: int, frame: bytes) -> str:
    name = frame[: 3 if version == V2_2 else 4].rstrip(b" \0").decode("latin-1")
    name = ID3_2_2_NAMES.get(name, name)
    if name != "TXXX":
        return name
    name = f"TXXX:{''.join(_decode_frame_texts(version, frame)[:1])}"
    return ID3_FREE_NAMES.get(name.upper(), name)


def _decode_frame(version: int, frame: bytes) -> Values:
    has_description = frame.startswith(b"TXX")
    return tuple(_decode_frame_texts(version, frame)[has_description:])


def _decode_frame_texts(version: int, frame: bytes) -> list[str]:
    """Return the texts of a frame, none if the frame cannot be decoded."""
    data = _unpack_frame(version, frame)
    if not data:
        return []
    if data[0] in UTF16_ENCODINGS:
        texts = _decode_utf16_texts(data[1:], UTF16_ENCODINGS[data[0]])
    elif data[0] in BYTE_ENCODINGS:
        texts = data[1:].decode(BYTE_ENCODINGS[data[0]], "replace").split("\0")
    else:
        return []
    return texts if texts[-1] else texts[:-1]


def _decode_utf16_texts(data: bytes, encoding: str) -> list[str]:
    """Decode texts in UTF-16, each of which may begin with its own byte order mark."""
    units = [data[i : i + 2] for i in range(0, len(data) - 1, 2)]
    stops = [2 * i for i, unit in enumerate(units) if unit == b"\0\0"]
    texts, start = [], 0
    for stop in [*stops, 2 * len(units)]:
        piece, start = data[start:stop], stop + 2
        encoding = BYTE_ORDER_MARKS.get(piece[:2], encoding)
        piece = piece[2:] if piece[:2] in BYTE_ORDER_MARKS else piece
        texts.append(piece.decode(encoding, "replace"))
    return texts


def _unpack_frame(version: int, frame: bytes) -> bytes:
    """Return the content of a frame, uncompressed; no bytes if it is encrypted or broken."""
    if version == V2_2:
        return frame[6:]
    flags, data = frame[9], frame[ID3_HEADER_BYTES:]
    is_compressed, is_encrypted, is_grouped, has_length, is_unsynchronised = (
        flags & bit for bit in FRAME_FLAGS[version]
    )
    if is_encrypted:
        return b""
    data = data[(1 if is_grouped else 0) + (4 if has_length else 0) :]
    data = undo_unsynchronisation(data) if is_unsynchronised else data
    if is_compressed:
        try:
            data = zlib.decompressobj().decompress(data, MAX_UNPACKED_TEXT_BYTES)
        except zlib.error:
            return b""
    return data


def encode_text_frames(version: int, name: str, values: Values) -> list[bytes]:
    """Return a TCON or TXXX frame with these texts, no frame if there is no text.

    Several texts are divided by null in 2.3 too, where the standard has only 2.4 do so.
    """
    if not "\0".join(values):
        return []
    name, _, description = name.partition(":")
    texts = [description, *values] if name == "TXXX" else values
    version = max(version, V2_3)  # files with a tag of 2.2 are not written
    if version == V2_4:
        content = bytes([UTF8]) + b"".join(f"{text}\0".encode() for text in texts)
    else:  # UTF-16 is the only Unicode that 2.3 knows
        content = bytes([UTF16]) + b"".join(map(_encode_utf16, texts))
    return [build_frame(version, name, content)]


def _encode_utf16(text: str) -> bytes:
    return b"\xff\xfe" + f"{text}\0".encode("utf-16-le")


def _resolve_genre_numbers(genres: Values) -> Values:
    """Return genres as names: ID3 also has them as numbers, such as `17` or `(17)`."""
    return tuple(TCON(text=list(genres)).genres) if genres else ()
