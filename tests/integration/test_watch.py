"""Music is tagged soon after it arrives: the queue, the events of folders, the watch itself."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tagger.cli import main
from tagger.cli.watching import scan_batch
from tagger.crawl import Scope
from tagger.errors import DiskFullError, InterruptedRunError, SettingsError, StateError, WatchError
from tagger.inference.engine import PredictTracks
from tagger.paths import AnyPath
from tagger.records import Hours
from tagger.service import watch
from tagger.service.arrivals import add_arrivals
from tagger.service.folder_events import FolderEvents, can_watch_folders
from tagger.service.watch import Batch, BatchResult, Watcher, WatchRequest, drain_arrivals
from tagger.settings import Settings, WatchSettings
from tagger.settings_sources import load_settings
from tagger.state import lock_watch, open_arrivals, open_state, save_watch_status
from tagger.tags import EXTENSIONS, read_tags
from tests.builders import build_audio
from tests.front_door import ANY, Command, Scan, set_genre
from tests.processes import run_in_background

HOUR_S = 3600


def make_old(*paths: Path) -> None:
    """Let files be an hour old: nobody writes them any more."""
    for path in paths:
        os.utime(path, (time.time() - HOUR_S, time.time() - HOUR_S))


def list_queue() -> list[str]:
    with open_arrivals(Settings().state) as queue:
        return [Path(arrival.path).name for arrival in queue.list_ready()]


def test_what_is_added_is_scanned_once(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (library / "cover.jpg").write_bytes(b"a picture")
    gone = tmp_path / "gone.mp3"
    paths = [library / "a.flac", library / "cover.jpg", gone]
    assert main(["add", *map(str, paths)]) == 1
    out, err = capsys.readouterr()
    assert out == "1 added to the queue\n"
    assert f"{gone} is not there" in err
    assert "no `tagger watch` is running" in err
    assert main(["add", "-q", str(library / "c.ogg")]) == 0
    assert capsys.readouterr() == ("", "")
    done = Command(capsys, "watch", "--once", *ANY)
    assert (done.code, done.summary["written"]) == (0, 2)
    assert read_tags(library / "a.flac").genres
    assert not read_tags(library / "b.mp3").genres
    assert list_queue() == []
    assert Command(capsys, "watch", "--once", *ANY).out == ""


def test_a_file_that_is_gone_again_is_forgotten(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["add", "-q", str(library / "a.flac")]) == 0
    (library / "a.flac").unlink()
    done = Command(capsys, "watch", "--once")
    assert (done.code, done.out, list_queue()) == (0, "", [])


def test_what_is_passed_over_below_a_watched_folder_is_not_scanned(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["watch", "--once", "-q", *ANY, str(library)]) == 0
    for folder in (".stversions", "Podcasts", "Album"):
        (library / folder).mkdir()
        build_audio(library / folder / "new.flac", seconds=4)
    add_arrivals(library.glob("*/new.flac"), Settings().state)
    done = Command(capsys, "watch", "--once", "--exclude", "Podcasts", *ANY, library)
    assert done.summary["tracks"] == 4
    assert read_tags(library / "Album" / "new.flac").genres
    assert not read_tags(library / ".stversions" / "new.flac").genres
    assert not read_tags(library / "Podcasts" / "new.flac").genres


class Recorder:
    """Stands for the scans of `drain_arrivals`, and remembers what they were given."""

    def __init__(self, result: BatchResult | Exception) -> None:
        self.result = result
        self.batches: list[Batch] = []
        self.settings: list[Settings] = []

    def __call__(self, batch: Batch, settings: Settings, _: PredictTracks) -> BatchResult:
        self.batches.append(batch)
        self.settings.append(settings)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


DONE = BatchResult(0, (), is_complete=True)


def drain(
    recorder: Recorder | Callable[[Batch, Settings, PredictTracks], BatchResult],
    *roots: Path,
    settings: Settings | None = None,
    options: WatchSettings | None = None,
) -> int:
    request = WatchRequest(roots, settings or Settings(), options or WatchSettings())
    return drain_arrivals(request, recorder, lambda: None, idle_s=0)


def see(*paths: AnyPath, delay_s: float = 0) -> None:
    """Put files into the queue as events do."""
    with open_arrivals(Settings().state) as queue:
        queue.add(paths, delay_s=delay_s)


def test_only_news_are_scanned(library: Path) -> None:
    songs = sorted(library.iterdir())
    make_old(*songs)
    assert main(["scan", "-q", *ANY, str(library)]) == 0
    see(*songs, library)  # what the scan's own writing looks like
    nothing = Recorder(DONE)
    make_old(songs[0])  # and this is somebody's change
    drain(nothing, library)
    assert [batch.only for batch in nothing.batches] == [[songs[0]]]
    assert nothing.batches[0].roots == [library]
    assert list_queue() == []


def test_a_file_that_changed_a_moment_ago_waits(library: Path) -> None:
    make_old(library / "a.flac")
    see(library / "a.flac", library / "b.mp3")
    recorder = Recorder(DONE)
    drain(recorder, library)
    assert [batch.only for batch in recorder.batches] == [[library / "a.flac"]]
    with open_arrivals(Settings().state) as queue:
        assert queue.count() == 1
        assert not queue.has_ready()


def test_a_file_that_somebody_writes_is_scanned_later(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_arrivals([library], Settings().state)
    with (library / "a.flac").open("ab"):
        drain(scan_batch, library, settings=load_settings({"min-score": "0"}))
    assert "in-use" not in capsys.readouterr().err
    assert not read_tags(library / "a.flac").genres
    assert read_tags(library / "b.mp3").genres
    with open_arrivals(Settings().state) as queue:
        assert queue.count() == 1


def test_nothing_is_lost_if_a_scan_fails_and_nothing_if_a_file_comes_again(library: Path) -> None:
    song = library / "a.flac"
    add_arrivals([song], Settings().state)
    with pytest.raises(DiskFullError):
        drain(Recorder(DiskFullError("no space left")), library)
    assert list_queue() == ["a.flac"]
    drain(Recorder(BatchResult(0, (), is_complete=False)), library)
    assert list_queue() == ["a.flac"]

    def scan_while_it_comes_again(*_: object) -> BatchResult:
        add_arrivals([song], Settings().state)
        return DONE

    with open_arrivals(Settings().state) as queue:
        (first,) = queue.list_ready()
        scan_while_it_comes_again()
        queue.remove([first])
    assert list_queue() == ["a.flac"]
    assert drain(Recorder(replace(DONE, exit_code=1)), library) == 1
    assert list_queue() == []


def test_an_album_waits_for_its_last_file(library: Path) -> None:
    make_old(*library.iterdir())
    by_album = Settings(by_album=True)
    see(library / "a.flac")
    see(library / "b.mp3", delay_s=HOUR_S)
    recorder = Recorder(DONE)
    drain(recorder, library, settings=by_album)
    assert recorder.batches == []
    Path(f"{Settings().state}.queue").unlink()  # as if an hour had passed
    see(library / "a.flac", library / "b.mp3")
    drain(recorder, library, settings=by_album)
    assert [batch.only for batch in recorder.batches] == [[library]]


def test_no_work_in_quiet_hours_and_a_scan_ends_where_they_begin(library: Path) -> None:
    now = datetime.now().astimezone()
    add_arrivals([library], Settings().state)
    recorder = Recorder(DONE)
    quiet = Hours((now - timedelta(minutes=2)).time(), (now + timedelta(minutes=2)).time())
    drain(recorder, options=WatchSettings(quiet_hours=quiet))
    assert recorder.batches == []
    soon = Hours((now + timedelta(hours=1)).time(), (now + timedelta(hours=2)).time())
    late = (now + timedelta(hours=3)).time()
    drain(recorder, settings=Settings(until=late), options=WatchSettings(quiet_hours=soon))
    assert [settings.until for settings in recorder.settings] == [soon.start]


def test_a_scan_that_may_wait_does_so(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_state(Settings().state):
        assert Scan(capsys, library).code == 4
    opened, may_close = threading.Event(), threading.Event()

    def use_state() -> None:
        with open_state(Settings().state):
            opened.set()
            may_close.wait(60)

    thread = threading.Thread(target=use_state)
    thread.start()
    opened.wait(60)
    threading.Timer(0.2, may_close.set).start()
    scan = Scan(capsys, "--wait", *ANY, library)
    thread.join()
    assert scan.actions == {"written": 3}
    assert "waiting for its end" in scan.err


def test_errors_of_the_queue_name_it_and_other_errors_stay_as_they_are(library: Path) -> None:
    state = Settings().state
    Path(f"{state}.queue").mkdir(parents=True)
    with pytest.raises(StateError, match=r"the queue .*state\.sqlite\.queue cannot be used"):
        add_arrivals([library], state)
    Path(f"{state}.queue").rmdir()
    for error in (StateError("the state file is damaged"), OSError("no process")):
        with pytest.raises(type(error), match=f"^{error}$"), open_arrivals(state):
            raise error


requires_events = pytest.mark.skipif(
    not can_watch_folders(), reason="this system does not report changes below folders"
)


def read_until(events: FolderEvents, wanted: set[Path]) -> set[Path]:
    """Read events until all that is wanted came; return all that came."""
    found: set[Path] = set()
    for _ in range(20):
        found |= events.read(0.5)
        if wanted <= found:
            break
    return found


@requires_events
def test_new_files_and_folders_are_seen_wherever_a_crawl_looks(library: Path) -> None:
    (library / ".stversions").mkdir()
    with FolderEvents([library], Scope(EXTENSIONS)) as events:
        odd = Path(os.fsdecode(os.fsencode(library) + b"/caf\xe9.mp3"))
        odd.write_bytes(b"x")
        deep = library / "Artist" / "Album"
        deep.mkdir(parents=True)
        found = read_until(events, {odd, library / "Artist"})
        assert {odd, library / "Artist"} <= found
        (deep / "1.flac").write_bytes(b"x")
        (library / ".stversions" / "old.flac").write_bytes(b"x")
        assert deep / "1.flac" in read_until(events, {deep / "1.flac"})
        (library / "Artist").rename(library / "Band")
        moved = library / "Band" / "Album" / "2.flac"
        assert library / "Band" in read_until(events, {library / "Band"})
        moved.write_bytes(b"x")
        found = read_until(events, {moved})
        assert moved in found
        assert not any(".stversions" in str(path) for path in found)


@requires_events
def test_a_watch_ends_if_its_folder_goes_away(library: Path) -> None:
    root = library / "disk"
    (root / "Album").mkdir(parents=True)
    with FolderEvents([root], Scope(EXTENSIONS)) as events:
        (root / "Album").rmdir()
        root.rmdir()
        with pytest.raises(WatchError, match="is gone: is its disk still mounted"):
            read_until(events, {library})


@requires_events
def test_a_watch_ends_if_its_folder_gets_another_name(library: Path) -> None:
    root = library / "disk"
    (root / "Album").mkdir(parents=True)
    with FolderEvents([root], Scope(EXTENSIONS)) as events:
        (root / "Album").rename(root / "Songs")
        assert root / "Songs" in read_until(events, {root / "Songs"})
        root.rename(library / "music")
        with pytest.raises(WatchError, match=f"{root} is gone"):
            read_until(events, {library})


@requires_events
def test_events_that_were_lost_are_made_up_for(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FolderEvents([library], Scope(EXTENSIONS)) as events:
        from inotify_simple import Event, INotify, flags

        lost = [Event(-1, flags.Q_OVERFLOW, 0, "")]
        monkeypatch.setattr(INotify, "read", lambda *_: lost)
        assert events.read(0) == {library}


def run_watcher(
    request: WatchRequest, command: Sequence[str], *, steps: int
) -> tuple[Watcher, list[str]]:
    """Run a watch for so many steps."""
    said: list[str] = []
    left = iter(range(steps))

    def check_stop() -> None:
        if next(left, None) is None:
            raise InterruptedRunError("stopped")

    watcher = Watcher(request, command, said.append, check_stop)
    with pytest.raises(InterruptedRunError):
        watcher.run()
    return watcher, said


def test_a_scan_that_cannot_go_on_is_tried_again_later(
    library: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watch, "STEP_S", 0.2)
    request = WatchRequest([library], Settings(), WatchSettings())
    assert main(["watch", "--health"]) == 3
    _, said = run_watcher(request, ["sh", "-c", "exit 3"], steps=10)
    assert said == [
        f"watching {library}",
        "the last scan ended with code 3; the next try is in 60 s",
    ]
    with pytest.raises(SettingsError, match="does not accept"):
        Watcher(request, ["sh", "-c", "exit 2"], said.append, lambda: None).run()
    save_watch_status(Settings().state, "")
    assert main(["watch", "--health"]) == 0
    save_watch_status(Settings().state, "no disk")
    assert main(["watch", "--health"]) == 3
    assert "cannot scan: no disk" in capsys.readouterr().err


def test_a_share_is_looked_through_again_and_again(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "STEP_S", 0.05)
    monkeypatch.setattr(watch, "reports_changes", lambda _: False)
    request = WatchRequest([library], Settings(), WatchSettings(poll=0.1))
    _, said = run_watcher(request, ["true"], steps=10)
    assert said == [f"watching {library}; looking at all files every 0.1 s"]
    assert WatchRequest([library], Settings(), WatchSettings()).poll_interval_s == 900


def test_two_watches_do_not_share_a_state_file(
    library: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "STEP_S", 0.05)
    with lock_watch(Settings().state):
        assert main(["watch", str(library)]) == 4
    assert "another `tagger watch`" in capsys.readouterr().err
    assert main(["watch", str(library / "a.flac")]) == 2


def wait_for(is_true: Callable[[], bool]) -> bool:
    for _ in range(600):
        if is_true():
            return True
        time.sleep(0.1)
    return False


def find_scanning_process(watch_pid: int) -> int | None:
    children = Path(f"/proc/{watch_pid}/task/{watch_pid}/children").read_text().split()
    return int(children[0]) if children else None


@requires_events
@pytest.mark.slow
def test_an_evening(library: Path, home: Path) -> None:
    """An album is copied slowly while a watch works, which is killed in between."""
    state, log = home / "tagger" / "state.sqlite", home / "log"
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "tagger", "watch", *ANY, "--settle=2", "--idle=60", str(library)]

    def has_genre(name: str) -> bool:
        path = library / name
        return path.exists() and bool(read_tags(path).genres)

    with log.open("w") as output, run_in_background(words, stderr=output, stdout=output) as first:
        assert wait_for(lambda: has_genre("c.ogg")), log.read_text()
        (library / "Album").mkdir()
        build_audio(library / "1.flac", seconds=4).rename(library / "Album" / "1.flac")
        assert wait_for(lambda: has_genre("Album/1.flac")), log.read_text()
        scanning = find_scanning_process(first.pid)
        assert scanning is not None
        build_audio(library / "2.flac", seconds=4).rename(library / "Album" / "2.flac")
        os.kill(scanning, signal.SIGKILL)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    assert main(["add", "-q", "--state", str(state), str(library / "Album" / "2.flac")]) == 0
    with log.open("w") as output, run_in_background(words, stderr=output, stdout=output) as second:
        assert wait_for(lambda: has_genre("Album/2.flac")), log.read_text()
        assert main(["watch", "--health", "--state", str(state)]) == 0
        second.terminate()
        assert second.wait(60) == 143
    set_genre(library / "a.flac", "Mine")
    assert main(["watch", "--once", "--state", str(state), str(library)]) == 0
    assert read_tags(library / "a.flac").genres == ("Mine",)


PAGE = Path(__file__).parents[2] / "docs" / "importing.md"


def run_script(
    name: str, folder: Path, variables: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a script of the page as the other program does, with `tagger` on the PATH."""
    text = PAGE.read_text("utf-8").split(f"<!-- script {name} -->\n```sh\n")[1].split("```")[0]
    script, program = folder / name, folder / "tagger"
    script.write_text(
        text.replace("PATH=/usr", f"PATH={folder}:/usr").replace("/home/me", str(folder))
    )
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH={PAGE.parents[1]} exec {sys.executable} -m tagger "$@"\n'
    )
    script.chmod(0o755)
    program.chmod(0o755)
    variables = {"PATH": f"{folder}:{os.environ['PATH']}", **variables}
    return subprocess.run([script], env=variables, capture_output=True, text=True, check=False)


def list_paths(state_folder: Path) -> list[Path]:
    with open_arrivals(state_folder / ".local/state/tagger/state.sqlite") as queue:
        return [Path(arrival.path) for arrival in queue.list_ready()]


def test_the_script_for_lidarr(library: Path, tmp_path: Path) -> None:
    odd = build_audio(library / "a 'quote' & more\n.flac", seconds=1)
    songs = sorted([odd, library / "b.mp3"])
    variables = {
        "HOME": str(tmp_path),
        "lidarr_eventtype": "AlbumDownload",
        "lidarr_addedtrackpaths": "|".join(map(str, songs)),
    }
    done = run_script("lidarr", tmp_path, variables)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list_paths(tmp_path) == songs
    done = run_script("lidarr", tmp_path, {"lidarr_eventtype": "Test"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_script_for_slskd(library: Path, tmp_path: Path) -> None:
    event = {"type": "DownloadDirectoryComplete", "localDirectoryName": str(library)}
    done = run_script("slskd", tmp_path, {"SLSKD_SCRIPT_DATA": json.dumps(event)})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list_paths(tmp_path) == [library]
