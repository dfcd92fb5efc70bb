"""What surrounds a nightly run: schedule, metrics, and the command that is run after it."""

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from datetime import time
from pathlib import Path

import pytest

from tagger import service
from tagger.cli import main
from tagger.cli.progress import RunProgress
from tagger.errors import InterruptedRunError, ReportError, ScheduleError
from tagger.records import Outcome
from tagger.service import NightlyJob, build_cron_line, build_systemd_units, install_job, remove_job
from tagger.tags import read_tags
from tests.builders import build_audio
from tests.front_door import ANY, Scan

ODD = 'it\'s 100% "my" $HOME;\\music here'
"""A name that a shell, cron and systemd would each read otherwise, if it were not quoted."""


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Give a function that puts a program of some lines of shell before all others."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(name: str, script: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return make


def job(*paths: str | Path) -> NightlyJob:
    arguments = ["scan", "--min-score=0", "--", *map(str, paths)]
    return NightlyJob("tagger", time(3, 5), arguments)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd here")
def test_systemd_understands_the_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in build_systemd_units(job(ODD)).items():
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    names = [str(tmp_path / name) for name in build_systemd_units(job())]
    verify = ["systemd-analyze", "--user", "verify", *names]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    calendar = subprocess.run(
        ["systemd-analyze", "calendar", "*-*-* 03:05:00"], capture_output=True, check=False
    )
    assert calendar.returncode == 0
    assert "OnCalendar=*-*-* 03:05:00" in build_systemd_units(job())["tagger.timer"]


def test_the_line_for_cron_tags_a_folder_of_any_name(
    tmp_path: Path, tool: Callable[[str, str], Path]
) -> None:
    folder = tmp_path / ODD
    folder.mkdir()
    song = build_audio(folder / "a.flac", seconds=4)
    log = tmp_path / "log"
    tool("logger", f"cat > {shlex.quote(str(log))}")
    fields, _, command = build_cron_line(job(folder)).partition(" * * * ")
    assert fields == "5 3"
    command = command.replace("\\%", "%")  # as cron hands it to the shell
    subprocess.run(["sh", "-c", command], check=True)
    assert read_tags(song).genres
    assert "1 track in" in log.read_text()


def test_a_line_of_the_crontab_comes_and_goes(
    tmp_path: Path, tool: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "table"
    table.write_text("0 1 * * * backup # tagger\n")
    quoted = shlex.quote(str(table))
    monkeypatch.setattr(service, "_has_systemd", lambda: False)
    tool("crontab", "echo you may not >&2; exit 1")
    assert main(["schedule", "--install", str(tmp_path)]) == 3  # and nothing is written
    tool("crontab", f'if [ "$1" = -l ]; then cat {quoted}; else cat > {quoted}; fi')
    for _ in range(2):  # the second takes the place of the first
        assert main(["schedule", "--at", "3:05", "--install", str(tmp_path)]) == 0
    lines = table.read_text().splitlines()
    assert lines[0] == "0 1 * * * backup # tagger"
    assert len(lines) == 2
    assert lines[1].startswith("5 3 * * * ")
    assert "--gentle" in lines[1]
    assert main(["schedule", "--remove"]) == 0
    assert main(["schedule", "--remove"]) == 3
    assert table.read_text() == "0 1 * * * backup # tagger\n"


def test_units_are_put_up_and_taken_down(
    tmp_path: Path, home: Path, tool: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    tool("systemctl", f'echo "$@" >> {shlex.quote(str(calls))}')
    monkeypatch.setattr(service, "_has_systemd", lambda: True)
    install_job(job(tmp_path))
    folder = home / "systemd" / "user"
    assert sorted(path.name for path in folder.iterdir()) == ["tagger.service", "tagger.timer"]
    remove_job("tagger")
    assert not list(folder.iterdir())
    assert calls.read_text().splitlines() == [
        "--user daemon-reload",
        "--user enable --now tagger.timer",
        "--user disable --now tagger.timer",
        "--user daemon-reload",
    ]
    with pytest.raises(ScheduleError, match="there is no timer other"):
        remove_job("other")
    tool("systemctl", "echo no bus >&2; exit 1")
    with pytest.raises(ScheduleError, match="no bus"):
        install_job(job(tmp_path))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--at", "25:00", "."], "--at must be a time of day"),
        (["--min-score", "2", "."], "--min-score"),
        (["--name", "a b", "."], "--name may only have letters"),
        ([], "name at least one PATH"),
        (["--notify-cmd", "a\nb", "."], "no nightly job can name"),
        (["caf\udce9"], "no nightly job can name"),
    ],
)
def test_what_is_wrong_shows_at_once(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["schedule", *words]) == (3 if "nightly" in reason else 2)
    assert reason in capsys.readouterr().err


def test_what_is_printed_has_the_options_that_were_given(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "my.toml"
    config.write_text("top-k = 3\n")
    monkeypatch.chdir(tmp_path)
    options = ["--until", "06:00", "--exclude", "a*", "--exclude", "b", "--config", "my.toml"]
    options += ["--state", "state.sqlite"]
    assert main(["schedule", *options, "music"]) == 0
    printed = capsys.readouterr().out
    state = f"--state={tmp_path / 'state.sqlite'}"  # given as seen from here
    for word in ("--until=06:00", "--exclude=a*", "--exclude=b", "--gentle", str(config), state):
        assert printed.count(word) == 2  # for systemd and for cron
    assert f'"{Path("music").resolve()}"' in printed


def test_metrics_of_a_run(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = tmp_path / "new" / "tagger.prom"
    build_audio(library / "short.mp3", seconds=0.5)
    assert Scan(capsys, library, *ANY, "--metrics", metrics).code == 1
    told = metrics.read_text().splitlines()
    assert 'tagger_run_tracks{action="written"} 3.0' in told
    assert 'tagger_run_tracks{action="failed"} 1.0' in told
    assert "tagger_run_exit_code 1.0" in told
    Scan(capsys, library / "none", "--metrics", metrics)
    told = metrics.read_text().splitlines()
    assert "tagger_run_exit_code 3.0" in told
    assert not any(line.startswith("tagger_run_tracks{") for line in told)
    (tmp_path / "file").write_text("")
    refused = Scan(capsys, library, *ANY, "--metrics", tmp_path / "file" / "tagger.prom")
    assert (refused.code, "cannot write the metrics" in refused.err) == (3, True)


def test_the_command_gets_the_folders_that_changed(
    library: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (library / "sub").mkdir()
    (library / "c.ogg").rename(library / "sub" / "c.ogg")
    told = tmp_path / "told"
    command = (
        f'cat > {shlex.quote(str(told))}; echo "$TAGGER_WRITTEN" >> "$TAGGER_REPORT.count"; echo'
    )
    scan = ["scan", str(library), *ANY, "--json", "--notify-cmd", command]
    assert main(scan) == 0
    summary = json.loads(capfd.readouterr().out)  # what the command says goes elsewhere
    assert told.read_text().splitlines() == [str(library), str(library / "sub")]
    assert Path(f"{summary['report']}.count").read_text() == "3\n"
    told.unlink()
    assert main(scan) == 0
    assert not told.exists()  # nothing was written


def test_a_command_that_fails_is_told(
    library: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = Scan(capsys, library, *ANY, "--notify-cmd", "exit 7")
    assert (scan.code, scan.actions) == (3, {"written": 3})
    assert "--notify-cmd ended with 7: exit 7" in scan.err
    monkeypatch.setattr(service, "NOTIFY_TIMEOUT_S", 0.1)
    for path in library.iterdir():
        build_audio(path, seconds=4, seed=5)
    assert "took more than" in Scan(capsys, library, *ANY, "--notify-cmd", "sleep 5").err


def test_the_command_is_run_whatever_becomes_of_the_page(
    library: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise ReportError("no room for the page")

    monkeypatch.setattr("tagger.cli.summary.write_run_page", refuse)
    told = tmp_path / "told"
    options = ("--html", tmp_path / "page.html", "--notify-cmd", f"cat > {shlex.quote(str(told))}")
    scan = Scan(capsys, library, *ANY, *options)
    assert (scan.code, scan.actions) == (3, {"written": 3})
    assert told.read_text() == f"{library}\n"


def test_the_command_is_run_after_an_interruption_as_well(
    library: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told, metrics = tmp_path / "told", tmp_path / "tagger.prom"

    def interrupt(self: RunProgress, outcome: Outcome) -> None:
        on_outcome(self, outcome)
        raise InterruptedRunError("interrupted")

    on_outcome = RunProgress.on_outcome
    monkeypatch.setattr(RunProgress, "on_outcome", interrupt)
    options = ("--metrics", metrics, "--notify-cmd", f"cat > {shlex.quote(str(told))}")
    assert Scan(capsys, library, *ANY, *options).code == 130
    assert told.read_text() == f"{library}\n"
    assert "tagger_run_exit_code 130.0" in metrics.read_text()


def test_metrics_take_the_place_of_nothing_but_metrics(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    song = library / "b.mp3"
    before = song.read_bytes()
    for place in (song, library):
        assert Scan(capsys, library, *ANY, "--metrics", place).code == 2
        assert song.read_bytes() == before
