"""Damage to a music file, mostly where its headers and tags are, as a given chance has it."""

import re
import zlib
from collections.abc import Callable
from functools import lru_cache
from random import Random
from typing import Literal

MARK = re.compile(
    rb"RIFF|RF64|WAVE|fmt |fact|data|LIST|INFO|id3 |ID3|TAG|FORM|AIF[FC]|COMM|SSND|NAME|DSD |TTA1"
    rb"|fLaC|OggS|vorbis|OpusHead|OpusTags|Speex|ftyp|moov|mvhd|trak|tkhd|elst|mdia|mdhd|hdlr|minf"
    rb"|stbl|stsd|stts|stsc|stsz|stco|co64|mp4a|alac|esds|udta|meta|ilst|covr|chpl|free|mvex|moof"
    rb"|traf|trun|tfhd|mdat|----|APETAGEX|MAC |wvpk|MPCK|MP\+|SH|RG|EI|SO|ST|SE|Xing|Info|VBRI|LAME"
    rb"|[TWACPUGE][A-Z][A-Z0-9]{2}(?=\0)|(?:[A-Z]{4,12})(?==)|\x89PNG"
    rb"|[03]\x26\xb2\x75|\xa1\xdc\xab\x8c|\x91\x07\xdc\xb7|\x40\xa4\xd0\xd2|\xb5\x03\xbf\x5f"  # ASF
)
"""Names of chunks, atoms, objects, frames and fields in all the containers."""

LONGEST = 1 << 21
ENDS = 1 << 15
"""How much of the start and of the end of a file is searched for names."""
OGG_HEAD = 27
TURNED = bytes(int(f"{number:08b}"[::-1], 2) for number in range(256))


def mutate(data: bytes, other: bytes, chance: Random) -> bytes:
    """Return data damaged in one way or a few; `other` is a file to splice with."""
    ways = list(WAYS)
    for _ in range(1 + min(int(chance.expovariate(0.6)), 7)):
        way = chance.choices(ways, [*WAYS.values()])[0]
        data = way(data or b"\0", other or b"\0", chance)[:LONGEST]
    return with_ogg_checksums(data) if chance.random() < 0.8 else data


def mark(data: bytes, chance: Random) -> int:
    """Return where one of the names stands; each name is as likely, however often it is there."""
    found = marks(data)
    return chance.choice(found[chance.choice(sorted(found))]) if found else 0


@lru_cache(maxsize=256)
def marks(data: bytes) -> dict[bytes, list[int]]:
    """Return where each of the names stands."""
    found: dict[bytes, list[int]] = {}
    tail = max(len(data) - ENDS, ENDS)
    for start, stop in ((0, ENDS), (tail, len(data))):
        for match in MARK.finditer(data, start, stop):
            found.setdefault(match[0], []).append(match.start())
    return found


def spot(data: bytes, chance: Random) -> int:
    """Return a position: around a name, near an end of the file, or anywhere."""
    size = len(data)
    places: list[Callable[[], int]] = [
        lambda: mark(data, chance) + chance.randint(-8, 40),
        lambda: chance.randrange(1024),
        lambda: size - chance.randint(1, 256),
        lambda: chance.randrange(size),
    ]
    return max(0, min(chance.choices(places, (50, 25, 10, 15))[0](), size - 1))


def stretch(data: bytes, chance: Random) -> tuple[int, int]:
    """Return start and stop of a part: from one name to another, or a few bytes."""
    start = mark(data, chance) if chance.random() < 0.7 else spot(data, chance)
    if chance.random() < 0.5:
        return start, min(start + chance.randint(1, chance.choice((4, 64, 4096))), len(data))
    other = mark(data, chance)
    return min(start, other), max(start, other)


def put(data: bytes, start: int, new: bytes) -> bytes:
    """Write over the bytes from start on, never past the end."""
    return (data[:start] + new + data[start + len(new) :])[: len(data)]


def flip_bits(data: bytes, _other: bytes, chance: Random) -> bytes:
    result = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        result[spot(data, chance)] ^= 1 << chance.randrange(8)
    return bytes(result)


def set_bytes(data: bytes, _other: bytes, chance: Random) -> bytes:
    length = chance.randint(1, chance.choice((2, 16, 256)))
    kinds = (bytes(length), b"\xff" * length, chance.randbytes(length))
    return put(data, spot(data, chance), chance.choice(kinds))


def set_integer(data: bytes, _other: bytes, chance: Random) -> bytes:
    """Set a field to a size or number that programs trip over, or move it a little."""
    width = chance.choice((1, 2, 3, 4, 4, 4, 8))
    order: Literal["big", "little"] = chance.choice(("big", "little"))
    start, top, size = spot(data, chance), 256**width, len(data)
    old, half = int.from_bytes(data[start : start + width], order), top // 2
    fixed = (0, 1, 2, top - 1, top - 2, half, half - 1, top // 4, size, size - start, size * 2)
    moved = (old + 1, old - 1, old + chance.randint(-64, 64), old * 2, old // 2, old << 8)
    new = chance.choice(fixed if chance.random() < 0.6 else moved) % top
    return put(data, start, new.to_bytes(width, order))


def cut(data: bytes, _other: bytes, chance: Random) -> bytes:
    start, stop = stretch(data, chance)
    return data[:start] + data[stop:]


def duplicate(data: bytes, _other: bytes, chance: Random) -> bytes:
    start, stop = stretch(data, chance)
    at = stop if chance.random() < 0.5 else mark(data, chance)
    return data[:at] + data[start:stop] * chance.choice((1, 1, 2, 50)) + data[at:]


def swap(data: bytes, _other: bytes, chance: Random) -> bytes:
    places = sorted(mark(data, chance) for _ in range(4))
    a, b, c, d = places
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def insert(data: bytes, _other: bytes, chance: Random) -> bytes:
    start, length = spot(data, chance), chance.randint(1, chance.choice((4, 64, 4096)))
    return data[:start] + chance.choice((bytes(length), chance.randbytes(length))) + data[start:]


def truncate(data: bytes, _other: bytes, chance: Random) -> bytes:
    return data[: spot(data, chance) if chance.random() < 0.5 else chance.randrange(len(data))]


def splice(data: bytes, other: bytes, chance: Random) -> bytes:
    """Go on with another file, or put a part of it in."""
    start, stop = stretch(other, chance)
    at = mark(data, chance)
    return data[:at] + (other[start:] if chance.random() < 0.5 else other[start:stop] + data[at:])


def spoil_sound(data: bytes, _other: bytes, chance: Random) -> bytes:
    for _ in range(chance.randint(1, 20)):
        noise = chance.randbytes(chance.randint(1, 8))
        data = put(data, chance.randrange(len(data)), noise)
    return data


WAYS: dict[Callable[[bytes, bytes, Random], bytes], int] = {
    flip_bits: 15,
    set_bytes: 10,
    set_integer: 40,
    cut: 7,
    duplicate: 6,
    swap: 3,
    insert: 6,
    truncate: 4,
    splice: 5,
    spoil_sound: 8,
}


def with_ogg_checksums(data: bytes) -> bytes:
    """Make the checksum of each Ogg page right again, else no decoder would look at its content."""
    if not data.startswith(b"OggS"):
        return data
    result = bytearray(data)
    for match in re.finditer(rb"OggS", data):
        start = match.start()
        count = sum(data[start + 26 : start + OGG_HEAD])
        lacing = data[start + OGG_HEAD : start + OGG_HEAD + count]
        stop = start + OGG_HEAD + len(lacing) + sum(lacing)
        result[start + 22 : start + 26] = bytes(4)
        # zlib's CRC goes by the same polynomial, but with the bits of each byte the other way
        turned = ~zlib.crc32(result[start:stop].translate(TURNED), 0xFFFFFFFF) & 0xFFFFFFFF
        result[start + 22 : start + 26] = turned.to_bytes(4, "big").translate(TURNED)
    return bytes(result)
