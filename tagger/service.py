"""What surrounds a nightly run: the job that starts it, the file of metrics, the hook after it.

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
"""The exit code of a run that found another one at work: for a nightly job that is no failure."""

NOTIFY_TIMEOUT_S = 600

STDERR_DESCRIPTOR = 2
"""Where a hook's words go: the summary of the run has standard output for itself."""


@dataclass(frozen=True, slots=True)
class NightlyJob:
    """A scan that is to run every night. arguments: those of `tagger`, from `scan` on."""

    name: str
    at: time
    arguments: Sequence[str]

    def __post_init__(self) -> None:
        """Raise ScheduleError for what cannot stand in a unit or a crontab."""
        for word in self.arguments:
            if any(char < " " or "\ud800" <= char <= "\udfff" for char in word):
                raise ScheduleError(f"no nightly job can name {word!r}")

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

    A night that the machine slept through is not made up for by day.
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
    """Quote a word for ExecStart, which has specifiers, variables and escapes of its own."""
    for char, escaped in ("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$"):
        word = word.replace(char, escaped)
    return f'"{word}"'


def build_cron_line(job: NightlyJob) -> str:
    """Return a line for crontab(5), which ends with a mark by which it is found again."""
    words = shlex.join(job.command).replace("%", "\\%")
    line = f"{job.at.minute} {job.at.hour} * * * {words} 2>&1 | logger -t {job.name}"
    return f"{line} {_make_cron_comment(job.name)}"


def _make_cron_comment(name: str) -> str:
    return f"# tagger schedule: {name}"


def install_job(job: NightlyJob) -> str:
    """Set a job up, in place of one of its name, and return what was done.

    A user's systemd timer where systemd runs, else a line of the user's crontab.
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
    _write_crontab([*_drop_job_line(job.name, _read_crontab()), build_cron_line(job)])
    return "a line was added to your crontab"


def remove_job(name: str) -> str:
    """Take a job down again and return what was done. Raises ScheduleError."""
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
        raise ScheduleError(f"your crontab has no line {name}")
    _write_crontab(others)
    return f"your crontab has no line {name} any more"


def _has_systemd() -> bool:
    """Tell whether systemd manages services of this user (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir() and shutil.which("systemctl") is not None


def _systemctl(*words: str) -> None:
    _run_command(["systemctl", "--user", *words])


def _read_crontab() -> list[str]:
    """Return the lines of the user's crontab. Raises ScheduleError."""
    try:
        return _run_command(["crontab", "-l"]).splitlines()
    except ScheduleError as error:
        if "no crontab for" not in str(error):
            raise
        return []


def _drop_job_line(name: str, lines: Sequence[str]) -> list[str]:
    return [line for line in lines if not line.endswith(_make_cron_comment(name))]


def _write_crontab(lines: Sequence[str]) -> None:
    _run_command(["crontab", "-"], text="".join(f"{line}\n" for line in lines))


def _run_command(command: Sequence[str], *, text: str = "") -> str:
    try:
        done = subprocess.run(  # noqa: S603 - names and paths are quoted, or no part of it
            command, input=text, capture_output=True, text=True, check=True
        )
    except FileNotFoundError as error:
        raise ScheduleError(
            "there is neither systemd nor cron here: without --install you get the command to run"
        ) from error
    except subprocess.CalledProcessError as error:
        raise ScheduleError(f"{shlex.join(command)}: {error.stderr.strip()}") from error
    return done.stdout


@contextmanager
def record_metrics(path: Path | None) -> Iterator["RunMetrics"]:
    """Give what takes note of a run's result, and write the metrics whatever ends the run."""
    metrics = RunMetrics()
    try:
        yield metrics
    except TaggerError as error:
        metrics.exit_code = error.exit_code
        with suppress(ReportError, DiskFullError):  # the run's own error is what has to be told
            write_metrics(path, metrics)
        raise
    write_metrics(path, metrics)


@dataclass(slots=True)
class RunMetrics:
    """What a file of metrics tells of a run; result: None where it could not go on."""

    result: ScanResult | None = None
    exit_code: int = 3


METRICS_START = b"# HELP tagger_"


def check_metrics(path: Path | None) -> None:
    """Raise SettingsError for a file that is there and holds no metrics of ours; ReportError."""
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

    def tell(name: str, text: str, value: float) -> None:
        Gauge(f"tagger_{name}", text, registry=registry).set(value)

    tell("run_timestamp_seconds", "When the last run ended.", timer.time())
    tell("run_exit_code", "The exit code of the last run.", metrics.exit_code)
    if result := metrics.result:
        tell("run_duration_seconds", "How long the last run took.", result.seconds)
        tell("run_failed_new", "Tracks that failed for the first time.", result.failed_new)
        tell("run_waiting", "Tracks left to the next run by --until.", result.waiting or 0)
        tracks = Gauge(
            "tagger_run_tracks", "Tracks by what became of them.", ["action"], registry=registry
        )
        for action in Action:
            tracks.labels(action=action).set(result.counts[action])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_to_textfile(str(path), registry)
    except OSError as error:
        raise make_write_error("metrics", path, error) from error


def run_notify_command(command: str, changed: Mapping[AnyPath, int], report: Path | None) -> None:
    """Run a command of the user's, if there is one, once files were written.

    changed: how many were written in each folder. A shell runs it; each folder is a line of its
    input. TAGGER_WRITTEN and TAGGER_REPORT tell of the run. Raises NotifyError where it fails.
    """
    if not command or not changed:
        return
    told = {"TAGGER_WRITTEN": str(sum(changed.values())), "TAGGER_REPORT": os.fspath(report or "")}
    folders = sorted(map(os.fsencode, changed), key=lambda folder: folder.split(b"/"))
    lines = b"".join(folder + b"\n" for folder in folders)
    try:
        subprocess.run(  # noqa: S602 - the command is the user's own
            command,
            shell=True,
            check=True,
            input=lines,
            stdout=STDERR_DESCRIPTOR,
            env=os.environ | told,
            timeout=NOTIFY_TIMEOUT_S,
        )
    except subprocess.CalledProcessError as error:
        raise NotifyError(f"--notify-cmd ended with {error.returncode}: {command}") from error
    except subprocess.TimeoutExpired as error:
        raise NotifyError(f"--notify-cmd took more than {NOTIFY_TIMEOUT_S} s: {command}") from error
