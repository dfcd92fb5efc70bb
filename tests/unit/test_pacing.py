"""When a run has to stop, and when it rests for other programs. The clocks are fake."""

import os
import time as timer
from collections.abc import Iterator
from datetime import datetime, time, timedelta
from pathlib import Path

import psutil
import pytest

from tagger.inference import dataset
from tagger.pacing import (
    MAX_REST_S,
    PRESSURE_CHECK_INTERVAL_S,
    Pacer,
    SystemClock,
    count_usable_cores,
    find_next_time,
    measure_usable_memory,
    read_pressure,
)

PRESSURE_TEXT = (
    "some avg10=1.23 avg60=0.50 avg300=0.10 total={some}\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total={full}\n"
)
"""The format of Linux, in microseconds."""


class FakeClock(SystemClock):
    """A clock that only tests move. waiting: the share of time that programs wait for disks."""

    def __init__(self, pressure_folder: Path) -> None:
        self.pressure_folder = pressure_folder
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
            self.pressure_folder.joinpath(name).write_text(
                PRESSURE_TEXT.format(some=some, full=some // 2)
            )

    def now(self) -> datetime:
        return datetime(2026, 11, 24, 5, 59).astimezone() + timedelta(seconds=self.passed_s)

    def elapsed_s(self) -> float:
        return self.passed_s

    def sleep(self, seconds: float) -> None:
        self.slept_s += seconds
        self.pass_s(seconds)


@pytest.fixture
def fake_clock(tmp_path: Path) -> FakeClock:
    return FakeClock(tmp_path)


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    timer.tzset()
    yield
    monkeypatch.undo()
    timer.tzset()


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("now", "time_of_day", "hours"),
    [
        ("2026-11-24T01:00+01:00", time(6), 5),
        ("2026-11-24T06:00+01:00", time(6), 24),
        ("2026-11-24T23:30+01:00", time(0, 30), 1),
        ("2026-03-29T01:00+01:00", time(6), 4),  # the clocks go forward at two
        ("2026-10-25T01:00+02:00", time(6), 6),  # and back at three
    ],
)
def test_the_next_time_is_that_of_local_clocks(now: str, time_of_day: time, hours: int) -> None:
    start = datetime.fromisoformat(now)
    assert find_next_time(time_of_day, start) - start == timedelta(hours=hours)


def test_a_time_that_is_over_stays_over(fake_clock: FakeClock) -> None:
    pacer = Pacer(fake_clock, until=time(6), gentle=False)
    assert not pacer.is_time_up()
    fake_clock.pass_s(58)
    assert not pacer.is_time_up()
    fake_clock.pass_s(1)
    assert pacer.is_time_up()
    fake_clock.pass_s(-30)  # somebody puts the clock back
    assert pacer.is_time_up()
    assert not Pacer(fake_clock, until=None, gentle=False).is_time_up()


def rest(pacer: Pacer) -> list[tuple[str, ...]]:
    return list(pacer.rest())


def test_a_gentle_run_rests_while_other_programs_wait(fake_clock: FakeClock) -> None:
    pacer = Pacer(fake_clock, until=None, gentle=True)
    fake_clock.waiting = 0.9
    fake_clock.pass_s(PRESSURE_CHECK_INTERVAL_S)
    shortages = []
    for short in pacer.rest():
        shortages.append(short)
        if len(shortages) == 20:
            fake_clock.waiting = 0.0
    assert shortages == [("io",)] * 20
    assert fake_clock.slept_s == 20
    fake_clock.pass_s(PRESSURE_CHECK_INTERVAL_S)
    assert rest(pacer) == []


def test_a_run_goes_on_where_other_programs_always_wait(fake_clock: FakeClock) -> None:
    fake_clock.waiting = 1.0
    pacer = Pacer(fake_clock, until=None, gentle=True)
    for _ in range(3):
        fake_clock.pass_s(PRESSURE_CHECK_INTERVAL_S)
        assert len(rest(pacer)) == MAX_REST_S


def test_waiting_that_this_run_causes_is_checked_less_often(
    fake_clock: FakeClock,
) -> None:
    pacer = Pacer(fake_clock, until=None, gentle=True)
    for intervals in (1, 2, 4):
        fake_clock.waiting = 0.9
        fake_clock.pass_s(intervals * PRESSURE_CHECK_INTERVAL_S - 1)
        assert rest(pacer) == []
        fake_clock.pass_s(1)
        for _ in pacer.rest():
            fake_clock.waiting = 0.0


def test_a_rest_ends_when_the_time_is_over(fake_clock: FakeClock) -> None:
    fake_clock.waiting = 1.0
    pacer = Pacer(fake_clock, until=time(6), gentle=True)
    fake_clock.pass_s(50)
    assert len(rest(pacer)) < 20
    assert pacer.is_time_up()


def test_no_rest_without_gentle_or_without_pressure_counters(
    fake_clock: FakeClock, tmp_path: Path
) -> None:
    fake_clock.waiting = 1.0
    hasty = Pacer(fake_clock, until=None, gentle=False)
    fake_clock.pass_s(100)
    assert rest(hasty) == []
    gentle = Pacer(fake_clock, until=None, gentle=True)
    fake_clock.pressure_folder = tmp_path / "nowhere"
    fake_clock.elapsed_s = lambda: 1000.0  # type: ignore[method-assign]
    assert rest(gentle) == []


def test_the_counters_of_this_machine_are_read() -> None:
    if not os.access(SystemClock.pressure_folder / "io", os.R_OK):
        pytest.skip("this kernel has no pressure counters")
    first, second = read_pressure(SystemClock()), read_pressure(SystemClock())
    assert first.waited_s.keys() == second.waited_s.keys() == {"cpu", "io", "memory"}
    assert all(second.waited_s[name] >= waited_s for name, waited_s in first.waited_s.items())


V1_UNLIMITED = 0x7FFFFFFFFFFFF000


@pytest.mark.parametrize(
    ("files", "groups", "cores"),
    [
        ({"cpu.max": "200000 100000"}, None, 2),
        ({"cpu.max": "150000 100000"}, "0::/", 2),
        ({"cpu.max": "50000 100000"}, "", 1),
        ({"cpu.max": "max 100000"}, "0::/", 16),
        ({"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, "0::/a/b", 3),
        ({"a/cpu.max": "300000 100000"}, "0::/b", 16),
        ({"unified/a/cpu.max": "300000 100000"}, "1:name=systemd:/\n0::/a", 3),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, None, 2),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "1:cpu:/", 16),
        (
            {"cpu/x/cpu.cfs_quota_us": "250000", "cpu/x/cpu.cfs_period_us": "100000"},
            "9:memory:/y\n4:cpuacct,cpu:/x/z",
            3,
        ),
        (
            {"cpu,cpuacct/cpu.cfs_quota_us": "4000", "cpu,cpuacct/cpu.cfs_period_us": "1000"},
            "4:cpu,cpuacct:/docker/12",
            4,
        ),
        ({"cpu.max": "nonsense"}, "nonsense\n::\n", 16),
        ({"cpu.max": "100000 0"}, "0::/", 16),
        ({}, None, 16),
    ],
)
def test_the_quota_of_a_container_counts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    files: dict[str, str],
    groups: str | None,
    cores: int,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(16)), raising=False)
    assert count_usable_cores(*write_cgroups(tmp_path, files, groups)) == cores


def write_cgroups(folder: Path, files: dict[str, str], groups: str | None) -> tuple[Path, Path]:
    for name, text in files.items():
        path = folder / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    if groups is not None:
        (folder / "self").write_text(f"{groups}\n")
    return folder / "cgroup", folder / "self"


def test_the_affinity_of_the_process_counts(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert count_usable_cores(tmp_path, tmp_path) == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("files", "groups"),
    [
        ({"memory.max": "1048576"}, None),
        ({"a/memory.max": "max", "memory.high": "1048576"}, "0::/a"),
        ({"memory/a/memory.limit_in_bytes": "1048576"}, "3:memory:/a"),
        ({"memory/a/memory.limit_in_bytes": f"{V1_UNLIMITED}"}, "3:memory:/a"),
        ({}, None),
    ],
)
def test_the_memory_of_a_container_counts(
    tmp_path: Path, files: dict[str, str], groups: str | None
) -> None:
    found = measure_usable_memory(*write_cgroups(tmp_path, files, groups))
    whole = psutil.virtual_memory().total
    assert found == (1 << 20 if "1048576" in files.values() else pytest.approx(whole))


@pytest.mark.parametrize(
    ("jobs", "max_memory_mib", "expected"),
    [(None, 2048, 8), (None, 512, 32), (None, 64, 63), (None, 1 << 20, 1), (40, 2048, 40)],
)
def test_decoders_together_may_take_no_more_memory_than_there_is(
    monkeypatch: pytest.MonkeyPatch, jobs: int | None, max_memory_mib: int, expected: int
) -> None:
    monkeypatch.setattr(dataset, "count_usable_cores", lambda: 64)
    monkeypatch.setattr(dataset, "measure_usable_memory", lambda: 16 << 30)
    assert dataset.choose_jobs(jobs, slow=False, max_memory_mib=max_memory_mib) == expected
