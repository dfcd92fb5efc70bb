"""SIGKILL at any moment of a write: each file is the old one or the new one, and nothing is lost.

A process writes one file and kills itself at a call that a seeded number chooses out of all those
that a whole write makes, in whichever thread. Whole programs killed by the clock come on top.
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
from tagger.scan.tracks import AUTO_WINDOWS
from tagger.settings import Settings
from tagger.state import Journal, open_state
from tagger.tags import read_other_fields, read_tags
from tagger.writing import recovery, replace, writer
from tagger.writing.replace import replace_tags
from tests.builders import ENDINGS, add_genre, audio_bytes
from tests.front_door import Scan
from tests.replacing import make_track

KILLS = {False: 12, True: 4}
"""Of writes of each container, renamed and in place."""

SCORES = (Score("Jazz", 0.75), Score("Blues", 0.25))


@dataclass(frozen=True, slots=True)
class Bench:
    """A folder with one file, and a state that knows its genre, which is not yet written."""

    folder: Path
    state: Path
    song: Path

    def lay(self, content: bytes, *, linked: bool) -> None:
        """Put everything as it was before the write."""
        for path in (self.folder, self.state.parent):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
        self.song.write_bytes(content)
        if linked:
            self.song.with_name("twin").hardlink_to(self.song)
        learn(self.state, [self.song])

    def run(self, *command: str) -> int:
        return main([*command, "--state", str(self.state), "-q", "--hardlinks", "in-place"])

    def scan(self) -> int:
        return self.run("scan", str(self.folder), "--existing", "append")


def learn(state_file: Path, songs: list[Path]) -> None:
    """Let the state know what the model hears in the songs, as a dry run would."""
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
def bench(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Give a bench whose runs read in this process: starting guarded ones would take minutes."""
    monkeypatch.setattr(IsolatedCaller, "call", call_directly)
    monkeypatch.setattr(
        replace, "COPY_CHUNK_BYTES", 1024
    )  # many small writes, to be killed between two
    folder = tmp_path / "music"
    return Bench(folder, tmp_path / "state" / "state.sqlite", folder / f"song{request.param}")


def run_killed_at(bench: Bench, call_number: int) -> bool:
    """Scan in a process that kills itself at that call of its write; tell whether it got so far."""
    process = os.fork()
    if not process:
        count_calls(pytest.MonkeyPatch(), call_number)
        bench.scan()
        os._exit(0)
    _, status = os.waitpid(process, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def count_calls(monkeypatch: pytest.MonkeyPatch, last: int = 1 << 40) -> list[int]:
    """Count calls, of Python and C alike, from the opening of the journal on; die at `last`."""
    count = [0]

    def tick(_frame: Any, event: str, _arg: Any) -> None:
        if event in ("call", "c_call", "c_return"):
            count[0] += 1
            if count[0] == last:
                os.kill(os.getpid(), signal.SIGKILL)

    opening = Journal.open_entry

    def open_counted(journal: Journal, *args: Any) -> int:
        sys.setprofile(tick)
        return opening(journal, *args)

    monkeypatch.setattr(Journal, "open_entry", open_counted)
    threading.setprofile(tick)
    return count


def calls_of_a_write(bench: Bench) -> int:
    """Run a scan to its end in this process and return how many calls its write made."""
    with pytest.MonkeyPatch.context() as patch:
        count = count_calls(patch)
        try:
            assert bench.scan() == 0
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    return count[0]


def assert_sound(state: Path) -> None:
    with sqlite3.connect(state) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


@pytest.mark.parametrize("linked", [False, True], ids=["renamed", "in place"])
@pytest.mark.parametrize(("bench", "ending"), [(e, e) for e in ENDINGS], indirect=["bench"])
def test_a_kill_at_any_call_of_a_write_loses_nothing(
    bench: Bench, ending: str, *, linked: bool, tmp_path: Path
) -> None:
    source = tmp_path / f"source{ending}"
    source.write_bytes(audio_bytes(ending, rich=True))
    old = add_genre(source, "Polka").read_bytes()
    tags, others, sound = read_tags(source), read_other_fields(source), hash_streams(source)
    bench.lay(old, linked=linked)
    calls = calls_of_a_write(bench)
    new = bench.song.read_bytes()
    assert read_tags(bench.song).genres == ("Polka", "Jazz")

    chance = random.Random(f"{ending} {linked}")
    killed = 0
    for _ in range(KILLS[linked]):
        bench.lay(old, linked=linked)
        inode = bench.song.stat().st_ino
        killed += run_killed_at(bench, chance.randrange(1, calls))
        if not linked:  # in place, a file may be half-written until the next run
            assert bench.song.read_bytes() in (old, new)
        assert_sound(bench.state)

        assert bench.scan() == 0
        assert bench.song.read_bytes() == new
        names = {"song" + ending, "twin"} if linked else {"song" + ending}
        assert {path.name for path in bench.folder.iterdir()} == names
        assert (bench.song.stat().st_ino == inode) == linked

        assert bench.run("undo") == 0
        assert (read_tags(bench.song), read_tags(bench.song).raw) == (tags, tags.raw)
        assert (read_other_fields(bench.song), hash_streams(bench.song)) == (others, sound)
    assert killed >= KILLS[linked] - 1  # threads may share the calls out otherwise


def test_a_half_written_file_that_somebody_touched_is_told_until_a_person_decides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, state = tmp_path / "m", tmp_path / "state.sqlite"
    folder.mkdir()
    song = folder / "song.mp3"
    song.write_bytes(audio_bytes(".mp3"))
    song.with_name("twin").hardlink_to(song)
    learn(state, [song])
    args = (folder, "--state", state, "--hardlinks", "in-place")

    def fail(_: int, target: int) -> None:
        os.write(target, b"half")
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(replace, "write_over", fail)
        assert "half-written" in Scan(capsys, *args).row("song.mp3")["error"]
    monkeypatch.setattr(recovery, "MIN_WRITE_ALLOWANCE_S", 0.1)
    time.sleep(0.2)
    song.touch()
    for code in (1, 0):
        scan = Scan(capsys, *args)
        assert scan.code == code
        assert "somebody changed it since" in scan.row("song.mp3")["error"]
    (whole,) = set(folder.iterdir()) - {song, song.with_name("twin")}
    assert read_tags(whole).genres == ("Jazz",)
    whole.rename(song)
    assert main(["undo", "--state", str(state)]) == 0
    assert read_tags(song).genres == ()


@pytest.fixture
def waltz(tmp_path: Path) -> Bench:
    """Lay a bench whose song is to get another genre than the one that it has."""
    bench = Bench(tmp_path / "m", tmp_path / "state.sqlite", tmp_path / "m" / "song.flac")
    bench.folder.mkdir()
    bench.song.write_bytes(audio_bytes(".flac"))
    add_genre(bench.song, "Waltz")
    learn(bench.state, [bench.song])
    return bench


def test_an_impatient_second_signal_loses_no_entry(
    waltz: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> Any:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
        return replace_tags(*args, **kwargs)

    monkeypatch.setattr(IsolatedCaller, "call", call_directly)
    with monkeypatch.context() as patch:
        patch.setattr(writer, "replace_tags", interrupted)
        assert waltz.run("scan", str(waltz.folder), "--existing", "replace") == 130
    assert read_tags(waltz.song).genres == ("Jazz",)
    assert waltz.run("undo", str(waltz.folder)) == 0
    assert read_tags(waltz.song).genres == ("Waltz",)


def test_the_entry_of_a_file_that_is_not_there_waits(
    waltz: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = (waltz.folder, "--state", waltz.state, "--existing", "replace")
    if not os.fork():  # and be killed between the rename and the end of the entry
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(IsolatedCaller, "call", call_directly)
            patch.setattr(Journal, "close", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            main(["scan", *map(str, scan), "-q"])
        os._exit(0)
    os.wait()
    waltz.folder.rename(tmp_path / "unmounted")
    waltz.folder.mkdir()
    assert Scan(capsys, *scan).summary["tracks"] == 0
    waltz.folder.rmdir()
    (tmp_path / "unmounted").rename(waltz.folder)
    assert Scan(capsys, *scan).actions == {"unchanged": 1}
    assert waltz.run("undo", str(waltz.song)) == 0
    assert read_tags(waltz.song).genres == ("Waltz",)


def test_whole_programs_killed_by_the_clock(tmp_path: Path) -> None:
    folder, state = tmp_path / "music", tmp_path / "state.sqlite"
    folder.mkdir()
    songs = [folder / f"{number}{ending}" for number in range(3) for ending in ENDINGS]
    before = {}
    for song in songs:
        song.write_bytes(audio_bytes(song.suffix, rich=True))
        before[song] = (read_tags(song).raw, read_other_fields(song), hash_streams(song))
    learn(state, songs)
    chance = random.Random(3)
    command = [sys.executable, "-m", "tagger", "scan", str(folder), "--state", str(state), "-v"]
    kills = 0
    while kills < 100:
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr
            if not any(line.startswith("written") for line in process.stderr):
                break
            time.sleep(chance.random() * 0.1)
            process.kill()
        kills += 1
        assert_sound(state)
        for song in songs:
            assert (read_other_fields(song), hash_streams(song)) == before[song][1:]
            assert read_tags(song).genres in ((), ("Jazz",))
    assert kills > 1
    assert {read_tags(song).genres for song in songs} == {("Jazz",)}
    assert sorted(folder.iterdir()) == sorted(songs)
    assert main(["undo", str(folder), "--state", str(state), "-q"]) == 0
    after = {s: (read_tags(s).raw, read_other_fields(s), hash_streams(s)) for s in songs}
    assert after == before
