"""Whose album a file is from, in every kind of file, as other programs write it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from mutagen import id3

from tagger.errors import AccessError, TagError
from tagger.records import Album
from tagger.tags import read_tags
from tests.builders import EACH_ENDING, add_rich_tags, audio_bytes, open_tags, write_text

FRAMES: Any = id3  # mutagen has no types
ID3_KINDS = {".mp3", ".mp2", ".aac", ".wav", ".wave", ".aif", ".aiff", ".dsf", ".tta"}
ALBUM_ARTIST = {
    **dict.fromkeys((".flac", ".ogg", ".oga", ".opus", ".spx"), "albumartist"),
    **dict.fromkeys((".m4a", ".m4b", ".m4r", ".mp4"), "aART"),
    **dict.fromkeys((".ape", ".wv", ".mpc"), "Album Artist"),
    ".wma": "WM/AlbumArtist",
}

each_kind = pytest.mark.parametrize("ending", EACH_ENDING)


def write(folder: Path, ending: str, *, rich: bool = True) -> Path:
    path = folder / f"song{ending}"
    path.write_bytes(audio_bytes(ending, rich=rich))
    return path


def set_album_artist(path: Path, artist: str) -> None:
    audio = open_tags(path)
    if path.suffix in ID3_KINDS:
        audio.tags.add(FRAMES.TPE2(encoding=3, text=artist))
    else:
        audio.tags[ALBUM_ARTIST[path.suffix]] = [artist]
    audio.save()


def set_compilation(path: Path, *, flag: bool) -> None:
    """Set the flag as other programs do: iTunes, Picard, Windows Media Player."""
    audio = open_tags(path)
    if path.suffix in ID3_KINDS:
        audio.tags.add(FRAMES.TCMP(encoding=3, text=str(int(flag))))
    elif path.suffix in {".m4a", ".m4b", ".m4r", ".mp4"}:
        audio.tags["cpil"] = flag
    elif path.suffix == ".wma":
        audio.tags["WM/IsCompilation"] = [flag]
    else:
        audio.tags["COMPILATION"] = [str(int(flag))]
    audio.save()


@each_kind
def test_the_first_artist_and_the_album(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path, ending)
    set_compilation(path, flag=False)  # some of them come with it
    assert read_tags(path).album == Album("One", "Album")


@each_kind
def test_the_artist_of_the_album_comes_first(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path, ending)
    set_compilation(path, flag=False)
    set_album_artist(path, "Die Ärzte ☃")
    assert read_tags(path).album == Album("Die Ärzte ☃", "Album")


@each_kind
def test_various_artists_are_nobody(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path, ending)
    set_album_artist(path, "Various Artists")
    assert read_tags(path).album == Album("One", "Album", various=True)


@each_kind
def test_a_flag_tells_a_compilation(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path, ending)
    for flag in (False, True):
        set_compilation(path, flag=flag)
        assert read_tags(path).album == Album("One", "Album", various=flag)


@each_kind
def test_what_is_not_said_is_empty(tmp_path: Path, ending: str) -> None:
    assert read_tags(write(tmp_path, ending, rich=False)).album == Album()


def test_the_tags_of_old(tmp_path: Path) -> None:
    path = write(tmp_path, ".mp3", rich=False)
    open_tags(path).delete()
    trailer = b"TAG" + b"".join(text.ljust(30, b"\0") for text in (b"Title", b"Artist", b"Album"))
    path.write_bytes(path.read_bytes() + trailer.ljust(127, b"\0") + b"\xff")
    assert read_tags(path).album == Album("Artist", "Album")
    frames = b"".join(
        name + len(text).to_bytes(3, "big") + text
        for name, text in ((b"TP1", b"\0One"), (b"TP2", b"\0Band"), (b"TAL", b"\0Title"))
    )
    head = b"ID3\2\0\0" + bytes([0, 0, 0, len(frames)])
    path.write_bytes(head + frames + audio_bytes(".mp3"))
    assert read_tags(path).album == Album("Band", "Title")


def test_a_wav_with_info_alone(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    with soundfile.SoundFile(path, "w", 44_100, 1) as file:
        file.artist, file.album = "Artémis", "Album"
        file.write(np.zeros(44_100))
    assert read_tags(path).album == Album("Artémis", "Album")
    add_rich_tags(path)
    assert read_tags(path).album == Album("One", "Album")


def test_errors_are_those_of_reading_tags(tmp_path: Path) -> None:
    with pytest.raises(TagError, match="whatever its name says"):
        read_tags(write_text(tmp_path / "song.ape"))
    with pytest.raises(AccessError, match="cannot read the tags"):
        read_tags(tmp_path / "none.mp3")
