"""Progress on stderr while a command works. Import this late: it imports rich."""

import math
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
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
    escape_unprintable,
    format_megabytes,
    format_track_count,
    format_unknown_genres,
    format_unknown_labels,
    ignore_broken_pipe,
)
from tagger.errors import FailureKind, ReportError
from tagger.paths import AnyPath, display_path
from tagger.records import Action, Outcome, RepeatedRows
from tagger.settings import Settings

LINE_INTERVAL_S = 30.0
"""Without a terminal, at most one line of progress is printed in this time."""

BAR_INTERVAL_S = 0.1

MAX_SHOWN_FAILURES = 5
"""The summary names at most this many new failures; the report has them all."""


class PipeSafeConsole(Console):
    """A console that goes on when the reader of its pipe went away.

    rich would end the program with exit code 1, which says that tracks failed.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        """Print. Raises ReportError where the output cannot be written (disk full)."""
        try:
            super().print(*objects, **options)
        except OSError as error:
            raise ReportError(f"cannot print: {error.strerror}") from error

    def on_broken_pipe(self) -> None:
        self.quiet = True
        ignore_broken_pipe(self.file)


class ProgressLines:
    """Lines of progress on stderr; between two lines that are not urgent passes some time."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = PipeSafeConsole(file=sys.stderr, quiet=quiet)
        self.is_live = self.console.is_terminal
        self.last_line_at = -math.inf

    def print(self, text: str) -> None:
        self.last_line_at = time.monotonic()
        self.console.print(Text(f"tagger: {text}"), soft_wrap=True)

    @property
    def is_due(self) -> bool:
        """Whether a line is due: there is no live bar, and the last line is old enough."""
        return not self.is_live and time.monotonic() - self.last_line_at >= LINE_INTERVAL_S


class LoadingStatus:
    """`status`, a context manager, is a live line on a terminal; elsewhere lines are printed."""

    def __init__(self, stop_signal: StopSignal) -> None:
        self.lines = ProgressLines()
        self.status = self.lines.console.status("Loading the model")
        self.stop_signal = stop_signal

    def show(self, step: str) -> None:
        """Show the current step. Raises where the user asked to stop."""
        self.stop_signal.check()
        self.status.update(Text(_capitalize(step)))  # else [flac] in a path is markup
        if self.lines.is_due:
            self.lines.print(step)

    def on_download(self, done: int, total: int) -> None:
        if done < total:
            self.show(f"downloading the model, {format_megabytes(done, total)}")
        else:
            self.show("loading the model")


class RunProgress:
    """The progress of a scan, apply or undo; a context manager, which removes the live bar."""

    def __init__(
        self,
        settings: Settings,
        stop_signal: StopSignal,
        action_words: Mapping[Action, str] | None = None,
    ) -> None:
        """action_words: what actions are called; by default as in the report."""
        self.verbose = settings.verbose
        self.action_words = action_words or {action: action.value for action in Action}
        self.check_stop = stop_signal.check
        self.lines = ProgressLines(quiet=settings.quiet)
        self.lines.last_line_at = time.monotonic()
        self.failures: list[Outcome] = []
        self.written_folders: Counter[AnyPath] = Counter()
        self.report: Path | None = None
        self.is_waiting = False
        self.in_use: list[AnyPath] = []
        self.step = "Looking"
        self.done = 0
        self.total: int | None = None
        self.started_at = time.monotonic()
        self.bar_updated_at = 0.0
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=self.lines.console,
            transient=True,
            disable=settings.quiet or not self.lines.is_live,
        )
        self.task = self.bar.add_task(self.step, total=None, rate="")

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
            report = escape_unprintable(display_path(self.report))
            self.lines.print(f"the report of the tracks that were done is {report}")

    def on_unknown_labels(self, unknown: Sequence[str], labels: Sequence[str]) -> None:
        self.lines.print(format_unknown_labels(unknown, labels))

    def on_unknown_genres(self, unknown: Sequence[str], genres: Sequence[str]) -> None:
        self.lines.print(format_unknown_genres(unknown, genres))

    def on_split_names(self, names: Sequence[str], profile: str) -> None:
        shown = escape_unprintable(", ".join(names))
        self.lines.print(
            f"{profile} splits these names into several genres: {shown}"
            " (--genre-map gives other names)"
        )

    def on_download(self, done: int, total: int) -> None:
        self.check_stop()
        size = format_megabytes(done, total)
        if done < total:
            self.bar.update(self.task, description="Downloading the model", rate=size)
        else:
            self.bar.update(self.task, description="Loading the model", rate="")
        if self.lines.is_due:
            self.lines.print(f"downloading the model, {size}")

    def on_rest(self, wanted: Sequence[str]) -> None:
        resources = " and ".join(wanted)
        self.bar.update(self.task, description=f"Pausing: other programs need {resources}")
        if self.lines.is_due:
            self.lines.print(f"pausing: other programs need {resources}")

    def on_inference_start(self, tracks: int, rows: int) -> None:
        self._start_step("Listening", tracks, "to listen to", rows=rows)
        self.bar.update(self.task, description="Loading the model")

    def on_prediction(self) -> None:
        self.done += 1
        self._show_rate_if_due()

    def on_decision_start(self, tracks: int) -> None:
        self._start_step("Deciding", tracks)  # no line: a nightly run without news is silent

    def on_undo_start(self, tracks: int) -> None:
        self._start_step("Putting back", tracks, "to put back")

    def on_apply_start(self, tracks: int) -> None:
        self._start_step("Writing", tracks, "to write into")

    def _start_step(
        self, step: str, tracks: int, purpose: str = "", *, rows: int | None = None
    ) -> None:
        """purpose: what a line says of the tracks; without it there is no line.

        rows: how many rows the step adds to the report, if not one for each track.
        """
        self.step, self.done, self.total = step, 0, tracks if rows is None else rows
        self.started_at = time.monotonic()
        self.bar.reset(self.task, total=self.total, description=step, rate="")
        if purpose and not self.lines.is_live:
            self.lines.print(f"{format_track_count(tracks)} {purpose}")

    def on_wait(self) -> None:
        self.check_stop()
        if not self.is_waiting:
            self.is_waiting = True
            self.bar.update(self.task, description="Waiting for another run")
            self.lines.print("another run is using the state file: waiting for its end")

    def on_report_opened(self, report: Path) -> None:
        self.report = report

    def on_outcome(self, outcome: Outcome | RepeatedRows) -> None:
        if isinstance(outcome, RepeatedRows):
            self.done += len(outcome.actions)
        else:
            self.done += 1
            if outcome.action is Action.WRITTEN:
                self.written_folders[outcome.track.path.parent] += 1
            if outcome.kind is FailureKind.IN_USE:
                self.in_use.append(outcome.track.path)
            if outcome.new and len(self.failures) < MAX_SHOWN_FAILURES:
                self.failures.append(outcome)
            if self.verbose:
                self.lines.console.print(Text(self._format_outcome(outcome)), soft_wrap=True)
        self._show_rate_if_due()

    def _show_rate_if_due(self) -> None:
        now = time.monotonic()
        if now - self.bar_updated_at >= BAR_INTERVAL_S:
            self.bar_updated_at = now
            self._show_rate(now)

    def _show_rate(self, now: float) -> None:
        elapsed = now - self.started_at
        tracks_per_s = self.done / elapsed if elapsed > 0 else 0.0
        rate = f"{tracks_per_s:.1f} tracks/s"
        self.bar.update(self.task, completed=self.done, description=self.step, rate=rate)
        if self.verbose or not self.lines.is_due:
            return
        if self.total is None:
            self.lines.print(f"{self.done} tracks, {rate}")
        else:
            left = ""
            if tracks_per_s:
                seconds = round((self.total - self.done) / tracks_per_s)
                left = f", {timedelta(seconds=seconds)} left"
            self.lines.print(f"{self.done} of {self.total} tracks, {rate}{left}")

    def _format_outcome(self, outcome: Outcome) -> str:
        score = "" if outcome.score is None else f" ({outcome.score:.2f})"
        genre = f" {';'.join(outcome.genres)}{score}" if outcome.genres else ""
        error = f": {outcome.error}" if outcome.error else ""
        word = self.action_words[outcome.action]
        return escape_unprintable(f"{word:<11} {display_path(outcome.track.path)}{genre}{error}")


def _capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]
