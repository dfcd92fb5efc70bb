"""What a person sees on stderr during a run: a live bar on a terminal, else a line at times."""

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from tagger.cli.console import PatientConsole
from tagger.cli.signals import Stopper
from tagger.cli.text import count_of, doubt, megabytes, printable
from tagger.paths import displayed
from tagger.records import Action, Outcome, Repeats
from tagger.settings import Settings

LINE_EVERY_S = 30.0
SHOW_EVERY_S = 0.1
SHOWN_FAILURES = 5
"""How many new failures the summary names; the report has them all."""


class RunProgress:
    """Shows a run; a context manager, since a live bar has to be taken down again."""

    def __init__(
        self, settings: Settings, stopper: Stopper, words: Mapping[Action, str] | None = None
    ) -> None:
        """Make one that calls the actions by these words, by their own without."""
        self.verbose, quiet = settings.verbose, settings.quiet
        self.words = words or {action: action.value for action in Action}
        self.between_tracks = stopper.check
        self.console = PatientConsole(file=sys.stderr, quiet=quiet)
        self.live = self.console.is_terminal
        self.failures: list[Outcome] = []
        self.changed: Counter[Path] = Counter()
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
            self._line(f"what was done stands in {printable(displayed(self.report))}")

    def doubting(self, unknown: Sequence[str], labels: Sequence[str]) -> None:
        self._line(doubt(unknown, labels))

    def splitting(self, names: Sequence[str], profile: str) -> None:
        told = ", ".join(names)
        self._line(printable(f"{profile} takes apart: {told} (--genre-map gives other names)"))

    def listening(self, tracks: int) -> None:
        self._expect(tracks, "Listening", "to listen to")
        self.bar.update(self.task, description="Loading the model")

    def fetching(self, done: int, total: int) -> None:
        self.between_tracks()
        of = megabytes(done, total)
        doing = "Downloading" if done < total else "Loading"
        self.bar.update(
            self.task, description=f"{doing} the model", rate=of if done < total else ""
        )
        if not self.live and time.monotonic() - self.told >= LINE_EVERY_S:
            self._line(f"downloading the model, {of}")

    def resting(self, wanted: Sequence[str]) -> None:
        what = " and ".join(wanted)
        self.bar.update(self.task, description=f"Resting: others wait for {what}")
        if not self.live and time.monotonic() - self.told >= LINE_EVERY_S:
            self._line(f"resting: other programs wait for {what}")

    def restoring(self, tracks: int) -> None:
        self._expect(tracks, "Putting back", "to put back")

    def applying(self, tracks: int) -> None:
        self._expect(tracks, "Writing", "to write into")

    def _expect(self, tracks: int, doing: str, what: str) -> None:
        self.doing, self.done, self.total = doing, 0, tracks
        self.started = time.monotonic()
        self.bar.reset(self.task, total=tracks, description=doing, rate="")
        if not self.live:
            self._line(f"{count_of(tracks)} {what}")

    def reporting(self, report: Path) -> None:
        self.report = report

    def settled(self, outcome: Outcome | Repeats) -> None:
        if isinstance(outcome, Repeats):
            self.done += len(outcome.actions)
        else:
            self.done += 1
            if outcome.action is Action.WRITTEN:
                self.changed[outcome.track.path.parent] += 1
            if outcome.new and len(self.failures) < SHOWN_FAILURES:
                self.failures.append(outcome)
            if self.verbose:
                self.console.print(Text(self._describe(outcome)), soft_wrap=True)
        now = time.monotonic()
        if now - self.shown >= SHOW_EVERY_S:
            self.shown = now
            self._show(now)

    def _show(self, now: float) -> None:
        elapsed = now - self.started
        rate = self.done / elapsed if elapsed > 0 else 0.0
        self.bar.update(
            self.task, completed=self.done, description=self.doing, rate=f"{rate:.1f} tracks/s"
        )
        if not self.live and not self.verbose and now - self.told >= LINE_EVERY_S:
            of = "" if self.total is None else f" of {self.total}"
            left = (
                "" if self.total is None else f", {_duration((self.total - self.done) / rate)} left"
            )
            self._line(f"{self.done}{of} tracks, {rate:.1f} tracks/s{left}")

    def _describe(self, outcome: Outcome) -> str:
        score = f" ({outcome.score:.2f})" if outcome.score is not None else ""
        genre = f" {';'.join(outcome.genres)}{score}" if outcome.genres else ""
        error = f": {outcome.error}" if outcome.error else ""
        word = self.words[outcome.action]
        return printable(f"{word:<11} {displayed(outcome.track.path)}{genre}{error}")

    def _line(self, text: str) -> None:
        self.told = time.monotonic()
        self.console.print(Text(f"tagger: {text}"), soft_wrap=True)


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
