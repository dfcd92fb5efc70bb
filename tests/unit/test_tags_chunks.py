"""WAV and AIFF files: their ID3 chunk among all others."""

import struct
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from tagger.errors import TagError
from tagger.records import Tags
from tagger.tags import read_other_fields, read_tags, write_tags
from tests.builders import audio_bytes
from tests.rounds import OURS, written_and_undone

Chunk = Callable[[bytes, bytes], bytes]
TITLE = b"TIT2" + struct.pack(">IH", 6, 0) + b"\0Title"
GENRE = b"TCON" + struct.pack(">IH", 4, 0) + b"\0Pop"


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def big(name: bytes, content: bytes) -> bytes:
    return name + struct.pack(">I", len(content)) + content + bytes(len(content) % 2)


def id3(*frames: bytes, padding: int = 0) -> bytes:
    body = b"".join(frames) + bytes(padding)
    return b"ID3\3\0\0" + bytes([0, 0, len(body) >> 7, len(body) & 127]) + body


FMT = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16))
DATA = chunk(b"data", bytes(range(100)))
COMM = big(b"COMM", struct.pack(">hIh", 1, 50, 16) + bytes.fromhex("400BFA00000000000000"))
SSND = big(b"SSND", bytes(8) + bytes(range(100)))
OTHERS = [
    (b"bext", b"broadcast" * 67), (b"cue ", bytes(28)), (b"smpl", bytes(60)),
    (b"LIST", b"adtlnote"), (b"LIST", b"INFOICMT\5\0\0\0odd\0!\0"),
    (b"iXML", b"<x/>!"), (b"\0\1\2\3", b"no name"),
]  # fmt: skip
AIFF_OTHERS = [
    (b"MARK", b"\0\1markers"),
    (b"COMT", b"\0\1words"),
    (b"NAME", b"odd"),
    (b"APPL", b"x"),
]


def wav(*chunks: bytes, size: int | None = None) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def aiff(*chunks: bytes, kind: bytes = b"AIFF") -> bytes:
    body = kind + b"".join(chunks)
    return b"FORM" + struct.pack(">I", len(body)) + body


@pytest.mark.parametrize("name", [b"id3 ", b"ID3 "])
@pytest.mark.parametrize("padding", [0, 1, 5000])
@pytest.mark.parametrize("first", [True, False])
def test_all_chunks_of_a_wav_stay_in_order(
    tmp_path: Path, name: bytes, padding: int, *, first: bool
) -> None:
    path = tmp_path / "song.wav"
    tag = chunk(name, id3(TITLE, GENRE, padding=padding))
    others = [chunk(*each) for each in OTHERS]
    theirs = [FMT, *others[:3], DATA, *others[3:]]
    path.write_bytes(wav(*([tag, *theirs] if first else [*theirs, tag])))
    assert read_tags(path).genres == ("Pop",)
    written, undone = written_and_undone(path)
    for each in (written, undone):
        assert struct.unpack_from("<I", each, 4)[0] == len(each) - 8
        assert name in each
        places = [each.index(part) for part in theirs if b"INFO" not in part]
        assert places == sorted(places)
    assert b"".join(theirs) in undone


@pytest.mark.parametrize("name", [b"ID3 ", b"id3 "])
@pytest.mark.parametrize("kind", [b"AIFF", b"AIFC"])
def test_all_chunks_of_an_aiff_stay_in_order(tmp_path: Path, name: bytes, kind: bytes) -> None:
    path = tmp_path / "song.aif"
    others = [big(*each) for each in AIFF_OTHERS]
    theirs = [*others[:2], COMM, SSND, *others[2:]]
    path.write_bytes(aiff(*theirs[:3], big(name, id3(TITLE, GENRE)), *theirs[3:], kind=kind))
    written, undone = written_and_undone(path)
    for each in (written, undone):
        assert struct.unpack_from(">I", each, 4)[0] == len(each) - 8
        assert b"".join(theirs[:3]) + name in each
        assert each.endswith(b"".join(theirs[3:]))


def test_only_the_first_id3_chunk_is_ours(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    second = chunk(b"ID3 ", id3(TITLE, b"TCON" + struct.pack(">IH", 4, 0) + b"\0Ska"))
    path.write_bytes(wav(FMT, chunk(b"id3 ", id3(GENRE)), DATA, second))
    for each in written_and_undone(path):
        assert second in each


def test_what_stands_behind_a_tag_in_its_chunk_and_behind_the_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    path.write_bytes(wav(FMT, DATA, chunk(b"id3 ", id3(TITLE) + b"more")) + b"TAG" + bytes(125))
    for each in written_and_undone(path):
        assert b"more" in each
        assert each.endswith(b"TAG" + bytes(125))


@pytest.mark.parametrize("size", [0, 36, 0xFFFFFFFF], ids=["none", "too small", "streamed"])
def test_a_wrong_size_of_the_whole_does_not_lead_into_the_sound(tmp_path: Path, size: int) -> None:
    path = tmp_path / "song.wav"
    path.write_bytes(wav(FMT, DATA, size=size))
    written, undone = written_and_undone(path)
    assert written.startswith(wav(FMT, DATA)[:4])
    assert FMT + DATA in written
    assert undone == wav(FMT, DATA)


def test_a_last_chunk_without_its_byte_of_padding_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    odd = chunk(b"data", bytes(range(99)))
    path.write_bytes(wav(FMT, odd[:-1]))
    written, _ = written_and_undone(path)
    assert FMT + odd in written
    assert written.index(b"LIST") % 2 == 0


def test_no_info_chunk_is_made_that_would_hide_id3_from_ffmpeg(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    path.write_bytes(wav(FMT, DATA, chunk(b"id3 ", id3(TITLE))))
    write_tags(path, Tags(("Jazz",), ("Jazz",), "Jazz=1.0", "m"))
    with av.open(str(path)) as container:
        seen = container.metadata
    assert (seen["title"], seen["genre"]) == ("Title", "Jazz")
    written_and_undone(path)


@pytest.mark.parametrize(
    ("stored", "genres"), [(b"Pop", ("Pop",)), (b"P\xf6p;Ska\0\0", ("Pöp", "Ska")), (b"", ())]
)
def test_a_genre_in_info_comes_back_in_its_bytes_and_place(
    tmp_path: Path, stored: bytes, genres: tuple[str, ...]
) -> None:
    path = tmp_path / "song.wav"
    entries = [chunk(b"INAM", b"Title\0"), chunk(b"IGNR", stored), chunk(b"ICMT", b"words")]
    info = chunk(b"LIST", b"INFO" + b"".join(entries))
    path.write_bytes(wav(FMT, info, DATA))
    assert read_tags(path).genres == genres
    _, undone = written_and_undone(path)
    assert undone == wav(FMT, info, DATA)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (wav(FMT, DATA)[:-20], "cut off, or never finished"),
        (b"RF64" + wav(FMT, DATA)[4:], "RF64"),
        (aiff(COMM, SSND), "it is AIFF"),
        (wav(DATA), "no such sound as its name says"),
        (wav(FMT, chunk(b"id3 ", b"something else"), DATA), "holds no ID3 tag"),
    ],
)
def test_what_cannot_be_edited_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "song.wav"
    path.write_bytes(data)
    with pytest.raises(TagError, match=reason):
        write_tags(path, OURS)
    assert path.read_bytes() == data


def test_chunks_that_change_places_are_seen(tmp_path: Path) -> None:
    path, others = tmp_path / "song.wav", [chunk(*each) for each in OTHERS[:2]]
    path.write_bytes(wav(FMT, *others, DATA))
    before = read_other_fields(path)
    path.write_bytes(wav(FMT, *reversed(others), DATA))
    assert read_other_fields(path) != before


def test_a_plain_file_of_the_builders_is_written(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    path.write_bytes(audio_bytes(".wav"))
    written, _ = written_and_undone(path)
    assert b"IGNR" in written
