"""When a run has to stop, and when it rests for the sake of others; the clocks are made up."""

import os
import time as timer
from collections.abc import Iterator
from datetime import datetime, time, timedelta
from pathlib import Path

import pytest

from tagger.pacing import (
    MAX_REST_S,
    PRESSURE_CHECK_INTERVAL_S,
    Pacer,
    SystemClock,
    find_next_time,
    read_pressure,
)

TEXT = (
    "some avg10=1.23 avg60=0.50 avg300=0.10 total={some}\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total={full}\n"
)
"""As Linux writes it, in microseconds."""


class Machine(SystemClock):
    """A machine whose other programs wait for disks, for so much of each second that passes."""

    def __init__(self, pressure: Path) -> None:
        self.pressure = pressure
        self.passed_s = 0.0
        self.slept_s = 0.0
        self.waiting = 0.0
        self.waited_s = 0.0
        self.pass_s(1)

    def pass_s(self, seconds: float) -> None:
        self.passed_s += seconds
        self.waited_s += seconds * self.waiting
        for name in ("cpu", "io", "memory"):
            some = round(self.waited_s * 1e6) if name == "io" else 77
            self.pressure.joinpath(name).write_text(TEXT.format(some=some, full=some // 2))

    def now(self) -> datetime:
        return datetime(2026, 11, 24, 5, 59).astimezone() + timedelta(seconds=self.passed_s)

    def elapsed_s(self) -> float:
        return self.passed_s

    def sleep(self, seconds: float) -> None:
        self.slept_s += seconds
        self.pass_s(seconds)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    timer.tzset()
    yield
    monkeypatch.undo()
    timer.tzset()


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("now", "clock", "hours"),
    [
        ("2026-11-24T01:00+01:00", time(6), 5),
        ("2026-11-24T06:00+01:00", time(6), 24),
        ("2026-11-24T23:30+01:00", time(0, 30), 1),
        ("2026-03-29T01:00+01:00", time(6), 4),  # the clocks go forward at two
        ("2026-10-25T01:00+02:00", time(6), 6),  # and back at three
    ],
)
def test_the_time_comes_when_local_clocks_show_it_next(now: str, clock: time, hours: int) -> None:
    began = datetime.fromisoformat(now)
    assert find_next_time(clock, began) - began == timedelta(hours=hours)


def test_the_time_is_over_for_good(machine: Machine) -> None:
    pacer = Pacer(machine, until=time(6), gentle=False)
    assert not pacer.is_over()
    machine.pass_s(58)
    assert not pacer.is_over()
    machine.pass_s(1)
    assert pacer.is_over()
    machine.pass_s(-30)  # somebody puts the clock back
    assert pacer.is_over()
    assert not Pacer(machine, until=None, gentle=False).is_over()


def rests(pacer: Pacer) -> list[tuple[str, ...]]:
    return list(pacer.rests())


def test_a_gentle_run_rests_as_long_as_others_wait(machine: Machine) -> None:
    pacer = Pacer(machine, until=None, gentle=True)
    machine.waiting = 0.9
    machine.pass_s(PRESSURE_CHECK_INTERVAL_S)
    found = []
    for wanted in pacer.rests():
        found.append(wanted)
        if len(found) == 20:
            machine.waiting = 0.0
    assert found == [("io",)] * 20
    assert machine.slept_s == 20
    machine.pass_s(PRESSURE_CHECK_INTERVAL_S)
    assert rests(pacer) == []


def test_a_machine_that_is_always_busy_gets_its_scan_too(machine: Machine) -> None:
    machine.waiting = 1.0
    pacer = Pacer(machine, until=None, gentle=True)
    for _ in range(3):
        machine.pass_s(PRESSURE_CHECK_INTERVAL_S)
        assert len(rests(pacer)) == MAX_REST_S


def test_waiting_that_ends_with_our_work_was_ours_and_is_looked_for_less_often(
    machine: Machine,
) -> None:
    pacer = Pacer(machine, until=None, gentle=True)
    for looks in (1, 2, 4):
        machine.waiting = 0.9
        machine.pass_s(looks * PRESSURE_CHECK_INTERVAL_S - 1)
        assert rests(pacer) == []
        machine.pass_s(1)
        for _ in pacer.rests():
            machine.waiting = 0.0


def test_a_rest_ends_when_the_time_is_up(machine: Machine) -> None:
    machine.waiting = 1.0
    pacer = Pacer(machine, until=time(6), gentle=True)
    machine.pass_s(50)
    assert len(rests(pacer)) < 20
    assert pacer.is_over()


def test_without_being_asked_or_told_of_waiting_nobody_rests(
    machine: Machine, tmp_path: Path
) -> None:
    machine.waiting = 1.0
    hasty = Pacer(machine, until=None, gentle=False)
    machine.pass_s(100)
    assert rests(hasty) == []
    gentle = Pacer(machine, until=None, gentle=True)
    machine.pressure = tmp_path / "nowhere"
    machine.elapsed_s = lambda: 1000.0  # type: ignore[method-assign]
    assert rests(gentle) == []


def test_what_this_machine_counts_is_read() -> None:
    if not os.access(SystemClock.pressure / "io", os.R_OK):
        pytest.skip("this kernel counts no pressure")
    first, second = read_pressure(SystemClock()), read_pressure(SystemClock())
    assert first.waited_s.keys() == second.waited_s.keys() == {"cpu", "io", "memory"}
    assert all(second.waited_s[name] >= waited_s for name, waited_s in first.waited_s.items())
