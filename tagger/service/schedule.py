"""The nightly job: a systemd timer, or a line of the crontab; owns systemctl and crontab."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import time
from pathlib import Path

from tagger.errors import ScheduleError
from tagger.settings import find_systemd_user_folder

LOCKED_EXIT_CODE = 4
"""The exit code if another run uses the state file. For a nightly job that is no failure."""


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
