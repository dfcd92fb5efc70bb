"""What is known of the clips of a library beside their genres."""

from pathlib import Path

from tagger.settings import Settings
from tagger.training.datasets import read_library
from tests.builders import add_genre, audio_bytes, open_tags


def song(path: Path, **tags: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(audio_bytes(".flac"))
    add_genre(path, "Jazz")
    audio = open_tags(path)
    audio.tags.update(tags)
    audio.save()


def test_an_album_is_a_title_in_a_folder(tmp_path: Path) -> None:
    song(tmp_path / "a" / "1.flac", artist="One", album="Greatest Hits")
    song(tmp_path / "a" / "2.flac", artist="Guest", albumartist="One", album="Greatest Hits")
    song(tmp_path / "b" / "1.flac", albumartist="Various Artists", album="Greatest Hits")
    song(tmp_path / "b" / "2.flac")
    clips = read_library(tmp_path, Settings(), {}).clips
    assert [clip.artist for clip in clips] == ["One", "One", "", ""]
    first, second, other, none = (clip.album for clip in clips)
    assert first == second != other
    assert none == ""
    assert {clip.labels for clip in clips} == {("Jazz",)}
