"""How a run gives way to other programs: priority, cores, rests, the end of its time; owns psutil.

Linux counts how long programs had to wait for processors, disks and memory (pressure stall
information). It does not say which program caused the waiting: it may be this run itself. So a
gentle run that sees much waiting rests and looks again. If the waiting ends at once, this run most
likely caused it, and the next look comes later. If the waiting goes on, another program causes it,
and the run rests until it ends.
"""

import os
import re
import time as timer
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from pathlib import Path
from types import MappingProxyType

LOWEST_PRIORITY_NICENESS = 19
"""With the highest niceness, any other program gets nearly the whole processor if it wants it."""

AUTOGROUP_FILE = Path("/proc/self/autogroup")
AUTOGROUP_RETRY_DELAY_S = 0.12
MAX_AUTOGROUP_TRIES = 20
"""Linux accepts ten changes of a session's niceness a second, from all users but root together."""

CGROUP_FOLDER, CGROUP_FILE = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""Where Linux shows the limits of groups of processes, and the groups of this process."""

MAX_WAITING_SHARES = MappingProxyType({"cpu": 0.25, "io": 0.25, "memory": 0.1})
"""A resource is short if some program waits for it for more than this share of the time.

Estimated, not measured: converting a film or running a backup exceeds it, playing a film does not.
"""

PRESSURE_CHECK_INTERVAL_S = 15.0
MAX_PRESSURE_CHECK_INTERVAL_S = 120.0
REST_STEP_S = 1.0
MAX_REST_S = 60.0
"""After a rest of this length the run works until the next check. On a machine that is always
busy, the run works a fifth of the time."""

OWN_LOAD_REST_S = 5.0
"""If the waiting ends this soon after work stops, this run caused it. Begun tracks still finish."""

PRESSURE_LINE = re.compile(r"^some .*\btotal=(\d+)", re.MULTILINE)


def lower_priority() -> None:
    """Give this process, and all that it starts from now on, the lowest priority, for good.

    That is the highest niceness for processors, and the idle class of Linux for disks. Do nothing
    where the system has no such setting or does not allow it.
    """
    import psutil

    process = psutil.Process()
    with suppress(OSError, psutil.Error):
        process.nice(LOWEST_PRIORITY_NICENESS)
    if psutil.LINUX:
        with suppress(OSError, psutil.Error):
            process.ionice(psutil.IOPRIO_CLASS_IDLE)


def keep_niceness_in_new_session() -> None:
    """Give the new session of this process the niceness of the process.

    Linux may divide processors between sessions first (autogroup). A new session gets a full share.
    """
    niceness = os.nice(0)
    if niceness <= 0:
        return
    with suppress(FileNotFoundError, PermissionError):
        for _ in range(MAX_AUTOGROUP_TRIES):
            try:
                AUTOGROUP_FILE.write_text(str(niceness))
            except BlockingIOError:
                timer.sleep(AUTOGROUP_RETRY_DELAY_S)
            else:
                return


def count_usable_cores(cgroups: Path = CGROUP_FOLDER, membership: Path = CGROUP_FILE) -> int:
    """Return how many cores this process may use. A container or a service may have a quota.

    The quota (`docker run --cpus`) is in cpu.max of cgroup v2, or in two files of v1.
    """
    get_affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    cores = len(get_affinity(0)) if get_affinity else os.cpu_count() or 1
    for folder in _list_cgroup_folders("cpu", cgroups, membership):
        for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
            match [number for name in names for number in _read_numbers(folder / name)]:
                case [quota, period] if quota > 0 and period > 0:
                    cores = min(cores, -(-quota // period))  # rounded up
    return max(1, cores)


def measure_usable_memory(cgroups: Path = CGROUP_FOLDER, membership: Path = CGROUP_FILE) -> int:
    """Return how many bytes of memory this process and its children may use together."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for folder in _list_cgroup_folders("memory", cgroups, membership):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            memory = min([memory, *_read_numbers(folder / name)])
    return memory


def _list_cgroup_folders(controller: str, cgroups: Path, membership: Path) -> Iterator[Path]:
    """Yield the folders with limits of this process, of both versions of cgroups.

    The limits of all groups above its own hold as well. A container sees its own at the top.
    """
    groups = [("", ""), (controller, "")]
    with suppress(OSError):
        for line in os.fsdecode(membership.read_bytes()).splitlines():
            _, controllers, path = (*line.split(":", 2), "", "")[:3]
            groups.append((controllers, path.lstrip("/")))
    for controllers, path in groups:
        if not controllers:
            tops = [cgroups, cgroups / "unified"]
        elif controller in controllers.split(","):
            tops = [cgroups / controller, cgroups / controllers]
        else:
            continue
        for top in tops:
            yield from (top / folder for folder in (Path(path), *Path(path).parents))


def _read_numbers(file: Path) -> list[int]:
    """Return the numbers in a file; none for `max`, which means no limit."""
    try:
        return list(map(int, file.read_text("ascii").split()))
    except (OSError, ValueError):
        return []


def halve_cores(count: int) -> int:
    """Return how many of `count` cores a gentle run uses: half of them, at least one."""
    return max(1, count // 2)


class SystemClock:
    """The clocks of this machine, and the files in which Linux counts waiting times."""

    pressure_folder = Path("/proc/pressure")

    def now(self) -> datetime:
        """Return the local time with its offset from UTC."""
        return datetime.now().astimezone()

    def elapsed_s(self) -> float:
        return timer.monotonic()

    def sleep(self, seconds: float) -> None:
        timer.sleep(seconds)


SYSTEM_CLOCK = SystemClock()


def find_next_time(time_of_day: time, now: datetime) -> datetime:
    """Return when local clocks show `time_of_day` next, after `now`, which has its UTC offset.

    At the end of summer time one hour comes twice; both count. A time that the start of summer time
    skips comes an hour later.
    """
    today = datetime.combine(now.date(), time_of_day)
    candidates = (today, today.replace(fold=1), today + timedelta(days=1))
    return next(each.astimezone() for each in candidates if each.astimezone() > now)


@dataclass(frozen=True, slots=True)
class PressureReading:
    """How long, in total, some program had to wait for each resource, at a time of `elapsed_s`."""

    at_s: float
    waited_s: Mapping[str, float]


def read_pressure(clock: SystemClock) -> PressureReading:
    """Read the counters of the system. There are none without PSI, or on systems but Linux."""
    waited_s = {}
    for resource in MAX_WAITING_SHARES:
        try:
            text = (clock.pressure_folder / resource).read_text("ascii", "replace")
        except OSError:
            continue
        if total_us := PRESSURE_LINE.search(text):
            waited_s[resource] = int(total_us[1]) / 1_000_000
    return PressureReading(clock.elapsed_s(), waited_s)


def find_shortages(before: PressureReading, after: PressureReading) -> tuple[str, ...]:
    """Return the resources that were short between two readings."""
    passed_s = after.at_s - before.at_s
    return tuple(
        resource
        for resource, max_share in MAX_WAITING_SHARES.items()
        if resource in before.waited_s
        and after.waited_s.get(resource, 0) - before.waited_s[resource] > max_share * passed_s
    )


class Pacer:
    """Tells a run between two tracks whether its time is over, and makes a gentle run rest."""

    def __init__(self, clock: SystemClock, *, until: time | None, gentle: bool) -> None:
        """Start pacing a run that begins now."""
        self.clock = clock
        self.deadline = find_next_time(until, clock.now()) if until else None
        self.gentle = gentle
        self.was_over = False
        self.check_interval_s = PRESSURE_CHECK_INTERVAL_S
        self.last_reading = read_pressure(clock)

    def is_time_up(self) -> bool:
        """Tell whether the time is over. It stays over even if somebody puts the clock back."""
        if self.deadline and not self.was_over:
            self.was_over = self.clock.now() >= self.deadline
        return self.was_over

    def rest(self) -> Iterator[tuple[str, ...]]:
        """Rest while resources are short. Yield their names before each second of the rest."""
        passed_s = self.clock.elapsed_s() - self.last_reading.at_s
        if not self.gentle or passed_s < self.check_interval_s:
            return
        rested_s = 0.0
        while (short := self._check_pressure()) and rested_s < MAX_REST_S and not self.is_time_up():
            yield short
            self.clock.sleep(REST_STEP_S)
            rested_s += REST_STEP_S
        if rested_s > OWN_LOAD_REST_S:
            self.check_interval_s = PRESSURE_CHECK_INTERVAL_S
        elif rested_s:
            doubled_s = 2 * self.check_interval_s
            self.check_interval_s = min(doubled_s, MAX_PRESSURE_CHECK_INTERVAL_S)

    def _check_pressure(self) -> tuple[str, ...]:
        before, self.last_reading = self.last_reading, read_pressure(self.clock)
        return find_shortages(before, self.last_reading)
