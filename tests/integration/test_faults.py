"""Disks that are full, fail or vanish: the file is whole, nothing is left beside it, all is said.

Every call to the system that a replacement makes fails once; and disks that are really too small.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from tagger.audio import stream_digests
from tagger.isolation import Guard
from tagger.records import Track
from tagger.tags import other_fields, read_tags, replace_tags
from tagger.writing import writer
from tests.builders import ENDINGS, add_genre, audio_bytes
from tests.front_door import Scan
from tests.integration.test_killed import call_directly, learn

CALLS = (
    "open", "stat", "fstat", "lseek", "read", "write", "copy_file_range", "fsync", "replace",
    "rename", "fchmod", "fchown", "listxattr", "getxattr", "setxattr", "utime", "posix_fallocate",
    "ftruncate", "unlink", "close",
)  # fmt: skip


class Faults:
    """Counts calls to the system and lets one of them fail, and those behind it if `for_good`."""

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

    def wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def faulty(*args: Any, **kwargs: Any) -> Any:
            if name == "close":  # the descriptor is closed even if that fails
                call(*args, **kwargs)
                return self.tick(name)
            self.tick(name)
            return call(*args, **kwargs)

        return faulty


class FaultyFile:
    """An open file whose calls may fail, as mutagen uses one."""

    def __init__(self, file: IO[Any], faults: Faults) -> None:
        self._file = file
        for name in ("read", "write", "seek", "tell", "truncate", "flush"):
            setattr(self, name, faults.wrapped(f"file.{name}", getattr(file, name)))
        self.fileno = file.fileno


@contextmanager
def failing(faults: Faults) -> Iterator[None]:
    """Let the calls of a replacement go through `faults`."""
    opening = Path.open

    @contextmanager
    def open_faulty(path: Path, mode: str = "r", **kwargs: Any) -> Iterator[Any]:
        faults.tick("file.open")
        with opening(path, mode, **kwargs) as file:
            yield FaultyFile(file, faults)

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, faults.wrapped(name, getattr(os, name)))
        patch.setattr(Path, "open", open_faulty)
        yield


@pytest.fixture
def song(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(Guard, "call", call_directly)
    (tmp_path / "music").mkdir()
    return tmp_path / "music" / "song"


ONCE, EVER = False, True


@pytest.mark.parametrize(
    ("ending", "number", "for_good", "linked", "stride"),
    [
        (".flac", errno.EIO, ONCE, False, 1),
        (".flac", errno.EIO, ONCE, True, 1),
        (".flac", errno.EIO, EVER, False, 3),
        (".flac", errno.ENOSPC, ONCE, True, 3),
        *((ending, errno.ENOSPC, ONCE, False, 7) for ending in ENDINGS),
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
    others, sound = other_fields(song), stream_digests(song)
    state = song.parent.parent / "state.sqlite"
    scan_all = (song.parent, "--state", state, "--existing", "append", "--hardlinks", "in-place")
    faults = Faults(0, number, for_good=for_good)
    seen = set()

    def fail_once(*args: Any, **kwargs: Any) -> Track:
        with failing(faults):
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
        learn(state, [song])
        faults = Faults(call, number, for_good=for_good)
        scan = Scan(capsys, *scan_all)
        seen.add(faults.name)
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
        assert (other_fields(song), stream_digests(song)) == (others, sound), faults.name
    else:
        pytest.fail("the calls have no end")
    if stride == 1:
        assert seen >= {"open", "file.write", "fsync", "rename" if linked else "replace"}
