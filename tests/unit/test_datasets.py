"""Clips of a tagged library, and the files with their decoded sound."""

from pathlib import Path

from tagger.settings import Settings
from tagger.training.datasets import read_library
from tagger.training.decoding import DecodePlan
from tests.builders import add_genre, audio_bytes, open_tags


def build_song(path: Path, **tags: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(audio_bytes(".flac"))
    add_genre(path, "Jazz")
    audio = open_tags(path)
    audio.tags.update(tags)
    audio.save()


def test_the_same_title_in_another_folder_is_another_album(tmp_path: Path) -> None:
    build_song(tmp_path / "a" / "1.flac", artist="One", album="Greatest Hits")
    build_song(tmp_path / "a" / "2.flac", artist="Guest", albumartist="One", album="Greatest Hits")
    build_song(tmp_path / "b" / "1.flac", albumartist="Various Artists", album="Greatest Hits")
    build_song(tmp_path / "b" / "2.flac")
    clips = read_library(tmp_path, Settings(), {}).clips
    assert [clip.artist for clip in clips] == ["One", "One", "", ""]
    first, second, other, none = (clip.album for clip in clips)
    assert first == second != other
    assert none == ""
    assert {clip.labels for clip in clips} == {("Jazz",)}


def test_sound_that_version_0_1_0_decoded_is_used_again() -> None:
    assert f"{DecodePlan(16_000, 30.0, 1)}" == "Plan(rate_hz=16000, window_s=30.0, count=1)"
