"""What else is in a file: every byte of it counts."""

import random
from pathlib import Path

import pytest

from tagger.errors import FailureKind, TagError, TrackError
from tagger.tags import read_other_fields, read_tags
from tagger.writing.replace import find_changed_fields
from tests.builders import EACH_ENDING, ENDINGS, add_genre, audio_bytes
from tests.rounds import written_and_undone

HAVE_A_PLACE = {".flac", ".ogg", ".oga", ".opus", ".spx", ".wma"}
"""Where comments are a part of the stream, or padding stays behind."""
FLIPS = 150
UNSEEN = 6
"""So many of the flipped bytes may be sizes, numbers or checksums, which have to change."""


@pytest.mark.parametrize("ending", EACH_ENDING)
def test_a_changed_byte_anywhere_is_seen(tmp_path: Path, ending: str) -> None:
    path, data, chance = (
        tmp_path / f"song{ending}",
        audio_bytes(ending, rich=True),
        random.Random(0),
    )
    path.write_bytes(data)
    before = read_other_fields(path), read_tags(path)
    unseen = []
    for place in chance.sample([n for n, byte in enumerate(data) if byte], FLIPS):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        try:
            if (read_other_fields(path), read_tags(path)) == before:
                unseen.append(place)
        except TrackError:
            continue
    assert len(unseen) <= UNSEEN


@pytest.mark.parametrize("ending", EACH_ENDING)
def test_an_undone_file_is_the_old_one_but_for_padding(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"song{ending}"
    path.write_bytes(audio_bytes(ending, rich=True))
    add_genre(path, "Mine", "Yours")
    written_and_undone(path)
    _, once = written_and_undone(path)
    assert once.strip(b"\0")
    _, twice = written_and_undone(path)
    assert twice == once


@pytest.mark.parametrize("ending", sorted(set(ENDINGS) - HAVE_A_PLACE))
def test_a_file_without_a_tag_has_none_afterwards(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"song{ending}"
    data = bare(ending)
    path.write_bytes(data)
    _, undone = written_and_undone(path)
    assert undone == data


def bare(ending: str) -> bytes:
    """Return a file without any tag, for what encodes for the builders leaves its name in some."""
    data = audio_bytes(ending)
    if ending == ".mp3":
        return data[data.index(b"\xff\xfb") :]
    if ending == ".wav":
        start = data.index(b"LIST")
        stop = start + 8 + int.from_bytes(data[start + 4 : start + 8], "little")
        content = data[8:start] + data[stop:]
        return b"RIFF" + len(content).to_bytes(4, "little") + content
    return data.replace(b"meta", b"skip") if ending.startswith(".m") else data


def test_differences_are_named() -> None:
    assert find_changed_fields(
        {"a": "1", "b": "1", "c": "1"}, {"b": "2", "c": "1", "d": "1"}
    ) == list("abd")


@pytest.mark.parametrize(
    "content", [".mp3", ".aac", ".wav", ".flac", ".opus", ".m4a", ".wma", ".wv"]
)
@pytest.mark.parametrize("name", [".mp3", ".wav", ".flac", ".m4a", ".wma"])
def test_content_under_a_wrong_suffix_is_named(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / f"a{name}"
    path.write_bytes(audio_bytes(content))
    if name == content:
        assert not read_tags(path).genres
        return
    with pytest.raises(TagError, match="whatever its name says: rename it to") as caught:
        read_tags(path, for_writing=True)
    assert caught.value.kind is FailureKind.WRONG_CONTENT
    true = ".ogg" if content == ".opus" else content
    assert str(caught.value).endswith(f"*{true}")


@pytest.mark.parametrize("name", [".mp3", ".m4a", ".opus"])
@pytest.mark.parametrize(
    ("start", "suffix"), [(b"\x1a\x45\xdf\xa3", ".mka"), (b"caff", ".caf"), (b"\x0b\x77", ".ac3")]
)
def test_content_that_tagger_does_not_know_is_named(
    tmp_path: Path, name: str, start: bytes, suffix: str
) -> None:
    path = tmp_path / f"a{name}"
    path.write_bytes(start + bytes(2000))
    with pytest.raises(TagError, match=f"rename it to \\*{suffix}"):
        read_tags(path)


@pytest.mark.parametrize("suffix", [".wav", ".aiff", ".dsf", ".m4a", ".wma"])
def test_an_id3_tag_where_none_may_stand_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + audio_bytes(suffix))
    with pytest.raises(TagError, match=r"an ID3 tag stands in front of its .* remove this tag"):
        read_tags(path)


@pytest.mark.parametrize(
    ("suffix", "size", "words"),
    [(".m4a", 40, "index"), (".flac", 30, "cut off"), (".flac", 42, "cut off")],
)
def test_a_file_without_its_sound_is_cut_off(
    tmp_path: Path, suffix: str, size: int, words: str
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(audio_bytes(suffix)[:size])
    with pytest.raises(TagError, match=words) as caught:
        read_tags(path)
    assert caught.value.kind is FailureKind.TRUNCATED


def test_a_free_format_mp3_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(b"\xff\xfb\x00\x64" + bytes(2000))
    with pytest.raises(TagError, match="free-format"):
        read_tags(path)


@pytest.mark.parametrize("start", [b"\xff\xf8", b"\xff\xf9", b"\xff\xfe", b"\xff\xff", b"la"])
def test_no_kind_is_named_where_the_content_may_be_several(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(start + bytes(100))
    with pytest.raises(TagError, match="no FLAC stream, whatever its name says"):
        read_tags(path)
