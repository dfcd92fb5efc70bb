"""A nightly run: the job that starts it, its metrics, the user's command after it.

Owns prometheus_client and the programs systemctl and crontab.
"""

import os
import shlex
import shutil
import subprocess
import sys
import time as timer
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import time
from pathlib import Path

from tagger.errors import DiskFullError, NotifyError, ReportError, ScheduleError, TaggerError
from tagger.paths import AnyPath
from tagger.records import Action, ScanResult
from tagger.report.csv import check_overwrite, make_write_error
from tagger.settings import find_systemd_user_folder

LOCKED_EXIT_CODE = 4
"""The exit code if another run uses the state file. For a nightly job that is no failure."""

NOTIFY_TIMEOUT_S = 600

STDERR_DESCRIPTOR = 2
"""The output of --notify-cmd goes there: standard output has only the summary of the run."""


@dataclass(frozen=True, slots=True)
class NightlyJob:
    """A scan that runs every night. arguments: the arguments of `tagger`, from `scan` on."""

    name: str
    at: time
    arguments: Sequence[str]

    def __post_init__(self) -> None:
        """Raise ScheduleError for an argument that no unit and no crontab can have."""
        for word in self.arguments:
            if any(char < " " or "\ud800" <= char <= "\udfff" for char in word):
                raise ScheduleError(
                    f"a nightly job cannot have the argument {word!r}:"
                    " it has control characters, or is not UTF-8"
                )

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-P", "-m", "tagger", *self.arguments]

    @property
    def service(self) -> str:
        return f"{self.name}.service"

    @property
    def timer(self) -> str:
        return f"{self.name}.timer"


def build_systemd_units(job: NightlyJob) -> Mapping[str, str]:
    """Return the texts of the systemd units by name (systemd.service(5), systemd.timer(5)).

    If the machine is off at that time, the run of the next night does the work.
    """
    service = f"""\
# Made by `tagger schedule`
[Unit]
Description=tagger: genres for new music

[Service]
Type=oneshot
ExecStart={" ".join(map(_quote_for_systemd, job.command))}
Nice=19
CPUSchedulingPolicy=batch
IOSchedulingClass=idle
SuccessExitStatus={LOCKED_EXIT_CODE}
SyslogIdentifier={job.name}
"""
    nightly = f"""\
# Made by `tagger schedule`
[Unit]
Description=tagger every night

[Timer]
OnCalendar=*-*-* {job.at:%H:%M}:00

[Install]
WantedBy=timers.target
"""
    return {job.service: service, job.timer: nightly}


def _quote_for_systemd(word: str) -> str:
    """Quote a word for ExecStart, which has its own specifiers, variables and escapes."""
    for char, escaped in ("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$"):
        word = word.replace(char, escaped)
    return f'"{word}"'


def build_cron_line(job: NightlyJob) -> str:
    """Return a line for crontab(5). Its comment at the end is the mark to find it again."""
    words = shlex.join(job.command).replace("%", "\\%")
    line = f"{job.at.minute} {job.at.hour} * * * {words} 2>&1 | logger -t {job.name}"
    return f"{line} {_make_cron_mark(job.name)}"


def _make_cron_mark(name: str) -> str:
    return f"# tagger schedule: {name}"


def install_job(job: NightlyJob) -> str:
    """Install a job, in place of one of the same name, and return what was done.

    Use a systemd timer of the user where systemd runs, else a line of the user's crontab.
    Raises ScheduleError where there is neither.
    """
    if _has_systemd():
        folder = find_systemd_user_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in build_systemd_units(job).items():
                (folder / name).write_text(text, "utf-8")
        except OSError as error:
            raise ScheduleError(f"cannot write into {folder}: {error.strerror}") from error
        _systemctl("daemon-reload")
        _systemctl("enable", "--now", job.timer)
        return f"{folder / job.timer} is enabled"
    lines = _drop_job_line(job.name, _read_crontab())
    if lines and not lines[-1].endswith(b"\n"):
        lines[-1] += b"\n"
    _write_crontab([*lines, f"{build_cron_line(job)}\n".encode()])
    return "a line was added to your crontab"


def remove_job(name: str) -> str:
    """Remove a job and return what was done. Raises ScheduleError."""
    if _has_systemd():
        folder = find_systemd_user_folder()
        if not (folder / f"{name}.timer").exists():
            raise ScheduleError(f"there is no timer {name}")
        _systemctl("disable", "--now", f"{name}.timer")
        for suffix in ("timer", "service"):
            (folder / f"{name}.{suffix}").unlink(missing_ok=True)
        _systemctl("daemon-reload")
        return f"the timer {name} was removed"
    lines = _read_crontab()
    others = _drop_job_line(name, lines)
    if others == lines:
        raise ScheduleError(f"your crontab has no line of tagger for {name}")
    _write_crontab(others)
    return f"the line of tagger for {name} was removed from your crontab"


def _has_systemd() -> bool:
    """Tell whether systemd manages services of this user (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir() and shutil.which("systemctl") is not None


def _systemctl(*words: str) -> None:
    _run_command(["systemctl", "--user", *words])


def _read_crontab() -> list[bytes]:
    """Return the lines of the user's crontab, as bytes: lines of other jobs must stay as they are.

    Raises ScheduleError. The package python-crontab is no help here: it rewrites all lines, drops
    variables behind the last job, and turns lines that it does not know into comments.
    """
    try:
        return _run_command(["crontab", "-l"]).splitlines(keepends=True)
    except ScheduleError as error:
        if "no crontab for" not in str(error):
            raise
        return []


def _drop_job_line(name: str, lines: Sequence[bytes]) -> list[bytes]:
    mark = _make_cron_mark(name).encode()
    return [line for line in lines if not line.rstrip(b"\r\n").endswith(mark)]


def _write_crontab(lines: Sequence[bytes]) -> None:
    _run_command(["crontab", "-"], b"".join(lines))


def _run_command(command: Sequence[str], text: bytes = b"") -> bytes:
    """Run a command with `text` as its input, and return its output. Raises ScheduleError."""
    try:
        done = subprocess.run(  # noqa: S603 - names and paths are quoted, or not part of it
            command, input=text, capture_output=True, check=True
        )
    except FileNotFoundError as error:
        raise ScheduleError(
            "this machine has neither systemd nor cron: without --install, tagger prints the"
            " command to run"
        ) from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip()
        raise ScheduleError(f"{shlex.join(command)}: {reason}") from error
    return done.stdout


@contextmanager
def record_metrics(path: Path | None) -> Iterator["RunMetrics"]:
    """Give a RunMetrics for the result of a run, and write it whatever ends the run."""
    metrics = RunMetrics()
    try:
        yield metrics
    except TaggerError as error:
        metrics.exit_code = error.exit_code
        with suppress(ReportError, DiskFullError):  # the error of the run matters more
            write_metrics(path, metrics)
        raise
    write_metrics(path, metrics)


@dataclass(slots=True)
class RunMetrics:
    """The metrics of a run. result: None if the run could not go on."""

    result: ScanResult | None = None
    exit_code: int = 3


METRICS_START = b"# HELP tagger_"


def check_metrics(path: Path | None) -> None:
    """Raise SettingsError for an existing file without metrics of tagger, or ReportError."""
    if path is None:
        return
    try:
        check_overwrite(path, METRICS_START, "--metrics")
    except OSError as error:
        raise make_write_error("metrics", path, error) from error


def write_metrics(path: Path | None, metrics: RunMetrics) -> None:
    """Write a file for the textfile collector of Prometheus's node exporter, whole or not at all.

    Raises ReportError and DiskFullError.
    """
    if path is None:
        return
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry = CollectorRegistry()

    def add_gauge(name: str, text: str, value: float) -> None:
        Gauge(f"tagger_{name}", text, registry=registry).set(value)

    add_gauge("run_timestamp_seconds", "When the last run ended.", timer.time())
    add_gauge("run_exit_code", "The exit code of the last run.", metrics.exit_code)
    if result := metrics.result:
        add_gauge("run_duration_seconds", "How long the last run took.", result.seconds)
        add_gauge("run_failed_new", "Tracks that failed for the first time.", result.failed_new)
        add_gauge("run_waiting", "Tracks left to the next run by --until.", result.waiting or 0)
        tracks = Gauge("tagger_run_tracks", "Tracks by action.", ["action"], registry=registry)
        for action in Action:
            tracks.labels(action=action).set(result.counts[action])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_to_textfile(str(path), registry)
    except OSError as error:
        raise make_write_error("metrics", path, error) from error


def run_notify_command(command: str, changed: Mapping[AnyPath, int], report: Path | None) -> None:
    """Run the user's command, if there is one and the run wrote files.

    changed: how many files were written in each folder. A shell runs the command. Its input has a
    line for each folder; TAGGER_WRITTEN is the number of files, TAGGER_REPORT the path of the
    report. A folder with a line break in its path is named by the next folder above without one.
    Raises NotifyError if it fails.
    """
    if not command or not changed:
        return
    env = {"TAGGER_WRITTEN": str(sum(changed.values())), "TAGGER_REPORT": os.fspath(report or "")}
    folders = sorted(
        set(map(_cut_at_line_break, map(os.fsencode, changed))), key=lambda name: name.split(b"/")
    )
    lines = b"".join(folder + b"\n" for folder in folders)
    try:
        subprocess.run(  # noqa: S602 - the command is the user's own
            command,
            shell=True,
            check=True,
            input=lines,
            stdout=STDERR_DESCRIPTOR,
            env=os.environ | env,
            timeout=NOTIFY_TIMEOUT_S,
        )
    except subprocess.CalledProcessError as error:
        raise NotifyError(f"--notify-cmd ended with code {error.returncode}: {command}") from error
    except subprocess.TimeoutExpired as error:
        raise NotifyError(f"--notify-cmd took more than {NOTIFY_TIMEOUT_S} s: {command}") from error
    except OSError as error:
        raise NotifyError(f"--notify-cmd cannot be started: {error.strerror}: {command}") from error


def _cut_at_line_break(folder: bytes) -> bytes:
    """Return a folder, or the one above its first part with a line break.

    The command would take such a path for two, and the second may be any folder of the machine.
    """
    first, line_break, _ = folder.partition(b"\n")
    return os.path.dirname(first) if line_break else folder  # noqa: PTH120 - of bytes
