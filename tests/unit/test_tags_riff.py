"""The chunks of WAV files around the genre."""

import io
import struct

import pytest

from tagger.errors import TagError
from tagger.tags import riff


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def info(*entries: bytes) -> bytes:
    return chunk(b"LIST", b"INFO" + b"".join(entries))


def wav(*chunks: bytes) -> bytes:
    return chunk(b"RIFF", b"WAVE" + b"".join(chunks))


FMT = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16))
DATA = chunk(b"data", bytes(range(100)))
TITLE = chunk(b"INAM", b"Title\0")
ODD = chunk(b"ICMT", b"odd\0!")
BEXT = chunk(b"bext", b"broadcast" * 9)
NOTES = chunk(b"LIST", b"adtlnote")
OLD = chunk(b"IGNR", b"Old\0")


def edited(data: bytes, *genres: str) -> bytes:
    file = io.BytesIO(data)
    riff.write_info_genre(file, riff.encode_info_genre(genres) if genres else None)
    return file.getvalue()


def other_parts(data: bytes) -> dict[str, str]:
    return dict(riff.hash_other_wav_chunks(io.BytesIO(data)))


def genres(data: bytes) -> tuple[str, ...]:
    return riff.read_info_genres(io.BytesIO(data))


@pytest.mark.parametrize(
    "chunks",
    [
        [FMT, DATA],
        [FMT, info(TITLE, ODD), DATA],
        [FMT, DATA, info(TITLE), NOTES, BEXT],
        [FMT, NOTES, info(TITLE, ODD, OLD), BEXT, DATA],
        [FMT, DATA, info(TITLE), info(ODD, OLD)],
    ],
    ids=["bare", "info", "info behind", "genre before the sound", "two lists"],
)
def test_all_other_chunks_keep_their_bytes_and_order(chunks: list[bytes]) -> None:
    before = wav(*chunks)
    after = edited(before, "Jazz", "Música")
    assert genres(after) == ("Jazz", "Música")
    assert after.count(b"IGNR") == 1
    assert int.from_bytes(after[4:8], "little") + 8 == len(after)
    others = [part for part in chunks if part[8:12] != b"INFO"]
    positions = [after.index(part) for part in others]
    assert positions == sorted(positions)
    for part in (TITLE, ODD):
        assert before.count(part) == after.count(part)
    assert other_parts(before) == other_parts(after)


@pytest.mark.parametrize("before", [wav(FMT, DATA), wav(FMT, info(TITLE, ODD), DATA)])
def test_nothing_is_left_of_a_genre_taken_out(before: bytes) -> None:
    assert edited(edited(before, "Jazz"), *()) == before


def test_a_change_of_any_other_chunk_is_seen() -> None:
    before = other_parts(wav(FMT, info(TITLE), BEXT, DATA))
    for other in (wav(FMT, info(ODD), BEXT, DATA), wav(FMT, info(TITLE), NOTES, DATA)):
        assert other_parts(other) != before


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"Jazz\0", ("Jazz",)),
        (b"Jazz", ("Jazz",)),
        (b"Jazz; Soul ;;Funk\0\0", ("Jazz", "Soul", "Funk")),
        ("Música".encode(), ("Música",)),
        ("Música".encode("cp1252"), ("Música",)),
        (b"\0", ()),
    ],
)
def test_a_genre_is_read_as_others_write_it(content: bytes, names: tuple[str, ...]) -> None:
    assert genres(wav(FMT, info(chunk(b"IGNR", content)), DATA)) == names


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (wav(FMT, DATA)[:-20], "larger than the file"),
        (wav(FMT, info(b"IGNR\xff\0\0\0Jazz"), DATA), "INFO chunk is broken"),
        (b"RF64" + wav(FMT, DATA)[4:], "RF64"),
        (b"RIFF\x04\0\0\0AVI ", "no plain WAV"),
    ],
)
def test_a_broken_file_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(TagError, match=reason):
        edited(data, "Jazz")


def test_a_large_file_is_moved_in_blocks() -> None:
    sound = bytes(range(256)) * 20_000  # five blocks and a bit
    before = wav(FMT, info(TITLE), chunk(b"data", sound))
    after = edited(before, "Jazz")
    assert chunk(b"data", sound) in after
    assert edited(after) == before
