"""What a person sees during and after a run."""

import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from tagger.cli.terminal import (
    StopSignal,
    catch_stop_signals,
    escape_unprintable,
    format_failures,
    format_megabytes,
    format_size,
    format_track_count,
    format_unknown_labels,
    ignore_broken_pipe,
    print_line,
)
from tagger.errors import NotifyError, ReportError, TaggerError
from tagger.pacing import lower_priority
from tagger.paths import AnyPath, display_path
from tagger.records import Action, Outcome, RepeatedRows, ScanResult
from tagger.report.overview import review_run
from tagger.report.page import check_page, write_run_page
from tagger.service import check_metrics, record_metrics, run_notify_command
from tagger.settings import Settings


class PipeSafeConsole(Console):
    """Goes on when nobody reads any more; rich would end the program, with the code of failures."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print. Raises ReportError where the disk that it goes to is full."""
        try:
            super().print(*objects, **options)
        except OSError as error:
            raise ReportError(f"cannot print: {error.strerror}") from error

    def on_broken_pipe(self) -> None:
        self.quiet = True
        ignore_broken_pipe(self.file)


LINE_INTERVAL_S = 30.0
BAR_INTERVAL_S = 0.1
MAX_SHOWN_FAILURES = 5
"""How many new failures the summary names; the report has them all."""


class RunProgress:
    """Shows a run; a context manager, since a live bar has to be taken down again."""

    def __init__(
        self, settings: Settings, stopper: StopSignal, words: Mapping[Action, str] | None = None
    ) -> None:
        """Make one that calls the actions by these words, by their own without."""
        self.verbose, quiet = settings.verbose, settings.quiet
        self.words = words or {action: action.value for action in Action}
        self.check_stop = stopper.check
        self.console = PipeSafeConsole(file=sys.stderr, quiet=quiet)
        self.live = self.console.is_terminal
        self.failures: list[Outcome] = []
        self.changed: Counter[AnyPath] = Counter()
        self.doing = "Looking"
        self.report: Path | None = None
        self.done = 0
        self.total: int | None = None
        self.started = self.told = time.monotonic()
        self.shown = 0.0
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=quiet or not self.live,
        )
        self.task = self.bar.add_task("Looking", total=None, rate="")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()
        if error and self.report:
            self._line(f"what was done stands in {escape_unprintable(display_path(self.report))}")

    def on_unknown_labels(self, unknown: Sequence[str], labels: Sequence[str]) -> None:
        self._line(format_unknown_labels(unknown, labels))

    def on_split_names(self, names: Sequence[str], profile: str) -> None:
        told = ", ".join(names)
        self._line(
            escape_unprintable(f"{profile} takes apart: {told} (--genre-map gives other names)")
        )

    def on_inference_start(self, tracks: int) -> None:
        self._expect(tracks, "Listening", "to listen to")
        self.bar.update(self.task, description="Loading the model")

    def on_download(self, done: int, total: int) -> None:
        self.check_stop()
        of = format_megabytes(done, total)
        doing = "Downloading" if done < total else "Loading"
        self.bar.update(
            self.task, description=f"{doing} the model", rate=of if done < total else ""
        )
        if not self.live and time.monotonic() - self.told >= LINE_INTERVAL_S:
            self._line(f"downloading the model, {of}")

    def on_rest(self, wanted: Sequence[str]) -> None:
        what = " and ".join(wanted)
        self.bar.update(self.task, description=f"Resting: others wait for {what}")
        if not self.live and time.monotonic() - self.told >= LINE_INTERVAL_S:
            self._line(f"resting: other programs wait for {what}")

    def on_undo_start(self, tracks: int) -> None:
        self._expect(tracks, "Putting back", "to put back")

    def on_apply_start(self, tracks: int) -> None:
        self._expect(tracks, "Writing", "to write into")

    def _expect(self, tracks: int, doing: str, what: str) -> None:
        self.doing, self.done, self.total = doing, 0, tracks
        self.started = time.monotonic()
        self.bar.reset(self.task, total=tracks, description=doing, rate="")
        if not self.live:
            self._line(f"{format_track_count(tracks)} {what}")

    def on_report_opened(self, report: Path) -> None:
        self.report = report

    def on_outcome(self, outcome: Outcome | RepeatedRows) -> None:
        if isinstance(outcome, RepeatedRows):
            self.done += len(outcome.actions)
        else:
            self.done += 1
            if outcome.action is Action.WRITTEN:
                self.changed[outcome.track.path.parent] += 1
            if outcome.new and len(self.failures) < MAX_SHOWN_FAILURES:
                self.failures.append(outcome)
            if self.verbose:
                self.console.print(Text(self._describe(outcome)), soft_wrap=True)
        now = time.monotonic()
        if now - self.shown >= BAR_INTERVAL_S:
            self.shown = now
            self._show(now)

    def _show(self, now: float) -> None:
        elapsed = now - self.started
        rate = self.done / elapsed if elapsed > 0 else 0.0
        self.bar.update(
            self.task, completed=self.done, description=self.doing, rate=f"{rate:.1f} tracks/s"
        )
        if not self.live and not self.verbose and now - self.told >= LINE_INTERVAL_S:
            of = "" if self.total is None else f" of {self.total}"
            left = (
                ""
                if self.total is None
                else f", {_format_duration((self.total - self.done) / rate)} left"
            )
            self._line(f"{self.done}{of} tracks, {rate:.1f} tracks/s{left}")

    def _describe(self, outcome: Outcome) -> str:
        score = f" ({outcome.score:.2f})" if outcome.score is not None else ""
        genre = f" {';'.join(outcome.genres)}{score}" if outcome.genres else ""
        error = f": {outcome.error}" if outcome.error else ""
        word = self.words[outcome.action]
        return escape_unprintable(f"{word:<11} {display_path(outcome.track.path)}{genre}{error}")

    def _line(self, text: str) -> None:
        self.told = time.monotonic()
        self.console.print(Text(f"tagger: {text}"), soft_wrap=True)


def _format_duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


class LoadingStatus:
    """`status`, a context manager, is a live line on a terminal; elsewhere lines come at times."""

    def __init__(self, stopper: StopSignal) -> None:
        self.console = PipeSafeConsole(file=sys.stderr)
        self.status = self.console.status("Loading the model")
        self.stopper = stopper
        self.told = -math.inf

    def tell(self, text: str) -> None:
        self.told = time.monotonic()
        self.console.print(Text(f"tagger: {text}"), soft_wrap=True)

    def doing(self, text: str) -> None:
        """Say what is being done now. Raises where the user asked to stop."""
        self.stopper.check()
        self.status.update(text[:1].upper() + text[1:])
        if not self.console.is_terminal and time.monotonic() - self.told >= LINE_INTERVAL_S:
            self.tell(text)

    def on_download(self, done: int, total: int) -> None:
        is_whole = done >= total
        self.doing(
            "loading the model"
            if is_whole
            else f"downloading the model, {format_megabytes(done, total)}"
        )


ACTION_HINTS = {
    Action.WRITTEN: "",
    Action.WOULD_WRITE: "",
    Action.KEPT: "left alone; --existing replace|append writes, --audit compares",
    Action.UNCHANGED: "done in an earlier run",
    Action.LOW_SCORE: "no genre as likely as --min-score",
    Action.FAILED: "the report says why",
}


def run_and_report(settings: Settings, run: Callable[[RunProgress], ScanResult]) -> int:
    """Do a run, show what came of it, and return the exit code."""
    if settings.gentle:
        lower_priority()
    if settings.html:
        check_page(settings.html)
    check_metrics(settings.metrics)
    with record_metrics(settings.metrics) as metrics:
        with catch_stop_signals() as stopper, RunProgress(settings, stopper) as progress:
            try:
                result = run(progress)
            except TaggerError:
                with suppress(NotifyError):
                    run_notify_command(settings.notify_cmd, progress.changed, progress.report)
                raise
        metrics.result = result
        if settings.json:
            print_line(json.dumps(result.summary()))
        elif not settings.quiet:
            print_line(format_scan_summary(result, progress.failures))
        run_notify_command(settings.notify_cmd, progress.changed, progress.report)
        if settings.html:
            write_run_page(review_run([settings.state], result.run_id), settings.html)
            if not settings.quiet and not settings.json:
                print_line(f"Page: {escape_unprintable(display_path(settings.html))}")
        metrics.exit_code = 1 if result.failed_new else 0
    return metrics.exit_code


def format_scan_summary(result: ScanResult, failures: Sequence[Outcome]) -> str:
    """Return the text that ends a scan; `failures` are the first ones that are new."""
    lines = [
        f"{format_track_count(result.tracks)} in {result.seconds:.1f} s"
        + (f", model {escape_unprintable(result.model)}" if result.model else "")
    ]
    for action in Action:
        count = result.counts[action]
        if count:
            lines.append(f"  {action:<11} {count:>7}   {ACTION_HINTS[action]}".rstrip())
    if result.waiting:
        lines.append(
            f"It was time to stop: {format_track_count(result.waiting)} left to the next run."
        )
    if result.dry_run:
        lines.append("This was a dry run: no file was changed.")
    if result.would_rewrite:
        lines.append(f"It would write {format_size(result.would_rewrite)} anew.")
    if not result.tracks and result.model:
        lines.append("No audio file was found (a .nomedia file or --exclude may hide them).")
    if failures:
        lines.append(f"{result.failed_new} failed for the first time:")
        lines += format_failures(failures, of=result.failed_new)
    if result.counts[Action.WRITTEN]:
        lines.append(f"To take this back: tagger undo --run {result.run_id}")
    lines.append(f"Report: {escape_unprintable(display_path(result.report))}")
    if result.counts[Action.WOULD_WRITE]:
        lines.append("To write what it says, also after editing it: tagger apply REPORT")
    return "\n".join(lines)
