"""A nightly run: the schedule, the metrics, and the user's command after it."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import time
from pathlib import Path

import pytest

from tagger.cli import main
from tagger.cli.progress import RunProgress
from tagger.errors import InterruptedRunError, ReportError, ScheduleError
from tagger.records import Outcome
from tagger.service import notify, schedule
from tagger.service.schedule import (
    NightlyJob,
    build_cron_line,
    build_systemd_units,
    install_job,
    remove_job,
)
from tagger.service.units import Account
from tagger.tags import read_tags
from tests.builders import build_audio, write_empty
from tests.front_door import ANY, Scan

ODD_NAME = 'it\'s 100% "my" $HOME;\\music here'
"""A name that a shell, cron and systemd each read differently if it is not quoted."""


@pytest.fixture
def install_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Give a function that puts a shell script in front of all programs of its name."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(name: str, script: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return make


def make_job(*paths: str | Path, account: Account | None = None) -> NightlyJob:
    arguments = ["scan", "--min-score=0", "--", *map(str, paths)]
    return NightlyJob("tagger", time(3, 5), arguments, account)


def make_account(*written: str | Path, uses_gpu: bool = False) -> Account:
    return Account("somebody", [str(each) for each in written], ["/opt/tagger"], uses_gpu)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="this machine has no systemd")
@pytest.mark.parametrize("kind", ["--user", "--system"])
def test_systemd_understands_the_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    account = make_account(f"/srv/{ODD_NAME}") if kind == "--system" else None
    for name, text in build_systemd_units(make_job(ODD_NAME, account=account)).items():
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    names = [str(tmp_path / name) for name in build_systemd_units(make_job())]
    verify = ["systemd-analyze", kind, "verify", *names]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    calendar = subprocess.run(
        ["systemd-analyze", "calendar", "*-*-* 03:05:00"], capture_output=True, check=False
    )
    assert calendar.returncode == 0
    assert "OnCalendar=*-*-* 03:05:00" in build_systemd_units(make_job())["tagger.timer"]


@pytest.mark.slow
def test_the_cron_line_tags_a_folder_of_any_name(
    tmp_path: Path, install_tool: Callable[[str, str], Path]
) -> None:
    folder = tmp_path / ODD_NAME
    folder.mkdir()
    song = build_audio(folder / "a.flac", seconds=4)
    assert main(["scan", str(folder), "-n"]) == 0  # so that the job need not load the model
    log = tmp_path / "log"
    install_tool("logger", f"cat > {shlex.quote(str(log))}")
    fields, _, command = build_cron_line(make_job(folder)).partition(" * * * ")
    assert fields == "5 3"
    command = command.replace("\\%", "%")  # as cron does before it calls the shell
    subprocess.run(["sh", "-c", command], check=True, timeout=300)
    assert read_tags(song).genres
    assert "1 track in" in log.read_text()


FOREIGN_CRONTAB = (
    b"# my jobs\r\n"
    b"\n"
    b"  MAILTO =  caf\xe9@example.org \n"
    b"-*/5  1-3\t* * mon,TUE backup '100\\%' # tagger\x0c\xe2\x80\xa8no end\n"
    b"0 1 * * * old-tagger # tagger schedule: other\n"
    b"@daily rest\n"
    b"MAILTO=\n"
    b"#0 1 * * * off"
)
"""Lines that a parser easily changes. The last one has no newline."""


def test_a_cron_line_is_installed_and_removed_and_the_others_stay(
    tmp_path: Path,
    install_tool: Callable[[str, str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = tmp_path / "table"
    table.write_bytes(FOREIGN_CRONTAB)
    quoted = shlex.quote(str(table))
    monkeypatch.setattr(schedule, "_has_systemd", lambda: False)
    install_tool("crontab", "echo you may not >&2; exit 1")
    assert main(["schedule", "--install", str(tmp_path)]) == 3
    assert table.read_bytes() == FOREIGN_CRONTAB
    install_tool("crontab", f'if [ "$1" = -l ]; then cat {quoted}; else cat > {quoted}; fi')
    for _ in range(2):  # the second line replaces the first
        assert main(["schedule", "--at", "3:05", "--install", str(tmp_path / "100%")]) == 0
    assert "logged in" not in capsys.readouterr().out  # cron does not ask who is
    content = table.read_bytes()
    assert content.startswith(FOREIGN_CRONTAB + b"\n5 3 * * * ")
    line = content.removeprefix(FOREIGN_CRONTAB + b"\n")
    assert line.count(b"\n") == 1
    assert b"--gentle" in line
    assert b"100\\%" in line
    assert main(["schedule", "--remove"]) == 0
    assert table.read_bytes() == FOREIGN_CRONTAB + b"\n"
    assert main(["schedule", "--remove"]) == 3
    assert main(["schedule", "--remove", "--name", "other"]) == 0  # a job of an older version
    old_line = b"0 1 * * * old-tagger # tagger schedule: other\n"
    assert table.read_bytes() == FOREIGN_CRONTAB.replace(old_line, b"") + b"\n"


def test_without_a_crontab_one_is_made(
    tmp_path: Path, install_tool: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "table"
    empty = "echo no crontab for me >&2; exit 1"
    monkeypatch.setattr(schedule, "_has_systemd", lambda: False)
    install_tool("crontab", f'if [ "$1" = -l ]; then {empty}; fi; cat > {shlex.quote(str(table))}')
    install_job(make_job(tmp_path))
    assert table.read_text() == f"{build_cron_line(make_job(tmp_path))}\n"


def test_without_systemd_and_cron_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "_has_systemd", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ScheduleError, match="neither systemd nor cron: without --install"):
        install_job(make_job(tmp_path))


def test_systemd_units_are_installed_and_removed(
    tmp_path: Path,
    home: Path,
    install_tool: Callable[[str, str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = tmp_path / "calls"
    install_tool("systemctl", f'echo "$@" >> {shlex.quote(str(calls))}')
    monkeypatch.setattr(schedule, "_has_systemd", lambda: True)
    assert install_job(make_job(tmp_path)).endswith("loginctl enable-linger")
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
    (folder / "other.timer").write_text("[Timer]\n")  # made by somebody else
    with pytest.raises(ScheduleError, match="there is no timer other"):
        remove_job("other")
    install_tool("systemctl", "echo no bus >&2; exit 1")
    with pytest.raises(ScheduleError, match="no bus"):
        install_job(make_job(tmp_path))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder in place of / to the jobs of the system, and the rights of root to install."""
    for name in ("etc/systemd/system", "etc/cron.d", "var/lib", "var/cache"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(schedule, "SYSTEM_UNIT_FOLDER", tmp_path / "etc" / "systemd" / "system")
    monkeypatch.setattr(schedule, "CRON_FOLDER", tmp_path / "etc" / "cron.d")
    monkeypatch.setattr(schedule, "STATE_FOLDER", tmp_path / "var" / "lib")
    monkeypatch.setattr(schedule, "CACHE_FOLDER", tmp_path / "var" / "cache")
    monkeypatch.setattr(schedule, "_check_root", lambda: None)
    monkeypatch.setattr(schedule, "_check_account", lambda _: None)
    return tmp_path


def test_units_of_the_system_are_installed_and_removed(
    machine: Path, install_tool: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = machine / "calls"
    install_tool("systemctl", f'echo "$@" >> {shlex.quote(str(calls))}')
    monkeypatch.setattr(schedule, "_has_systemd", lambda: True)
    system = ("schedule", "--system", "--user", "somebody", "--name", "night")
    assert main([*system, "--install", str(machine)]) == 0
    folder = machine / "etc" / "systemd" / "system"
    assert sorted(path.name for path in folder.iterdir()) == ["night.service", "night.timer"]
    unit = (folder / "night.service").read_text()
    for line in ("User=somebody", "StateDirectory=night", f'ReadWritePaths="-{machine}"'):
        assert f"\n{line}\n" in unit
    assert '"--state=/var/lib/night/state.sqlite"' in unit
    assert main(["schedule", "--system", "--name", "night", "--remove"]) == 0
    assert not list(folder.iterdir())
    assert calls.read_text().splitlines() == [
        "daemon-reload",
        "enable --now night.timer",
        "disable --now night.timer",
        "daemon-reload",
    ]
    (folder / "nginx.service").write_text("[Service]\n")
    assert main([*system[:4], "--name", "nginx", "--install", str(machine)]) == 3
    assert main(["schedule", "--system", "--name", "nginx", "--remove"]) == 3
    assert (folder / "nginx.service").read_text() == "[Service]\n"


def test_a_job_of_the_system_without_systemd_is_a_file_for_cron(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "_has_systemd", lambda: False)
    monkeypatch.setattr(shutil, "chown", lambda *_: None)
    words = ("schedule", "--system", "--user", "somebody", "--at", "3:05")
    assert main([*words, "--install", str(machine / "100%")]) == 0
    file = machine / "etc" / "cron.d" / "tagger"
    assert file.stat().st_mode & 0o777 == 0o644
    *variables, line = file.read_text().splitlines()[1:]
    assert variables == ["XDG_CONFIG_HOME=/etc", "XDG_CACHE_HOME=/var/cache/tagger"]
    assert line.startswith("5 3 * * * somebody ")
    assert f"{machine}/100\\%" in line
    assert (machine / "var" / "lib" / "tagger").stat().st_mode & 0o777 == 0o750
    assert main(["schedule", "--system", "--remove"]) == 0
    assert not file.exists()
    assert main(["schedule", "--system", "--remove"]) == 3
    file.parent.rmdir()
    with pytest.raises(ScheduleError, match="neither systemd nor cron"):
        install_job(make_job(machine, account=make_account(machine)))


def test_a_job_of_the_system_is_printed_to_anybody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    song = tmp_path / "a.flac"
    write_empty(song)
    outputs = ["--metrics", "/srv/metrics/tagger.prom", "--html=page.html", "--state=/srv/s.sqlite"]
    words = ["schedule", "--system", "--user", "somebody", *outputs]
    assert main([*words, str(song), "/srv/music", "s3://bucket/music"]) == 0
    printed = capsys.readouterr().out
    written = [line for line in printed.splitlines() if line.startswith("ReadWritePaths=")]
    folders = [song.parent, "/srv/music", "/srv", Path.cwd(), "/srv/metrics"]
    assert written == [f'ReadWritePaths="-{folder}"' for folder in folders]
    assert "/var/lib" not in printed
    assert printed.count("--state=/srv/s.sqlite") == 2  # for systemd and for cron


@pytest.mark.parametrize(
    ("written", "home"), [("/srv/music", "yes"), ("/home/me/music", "read-only")]
)
def test_homes_are_hidden_unless_music_is_there(written: str, home: str) -> None:
    units = build_systemd_units(make_job(written, account=make_account(written)))
    assert f"ProtectHome={home}\n" in units["tagger.service"]


def test_devices_are_hidden_unless_there_is_a_gpu() -> None:
    for uses_gpu in (True, False):
        account = make_account("/srv", uses_gpu=uses_gpu)
        unit = build_systemd_units(make_job("/srv", account=account))["tagger.service"]
        assert ("PrivateDevices=yes" in unit) is not uses_gpu


def test_a_job_of_the_user_is_not_confined() -> None:
    unit = build_systemd_units(make_job("/srv"))["tagger.service"]
    assert not {"User", "Protect", "StateDirectory"} & {*unit.replace("=", "\n").splitlines()}
    assert "PATH" not in build_cron_line(make_job("/srv")).partition(" * * * ")[0]


def test_only_root_installs_a_job_of_the_system(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    words = ("schedule", "--system", "--user", "nobody")
    assert main([*words, "--install", str(tmp_path)]) == 3
    assert "needs root" in capsys.readouterr().err
    assert main(["schedule", "--system", "--remove"]) == 3
    assert "needs root" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_a_user_that_cannot_run_tagger_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ScheduleError, match="has no user somebody"):
        install_job(make_job(tmp_path, account=make_account(tmp_path)))
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 0\n")
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    job = make_job(tmp_path, account=Account("nobody", [str(tmp_path)], [], uses_gpu=False))
    with pytest.raises(ScheduleError, match=r"the user nobody cannot start .*/python"):
        install_job(job)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--at", "25:00", "."], "--at must be a time of day"),
        (["--min-score", "2", "."], "--min-score"),
        (["--name", "a b", "."], "--name may only have letters"),
        ([], "name at least one PATH"),
        (["--notify-cmd", "a\nb", "."], "a nightly job cannot have"),
        (["--labels", "~nobody-knows", "."], "must be two labels or more"),
        (["caf\udce9"], "a nightly job cannot have"),
        (["--system", "."], "needs both --system and --user"),
        (["--user", "me", "."], "needs both --system and --user"),
        (["--system", "--user", "root", "."], "other than root"),
        (["--system", "--user", "a\nb", "."], "the name of a user"),
        (["https://example.org/music"], "only a dry run is possible"),
        (["--preserve-mtime", "s3://bucket/music"], "--preserve-mtime"),
    ],
)
def test_wrong_arguments_are_refused_at_once(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["schedule", *words]) == (3 if "nightly" in reason else 2)
    assert reason in capsys.readouterr().err


def test_what_the_job_would_miss_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["schedule", "--notify", "jellyfin=http://nas", str(tmp_path), str(tmp_path / "none")]
    assert main(words) == 0
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"tagger: {tmp_path / 'none'} is not there: a scan without it fails"
    assert second.startswith("tagger: --notify jellyfin needs the key")
    assert main(["schedule", "--dry-run", "https://example.org/music"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["schedule", "~nobody-has-this-name/Music"]) == 0
    assert "Music is not there" in capsys.readouterr().err


def test_the_printed_job_has_the_given_options(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "my.toml"
    config.write_text("top-k = 3\n")
    monkeypatch.chdir(tmp_path)
    options = ["--until", "06:00", "--exclude", "a*", "--exclude", "b", "--config", "my.toml"]
    options += ["--state", "state.sqlite"]
    assert main(["schedule", *options, "music"]) == 0
    printed = capsys.readouterr().out
    assert f"# {home}/systemd/user/tagger.timer\n" in printed  # XDG_CONFIG_HOME is set
    state = f"--state={tmp_path / 'state.sqlite'}"  # the path was relative
    for word in ("--until=06:00", "--exclude=a*", "--exclude=b", "--gentle", str(config), state):
        assert printed.count(word) == 2  # for systemd and for cron
    assert f'"{Path("music").resolve()}"' in printed


def test_metrics_of_a_run(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = tmp_path / "new" / "tagger.prom"
    build_audio(library / "short.mp3", seconds=0.5)
    assert Scan(capsys, library, *ANY, "--metrics", metrics).code == 1
    lines = metrics.read_text().splitlines()
    assert 'tagger_run_tracks{action="written"} 3.0' in lines
    assert 'tagger_run_tracks{action="failed"} 1.0' in lines
    assert "tagger_run_exit_code 1.0" in lines
    Scan(capsys, library / "none", "--metrics", metrics)
    lines = metrics.read_text().splitlines()
    assert "tagger_run_exit_code 3.0" in lines
    assert not any(line.startswith("tagger_run_tracks{") for line in lines)
    (tmp_path / "file").write_text("")
    refused = Scan(capsys, library, *ANY, "--metrics", tmp_path / "file" / "tagger.prom")
    assert (refused.code, "cannot write the metrics" in refused.err) == (3, True)


def test_the_command_gets_the_changed_folders(
    library: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (library / "sub").mkdir()
    (library / "c.ogg").rename(library / "sub" / "c.ogg")
    folders = tmp_path / "folders"
    command = (
        f'cat > {shlex.quote(str(folders))}; echo "$TAGGER_WRITTEN" >> "$TAGGER_REPORT.count"; echo'
    )
    scan = ["scan", str(library), *ANY, "--json", "--notify-cmd", command]
    assert main(scan) == 0
    summary = json.loads(capfd.readouterr().out)  # the output of the command goes to stderr
    assert folders.read_text().splitlines() == [str(library), str(library / "sub")]
    assert Path(f"{summary['report']}.count").read_text() == "3\n"
    folders.unlink()
    assert main(scan) == 0
    assert not folders.exists()  # nothing was written


def test_a_command_that_fails_is_reported(
    library: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = Scan(capsys, library, *ANY, "--notify-cmd", "exit 7  # secret")
    assert (scan.code, scan.actions) == (3, {"written": 3})
    assert scan.err.endswith("tagger: --notify-cmd ended with code 7\n")
    monkeypatch.setattr(notify, "NOTIFY_TIMEOUT_S", 0.1)
    for path in library.iterdir():
        build_audio(path, seconds=4, seed=5)
    scan = Scan(capsys, library, *ANY, "--notify-cmd", "sleep 5  # secret")
    assert scan.err.endswith("tagger: --notify-cmd took more than 0.1 s\n")


def test_the_command_runs_even_if_the_page_cannot_be_written(
    library: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise ReportError("the disk is full")

    monkeypatch.setattr("tagger.cli.summary.write_run_page", refuse)
    folders = tmp_path / "folders"
    options = (
        "--html",
        tmp_path / "page.html",
        "--notify-cmd",
        f"cat > {shlex.quote(str(folders))}",
    )
    scan = Scan(capsys, library, *ANY, *options)
    assert (scan.code, scan.actions) == (3, {"written": 3})
    assert folders.read_text() == f"{library}\n"


def test_a_command_that_fails_does_not_keep_the_page_and_the_metrics_from_being_written(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, metrics = tmp_path / "page.html", tmp_path / "tagger.prom"
    options = ("--html", page, "--metrics", metrics, "--notify-cmd", "exit 7")
    scan = Scan(capsys, library, *ANY, *options)
    assert (scan.code, scan.summary["written"]) == (3, 3)
    assert "--notify-cmd ended with code 7" in scan.err
    assert "a.flac" in page.read_text()
    assert "tagger_run_exit_code 3.0" in metrics.read_text()
    assert 'tagger_run_tracks{action="written"} 3.0' in metrics.read_text()


def test_each_last_step_is_done_whatever_the_others_do(
    library: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page, folders = tmp_path / "page.html", tmp_path / "folders"
    command = f"cat > {shlex.quote(str(folders))}; exit 7"

    def refuse(*_: object) -> None:
        raise ReportError("cannot print: no space left")

    monkeypatch.setattr("tagger.cli.summary.print_line", refuse)
    options = ["--html", str(page), "--notify-cmd", command]
    assert main(["scan", str(library), *ANY, "--json", *options]) == 3
    error = capsys.readouterr().err
    assert "tagger: cannot print: no space left; --notify-cmd ended with code 7" in error
    assert page.exists()
    assert folders.read_text() == f"{library}\n"


def test_a_folder_with_a_line_break_in_its_name_is_no_second_folder(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trap = library / "x\n" / str(tmp_path).lstrip("/")
    trap.mkdir(parents=True)
    (library / "a.flac").rename(trap / "a.flac")
    folders = tmp_path / "folders"
    command = f"cat > {shlex.quote(str(folders))}"
    assert Scan(capsys, library, *ANY, "--notify-cmd", command).code == 0
    assert folders.read_text() == f"{library}\n"


def test_the_command_runs_after_an_interrupt_too(
    library: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folders, metrics = tmp_path / "folders", tmp_path / "tagger.prom"

    def interrupt(self: RunProgress, outcome: Outcome) -> None:
        on_outcome(self, outcome)
        raise InterruptedRunError("interrupted")

    on_outcome = RunProgress.on_outcome
    monkeypatch.setattr(RunProgress, "on_outcome", interrupt)
    options = ("--metrics", metrics, "--notify-cmd", f"cat > {shlex.quote(str(folders))}")
    assert Scan(capsys, library, *ANY, *options).code == 130
    assert folders.read_text() == f"{library}\n"
    assert "tagger_run_exit_code 130.0" in metrics.read_text()


@pytest.mark.parametrize(
    ("error", "code"), [(RuntimeError("a bug"), 3), (KeyboardInterrupt(), 130)]
)
def test_metrics_tell_of_an_unexpected_end(
    library: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
) -> None:
    def break_down(_self: RunProgress, _outcome: Outcome) -> None:
        raise error

    monkeypatch.setattr(RunProgress, "on_outcome", break_down)
    metrics = tmp_path / "tagger.prom"
    assert main(["normalize", str(library), "--metrics", str(metrics)]) == code
    assert f"tagger_run_exit_code {code}.0" in metrics.read_text()


def test_metrics_overwrite_only_metrics(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    song = library / "b.mp3"
    before = song.read_bytes()
    for place in (song, library):
        assert Scan(capsys, library, *ANY, "--metrics", place).code == 2
        assert song.read_bytes() == before


@pytest.mark.parametrize("option", ["--html", "--metrics"])
def test_a_link_stays_and_a_pipe_is_no_place_for_a_file(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    link, pipe, target = tmp_path / "link", tmp_path / "pipe", tmp_path / "there" / "file"
    target.parent.mkdir()
    link.symlink_to(target)
    os.mkfifo(pipe)
    for _ in range(2):
        assert main(["normalize", str(library), option, str(link)]) == 0
        assert link.is_symlink()
        assert target.stat().st_size
        target.write_bytes(target.read_bytes()[:100])
    assert list(target.parent.iterdir()) == [target]
    capsys.readouterr()
    assert main(["normalize", str(library), option, str(pipe)]) == 2
    assert f"{option} must name a file, not a device or a pipe" in capsys.readouterr().err
    assert pipe.is_fifo()
