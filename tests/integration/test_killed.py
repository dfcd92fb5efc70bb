"""SIGKILL at any moment of a write: each file is the old one or the new one, and nothing is lost.

A process writes one file and kills itself at a call of this write, in any thread. A seeded number
chooses the call. Another test kills whole programs after random times.
"""

import errno
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tagger.audio import hash_streams
from tagger.cli import main
from tagger.isolation import IsolatedCaller
from tagger.models import find_model
from tagger.records import Prediction, Score
from tagger.settings import Settings
from tagger.state import AUTO_WINDOWS, Journal, open_state
from tagger.tags import read_other_fields, read_tags
from tagger.writing import recovery, replace, writer
from tagger.writing.replace import replace_tags
from tests.builders import ENDINGS, OPENER_ENDINGS, add_genre, audio_bytes
from tests.front_door import Scan
from tests.processes import run_in_background, run_in_fork
from tests.replacing import make_track

KILLS = {False: 12, True: 4}
"""The number of kills for each container: of writes that rename, and of writes in place."""

SCORES = (Score("Jazz", 0.75), Score("Blues", 0.25))


@dataclass(frozen=True, slots=True)
class OneSong:
    """A folder with one song, and a state file with the scores of the song."""

    folder: Path
    state: Path
    song: Path

    def reset(self, content: bytes, *, linked: bool) -> None:
        """Restore everything to the time before the write."""
        for path in (self.folder, self.state.parent):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
        self.song.write_bytes(content)
        if linked:
            self.song.with_name("twin").hardlink_to(self.song)
        save_predictions(self.state, [self.song])

    def run(self, *command: str) -> int:
        return main([*command, "--state", str(self.state), "-q", "--hardlinks", "in-place"])

    def scan(self) -> int:
        return self.run("scan", str(self.folder), "--existing", "append")


def save_predictions(state_file: Path, songs: list[Path]) -> None:
    """Save scores of the songs in a state file, as a dry run does."""
    model = find_model(Settings()).identity
    with open_state(state_file) as state:
        for song in songs:
            track = make_track(song)
            state.save_tags(track, read_tags(song))
            state.save_prediction(Prediction(track, SCORES, model, 61.5), windows=AUTO_WINDOWS)


def call_directly(
    _: IsolatedCaller, function: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    return function(*args, **kwargs)


@pytest.fixture
def one_song(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> OneSong:
    """Make a OneSong whose scans read in this process: to start isolated ones takes minutes."""
    monkeypatch.setattr(IsolatedCaller, "call", call_directly)
    monkeypatch.setattr(replace, "COPY_CHUNK_BYTES", 1024)  # many writes, with kills between them
    folder = tmp_path / "music"
    return OneSong(folder, tmp_path / "state" / "state.sqlite", folder / f"song{request.param}")


def run_and_kill(one_song: OneSong, call_number: int) -> bool:
    """Scan in a process that kills itself at this call of its write; tell whether it came there."""

    def scan_and_die() -> None:
        count_calls(pytest.MonkeyPatch(), call_number)
        one_song.scan()

    status = run_in_fork(scan_and_die)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def count_calls(monkeypatch: pytest.MonkeyPatch, last: int = 1 << 40) -> list[int]:
    """Count the calls of Python and C functions after the journal entry; die at call `last`."""
    count = [0]

    def tick(_frame: Any, event: str, _arg: Any) -> None:
        if event in ("call", "c_call", "c_return"):
            count[0] += 1
            if count[0] == last:
                os.kill(os.getpid(), signal.SIGKILL)

    open_entry = Journal.open_entry

    def open_counted(journal: Journal, *args: Any) -> int:
        sys.setprofile(tick)
        return open_entry(journal, *args)

    monkeypatch.setattr(Journal, "open_entry", open_counted)
    threading.setprofile(tick)
    return count


def count_calls_of_write(one_song: OneSong) -> int:
    """Run a scan in this process and return how many calls its write made."""
    with pytest.MonkeyPatch.context() as patch:
        count = count_calls(patch)
        try:
            assert one_song.scan() == 0
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    return count[0]


def assert_intact(state: Path) -> None:
    with sqlite3.connect(state) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


@pytest.mark.parametrize("linked", [False, True], ids=["renamed", "in place"])
@pytest.mark.parametrize(
    ("one_song", "ending"),
    [
        pytest.param(ending, ending, marks=[] if ending == ".flac" else pytest.mark.slow)
        for ending in OPENER_ENDINGS
    ],
    indirect=["one_song"],
)
def test_a_kill_at_any_call_of_a_write_loses_nothing(
    one_song: OneSong, ending: str, *, linked: bool, tmp_path: Path
) -> None:
    source = tmp_path / f"source{ending}"
    source.write_bytes(audio_bytes(ending, rich=True))
    old = add_genre(source, "Polka").read_bytes()
    tags, others, sound = read_tags(source), read_other_fields(source), hash_streams(source)
    one_song.reset(old, linked=linked)
    calls = count_calls_of_write(one_song)
    new = one_song.song.read_bytes()
    assert read_tags(one_song.song).genres == ("Polka", "Jazz")

    chance = random.Random(f"{ending} {linked}")
    killed = 0
    for _ in range(KILLS[linked]):
        one_song.reset(old, linked=linked)
        inode = one_song.song.stat().st_ino
        killed += run_and_kill(one_song, chance.randrange(1, calls))
        if not linked:  # in place, a file may be half-written until the next run
            assert one_song.song.read_bytes() in (old, new)
        assert_intact(one_song.state)

        assert one_song.scan() == 0
        assert one_song.song.read_bytes() == new
        names = {"song" + ending, "twin"} if linked else {"song" + ending}
        assert {path.name for path in one_song.folder.iterdir()} == names
        assert (one_song.song.stat().st_ino == inode) == linked

        assert one_song.run("undo") == 0
        assert (read_tags(one_song.song), read_tags(one_song.song).raw) == (tags, tags.raw)
        assert (read_other_fields(one_song.song), hash_streams(one_song.song)) == (others, sound)
    assert killed >= KILLS[linked] - 1  # the order of the threads may vary


def test_a_half_written_file_that_somebody_changed_is_reported_until_a_person_decides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, state = tmp_path / "m", tmp_path / "state.sqlite"
    folder.mkdir()
    song = folder / "song.mp3"
    song.write_bytes(audio_bytes(".mp3"))
    song.with_name("twin").hardlink_to(song)
    save_predictions(state, [song])
    args = (folder, "--state", state, "--hardlinks", "in-place")

    def fail(_: int, target: int) -> None:
        os.write(target, b"half")
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(replace, "overwrite_file", fail)
        assert "half-written" in Scan(capsys, *args).row("song.mp3")["error"]
    monkeypatch.setattr(recovery, "MIN_WRITE_ALLOWANCE_S", 0.1)
    time.sleep(0.2)
    song.touch()
    for code in (1, 0):
        scan = Scan(capsys, *args)
        assert scan.code == code
        assert "somebody changed it since" in scan.row("song.mp3")["error"]
    (full_copy,) = set(folder.iterdir()) - {song, song.with_name("twin")}
    assert read_tags(full_copy).genres == ("Jazz",)
    full_copy.rename(song)
    assert main(["undo", "--state", str(state)]) == 0
    assert read_tags(song).genres == ()


@pytest.fixture
def waltz(tmp_path: Path) -> OneSong:
    """Make a OneSong whose song has another genre than the scores say."""
    one_song = OneSong(tmp_path / "m", tmp_path / "state.sqlite", tmp_path / "m" / "song.flac")
    one_song.folder.mkdir()
    one_song.song.write_bytes(audio_bytes(".flac"))
    add_genre(one_song.song, "Waltz")
    save_predictions(one_song.state, [one_song.song])
    return one_song


def test_a_second_interrupt_loses_no_journal_entry(
    waltz: OneSong, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace_and_interrupt(*args: Any, **kwargs: Any) -> Any:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
        return replace_tags(*args, **kwargs)

    monkeypatch.setattr(IsolatedCaller, "call", call_directly)
    with monkeypatch.context() as patch:
        patch.setattr(writer, "replace_tags", replace_and_interrupt)
        assert waltz.run("scan", str(waltz.folder), "--existing", "replace") == 130
    assert read_tags(waltz.song).genres == ("Jazz",)
    assert waltz.run("undo", str(waltz.folder)) == 0
    assert read_tags(waltz.song).genres == ("Waltz",)


def test_the_entry_of_a_missing_file_stays_open(
    waltz: OneSong, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = (waltz.folder, "--state", waltz.state, "--existing", "replace")

    def scan_and_die() -> None:
        """Scan, and be killed after the rename, before the entry is closed."""
        patch = pytest.MonkeyPatch()
        patch.setattr(IsolatedCaller, "call", call_directly)
        patch.setattr(Journal, "close_entry", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        main(["scan", *map(str, scan), "-q"])

    assert os.WIFSIGNALED(run_in_fork(scan_and_die))
    assert read_tags(waltz.song).genres == ("Jazz",)
    waltz.folder.rename(tmp_path / "unmounted")
    waltz.folder.mkdir()
    assert Scan(capsys, *scan).summary["tracks"] == 0
    waltz.folder.rmdir()
    (tmp_path / "unmounted").rename(waltz.folder)
    assert Scan(capsys, *scan).actions == {"unchanged": 1}
    assert waltz.run("undo", str(waltz.song)) == 0
    assert read_tags(waltz.song).genres == ("Waltz",)


@pytest.mark.slow
def test_whole_programs_killed_at_random_times(tmp_path: Path) -> None:
    folder, state = tmp_path / "music", tmp_path / "state.sqlite"
    folder.mkdir()
    songs = [folder / f"{number}{ending}" for number in range(2) for ending in ENDINGS]
    before = {}
    for song in songs:
        song.write_bytes(audio_bytes(song.suffix, rich=True))
        before[song] = (read_tags(song).raw, read_other_fields(song), hash_streams(song))
    save_predictions(state, songs)
    chance = random.Random(3)
    command = [sys.executable, "-m", "tagger", "scan", str(folder), "--state", str(state), "-v"]
    kills = 0
    while kills < 100:
        with run_in_background(command, stderr=subprocess.PIPE) as process:
            assert process.stderr
            if not any(line.startswith("written") for line in process.stderr):
                break
            time.sleep(chance.random() * 0.1)
            process.kill()
        kills += 1
        assert_intact(state)
        for song in songs:
            assert (read_other_fields(song), hash_streams(song)) == before[song][1:]
            assert read_tags(song).genres in ((), ("Jazz",))
    assert kills > 1
    assert {read_tags(song).genres for song in songs} == {("Jazz",)}
    assert sorted(folder.iterdir()) == sorted(songs)
    assert main(["undo", str(folder), "--state", str(state), "-q"]) == 0
    after = {s: (read_tags(s).raw, read_other_fields(s), hash_streams(s)) for s in songs}
    assert after == before
