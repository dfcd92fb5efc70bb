"""The objects and attributes in the head of ASF files."""

import struct
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import pytest

from tagger.errors import TagError
from tagger.records import Tags
from tagger.tags import read_other_fields, read_tags, write_tags
from tests.builders import audio_bytes
from tests.rounds import OURS, written_and_undone

HEADER = UUID("75B22630-668E-11CF-A6D9-00AA0062CE6C").bytes_le
DESCRIPTION = UUID("75B22633-668E-11CF-A6D9-00AA0062CE6C").bytes_le
EXTENDED = UUID("D2D0A440-E307-11D2-97F0-00A0C95EA850").bytes_le
EXTENSION = UUID("5FBF03B5-A92E-11CF-8EE3-00C00C205365").bytes_le
METADATA = UUID("C5F8CBEA-5BAF-4877-8467-AA8C44FA4CCA").bytes_le
LIBRARY = UUID("44231C94-9498-49D1-A141-1D134E457054").bytes_le
MARKER = UUID("F487CD01-A951-11CF-8EE6-00C00C205365").bytes_le
SCRIPT = UUID("1EFB1A30-0B62-11D0-A39B-00A0C90348F6").bytes_le
PADDING = UUID("1806D474-CADF-4509-A4BA-9AABCB96AAE8").bytes_le
PROPERTIES = UUID("8CABDCA1-A947-11CF-8EE4-00C00C205365").bytes_le
STREAMS = UUID("B7DC0791-A9B7-11CF-8EE6-00C00C205365").bytes_le


def part(guid: bytes, content: bytes) -> bytes:
    return guid + struct.pack("<Q", len(content) + 24) + content


def short(name: str, kind: int, value: bytes) -> bytes:
    key = f"{name}\0".encode("utf-16-le")
    return struct.pack("<H", len(key)) + key + struct.pack("<HH", kind, len(value)) + value


def long(name: str, kind: int, value: bytes, *, language: int = 0, stream: int = 0) -> bytes:
    key = f"{name}\0".encode("utf-16-le")
    return struct.pack("<HHHHI", language, stream, len(key), kind, len(value)) + key + value


def listed(guid: bytes, items: Sequence[bytes]) -> bytes:
    return part(guid, struct.pack("<H", len(items)) + b"".join(items))


def text(value: str) -> bytes:
    return f"{value}\0".encode("utf-16-le")


def wma(*parts: bytes) -> bytes:
    """Return a WMA file with the head's objects that its sound needs, and these."""
    data = audio_bytes(".wma")
    (size,) = struct.unpack_from("<Q", data, 16)
    kept, at = [], 30
    while at < size:
        (length,) = struct.unpack_from("<Q", data, at + 16)
        if data[at : at + 16] in (PROPERTIES, STREAMS):
            kept.append(data[at : at + length])
        at += length
    body = b"".join([*kept, *parts])
    head = HEADER + struct.pack("<QIH", 30 + len(body), len(kept) + len(parts), 0x0201)
    whole = struct.pack("<Q", 30 + len(body) + len(data) - size)
    place = body.index(PROPERTIES) + 40
    return head + body[:place] + whole + body[place + 8 :] + data[size:]


def extension(*parts: bytes) -> bytes:
    body = b"".join(parts)
    reserved = UUID("ABD3D211-A9BA-11CF-8EE6-00C00C205365").bytes_le
    return part(EXTENSION, reserved + struct.pack("<HI", 6, len(body)) + body)


SHORTS = [
    short("Title", 0, text("in the wrong object")),
    short("WM/IsCompilation", 2, struct.pack("<I", 7)),
    short("twice", 0, text("a")),
    short("twice", 0, text("b")),
    short("unended", 0, "x".encode("utf-16-le")),
    short("many ends", 0, text("x\0\0")),
    short("odd", 0, b"abc"),
    short("word", 5, b"\1\2"),
    short("no such type", 99, b"?"),
]
LONGS = [
    long("WM/Picture", 1, bytes(range(256)) * 300),
    long("spoken", 0, text("x"), language=3, stream=2),
    long("id", 6, bytes(16)),
]
GENRE = short("WM/Genre", 0, text("Mine"))
SECOND = long("WM/Genre", 0, text("Yours"), language=1)


def test_all_objects_and_attributes_stay(tmp_path: Path) -> None:
    path = tmp_path / "song.wma"
    parts = [
        part(MARKER, bytes(16) + struct.pack("<IHH", 1, 0, 0) + b"a chapter"),
        listed(EXTENDED, [*SHORTS[:4], GENRE, *SHORTS[4:]]),
        part(DESCRIPTION, struct.pack("<5H", 6, 0, 0, 0, 2) + text("Hi") + text("")),
        extension(
            listed(METADATA, [long("WM/Genre", 0, text("of a stream"), stream=1)]),
            part(SCRIPT, b"commands"),
            listed(LIBRARY, [SECOND, *LONGS]),
            part(PADDING, bytes(40)),
        ),
        part(bytes(range(16)), b"nobody knows"),
    ]
    path.write_bytes(wma(*parts))
    assert read_tags(path).genres == ("Mine", "Yours")
    written, undone = written_and_undone(path)
    for each in (written, undone):
        assert all(item in each for item in [*SHORTS, *LONGS, parts[0], parts[2], parts[4]])
        assert size_in(each) == len(each)
    assert b"".join(parts) in undone


def size_in(data: bytes) -> int:
    return int(struct.unpack_from("<Q", data, data.index(PROPERTIES) + 40)[0])


def test_a_file_without_attributes_has_none_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "song.wma"
    path.write_bytes(wma())
    written, undone = written_and_undone(path)
    assert EXTENDED in written
    assert EXTENDED not in undone
    assert LIBRARY not in undone


def test_a_long_value_moves_to_the_library(tmp_path: Path) -> None:
    path = tmp_path / "song.wma"
    path.write_bytes(wma())
    scores = "x" * 40_000
    write_tags(path, Tags(("Jazz",), ("Jazz",), scores, "m"))
    assert read_tags(path).scores == scores


def test_a_genre_of_another_type_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "song.wma"
    odd = short("WM/Genre", 3, b"\1\0\0\0")
    path.write_bytes(wma(listed(EXTENDED, [odd])))
    assert read_tags(path).genres == ()
    _, undone = written_and_undone(path)
    assert odd in undone


def test_an_object_that_ffmpeg_forgot_to_count_stays(tmp_path: Path) -> None:
    path = tmp_path / "song.wma"
    data = bytearray(wma(part(MARKER, b"a chapter")))
    struct.pack_into("<I", data, 24, struct.unpack_from("<I", data, 24)[0] - 1)
    path.write_bytes(data)
    for each in written_and_undone(path):
        assert part(MARKER, b"a chapter") in each


def test_a_wrong_size_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "song.wma"
    path.write_bytes(wma() + b"more")
    size = size_in(path.read_bytes())
    for each in written_and_undone(path):
        assert size_in(each) == size


@pytest.mark.parametrize(
    "broken",
    [
        part(EXTENDED, struct.pack("<H", 2) + GENRE),
        listed(EXTENDED, [GENRE[:-1]]),
        MARKER + struct.pack("<Q", 1 << 40),
        MARKER + bytes(8),
        extension(listed(LIBRARY, [LONGS[1][:-1]])),
    ],
    ids=["count", "value", "too large", "too small", "library"],
)
def test_a_broken_head_is_refused(tmp_path: Path, broken: bytes) -> None:
    path = tmp_path / "song.wma"
    path.write_bytes(wma(broken))
    before = path.read_bytes()
    with pytest.raises(TagError):
        write_tags(path, OURS)
    assert path.read_bytes() == before


def test_a_change_of_type_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "song.wma"
    path.write_bytes(wma(listed(EXTENDED, [short("a", 5, b"\1\0")])))
    before = read_other_fields(path)
    path.write_bytes(wma(listed(EXTENDED, [short("a", 1, b"\1\0")])))
    assert read_other_fields(path) != before
