"""APEv2 tags and their neighbours in Monkey's Audio, WavPack and Musepack files."""

import io
import struct
from pathlib import Path

import pytest

from tagger.errors import FailureKind, TagError
from tagger.tags import read_other_fields, read_tags, write_tags
from tagger.tags.ape import find_ape_tag
from tagger.writing.replace import find_changed_fields
from tests.builders import PNG, audio_bytes
from tests.replacing import inspect_file, retag
from tests.rounds import OURS, written_and_undone

V1 = b"TAG" + b"Title".ljust(125, b"\0")
LYRICS = b"LYRICSBEGININD0000200LYR00005words000034LYRICS200"
HAS_HEADER, IS_HEADER, READ_ONLY, BINARY, LINK = 1 << 31, 1 << 29, 1, 2, 4
ENDINGS = pytest.mark.parametrize("ending", [".ape", ".wv", ".mpc"])


def item(key: bytes, value: bytes, flags: int = 0) -> bytes:
    return struct.pack("<II", len(value), flags) + key + b"\0" + value


def tag(*items: bytes, version: int = 2000, header: bool = True, footer: bool = True) -> bytes:
    body = b"".join(items)
    size = len(body) + (32 if footer else 0)
    head = b"APETAGEX" + struct.pack("<III", version, size, len(items))
    flags = HAS_HEADER if header else 0
    first = head + struct.pack("<I8x", flags | IS_HEADER) if header else b""
    return first + body + (head + struct.pack("<I8x", flags) if footer else b"")


ITEMS = (
    item(b"tItLe", b"Title", READ_ONLY),
    item(b"GENRE", "Mïne\0Yours".encode(), READ_ONLY),
    item(b"Cover Art (Front)", b"a.png\0" + PNG, BINARY),
    item(b"File", b"http://example.org", LINK),
    item(b"Artist", b"no \xff UTF-8"),
    item(b"Odd", b"", 6),
)


@ENDINGS
@pytest.mark.parametrize("behind", [b"", V1, LYRICS + V1], ids=["end", "v1", "lyrics"])
@pytest.mark.parametrize("header", [True, False])
def test_items_and_what_stands_behind_stay(
    tmp_path: Path, ending: str, behind: bytes, *, header: bool
) -> None:
    path, sound = tmp_path / f"song{ending}", audio_bytes(ending)
    path.write_bytes(sound + tag(*ITEMS, header=header) + behind)
    assert read_tags(path).genres == ("Mïne", "Yours")
    written, undone = written_and_undone(path)
    for each in (written, undone):
        assert each.startswith(sound)
        assert each.endswith(behind)
        assert all(item in each for item in ITEMS if b"GENRE" not in item)
    assert undone == sound + tag(*ITEMS) + behind


@pytest.mark.parametrize("rest", range(4))
@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("wav_tail", [0, 290])
def test_ffmpeg_takes_the_tag_of_monkeys_audio_for_sound_and_that_is_no_change(
    tmp_path: Path, rest: int, wav_tail: int, *, header: bool
) -> None:
    path = tmp_path / "song.ape"
    sound = bytearray(audio_bytes(".ape") + bytes(wav_tail) + bytes(rest))
    struct.pack_into("<I", sound, 32, wav_tail)  # what a WAV had behind its sound
    path.write_bytes(sound + tag(*ITEMS, header=header))
    before = inspect_file(path)
    retag(path, OURS)
    assert read_tags(path) == OURS
    assert not find_changed_fields(before, inspect_file(path))


@ENDINGS
def test_a_new_tag_stands_before_an_old_one(tmp_path: Path, ending: str) -> None:
    path, sound = tmp_path / f"song{ending}", audio_bytes(ending)
    path.write_bytes(sound + V1)
    written, undone = written_and_undone(path)
    assert written.endswith(V1)
    assert undone == sound + V1


@pytest.mark.parametrize("footer", [True, False])
def test_a_tag_before_the_sound_stays_there(tmp_path: Path, *, footer: bool) -> None:
    path, sound = tmp_path / "song.mpc", audio_bytes(".mpc")
    path.write_bytes(tag(*ITEMS, footer=footer) + sound)
    written, undone = written_and_undone(path)
    assert written.endswith(sound)
    assert undone == tag(*ITEMS) + sound


def test_an_old_version_is_read_and_not_written(tmp_path: Path) -> None:
    path = tmp_path / "song.ape"
    path.write_bytes(audio_bytes(".ape") + tag(item(b"Genre", b"Pop"), version=1000, header=False))
    before = path.read_bytes()
    assert read_tags(path).genres == ("Pop",)
    with pytest.raises(TagError, match="APEv1"):
        write_tags(path, OURS)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "broken",
    [
        tag(item(b"Genre", b"Pop"))[32:],  # says that it has a header
        tag(struct.pack("<II", 999, 0) + b"Genre\0Pop"),
        tag(item(b"Genre", b"Pop") + b"more"),
        tag(item(b"Genre", b"Pop"), header=False)[:-20] + struct.pack("<I", 1 << 30) + bytes(16),
    ],
    ids=["no header", "long item", "more than items", "size"],
)
def test_a_broken_tag_is_refused(tmp_path: Path, broken: bytes) -> None:
    path = tmp_path / "song.mpc"
    path.write_bytes(audio_bytes(".mpc") + broken)
    before = path.read_bytes()
    with pytest.raises(TagError):
        write_tags(path, OURS)
    assert path.read_bytes() == before


def test_an_id3_tag_before_wavpack_stays(tmp_path: Path) -> None:
    path = tmp_path / "song.wv"
    front = b"ID3\3\0\0\0\0\0\x14" + bytes(20)
    path.write_bytes(front + audio_bytes(".wv"))
    written, undone = written_and_undone(path)
    assert written.startswith(front)
    assert undone == front + audio_bytes(".wv")


def test_an_item_that_becomes_read_only_is_another(tmp_path: Path) -> None:
    path = tmp_path / "song.wv"
    path.write_bytes(audio_bytes(".wv") + tag(item(b"Title", b"x")))
    before = read_other_fields(path)
    path.write_bytes(audio_bytes(".wv") + tag(item(b"Title", b"x", READ_ONLY)))
    assert read_other_fields(path) != before


@pytest.mark.parametrize("behind", [b"", V1, LYRICS + V1], ids=["end", "v1", "lyrics"])
@pytest.mark.parametrize("header", [True, False])
def test_a_tag_is_found_with_its_stray_headers(behind: bytes, *, header: bool) -> None:
    sound, whole = b"MPCK" + bytes(200), tag(*ITEMS, header=header)
    found = find_ape_tag(io.BytesIO(sound + whole[:24] * 2 + whole + behind))
    assert found
    stray = 48 if header else 0  # without a header these bytes are none of a tag
    assert found.start == len(sound) + 48 - stray
    assert found.stop == len(sound) + 48 + len(whole)
    assert found.items == ITEMS


@pytest.mark.parametrize("size", [0, 5, 31, 32, 127, 128, 150])
def test_a_file_without_a_tag_has_none(size: int) -> None:
    assert find_ape_tag(io.BytesIO(bytes(size))) is None
    assert find_ape_tag(io.BytesIO((bytes(size) + V1)[-size - 3 :])) is None


def test_a_tag_that_says_it_is_longer_than_the_file_is_refused() -> None:
    with pytest.raises(TagError, match="is broken") as raised:
        find_ape_tag(io.BytesIO(tag(*ITEMS, footer=False)[:-1]))
    assert raised.value.kind is FailureKind.DAMAGED
