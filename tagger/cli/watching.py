"""Run `tagger watch`. Import this late: it imports what a scan needs."""

from collections.abc import Sequence

from tagger.cli.progress import RunProgress
from tagger.cli.summary import run_and_report
from tagger.cli.terminal import (
    catch_stop_signals,
    escape_unprintable,
    print_line,
)
from tagger.inference.engine import PredictTracks
from tagger.paths import AnyPath
from tagger.records import ScanResult
from tagger.scanning import run_scan
from tagger.service.watch import (
    Batch,
    BatchResult,
    Watcher,
    WatchRequest,
    drain_arrivals,
)
from tagger.settings import Settings


def run_watch(request: WatchRequest, command: Sequence[str]) -> None:
    """Watch until the user stops it. command: starts the scanning process."""

    def say(text: str) -> None:
        if not request.settings.quiet:
            print_line(f"tagger: {escape_unprintable(text)}", err=True)

    with catch_stop_signals("stopped") as stop_signal:
        Watcher(request, command, say, stop_signal.check).run()


def run_drain(request: WatchRequest, *, idle_s: float) -> int:
    """Scan what is in the queue until there is nothing to do for `idle_s`."""
    with catch_stop_signals() as stop_signal:
        return drain_arrivals(request, scan_batch, stop_signal.check, idle_s=idle_s)


def scan_batch(batch: Batch, settings: Settings, predict: PredictTracks) -> BatchResult:
    """Scan what arrived, and print the summary."""
    results: list[ScanResult] = []
    in_use: list[AnyPath] = []

    def run(progress: RunProgress) -> ScanResult:
        result = run_scan(batch.roots, settings, progress, only=batch.only, predict=predict)
        results.append(result)
        in_use.extend(progress.in_use)
        return result

    code = run_and_report(settings, run)
    return BatchResult(code, in_use, is_complete=not results[0].waiting)
