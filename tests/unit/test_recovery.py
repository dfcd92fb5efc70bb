"""What a killed replacement leaves is cleared away, finished, or left for a person to decide."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tagger.errors import AccessError, UnfinishedError
from tagger.records import Tags
from tagger.tags import read_tags
from tagger.writing import recovery
from tagger.writing.recovery import remove_leftover_copy
from tagger.writing.replace import make_copy_name, make_full_copy_name
from tests.builders import audio_bytes
from tests.replacing import retag, track_of

TAGS = Tags(("Jazz",), ("Jazz",), "Jazz=0.800", "m@1")


class Wreck:
    """A song, as a kill in the middle of a write in place may leave it, and its whole copy."""

    def __init__(self, folder: Path) -> None:
        self.song = folder / "song.mp3"
        self.song.write_bytes(audio_bytes(".mp3", rich=True))
        self.old = track_of(self.song)
        self.before = self.song.read_bytes()
        model = folder / "model.mp3"
        model.write_bytes(self.before)
        retag(model, TAGS)
        self.after = model.read_bytes()
        model.unlink()
        self.copy = make_copy_name(self.old)
        self.whole = folder / make_full_copy_name(self.copy)
        self.whole.write_bytes(self.after)

    def write_half(self) -> None:
        """Write just into the first stretch of bytes that differ."""
        pairs = zip(self.before, self.after, strict=False)
        first = next(place for place, (old, new) in enumerate(pairs) if old != new)
        with self.song.open("r+b") as file:
            file.write(self.after[: first + 1])

    def clear(self) -> None:
        remove_leftover_copy(self.song, self.copy, self.old)


@pytest.fixture
def wreck(tmp_path: Path) -> Wreck:
    return Wreck(tmp_path)


def nothing(_: Wreck) -> None:
    """Be killed before the first byte."""


def room(wreck: Wreck) -> None:
    """Be killed once the room for the new bytes was reserved."""
    os.truncate(wreck.song, len(wreck.after))


def half(wreck: Wreck) -> None:
    wreck.write_half()


def whole(wreck: Wreck) -> None:
    """Be killed before the copy is removed."""
    with wreck.song.open("r+b") as file:
        file.write(wreck.after)


@pytest.mark.parametrize("kill", [nothing, room, half, whole])
def test_a_file_half_written_in_place_is_finished(
    wreck: Wreck, kill: Callable[[Wreck], None]
) -> None:
    kill(wreck)
    wreck.clear()
    assert wreck.song.read_bytes() == (wreck.before if kill is nothing else wreck.after)
    assert wreck.song.stat().st_ino == wreck.old.inode
    assert [path.name for path in wreck.song.parent.iterdir()] == ["song.mp3"]
    assert read_tags(wreck.song) == (Tags() if kill is nothing else TAGS)


def edited_later(wreck: Wreck) -> None:
    """Touch it after what counts as a long time here; the time it says may be any."""
    time.sleep(0.2)
    os.utime(wreck.song, ns=(0, 0))


def replaced(wreck: Wreck) -> None:
    other = wreck.song.with_name("other")
    other.write_bytes(b"somebody's")
    other.rename(wreck.song)


def made_a_link(wreck: Wreck) -> None:
    wreck.song.rename(wreck.song.with_name("elsewhere"))
    wreck.song.symlink_to("elsewhere")


def gone(wreck: Wreck) -> None:
    wreck.song.unlink()


@pytest.mark.parametrize("change", [edited_later, replaced, made_a_link, gone])
def test_what_somebody_may_have_touched_stays_and_so_does_the_copy(
    wreck: Wreck, change: Callable[[Wreck], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "MIN_WRITE_ALLOWANCE_S", 0.1)
    wreck.write_half()
    change(wreck)
    before = wreck.song.read_bytes() if wreck.song.exists() else None
    with pytest.raises(UnfinishedError, match=rf"is in {wreck.whole.name}"):
        wreck.clear()
    assert (wreck.song.read_bytes() if wreck.song.exists() else None) == before
    assert wreck.whole.read_bytes() == wreck.after


def test_a_copy_at_work_is_removed_and_no_other_file(tmp_path: Path) -> None:
    song = tmp_path / "song.mp3"
    song.write_bytes(audio_bytes(".mp3"))
    track = track_of(song)
    (tmp_path / make_copy_name(track)).touch()
    stranger = tmp_path / make_copy_name(track)  # by its name ours, but no journal says so
    stranger.touch()
    mine = next(path for path in tmp_path.iterdir() if path not in (song, stranger))
    remove_leftover_copy(song, mine.name, track)
    assert set(tmp_path.iterdir()) == {song, stranger}


def test_what_cannot_be_removed_is_said(wreck: Wreck, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(AccessError, match="Read-only file system"):
        wreck.clear()


@pytest.mark.parametrize(
    "name",
    ["precious.mp3", "../precious.mp3", ".", "", ".song.mp3.tagger-1-00000000.part.mp3", "a\0b"],
)
def test_nothing_is_removed_that_a_damaged_journal_names(tmp_path: Path, name: str) -> None:
    song, precious = tmp_path / "m" / "song.mp3", tmp_path / "m" / "precious.mp3"
    song.parent.mkdir()
    for path in (song, precious, tmp_path / "precious.mp3"):
        path.touch()
    assert not remove_leftover_copy(song, name, track_of(song))
    assert set(song.parent.iterdir()) == {song, precious}
    assert (tmp_path / "precious.mp3").exists()


def test_a_recovery_that_is_killed_too_is_taken_up_again(
    wreck: Wreck, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_: int, target: int) -> None:
        os.write(target, b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(recovery, "MIN_WRITE_ALLOWANCE_S", 0.5)
    wreck.write_half()
    time.sleep(1)  # what is written from now on would be somebody else's
    with monkeypatch.context() as patch:
        patch.setattr(recovery, "write_over", killed)
        with pytest.raises(KeyboardInterrupt):
            wreck.clear()
    wreck.clear()
    assert wreck.song.read_bytes() == wreck.after
