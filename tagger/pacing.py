"""How much of a machine a run takes, and how it gives way to other programs; owns psutil."""

import os
import re
import time as timer
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from pathlib import Path
from types import MappingProxyType

LOWEST_NICENESS = 19
"""The highest niceness there is: whoever wants a processor as well gets nearly all of it."""

AUTOGROUP_FILE = Path("/proc/self/autogroup")

RETRY_DELAY_S = 0.12
MAX_TRIES = 20
"""Linux lets users who are not root set the niceness of sessions ten times a second, all together.
"""


def lower_priority() -> None:
    """Put this process, and all that it starts from now on, behind all others, for good.

    Processors by niceness, disks by the idle class of Linux. What a system does not have or allow
    is left as it is.
    """
    import psutil

    process = psutil.Process()
    with suppress(OSError, psutil.Error):
        process.nice(LOWEST_NICENESS)
    if psutil.LINUX:
        with suppress(OSError, psutil.Error):
            process.ionice(psutil.IOPRIO_CLASS_IDLE)


def keep_niceness_in_new_session() -> None:
    """Keep the niceness in a session that was made for this process.

    Linux may share processors between sessions first (autogroup), and a new one gets a full share.
    """
    niceness = os.nice(0)
    if niceness <= 0:
        return
    with suppress(FileNotFoundError, PermissionError):
        for _ in range(MAX_TRIES):
            try:
                AUTOGROUP_FILE.write_text(str(niceness))
            except BlockingIOError:
                timer.sleep(RETRY_DELAY_S)
            else:
                return


def count_usable_cores() -> int:
    """Return how many cores this process may use; containers allow fewer than there are."""
    allowed = getattr(os, "sched_getaffinity", None)  # Linux
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def halve_cores(count: int) -> int:
    """Return how many of so many cores a gentle run uses: half of them, one at least."""
    return max(1, count // 2)


MAX_STALL_SHARES = MappingProxyType({"cpu": 0.25, "io": 0.25, "memory": 0.1})
"""More than this share of the time that some program waits for it, and others want for it.

Judged, not measured: a film that is converted or a backup that runs is above it, a film that is
played below.
"""

PRESSURE_CHECK_INTERVAL_S = 15.0
REST_STEP_S = 1.0
MAX_REST_S = 60.0
"""Then there is work until the next look: a machine that is always busy gets a fifth of a run."""

OWN_LOAD_REST_S = 5.0
"""Waiting that ends so soon after we rest was ours; tracks begun before are finished meanwhile."""

MAX_PRESSURE_CHECK_INTERVAL_S = 120.0

PRESSURE_LINE = re.compile(r"^some .*\btotal=(\d+)", re.MULTILINE)


class SystemClock:
    """The clocks of a machine, and where it tells how long programs were kept waiting."""

    pressure = Path("/proc/pressure")

    def now(self) -> datetime:
        """Return the local time, with its offset."""
        return datetime.now().astimezone()

    def elapsed_s(self) -> float:
        return timer.monotonic()

    def sleep(self, seconds: float) -> None:
        timer.sleep(seconds)


def find_next_time(clock: time, now: datetime) -> datetime:
    """Return when local clocks show that time next, after `now`, which is local and has its offset.

    The hour that the end of summer time repeats comes twice; a time that its start leaves out comes
    an hour later by the new time.
    """
    today = datetime.combine(now.date(), clock)
    shown = (today, today.replace(fold=1), today + timedelta(days=1))
    return next(each.astimezone() for each in shown if each.astimezone() > now)


@dataclass(frozen=True, slots=True)
class PressureReading:
    """How long, in all, some program had to wait for each resource, at a moment of `elapsed_s`."""

    at_s: float
    waited_s: Mapping[str, float]


def read_pressure(host: SystemClock) -> PressureReading:
    """Read what the system counts; nothing where it does not (PSI is off, or this is no Linux)."""
    waited_s = {}
    for name in MAX_STALL_SHARES:
        try:
            found = PRESSURE_LINE.search((host.pressure / name).read_text("ascii", "replace"))
        except OSError:
            continue
        if found:
            waited_s[name] = int(found[1]) / 1_000_000
    return PressureReading(host.elapsed_s(), waited_s)


def find_shortages(before: PressureReading, after: PressureReading) -> tuple[str, ...]:
    """Return which resources programs wanted for between two moments."""
    passed_s = after.at_s - before.at_s
    return tuple(
        name
        for name, most in MAX_STALL_SHARES.items()
        if name in before.waited_s
        and after.waited_s.get(name, 0) - before.waited_s[name] > most * passed_s
    )


class Pacer:
    """Asked between two tracks: whether the time is up, and whether to rest first."""

    def __init__(self, host: SystemClock, *, until: time | None, gentle: bool) -> None:
        """Make one for a run that begins now; `gentle` ones rest."""
        self.host = host
        self.deadline = find_next_time(until, host.now()) if until else None
        self.gentle = gentle
        self.over = False
        self.every_s = PRESSURE_CHECK_INTERVAL_S
        self.last = read_pressure(host)

    def is_over(self) -> bool:
        """Tell whether the time has come. Once it has, that stays so if the clock is put back."""
        if self.deadline and not self.over:
            self.over = self.host.now() >= self.deadline
        return self.over

    def rests(self) -> Iterator[tuple[str, ...]]:
        """Rest while other programs want for something; yields what, before each second of it."""
        if not self.gentle or self.host.elapsed_s() - self.last.at_s < self.every_s:
            return
        rested_s = 0.0
        while (wanted := self._look()) and rested_s < MAX_REST_S and not self.is_over():
            yield wanted
            self.host.sleep(REST_STEP_S)
            rested_s += REST_STEP_S
        if rested_s > OWN_LOAD_REST_S:
            self.every_s = PRESSURE_CHECK_INTERVAL_S
        elif rested_s:
            self.every_s = min(2 * self.every_s, MAX_PRESSURE_CHECK_INTERVAL_S)

    def _look(self) -> tuple[str, ...]:
        before, self.last = self.last, read_pressure(self.host)
        return find_shortages(before, self.last)
