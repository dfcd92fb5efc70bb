"""The metrics of a run, for Prometheus; owns prometheus_client."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tagger.errors import DiskFullError, InterruptedRunError, ReportError, TaggerError
from tagger.paths import check_replacement, make_write_error, write_file_whole
from tagger.records import Action, ScanResult


@contextmanager
def record_metrics(path: Path | None) -> Iterator["RunMetrics"]:
    """Give a RunMetrics for the result of a run, and write it whatever ends the run."""
    metrics = RunMetrics()
    try:
        yield metrics
    except BaseException as error:
        metrics.exit_code = _get_exit_code(error)
        with suppress(ReportError, DiskFullError):  # the error of the run matters more
            write_metrics(path, metrics)
        raise
    write_metrics(path, metrics)


@dataclass(slots=True)
class RunMetrics:
    """The metrics of a run. result: None if the run could not go on."""

    result: ScanResult | None = None
    exit_code: int = 3


def _get_exit_code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return InterruptedRunError.exit_code
    return error.exit_code if isinstance(error, TaggerError) else TaggerError.exit_code


METRICS_START = b"# HELP tagger_"


def check_metrics(path: Path | None) -> None:
    """Raise SettingsError for an existing file without metrics of tagger, or ReportError."""
    if path is None:
        return
    try:
        check_replacement(path, METRICS_START, "--metrics")
    except OSError as error:
        raise make_write_error("metrics", path, error) from error


def write_metrics(path: Path | None, metrics: RunMetrics) -> None:
    """Write a file for the textfile collector of Prometheus's node exporter, whole or not at all.

    Raises ReportError and DiskFullError.
    """
    if path is None:
        return
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()

    def add_gauge(name: str, text: str, value: float) -> None:
        Gauge(f"tagger_{name}", text, registry=registry).set(value)

    add_gauge("run_timestamp_seconds", "When the last run ended.", time.time())
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
        write_file_whole(path, generate_latest(registry))
    except OSError as error:
        raise make_write_error("metrics", path, error) from error
