"""Tags are read ahead, many files in a call; a file that breaks its call fails alone."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tagger.errors import DecodeError, TrackError
from tagger.isolation import CallLimits, IsolatedCaller
from tagger.records import Track
from tagger.scanning import tag_reader
from tagger.scanning.tag_reader import TagReader, open_tag_reader
from tagger.settings import Settings
from tests.builders import build_audio
from tests.front_door import set_genre


@pytest.fixture
def reader() -> Iterator[TagReader]:
    with (
        closing(IsolatedCaller(CallLimits(60, 2048))) as isolated,
        open_tag_reader(isolated, Settings()) as opened,
    ):
        yield opened


@pytest.fixture
def tracks(tmp_path: Path) -> list[Track]:
    found = []
    for number in range(5):
        path = build_audio(tmp_path / f"{number}.flac", seconds=1)
        set_genre(path, f"Genre {number}")
        found.append(Track.from_stat(path, path.stat()))
    return found


def get_genres(reader: TagReader, track: Track) -> tuple[str, ...]:
    tags = reader.read(track).tags
    assert tags
    return tags.genres


def test_each_file_has_its_own_tags_in_any_order(
    reader: TagReader, tracks: list[Track], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tag_reader, "FILES_PER_CALL", 2)
    items = list(reader.read_ahead([tracks[:3], tracks[3:]], list))
    assert items == [tracks[:3], tracks[3:]]
    assert len(reader.ahead) == 5
    genres = [get_genres(reader, track) for track in reversed(tracks)]
    assert genres == [(f"Genre {number}",) for number in (4, 3, 2, 1, 0)]
    assert reader.ahead == {}


def test_small_folders_share_a_call(
    reader: TagReader, tracks: list[Track], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    call = IsolatedCaller.call

    def note(self: IsolatedCaller, function: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(len(args[0]))
        return call(self, function, *args, **kwargs)

    monkeypatch.setattr(IsolatedCaller, "call", note)
    monkeypatch.setattr(tag_reader, "FILES_PER_CALL", 4)
    for item in reader.read_ahead([[track] for track in tracks], list):
        assert get_genres(reader, item[0])
    assert sorted(calls) == [1, 4]


def take_each(tracks: Sequence[Track], taken: list[Track]) -> Iterator[list[Track]]:
    """Yield an item for each track, and note in `taken` how far the reader has come."""
    for track in tracks:
        taken.append(track)
        yield [track]


def test_memory_stays_flat_and_what_needs_no_reading_is_not_held_up(
    reader: TagReader, tracks: list[Track], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tag_reader, "MAX_TRACKS_AHEAD", 2)
    taken: list[Track] = []
    items = reader.read_ahead(
        take_each(tracks, taken), lambda item: [] if item == [tracks[0]] else item
    )
    assert next(items) == [tracks[0]]
    assert taken == tracks[:1]
    assert next(items) == [tracks[1]]
    assert taken == tracks[:4]
    assert list(items) == [[track] for track in tracks[2:]]


def test_one_new_file_does_not_hold_up_all_known_ones_behind_it(
    reader: TagReader, tracks: list[Track], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tag_reader, "MAX_TRACKS_AHEAD", 2)
    taken: list[Track] = []
    items = reader.read_ahead(
        take_each(tracks, taken), lambda item: item if item == [tracks[0]] else []
    )
    assert next(items) == [tracks[0]]
    assert taken == tracks[:3]
    assert list(reader.ahead) == [tracks[0]]
    assert list(items) == [[track] for track in tracks[1:]]


def test_a_file_that_breaks_a_call_does_not_harm_the_others(
    reader: TagReader, tracks: list[Track], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Path(tracks[2].path)
    broken.write_bytes(b"no flac")
    track = Track.from_stat(broken, broken.stat())
    list(reader.read_ahead([[tracks[1], track]], list))
    assert isinstance(reader.read(track).error, TrackError)
    assert get_genres(reader, tracks[1]) == ("Genre 1",)
    call = IsolatedCaller.call

    def call_or_break(self: IsolatedCaller, function: Any, first: Any, **kwargs: Any) -> Any:
        if isinstance(first, list):
            raise DecodeError("the process was killed")
        return call(self, function, first, **kwargs)

    monkeypatch.setattr(IsolatedCaller, "call", call_or_break)
    list(reader.read_ahead([tracks[:2]], list))
    assert [get_genres(reader, each) for each in tracks[:2]] == [("Genre 0",), ("Genre 1",)]
