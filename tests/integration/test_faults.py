"""Disks that are full, fail or vanish: the file stays whole, no copy is left, the report says it.

Each system call of a replacement fails once. Other tests use disks that are really too small.
"""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any, Self

import pytest

from tagger.audio import hash_streams
from tagger.isolation import IsolatedCaller
from tagger.models import sources
from tagger.records import Tags, Track
from tagger.tags import read_other_fields, read_tags
from tagger.writing import writer
from tagger.writing.replace import replace_tags
from tests.builders import OPENER_ENDINGS, add_genre, audio_bytes
from tests.front_door import Command, Scan, as_anyone, read_report
from tests.integration.test_killed import call_directly, save_predictions

CALLS = (
    "open", "stat", "fstat", "lseek", "read", "write", "copy_file_range", "fsync", "replace",
    "rename", "fchmod", "fchown", "listxattr", "getxattr", "setxattr", "utime", "posix_fallocate",
    "ftruncate", "unlink", "close",
)  # fmt: skip


class Faults:
    """Counts system calls and makes one of them fail; with `for_good`, all later calls too."""

    def __init__(self, failing: int, number: int, *, for_good: bool) -> None:
        self.failing = failing
        self.number = number
        self.for_good = for_good
        self.count = 0
        self.name = ""

    def tick(self, name: str) -> None:
        self.count += 1
        if self.count == self.failing or (self.for_good and 0 < self.failing < self.count):
            self.name = self.name or name
            raise OSError(self.number, os.strerror(self.number))

    def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def faulty(*args: Any, **kwargs: Any) -> Any:
            if name == "close":  # the descriptor is closed even if that fails
                call(*args, **kwargs)
                return self.tick(name)
            self.tick(name)
            return call(*args, **kwargs)

        return faulty


class FaultyFile:
    """An open file whose methods may fail. mutagen uses such files."""

    def __init__(self, file: IO[Any], faults: Faults) -> None:
        self._file = file
        for name in ("read", "write", "seek", "tell", "truncate", "flush"):
            setattr(self, name, faults.wrap(f"file.{name}", getattr(file, name)))
        self.fileno = file.fileno

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@contextmanager
def inject(faults: Faults) -> Iterator[None]:
    """Send the system calls of a replacement through `faults`."""
    path_open, fdopen = Path.open, os.fdopen

    def open_faulty(path: Path, mode: str = "r", **kwargs: Any) -> FaultyFile:
        faults.tick("file.open")
        return FaultyFile(path_open(path, mode, **kwargs), faults)

    def wrap_faulty(descriptor: int, mode: str) -> FaultyFile:
        return FaultyFile(fdopen(descriptor, mode), faults)

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, faults.wrap(name, getattr(os, name)))
        patch.setattr(Path, "open", open_faulty)
        patch.setattr(os, "fdopen", wrap_faulty)
        yield


@pytest.fixture
def song(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the path of a song. Its scans read in this process, and hash the model's files once."""
    monkeypatch.setattr(IsolatedCaller, "call", call_directly)
    monkeypatch.setattr(sources, "hash_folder", cache(sources.hash_folder))
    (tmp_path / "music").mkdir()
    return tmp_path / "music" / "song"


ONCE, FOR_GOOD = False, True

STRIDES = {".m4a": 29, ".wav": 19}
"""One of so many calls fails; one of seven where there are not a thousand calls and more."""


@pytest.mark.parametrize(
    ("ending", "number", "for_good", "linked", "stride"),
    [
        (".flac", errno.EIO, ONCE, False, 5),
        pytest.param(".flac", errno.EIO, ONCE, False, 1, marks=pytest.mark.slow),
        pytest.param(".flac", errno.EIO, ONCE, True, 1, marks=pytest.mark.slow),
        pytest.param(".flac", errno.EIO, FOR_GOOD, False, 3, marks=pytest.mark.slow),
        pytest.param(".flac", errno.ENOSPC, ONCE, True, 3, marks=pytest.mark.slow),
        *(
            pytest.param(
                *(ending, errno.ENOSPC, ONCE, False, STRIDES.get(ending, 7)), marks=pytest.mark.slow
            )
            for ending in OPENER_ENDINGS
        ),
    ],
)
def test_a_failure_of_any_call_loses_nothing(
    song: Path,
    ending: str,
    number: int,
    *,
    for_good: bool,
    linked: bool,
    stride: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    song = song.with_suffix(ending)
    song.write_bytes(audio_bytes(ending, rich=True))
    old = add_genre(song, "Polka").read_bytes()
    others, sound = read_other_fields(song), hash_streams(song)
    state = song.parent.parent / "state.sqlite"
    scan_all = (song.parent, "--state", state, "--existing", "append", "--hardlinks", "in-place")
    faults = Faults(0, number, for_good=for_good)
    failed_calls = set()

    def fail_once(*args: Any, **kwargs: Any) -> Track:
        with inject(faults):
            return replace_tags(*args, **kwargs)

    monkeypatch.setattr(writer, "replace_tags", fail_once)
    for call in range(1, 10_000, stride):
        shutil.rmtree(song.parent)
        song.parent.mkdir()
        song.write_bytes(old)
        if linked:
            song.with_name("twin").hardlink_to(song)
        names = {path.name for path in song.parent.iterdir()}
        state.unlink(missing_ok=True)
        save_predictions(state, [song])
        faults = Faults(call, number, for_good=for_good)
        scan = Scan(capsys, *scan_all)
        failed_calls.add(faults.name)
        if not faults.name:
            break
        assert "Traceback" not in scan.err
        if scan.summary.get("written"):
            assert read_tags(song).genres == ("Polka", "Jazz"), faults.name
        elif not linked:
            assert song.read_bytes() == old, faults.name

        faults = Faults(0, number, for_good=for_good)
        again = Scan(capsys, *scan_all) if scan.code else scan
        assert (again.code, read_tags(song).genres) == (0, ("Polka", "Jazz")), faults.name
        assert {path.name for path in song.parent.iterdir()} == names, faults.name
        assert (read_other_fields(song), hash_streams(song)) == (others, sound), faults.name
    else:
        pytest.fail("no scan ended without a failed call")
    if stride == 1:
        assert failed_calls >= {"open", "file.write", "fsync", "rename" if linked else "replace"}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a separate file system of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tagger-test", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let tests mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_disk(path: Path, *, free_bytes: int) -> None:
    """Fill the disk with a file, except for `free_bytes`."""
    path.unlink(missing_ok=True)
    status = os.statvfs(path.parent)
    path.write_bytes(bytes(max(0, status.f_bavail * status.f_bsize - free_bytes)))


@pytest.mark.slow
@pytest.mark.parametrize("linked", [False, True], ids=["renamed", "in place"])
def test_a_disk_too_full_for_the_copy(
    disk: Path, tmp_path: Path, *, linked: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    song, state = disk / "song.m4a", tmp_path / "state.sqlite"
    song.write_bytes(audio_bytes(".m4a", rich=True) + b"\0\0\x40\x00free" + bytes(0x4000 - 8))
    if linked:
        song.with_name("twin").hardlink_to(song)
    save_predictions(state, [song])
    old, names = song.read_bytes(), {"filler", *(path.name for path in disk.iterdir())}
    args = (disk, "--state", state, "--hardlinks", "in-place")
    codes = set()
    for free_bytes in range(0, 2 * len(old), 4096):
        fill_disk(disk / "filler", free_bytes=free_bytes)
        scan = Scan(capsys, *args)
        codes.add(scan.code)
        if not scan.code:
            break
        assert (scan.code, "No space left" in scan.err) == (3, True)
        assert song.read_bytes() == old
        assert {path.name for path in disk.iterdir()} == names
    assert codes == {0, 3}
    assert read_tags(song).genres == ("Jazz",)
    assert {path.name for path in disk.iterdir()} == names


def test_a_disk_too_full_for_the_journal(
    disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    song, state = tmp_path / "song.flac", disk / "state.sqlite"
    song.write_bytes(audio_bytes(".flac"))
    save_predictions(state, [song])
    report = tmp_path / "report.csv"
    failures = 0
    for free_bytes in range(0, 1 << 20, 4096):
        fill_disk(disk / "filler", free_bytes=free_bytes)
        scan = Scan(capsys, song, "--state", state, "--report", report)
        assert scan.code in (0, 3)
        assert "Traceback" not in scan.err
        if read_tags(song).genres:
            break  # the journal has the old tags, even if the disk was full later
        failures += 1
    assert failures
    (disk / "filler").unlink()
    assert Command(capsys, "undo", "--state", state).summary["restored"] == 1
    assert read_tags(song) == Tags()


def test_a_full_disk_and_an_attribute_are_told_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    song, state = tmp_path / "m" / "song.flac", tmp_path / "state.sqlite"
    song.parent.mkdir()
    song.write_bytes(audio_bytes(".flac"))
    os.setxattr(song, "user.rating", b"5")
    save_predictions(state, [song])

    def fail(number: int) -> Callable[..., None]:
        def raise_error(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        return raise_error

    monkeypatch.setattr(os, "setxattr", fail(errno.EACCES))
    row = Scan(capsys, song, "--state", state).row("song.flac")
    assert "its extended attribute user.rating cannot be kept" in row["error"]
    assert "Permission denied" in row["error"]
    monkeypatch.setattr(os, "setxattr", fail(errno.ENOSPC))
    scan = Scan(capsys, song, "--state", state)
    assert scan.code == 3
    assert f"{song}: cannot replace the file: No space left on device" in scan.err
    assert f"make room on the disk of {song.parent}" in scan.err
    assert read_tags(song).genres == ()
    assert [path.name for path in song.parent.iterdir()] == ["song.flac"]


def test_a_disk_mounted_read_only(
    disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    song, state = disk / "song.flac", tmp_path / "state.sqlite"
    song.write_bytes(audio_bytes(".flac"))
    save_predictions(state, [song])
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    scan = Scan(capsys, disk, "--state", state)
    assert scan.code == 1
    assert "Read-only file system" in scan.row("song.flac")["error"]
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert Scan(capsys, disk, "--state", state).actions == {"written": 1}


def test_a_folder_without_write_permission(tmp_path: Path) -> None:
    song, state, report = (tmp_path / name for name in ("m/song.flac", "state.sqlite", "r.csv"))
    song.parent.mkdir()
    song.write_bytes(audio_bytes(".flac"))
    save_predictions(state, [song])
    song.parent.chmod(0o500)
    command = as_anyone("scan", song.parent, "--state", state, "--report", report)
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    song.parent.chmod(0o700)
    assert result.returncode == 1, result.stderr
    assert "Permission denied" in read_report(report)[0]["error"]
    assert [path.name for path in song.parent.iterdir()] == ["song.flac"]


def test_a_mount_that_vanishes_during_a_scan_and_comes_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, state = tmp_path / "m", tmp_path / "state.sqlite"
    folder.mkdir()
    songs = [folder / f"{number}.flac" for number in range(4)]
    for song in songs:
        song.write_bytes(audio_bytes(".flac"))
    save_predictions(state, songs)

    def read_and_unmount(path: Path, **options: Any) -> Tags:
        if path.name == "2.flac":
            folder.rename(tmp_path / "away")
        return read_tags(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(IsolatedCaller, "call", call_directly)
        patch.setattr(writer, "read_tags", read_and_unmount)
        scan = Scan(capsys, folder, "--state", state)
    assert scan.code == 1
    assert "No such file" in scan.row("2.flac")["error"]
    (tmp_path / "away").rename(folder)
    again = Scan(capsys, folder, "--state", state)
    assert again.code == 0
    assert again.actions["failed"] == 0
    assert {read_tags(song).genres for song in songs} == {("Jazz",)}
