"""Which file is which: a new recording on a used inode, and mounts that give new inodes."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tagger.tags import read_tags
from tests.builders import audio_bytes, build_audio
from tests.front_door import ANY, Command, Scan
from tests.integration.test_killed import save_predictions

LONG_AGO_NS = 10**18


def record(path: Path, *, seed: int) -> Path:
    """Make a recording whose length and time are the same for each seed."""
    build_audio(path, seconds=4, frequency_hz=110 * (seed + 1), seed=seed)
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    return path


def change_inodes(folder: Path) -> None:
    """Give each file another inode, as some mounts of servers do."""
    for path in list(folder.iterdir()):
        twin = path.with_name(f"{path.name}.twin")
        shutil.copy2(path, twin)
        twin.replace(path)


def hear(capsys: pytest.CaptureFixture[str], path: Path, state: Path) -> str:
    """Return the scores that a scan without any memory reports."""
    return Scan(capsys, path, "-n", "--state", state, *ANY).row(path.name)["scores"]


def test_files_are_known_and_undone_after_their_inodes_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    song, state = tmp_path / "music" / "song.flac", tmp_path / "state.sqlite"
    song.parent.mkdir()
    song.write_bytes(audio_bytes(".flac"))
    save_predictions(state, [song])
    for action in ("written", "unchanged", "unchanged"):  # silence that nobody listens to
        change_inodes(song.parent)
        row = Scan(capsys, song, "--state", state).row("song.flac")
        assert (row["action"], row["genre"]) == (action, "Jazz")
    change_inodes(song.parent)
    undo = Command(capsys, "undo", "--state", state)
    assert (undo.code, undo.summary["restored"]) == (0, 1)
    assert read_tags(song).genres == ()


def test_another_recording_under_the_name_of_a_known_one_is_listened_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = record(tmp_path / "song.wav", seed=0)
    first = Scan(capsys, path, "-n", *ANY).row("song.wav")["scores"]
    record(tmp_path / "other.wav", seed=5).replace(path)
    second = hear(capsys, path, tmp_path / "fresh.sqlite")
    assert first != second == Scan(capsys, path, "-n", *ANY).row("song.wav")["scores"]


def test_another_recording_copied_into_the_file_of_a_known_one_gets_no_genre_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    song, other = tmp_path / "song.flac", tmp_path / "other"
    song.write_bytes(audio_bytes(".flac", rich=True))
    state = tmp_path / "state.sqlite"
    save_predictions(state, [song])
    inode, content = song.stat().st_ino, bytearray(song.read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    shutil.copystat(song, other)
    shutil.copy2(other, song)
    assert song.stat().st_ino == inode
    row = Scan(capsys, song, "--state", state).row("song.flac")
    assert (row["action"], row["kind"]) == ("failed", "changed")
    assert song.read_bytes() == content
    assert Scan(capsys, song, "--state", state).row("song.flac")["genre"] != "Jazz"


@contextmanager
def mount(folder: Path) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tagger-test", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let tests mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["song.wav", "other.wav"])
@pytest.mark.parametrize("place", ["disk", "another disk"])
def test_another_disk_with_the_same_inodes(
    tmp_path: Path, name: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    disk, other = tmp_path / "disk", tmp_path / place
    with mount(disk):
        song = record(disk / "song.wav", seed=0)
        inode, first = song.stat().st_ino, Scan(capsys, disk, "-n", *ANY).rows[0]["scores"]
    with mount(other):
        song = record(other / name, seed=5)
        assert song.stat().st_ino == inode
        second = hear(capsys, song, tmp_path / "fresh.sqlite")
        scan = Scan(capsys, other, *ANY)
        assert first != second == scan.rows[0]["scores"]
    with mount(disk):
        assert Command(capsys, "undo").code == 1  # the file is on the disk that is away
