"""Between two tracks: whether it is time to stop, and whether other programs want for something.

Linux counts how long programs were kept waiting for processors, disks and memory (pressure stall
information), without saying whose work kept them. Ours may have. So a run that sees much waiting
rests and looks again: waiting that ends at once was most likely its own, and the next look may come
later; waiting that goes on is somebody else's, and there is a rest until it ends.
"""

import re
import time as timer
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from pathlib import Path
from types import MappingProxyType

MOST_STALLED = MappingProxyType({"cpu": 0.25, "io": 0.25, "memory": 0.1})
"""More than this share of the time that some program waits for it, and others want for it.

Judged, not measured: a film that is converted or a backup that runs is above it, a film that is
played below.
"""

LOOK_EVERY_S = 15.0
STEP_S = 1.0
MOST_REST_S = 60.0
"""Then there is work until the next look: a machine that is always busy gets a fifth of a run."""

OURS_S = 5.0
"""Waiting that ends so soon after we rest was ours; tracks begun before are finished meanwhile."""

MOST_LOOK_EVERY_S = 120.0

SOME = re.compile(r"^some .*\btotal=(\d+)", re.MULTILINE)


class Host:
    """The clocks of a machine, and where it tells how long programs were kept waiting."""

    pressure = Path("/proc/pressure")

    def now(self) -> datetime:
        """Return the local time, with its offset."""
        return datetime.now().astimezone()

    def elapsed_s(self) -> float:
        return timer.monotonic()

    def sleep(self, seconds: float) -> None:
        timer.sleep(seconds)


def next_time(clock: time, now: datetime) -> datetime:
    """Return when local clocks show that time next, after `now`, which is local and has its offset.

    The hour that the end of summer time repeats comes twice; a time that its start leaves out comes
    an hour later by the new time.
    """
    today = datetime.combine(now.date(), clock)
    shown = (today, today.replace(fold=1), today + timedelta(days=1))
    return next(each.astimezone() for each in shown if each.astimezone() > now)


@dataclass(frozen=True, slots=True)
class Stalls:
    """How long, in all, some program had to wait for each resource, at a moment of `elapsed_s`."""

    at_s: float
    waited_s: Mapping[str, float]


def read_stalls(host: Host) -> Stalls:
    """Read what the system counts; nothing where it does not (PSI is off, or this is no Linux)."""
    waited_s = {}
    for name in MOST_STALLED:
        try:
            found = SOME.search((host.pressure / name).read_text("ascii", "replace"))
        except OSError:
            continue
        if found:
            waited_s[name] = int(found[1]) / 1_000_000
    return Stalls(host.elapsed_s(), waited_s)


def shortages(before: Stalls, after: Stalls) -> tuple[str, ...]:
    """Return which resources programs wanted for between two moments."""
    passed_s = after.at_s - before.at_s
    return tuple(
        name
        for name, most in MOST_STALLED.items()
        if name in before.waited_s
        and after.waited_s.get(name, 0) - before.waited_s[name] > most * passed_s
    )


class Pacer:
    """Asked between two tracks: whether the time is up, and whether to rest first."""

    def __init__(self, host: Host, *, until: time | None, gentle: bool) -> None:
        """Make one for a run that begins now; `gentle` ones rest."""
        self.host = host
        self.deadline = next_time(until, host.now()) if until else None
        self.gentle = gentle
        self.over = False
        self.every_s = LOOK_EVERY_S
        self.last = read_stalls(host)

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
        while (wanted := self._look()) and rested_s < MOST_REST_S and not self.is_over():
            yield wanted
            self.host.sleep(STEP_S)
            rested_s += STEP_S
        if rested_s > OURS_S:
            self.every_s = LOOK_EVERY_S
        elif rested_s:
            self.every_s = min(2 * self.every_s, MOST_LOOK_EVERY_S)

    def _look(self) -> tuple[str, ...]:
        before, self.last = self.last, read_stalls(self.host)
        return shortages(before, self.last)
