"""The nightly job: a systemd timer, or a line for cron; owns systemctl and crontab."""

import os
import pwd
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import time
from pathlib import Path

from tagger.errors import LockedError, ScheduleError
from tagger.paths import AnyPath, write_file_whole
from tagger.service.units import (
    CACHE_FOLDER,
    MADE_BY,
    STATE_FOLDER,
    Account,
    Service,
    build_nightly_timer,
    build_service,
    list_folder_variables,
)
from tagger.user_folders import find_systemd_user_folder

SYSTEM_UNIT_FOLDER = Path("/etc/systemd/system")
CRON_FOLDER = Path("/etc/cron.d")

GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/kfd"))
"""The devices by which torch finds GPUs of NVIDIA and AMD."""

NO_SCHEDULER = (
    "this machine has neither systemd nor cron: without --install, tagger prints the command to run"
)


LINGER_HINT = "The job runs while you are logged in. To run it always: loginctl enable-linger"
"""What holds for the services that systemd runs for a user, and not for cron."""


@dataclass(frozen=True, slots=True)
class NightlyJob:
    """A scan that runs every night. arguments: the arguments of `tagger`, from `scan` on.

    account: that of a system service. Without it, the job belongs to the user of this process.
    """

    name: str
    at: time
    arguments: Sequence[str]
    account: Account | None = None

    def __post_init__(self) -> None:
        """Raise ScheduleError for an argument that no unit and no crontab can have."""
        for word in (*self.arguments, *(self.account.written if self.account else ())):
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


def make_account(
    user: str, roots: Iterable[AnyPath], outputs: Iterable[Path], words: Sequence[str]
) -> Account:
    """Return what a scan by this user needs.

    outputs: files that it writes. words: its options, some of which name files.
    """
    local = [root for root in roots if isinstance(root, Path)]
    # a file is replaced by a copy beside it; os.path raises nothing where this user may not look
    written = [root.parent if os.path.isfile(root) else root for root in local]  # noqa: PTH113
    written += [path.parent for path in outputs]
    values = [word.partition("=")[2] for word in words]
    read = [
        *(value for value in values if value.startswith("/")),
        *(os.path.realpath(sys.executable), sys.prefix, sys.base_prefix, __file__),
    ]
    has_gpu = any(device.exists() for device in GPU_DEVICES)
    uses_gpu = has_gpu and "--device=cpu" not in words
    return Account(user, list(dict.fromkeys(map(str, written))), read, uses_gpu)


def describe_files(job: NightlyJob) -> Iterator[tuple[str, str]]:
    """Yield the files that make up a job: where they go, and their text."""
    folder = _find_unit_folder(is_system=bool(job.account))
    for name, text in build_systemd_units(job).items():
        yield str(folder / name), text
    if job.account:
        yield f"or, without systemd: {CRON_FOLDER / job.name}", build_cron_file(job)
    else:
        yield "or, for crontab -e:", build_cron_line(job)


def build_systemd_units(job: NightlyJob) -> Mapping[str, str]:
    """Return the texts of the systemd units by name."""
    # another run that is still at work is no failure
    behaviour = ["Type=oneshot", f"SuccessExitStatus={LockedError.exit_code}"]
    description = "tagger: genres for new music"
    service = Service(job.name, description, job.command, behaviour, job.account)
    return {job.service: build_service(service), job.timer: build_nightly_timer(job.at)}


def build_cron_line(job: NightlyJob) -> str:
    """Return a line for crontab(5). Its comment at the end is the mark to find it again.

    A line for /etc/cron.d also names the user.
    """
    words = shlex.join(job.command).replace("%", "\\%")
    user = f"{job.account.user} " if job.account else ""
    line = f"{job.at.minute} {job.at.hour} * * * {user}{words} 2>&1 | logger -t {job.name}"
    return f"{line} {_make_cron_mark(job.name)}"


def build_cron_file(job: NightlyJob) -> str:
    """Return the text of a file in /etc/cron.d."""
    return "\n".join([MADE_BY, *list_folder_variables(job.name), build_cron_line(job), ""])


def _make_cron_mark(name: str) -> str:
    return f"# tagger schedule: {name}"


def install_job(job: NightlyJob) -> str:
    """Install a job, in place of one of the same name, and return what was done.

    Use a systemd timer where systemd runs, else cron. Raises ScheduleError where there is neither,
    and for a job of the system without the rights of root.
    """
    if job.account:
        _check_root()
        _check_account(job.account)
    if _has_systemd():
        return _install_units(job)
    return _install_cron_file(job, job.account) if job.account else _install_cron_line(job)


def _install_units(job: NightlyJob) -> str:
    systemctl, folder = _get_systemctl(is_system=bool(job.account))
    for name, text in build_systemd_units(job).items():
        _write_own_file(folder / name, text)
    _run_command([*systemctl, "daemon-reload"])
    _run_command([*systemctl, "enable", "--now", job.timer])
    enabled = f"{folder / job.timer} is enabled"
    return enabled if job.account else f"{enabled}\n{LINGER_HINT}"


def _install_cron_file(job: NightlyJob, account: Account) -> str:
    if not CRON_FOLDER.is_dir():
        raise ScheduleError(NO_SCHEDULER)
    for folder in (STATE_FOLDER, CACHE_FOLDER):
        _make_folder(folder / job.name, account.user)
    _write_own_file(CRON_FOLDER / job.name, build_cron_file(job))
    return f"{CRON_FOLDER / job.name} was written"


def _install_cron_line(job: NightlyJob) -> str:
    lines = _drop_job_line(job.name, _read_crontab())
    if lines and not lines[-1].endswith(b"\n"):
        lines[-1] += b"\n"
    _write_crontab([*lines, f"{build_cron_line(job)}\n".encode()])
    return "a line was added to your crontab"


def remove_job(name: str, *, is_system: bool = False) -> str:
    """Remove a job and return what was done. Raises ScheduleError."""
    if is_system:
        _check_root()
    if _has_systemd():
        return _remove_units(name, is_system=is_system)
    return _remove_cron_file(name) if is_system else _remove_cron_line(name)


def _remove_units(name: str, *, is_system: bool) -> str:
    systemctl, folder = _get_systemctl(is_system=is_system)
    if not _is_own_file(folder / f"{name}.timer"):
        raise ScheduleError(f"there is no timer {name} of tagger in {folder}")
    _run_command([*systemctl, "disable", "--now", f"{name}.timer"])
    for suffix in ("timer", "service"):
        (folder / f"{name}.{suffix}").unlink(missing_ok=True)
    _run_command([*systemctl, "daemon-reload"])
    return f"the timer {name} was removed"


def _remove_cron_file(name: str) -> str:
    if not _is_own_file(CRON_FOLDER / name):
        raise ScheduleError(f"tagger has no file {CRON_FOLDER / name}")
    (CRON_FOLDER / name).unlink()
    return f"{CRON_FOLDER / name} was removed"


def _remove_cron_line(name: str) -> str:
    lines = _read_crontab()
    others = _drop_job_line(name, lines)
    if others == lines:
        raise ScheduleError(f"your crontab has no line of tagger for {name}")
    _write_crontab(others)
    return f"the line of tagger for {name} was removed from your crontab"


def _has_systemd() -> bool:
    """Tell whether systemd manages services of this machine (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir() and shutil.which("systemctl") is not None


def _get_systemctl(*, is_system: bool) -> tuple[list[str], Path]:
    """Return the command that manages units, and the folder where it finds them."""
    command = ["systemctl"] if is_system else ["systemctl", "--user"]
    return command, _find_unit_folder(is_system=is_system)


def _find_unit_folder(*, is_system: bool) -> Path:
    return SYSTEM_UNIT_FOLDER if is_system else find_systemd_user_folder()


def _check_root() -> None:
    if os.geteuid() != 0:
        raise ScheduleError("a job of the system needs root: run this command with sudo")


def _check_account(account: Account) -> None:
    """Raise ScheduleError if there is no such user, or if the user cannot start tagger."""
    try:
        entry = pwd.getpwnam(account.user)
    except KeyError as error:
        raise ScheduleError(f"this machine has no user {account.user}") from error
    if entry.pw_uid == 0:
        raise ScheduleError("a job of the system does not run as root: name another user")
    try:
        subprocess.run(
            [sys.executable, "-P", "-c", "import tagger"],
            user=entry.pw_uid,
            group=entry.pw_gid,
            extra_groups=os.getgrouplist(entry.pw_name, entry.pw_gid),
            cwd="/",
            env={},
            capture_output=True,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ScheduleError(
            f"the user {account.user} cannot start {sys.executable}: install tagger where every"
            " user can read it"
        ) from error


def _is_own_file(path: Path) -> bool:
    """Tell whether tagger wrote a file."""
    try:
        return path.read_text("utf-8", "replace").startswith(MADE_BY)
    except OSError:
        return False


def _write_own_file(path: Path, text: str) -> None:
    """Write a file, in place of one that tagger wrote before. Raises ScheduleError."""
    if path.exists() and not _is_own_file(path):
        raise ScheduleError(f"{path} is not of tagger: choose another --name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file_whole(path, text.encode())
        path.chmod(0o644)  # cron reads no file that others may write, systemd warns
    except OSError as error:
        raise ScheduleError(f"cannot write {path}: {error.strerror}") from error


def _make_folder(folder: Path, user: str) -> None:
    """Make a folder for a user, as systemd does for a service. Raises ScheduleError."""
    try:
        folder.mkdir(mode=0o750, exist_ok=True)
        shutil.chown(folder, user)
    except OSError as error:
        raise ScheduleError(f"cannot make {folder}: {error.strerror}") from error


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
        raise ScheduleError(NO_SCHEDULER) from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip()
        raise ScheduleError(f"{shlex.join(command)}: {reason}") from error
    return done.stdout
