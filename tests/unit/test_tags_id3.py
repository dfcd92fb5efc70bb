"""ID3v2 tags in every shape that stands in the wild, and what stands around them."""

import io
import struct
import zlib
from pathlib import Path

import pytest
from mutagen import id3

from tagger.errors import TagError
from tagger.records import Tags
from tagger.tags import read_other_fields, read_tags, write_tags
from tagger.tags.id3 import (
    encode_text_frames,
    make_frames_from_id3v1,
    undo_unsynchronisation,
)
from tagger.tags.tag import decode_syncsafe, encode_syncsafe
from tests.builders import audio_bytes
from tests.rounds import OURS, written_and_undone


def syncsafe(number: int) -> bytes:
    return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))


def tag(version: int, body: bytes, *, flags: int = 0, footer: bool = False) -> bytes:
    head = bytes([version, 0, flags | (0x10 if footer else 0)]) + syncsafe(len(body))
    return b"ID3" + head + body + (b"3DI" + head if footer else b"")


def frame(version: int, name: bytes, content: bytes, flags: int = 0) -> bytes:
    size = syncsafe(len(content)) if version == 4 else len(content).to_bytes(4, "big")
    return name + size + struct.pack(">H", flags) + content


def sound() -> bytes:
    data = audio_bytes(".mp3")
    return data[data.index(b"\xff\xfb") :]


def mp3(tmp_path: Path, *parts: bytes) -> Path:
    path = tmp_path / "song.mp3"
    path.write_bytes(b"".join(parts))
    return path


LONG = b"\0eng\0" + b"c" * 200
V1 = b"TAG" + b"Title".ljust(30, b"\0") + bytes(94) + bytes([17])
LYRICS = b"LYRICSBEGININD0000200LYR00005words000034LYRICS200"
APE_ITEM = struct.pack("<II", 4, 0) + b"Genre\0Folk"
APE_HEAD = b"APETAGEX" + struct.pack("<III", 2000, len(APE_ITEM) + 32, 1)
APE = (
    APE_HEAD + struct.pack("<I8x", 0xA0000000) + APE_ITEM + APE_HEAD + struct.pack("<I8x", 1 << 31)
)


@pytest.mark.parametrize(
    "behind",
    [
        V1,
        APE,
        APE + V1,
        LYRICS + V1,
        APE + LYRICS + V1,
        b"\0" * 5,
        tag(4, frame(4, b"TIT2", b"\0behind"), footer=True),
    ],
)
@pytest.mark.parametrize("front", [b"", tag(3, frame(3, b"TIT2", b"\0Title"))], ids=["none", "v2"])
def test_what_stands_behind_the_sound_stays(tmp_path: Path, front: bytes, behind: bytes) -> None:
    path = mp3(tmp_path, front, sound(), behind)
    written, undone = written_and_undone(path)
    assert written.endswith(sound() + behind)
    assert undone.endswith(sound() + behind)
    assert front or undone == sound() + behind


def test_only_the_first_of_several_tags_is_ours(tmp_path: Path) -> None:
    second = tag(3, frame(3, b"TCON", b"\0Pop") + frame(3, b"TIT2", b"\0Second") + bytes(50))
    path = mp3(tmp_path, tag(4, frame(4, b"TIT2", b"\0First")), second, sound())
    written, _ = written_and_undone(path)
    assert written.endswith(second + sound())


def test_a_footer_goes_with_its_tag(tmp_path: Path) -> None:
    path = mp3(tmp_path, tag(4, frame(4, b"TCON", b"\3Pop"), footer=True), sound())
    written, undone = written_and_undone(path)
    assert b"3DI" not in written
    assert undone.endswith(sound())


@pytest.mark.parametrize(
    "extended",
    [
        (3, b"\0\0\0\x06\0\0\0\0\0\x08"),
        (3, b"\0\0\0\x0a\x80\0\0\0\0\x08crc!"),
        (4, b"\0\0\0\x06\1\0"),
        (3, b""),
    ],
    ids=["2.3", "2.3 with a sum", "2.4", "missing"],
)
def test_an_extended_header_is_no_frame(tmp_path: Path, extended: tuple[int, bytes]) -> None:
    version, head = extended
    frames = frame(version, b"TIT2", b"\0Title") + frame(version, b"TCON", b"\0Pop") + bytes(8)
    path = mp3(tmp_path, tag(version, head + frames, flags=0x40), sound())
    assert read_tags(path).genres == ("Pop",)
    assert "TIT2" in read_other_fields(path)
    written_and_undone(path)


ODD_FRAMES = [
    (3, 0x0080, struct.pack(">I", 6) + zlib.compress(b"\0Title")),
    (3, 0x0040, b"\1secret"),
    (3, 0x0020, b"\7\0Title"),
    (4, 0x0009, syncsafe(6) + zlib.compress(b"\0Title")),
    (4, 0x0004, b"\1secret"),
    (4, 0x0040, b"\7\0Title"),
    (4, 0x0002, b"\0\xff\x00\xe0"),
    (4, 0x0003, syncsafe(3) + b"\0\xff\x00\xe0"),
]


@pytest.mark.parametrize(("version", "flags", "content"), ODD_FRAMES)
@pytest.mark.parametrize("name", [b"TIT2", b"TCON", b"TXXX"])
def test_folded_secret_and_grouped_frames_stay_or_come_back(
    tmp_path: Path, name: bytes, version: int, flags: int, content: bytes
) -> None:
    odd = frame(version, name, content, flags)
    path = mp3(tmp_path, tag(version, odd + frame(version, b"TALB", b"\0Album")), sound())
    written, undone = written_and_undone(path)
    assert odd in undone
    assert name == b"TCON" or odd in written


@pytest.mark.parametrize(
    ("flags", "content"),
    [
        (0x0088, struct.pack(">I", 4) + zlib.compress(b"\0Pop")),
        (0x0020, b"\7\0Pop"),
    ],
)
def test_a_genre_is_read_out_of_its_wrapping(tmp_path: Path, flags: int, content: bytes) -> None:
    path = mp3(tmp_path, tag(3, frame(3, b"TCON", content, flags)), sound())
    assert read_tags(path).genres == ("Pop",)


@pytest.mark.parametrize(
    "genre",
    [
        b"\0(17)Rock", b"\0Rock\0Pop", b"\0Rock/Pop", b"\1\xff\xfeP\0o\0p\0",
        b"\1\xfe\xff\0P\0o\0p\0\0\xff\xfeR\0", b"\2\0P\0o\0p", b"\3P\xc3\xb6p\0\0", b"\0", b"\1",
        b"\7Pop", b"\0P\xf6p",
    ],
)  # fmt: skip
@pytest.mark.parametrize("version", [3, 4])
def test_a_genre_comes_back_in_the_bytes_it_had(tmp_path: Path, version: int, genre: bytes) -> None:
    frames = [
        frame(version, b"TIT2", b"\0Title"),
        frame(version, b"TCON", genre),
        frame(version, b"TCON", b"\0Second"),
        frame(version, b"TALB", b"\0Album"),
    ]
    path = mp3(tmp_path, tag(version, b"".join(frames)), sound())
    _, undone = written_and_undone(path)
    assert b"".join(frames) in undone


def test_frames_that_mutagen_drops_stay(tmp_path: Path) -> None:
    frames = [
        frame(3, b"TIT2", b""),
        frame(3, b"TT2\0", b"\0Old name"),
        frame(3, b"APIC", b"x"),
        frame(3, b"XYZ ", b"spaced"),
        frame(3, b"TPE1", b"\0One"),
        frame(3, b"TPE1", b"\0Two"),
    ]
    path = mp3(tmp_path, tag(3, b"".join(frames) + bytes(30)), sound())
    for each in written_and_undone(path):
        assert b"".join(frames) in each


def test_what_is_no_frame_stays_behind_the_frames(tmp_path: Path) -> None:
    junk = b"\xff\xfe not a frame" * 3
    path = mp3(tmp_path, tag(3, frame(3, b"TIT2", b"\0Title") + junk + bytes(9)), sound())
    for each in written_and_undone(path):
        assert junk in each


def test_a_tag_of_2_4_keeps_its_unsynchronised_frames(tmp_path: Path) -> None:
    private = frame(4, b"PRIV", b"a\0\xff\x00\xe0\xff\x00\x00", 0x0000)
    genre = frame(4, b"TCON", b"\1\xff\x00\xfeP\0o\0p\0")
    path = mp3(tmp_path, tag(4, private + genre, flags=0x80), sound())
    assert read_tags(path).genres == ("Pop",)
    written_and_undone(path)
    tags = id3.ID3(path)
    assert tags["PRIV:a:\xff\xe0\xff\x00"].data == b"\xff\xe0\xff\x00"
    assert read_tags(path).genres == ("Pop",)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (b"ID3\x05\0\0\0\0\0\0", "2.5, a version that does not exist"),
        (b"ID3\x03\0\0\0\0\x7f\x7f", "cut off"),
        (b"ID3\x03\0\0\0\0\x80\0", "its size is wrong"),
    ],
)
def test_a_broken_tag_is_refused(tmp_path: Path, broken: bytes, reason: str) -> None:
    path = mp3(tmp_path, broken, sound())
    before = path.read_bytes()
    with pytest.raises(TagError, match=reason):
        write_tags(path, OURS)
    assert path.read_bytes() == before


def test_a_dsf_file_keeps_what_stands_behind_its_tag(tmp_path: Path) -> None:
    path = tmp_path / "song.dsf"
    path.write_bytes(audio_bytes(".dsf", rich=True) + b"more of somebody's")
    for each in written_and_undone(path):
        assert each.endswith(b"more of somebody's")
        assert int.from_bytes(each[12:20], "little") == len(each)


def test_a_dsf_file_that_points_at_no_tag_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "song.dsf"
    data = audio_bytes(".dsf")
    path.write_bytes(data[:20] + struct.pack("<Q", 100) + data[28:])
    with pytest.raises(TagError, match="points at an ID3 tag that is not there"):
        write_tags(path, OURS)


def test_true_audio_keeps_an_ape_and_an_old_tag(tmp_path: Path) -> None:
    path = tmp_path / "song.tta"
    path.write_bytes(tag(3, frame(3, b"TIT2", b"\0Title")) + audio_bytes(".tta") + APE + V1)
    for each in written_and_undone(path):
        assert each.endswith(audio_bytes(".tta") + APE + V1)


def test_ours_left_by_an_earlier_run_come_back_too(tmp_path: Path) -> None:
    path = mp3(tmp_path, sound())
    write_tags(path, Tags(("Old",), ("Old",), "Old=1.0", "old"))
    written_and_undone(path)
    assert read_tags(path).written == ("Old",)


def test_new_frames_are_utf_16_with_a_mark_in_2_3_and_utf_8_in_2_4() -> None:
    assert encode_text_frames(3, "TCON", ("Ö", "B")) == [
        frame(3, b"TCON", b"\1\xff\xfe\xd6\0\0\0\xff\xfeB\0\0\0")
    ]
    assert encode_text_frames(4, "TXXX:TAGGER_MODEL", ("Ö" * 99,)) == [
        frame(4, b"TXXX", b"\3TAGGER_MODEL\0" + "Ö".encode() * 99 + b"\0")
    ]
    assert encode_text_frames(4, "TCON", ("",)) == encode_text_frames(3, "TCON", ()) == []


@pytest.mark.parametrize("version", [3, 4])
def test_mutagen_reads_the_new_frames(version: int) -> None:
    values = ("Hip-Hop", "Música & Söul ☃", "x" * 300)
    frames = encode_text_frames(version, "TCON", values)
    frames += encode_text_frames(version, "TXXX:TAGGER_GENRE", values)
    found = id3.ID3(io.BytesIO(tag(version, b"".join(frames))))
    assert found["TCON"].text == found["TXXX:TAGGER_GENRE"].text == list(values)


def id3v1(year: bytes, comment: bytes, genre: int, title: bytes = b"Title") -> bytes:
    texts = b"".join(text.ljust(30, b"\0") for text in (title, b" Art\xefst ", b""))
    return b"TAG" + texts + year.ljust(4, b"\0") + comment.ljust(30, b"\0") + bytes([genre])


@pytest.mark.parametrize(
    ("trailer", "frames"),
    [
        (
            id3v1(b"1999", b"a comment".ljust(28, b"\0") + b"\0\x07", 17),
            {
                b"TIT2": b"Title",
                b"TPE1": b"Art\xefst",
                b"TDRC": b"1999",
                b"COMM": b"eng\0a comment",
                b"TRCK": b"7",
                b"TCON": b"17",
            },
        ),
        (
            id3v1(b"", b"a comment of thirty letters ok", 255, title=b""),
            {b"TPE1": b"Art\xefst", b"COMM": b"eng\0a comment of thirty letters ok"},
        ),
        (
            id3v1(b"abcd", b"", 0),
            {b"TIT2": b"Title", b"TPE1": b"Art\xefst", b"TDRC": b"abcd", b"TCON": b"0"},
        ),
    ],
    ids=["with a track number", "without", "a year that is none"],
)
def test_an_old_tag_becomes_frames(trailer: bytes, frames: dict[bytes, bytes]) -> None:
    assert make_frames_from_id3v1(trailer, 4) == [
        frame(4, name, b"\0" + content + b"\0") for name, content in frames.items()
    ]


@pytest.mark.parametrize(
    ("data", "decoded"),
    [
        (b"a\xff\0\xe0\xff\0\0b", b"a\xff\xe0\xff\0b"),
        (b"\xff\0\xff\0", b"\xff\xff"),
        (b"\xff\x01\n\xff\n", b"\xff\x01\n\xff\n"),
        (b"\xff\0\xff\xe0", b"\xff\0\xff\xe0"),  # as it is, whatever the flag says
        (b"\xff\0\xff", b"\xff\0\xff"),
        (b"\xff\xff\0", b"\xff\xff\0"),
    ],
)
def test_unsynchronisation_is_undone(data: bytes, decoded: bytes) -> None:
    assert undo_unsynchronisation(data) == decoded


@pytest.mark.parametrize("size", [0, 127, 128, 300, (1 << 28) - 1])
def test_a_syncsafe_size_comes_back(size: int) -> None:
    assert encode_syncsafe(size) == syncsafe(size)
    assert decode_syncsafe(encode_syncsafe(size)) == size


def test_a_tag_that_is_too_large_is_refused() -> None:
    with pytest.raises(TagError, match="larger than the 256 MB"):
        encode_syncsafe(1 << 28)
