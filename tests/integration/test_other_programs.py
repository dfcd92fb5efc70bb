"""Files that other programs write or own: nothing of theirs is lost, and the row says why."""

import fcntl
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EACCES, EAGAIN, EINVAL
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tagger.storage import local, reports_changes
from tagger.tags import read_tags
from tagger.writing import writer
from tagger.writing.replace import replace_tags
from tests.builders import audio_bytes
from tests.front_door import Command, Scan, read_report
from tests.integration.test_killed import save_predictions
from tests.replacing import inspect_file

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has leases")

MINUTE_S = 60
OTHER_USER, OTHER_GROUP = 4321, 1234


@pytest.fixture
def song(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a track with known scores, and a state file that is the default one of all commands."""
    path = tmp_path / "music" / "song.flac"
    path.parent.mkdir()
    path.write_bytes(audio_bytes(".flac"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    save_predictions(tmp_path / "tagger" / "state.sqlite", [path])
    return path


@contextmanager
def open_as_writer(path: Path) -> Iterator[None]:
    with path.open("r+b"):
        yield


@contextmanager
def map_as_writer(path: Path) -> Iterator[None]:
    """Map a file into memory for writing; its descriptor is closed again."""
    with path.open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    with mapped:
        yield


@contextmanager
def open_another_name(path: Path) -> Iterator[None]:
    other = path.parent.parent / "other name"
    other.hardlink_to(path)
    with other.open("r+b"):
        other.unlink()
        yield


@pytest.mark.parametrize("write", [open_as_writer, map_as_writer, open_another_name])
def test_a_file_that_another_program_writes_waits_for_the_next_run(
    song: Path, capsys: pytest.CaptureFixture[str], write: Any
) -> None:
    before, inode = song.read_bytes(), song.stat().st_ino
    with write(song):
        for code in (1, 0):  # the exit code tells it once
            scan = Scan(capsys, song)
            assert scan.code == code
            row = scan.row("song.flac")
            assert (row["action"], row["kind"]) == ("failed", "in-use")
            assert "another program has it open for writing" in row["error"]
            assert (song.read_bytes(), song.stat().st_ino) == (before, inode)
            assert [path.name for path in song.parent.iterdir()] == ["song.flac"]
    assert Scan(capsys, song).actions == {"written": 1}


def test_apply_and_undo_leave_it_alone_too(song: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Scan(capsys, song, "-n").summary["report"]
    with song.open("r+b"):
        command = Command(capsys, "apply", report)
        assert (command.code, command.summary["failed"]) == (1, 1)
    assert Command(capsys, "apply", report).summary["written"] == 1
    written = song.read_bytes()
    with song.open("r+b"):
        command = Command(capsys, "undo")
        assert (command.code, command.summary["failed"]) == (1, 1)
        assert song.read_bytes() == written
    assert Command(capsys, "undo").summary["restored"] == 1
    assert read_tags(song).genres == ()


def test_a_new_file_is_not_even_read_while_it_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = audio_bytes(".flac")
    path = tmp_path / "half.flac"
    with path.open("wb") as file:
        file.write(whole[: len(whole) // 2])
        file.flush()
        assert Scan(capsys, path).row("half.flac")["kind"] == "in-use"
        file.write(whole[len(whole) // 2 :])
    assert path.read_bytes() == whole


@pytest.mark.parametrize("in_place", [False, True])
def test_a_writer_that_comes_while_the_copy_is_checked(
    song: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    in_place: bool,
) -> None:
    opened = []

    def inspect(path: Path) -> Any:
        if path != song:
            opened.append(song.open("r+b"))
        return inspect_file(path)

    def replace(change: Any, _: Any, **options: Any) -> Any:
        return replace_tags(change, inspect, **options | {"in_place": in_place})

    monkeypatch.setattr(writer, "replace_tags", replace)
    before = song.read_bytes()
    assert Scan(capsys, song).row("song.flac")["kind"] == "in-use"
    for file in opened:
        file.close()
    assert song.read_bytes() == before
    assert [path.name for path in song.parent.iterdir()] == ["song.flac"]


def test_a_file_that_others_only_read_is_written(
    song: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with song.open("rb") as file:
        player = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        assert Scan(capsys, song).actions == {"written": 1}
        player.close()


def refuse_leases(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Answer each request for a lease with an error of the system."""

    def refuse(_descriptor: int, command: int, _value: int) -> None:
        if command == fcntl.F_SETLEASE:
            raise OSError(number, os.strerror(number))

    constants = {name: getattr(fcntl, name) for name in dir(fcntl) if name.startswith("F_")}
    monkeypatch.setattr(local, "fcntl", SimpleNamespace(**constants, fcntl=refuse))


def make_older(path: Path, *, seconds: int) -> None:
    """Set the modification time back, before anybody knows the file."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - seconds * 10**9))


@pytest.mark.parametrize("system", ["no leases", "server", "macOS"])
def test_without_leases_a_file_that_just_changed_is_left_alone(
    song: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    if system == "macOS":
        monkeypatch.setattr(local, "sys", SimpleNamespace(platform="darwin"))
    else:
        refuse_leases(monkeypatch, EINVAL if system == "no leases" else EAGAIN)
    if system == "server":
        monkeypatch.setattr(local, "_find_file_system_type", lambda _: "nfs4")
    row = Scan(capsys, song).row("song.flac")
    assert (row["action"], row["kind"]) == ("failed", "in-use")
    assert "changed in the last two minutes" in row["error"]
    make_older(song, seconds=3 * MINUTE_S)
    save_predictions(song.parent.parent / "tagger" / "state.sqlite", [song])
    assert Scan(capsys, song).actions == {"written": 1}
    assert Command(capsys, "undo").summary["restored"] == 1  # tagger itself changed it just now


def test_a_folder_of_this_machine_reports_its_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reports_changes(tmp_path)
    monkeypatch.setattr(local, "_find_file_system_type", lambda _: "nfs4")
    assert not reports_changes(tmp_path)


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to another user")


def refuse_chown(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(EACCES, os.strerror(EACCES))

    monkeypatch.setattr(os, "fchown", refuse)


@as_root
def test_a_file_of_another_user_is_written_in_place_and_undone(
    song: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(song, OTHER_USER, OTHER_GROUP)
    song.chmod(0o664)
    before = song.stat()
    refuse_chown(monkeypatch)
    refuse_leases(monkeypatch, EACCES)
    row = Scan(capsys, song, "--owner", "keep").row("song.flac")
    assert row["kind"] == "no-access"
    assert "--owner in-place" in row["error"]
    assert Scan(capsys, song).actions == {"written": 1}
    assert Command(capsys, "undo").summary["restored"] == 1
    after = song.stat()
    assert read_tags(song).genres == ()
    assert (after.st_ino, after.st_uid, after.st_gid, after.st_mode) == (
        before.st_ino,
        OTHER_USER,
        OTHER_GROUP,
        before.st_mode,
    )
    assert [path.name for path in song.parent.iterdir()] == ["song.flac"]


@as_root
def test_other_names_of_a_file_of_another_user_are_not_changed_unasked(
    song: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(song, OTHER_USER, OTHER_GROUP)
    twin = song.parent.parent / "twin"
    twin.hardlink_to(song)
    before = twin.read_bytes()
    refuse_chown(monkeypatch)
    row = Scan(capsys, song, "--hardlinks", "break").row("song.flac")
    assert "--hardlinks in-place" in row["error"]
    assert twin.read_bytes() == before
    assert Scan(capsys, song, "--hardlinks", "in-place").actions == {"written": 1}
    assert twin.samefile(song)


@as_root
@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "option", "words"),
    [
        (0o664, "--owner=in-place", ""),
        (0o664, "--preserve-mtime", "leave out --preserve-mtime"),
        (0o664, "--owner=keep", "--owner in-place"),
        (0o644, "--owner=in-place", "chmod g+w"),
    ],
)
def test_a_library_that_is_shared_by_a_group(
    song: Path, mode: int, option: str, words: str
) -> None:
    """The program runs with none of root's powers over the files of others."""
    os.chown(song, OTHER_USER, OTHER_GROUP)
    song.chmod(mode)
    report = song.parent.parent / "report.csv"
    powers = "-chown,-fowner,-fsetid,-lease,-dac_override,-dac_read_search"
    command = [
        "setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}", f"--groups={OTHER_GROUP}",
        sys.executable, "-m", "tagger", "scan", str(song), "--report", str(report), option,
    ]  # fmt: skip
    before = song.read_bytes()
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    (row,) = read_report(report)
    assert (row["action"], result.returncode) == (("failed", 1) if words else ("written", 0))
    assert words in row["error"]
    assert (song.read_bytes() == before) == bool(words)
    assert (song.stat().st_uid, song.stat().st_gid) == (OTHER_USER, OTHER_GROUP)
    assert [path.name for path in song.parent.iterdir()] == ["song.flac"]
