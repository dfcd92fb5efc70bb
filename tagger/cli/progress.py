"""What a person sees on stderr during a scan: a live bar on a terminal, else a line at times."""

import sys
import time
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

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

from tagger.cli.signals import Stopper
from tagger.cli.text import count_of, printable
from tagger.records import Outcome, displayed

LINE_EVERY_S = 30.0
SHOWN_FAILURES = 5
"""How many new failures the summary names; the report has them all."""


class ScanProgress:
    """Shows a scan; a context manager, since a live bar has to be taken down again."""

    def __init__(self, *, quiet: bool, verbose: bool, stopper: Stopper) -> None:
        self.verbose = verbose
        self.between_tracks = stopper.check
        self.console = Console(file=sys.stderr, quiet=quiet)
        self.live = self.console.is_terminal
        self.failures: list[Outcome] = []
        self.report: Path | None = None
        self.done = 0
        self.total: int | None = None
        self.started = self.told = time.monotonic()
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
            self._line(f"what was done stands in {printable(displayed(self.report))}")

    def listening(self, tracks: int) -> None:
        self.done, self.total = 0, tracks
        self.started = time.monotonic()
        self.bar.reset(self.task, total=tracks, description="Loading the model", rate="")
        if not self.live:
            self._line(f"{count_of(tracks)} to listen to")

    def reporting(self, report: Path) -> None:
        self.report = report

    def settled(self, outcome: Outcome) -> None:
        self.done += 1
        if outcome.new and len(self.failures) < SHOWN_FAILURES:
            self.failures.append(outcome)
        elapsed = time.monotonic() - self.started
        rate = self.done / elapsed if elapsed > 0 else 0.0
        doing = "Looking" if self.total is None else "Listening"
        self.bar.update(
            self.task, completed=self.done, description=doing, rate=f"{rate:.1f} tracks/s"
        )
        if self.verbose:
            self.console.print(Text(describe(outcome)), soft_wrap=True)
        elif not self.live and time.monotonic() - self.told >= LINE_EVERY_S:
            of = "" if self.total is None else f" of {self.total}"
            left = (
                "" if self.total is None else f", {_duration((self.total - self.done) / rate)} left"
            )
            self._line(f"{self.done}{of} tracks, {rate:.1f} tracks/s{left}")

    def _line(self, text: str) -> None:
        self.told = time.monotonic()
        self.console.print(Text(f"tagger: {text}"), soft_wrap=True)


def describe(outcome: Outcome) -> str:
    """Return one line on what became of a track."""
    genre = f" {outcome.genres[0]} ({outcome.scores[0].probability:.2f})" if outcome.genres else ""
    error = f": {outcome.error}" if outcome.error else ""
    return printable(f"{outcome.action:<11} {displayed(outcome.track.path)}{genre}{error}")


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
