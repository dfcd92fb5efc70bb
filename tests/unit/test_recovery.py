"""What a killed replacement leaves is removed, finished, or left for a person to decide."""

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
from tests.replacing import make_track, retag

TAGS = Tags(("Jazz",), ("Jazz",), "Jazz=0.800", "m@1")


class KilledWrite:
    """A song that a run was writing in place when it was killed, and the verified copy."""

    def __init__(self, folder: Path) -> None:
        self.song = folder / "song.mp3"
        self.song.write_bytes(audio_bytes(".mp3", rich=True))
        self.old = make_track(self.song)
        self.before = self.song.read_bytes()
        model = folder / "model.mp3"
        model.write_bytes(self.before)
        retag(model, TAGS)
        self.after = model.read_bytes()
        model.unlink()
        self.copy = make_copy_name(self.old)
        self.full_copy = folder / make_full_copy_name(self.copy)
        self.full_copy.write_bytes(self.after)

    def write_half(self) -> None:
        """Write up to the first byte that differs."""
        pairs = zip(self.before, self.after, strict=False)
        first = next(index for index, (old, new) in enumerate(pairs) if old != new)
        with self.song.open("r+b") as file:
            file.write(self.after[: first + 1])

    def recover(self) -> None:
        remove_leftover_copy(self.song, self.copy, self.old)


@pytest.fixture
def killed(tmp_path: Path) -> KilledWrite:
    return KilledWrite(tmp_path)


def before_the_first_byte(_: KilledWrite) -> None:
    pass


def after_reserving_space(killed: KilledWrite) -> None:
    os.truncate(killed.song, len(killed.after))


def in_the_middle(killed: KilledWrite) -> None:
    killed.write_half()


def in_the_middle_of_a_power_cut(killed: KilledWrite) -> None:
    """Have new bytes on the disk, but still the old times of the file."""
    killed.write_half()
    os.utime(killed.song, ns=(killed.old.mtime_ns, killed.old.mtime_ns))


def before_removing_the_copy(killed: KilledWrite) -> None:
    with killed.song.open("r+b") as file:
        file.write(killed.after)


@pytest.mark.parametrize(
    "moment",
    [
        before_the_first_byte,
        after_reserving_space,
        in_the_middle,
        in_the_middle_of_a_power_cut,
        before_removing_the_copy,
    ],
)
def test_a_file_half_written_in_place_is_finished(
    killed: KilledWrite, moment: Callable[[KilledWrite], None]
) -> None:
    moment(killed)
    killed.recover()
    assert killed.song.read_bytes() == killed.after
    assert killed.song.stat().st_ino == killed.old.inode
    assert [path.name for path in killed.song.parent.iterdir()] == ["song.mp3"]
    assert read_tags(killed.song) == TAGS


def edit_later(killed: KilledWrite) -> None:
    """Change the file after the longest time of a write, with an mtime of long ago."""
    time.sleep(0.2)
    os.utime(killed.song, ns=(0, 0))


def replace_file(killed: KilledWrite) -> None:
    other = killed.song.with_name("other")
    other.write_bytes(b"somebody's")
    other.rename(killed.song)


def make_link(killed: KilledWrite) -> None:
    killed.song.rename(killed.song.with_name("elsewhere"))
    killed.song.symlink_to("elsewhere")


def remove(killed: KilledWrite) -> None:
    killed.song.unlink()


@pytest.mark.parametrize("change", [edit_later, replace_file, make_link, remove])
def test_a_file_that_somebody_may_have_changed_stays_and_so_does_the_copy(
    killed: KilledWrite, change: Callable[[KilledWrite], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "MIN_WRITE_ALLOWANCE_S", 0.1)
    killed.write_half()
    change(killed)
    before = killed.song.read_bytes() if killed.song.exists() else None
    with pytest.raises(UnfinishedError, match=rf"is in {killed.full_copy.name}"):
        killed.recover()
    assert (killed.song.read_bytes() if killed.song.exists() else None) == before
    assert killed.full_copy.read_bytes() == killed.after


def test_a_half_written_file_waits_while_another_program_writes_it(killed: KilledWrite) -> None:
    killed.write_half()
    half = killed.song.read_bytes()
    with (
        killed.song.open("r+b"),
        pytest.raises(AccessError, match="another program has it open for writing"),
    ):
        killed.recover()
    assert killed.song.read_bytes() == half
    killed.recover()
    assert killed.song.read_bytes() == killed.after


def test_an_unverified_copy_is_removed_and_no_other_file(tmp_path: Path) -> None:
    song = tmp_path / "song.mp3"
    song.write_bytes(audio_bytes(".mp3"))
    track = make_track(song)
    (tmp_path / make_copy_name(track)).touch()
    other = tmp_path / make_copy_name(track)  # it has such a name, but no journal entry
    other.touch()
    copy = next(path for path in tmp_path.iterdir() if path not in (song, other))
    assert remove_leftover_copy(song, copy.name, track)
    assert set(tmp_path.iterdir()) == {song, other}


def test_a_copy_that_cannot_be_removed_is_reported(
    killed: KilledWrite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(AccessError, match="Read-only file system"):
        killed.recover()


@pytest.mark.parametrize(
    "name",
    ["precious.mp3", "../precious.mp3", ".", "", ".song.mp3.tagger-1-00000000.part.mp3", "a\0b"],
)
def test_a_damaged_journal_removes_no_other_file(tmp_path: Path, name: str) -> None:
    song, precious = tmp_path / "m" / "song.mp3", tmp_path / "m" / "precious.mp3"
    song.parent.mkdir()
    for path in (song, precious, tmp_path / "precious.mp3"):
        path.touch()
    assert not remove_leftover_copy(song, name, make_track(song))
    assert set(song.parent.iterdir()) == {song, precious}
    assert (tmp_path / "precious.mp3").exists()


def test_a_recovery_that_is_killed_too_is_finished_by_the_next(
    killed: KilledWrite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_half_and_stop(_: int, target: int) -> None:
        os.write(target, b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(recovery, "MIN_WRITE_ALLOWANCE_S", 0.5)
    killed.write_half()
    time.sleep(1)  # a change from now on would come from another program
    with monkeypatch.context() as patch:
        patch.setattr(recovery, "overwrite_file", write_half_and_stop)
        with pytest.raises(KeyboardInterrupt):
            killed.recover()
    killed.recover()
    assert killed.song.read_bytes() == killed.after
