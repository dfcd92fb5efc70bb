"""A run that writes into files: its state, its report, its counts."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tagger.records import Action, Outcome, RepeatedRows, ScanResult
from tagger.report.csv import format_row, open_report
from tagger.settings import Settings
from tagger.state import RunKind, State, new_run_id, open_state
from tagger.writing import PlannedWrite, Writer, open_writer

TrackStep = Outcome | RepeatedRows | PlannedWrite
"""What there is to do about a track: to report it, or to write into it; about several, to repeat
what was reported before."""


class RunObserver(Protocol):
    """Told of the progress of any run that has a report."""

    def on_report_opened(self, report: Path) -> None:
        """Take note of where the report is being written."""

    def on_outcome(self, outcome: Outcome | RepeatedRows) -> None:
        """Take note of rows that were added to the report."""

    def check_stop(self) -> None:
        """Raise to end the run here, where nothing is half done."""


@dataclass(slots=True)
class RunCounts:
    """What a run has done so far."""

    run_id: str
    model: str
    dry_run: bool
    report: Path
    started: float = field(default_factory=time.monotonic)
    rows: Counter[Action] = field(default_factory=Counter)
    failed_new: int = 0
    would_rewrite: int = 0
    waiting: int | None = None

    def count(self, outcome: Outcome | RepeatedRows) -> None:
        if isinstance(outcome, RepeatedRows):
            self.rows.update(outcome.actions)
            self.would_rewrite += outcome.would_rewrite
        else:
            self.rows[outcome.action] += 1
            self.failed_new += outcome.new
            if outcome.action is Action.WOULD_WRITE:
                self.would_rewrite += outcome.track.size

    def result(self) -> ScanResult:
        return ScanResult(
            self.run_id,
            self.model,
            self.dry_run,
            {action: self.rows[action] for action in Action},
            self.failed_new,
            time.monotonic() - self.started,
            self.report,
            self.would_rewrite if self.dry_run else None,
            self.waiting,
        )


@dataclass(frozen=True, slots=True)
class RunSession:
    """What a run works with. Rows, tags and state agree after each step."""

    state: State
    writer: Writer
    tally: RunCounts
    tell: "RecordOutcomes"

    def process(self, steps: Iterable[TrackStep]) -> None:
        self.tell(self.writer.process(steps))


class RecordOutcomes(Protocol):
    """Tells the report, the counts and whoever watches what came of steps."""

    def __call__(self, outcomes: Iterable[Outcome | RepeatedRows]) -> None: ...


@contextmanager
def open_session(
    kind: RunKind,
    model: str,
    settings: Settings,
    observer: RunObserver,
) -> Iterator[RunSession]:
    """Begin a run, and end it whatever happens: what is finished stays finished.

    Raises the errors of a run that could not go on; a bad file is only a row.
    """
    run_id = new_run_id()
    report = settings.report or settings.state.parent / "reports" / f"{run_id}.csv"
    report = report.absolute()  # the state file knows it from anywhere
    tally = RunCounts(run_id, model, settings.dry_run, report)
    with open_state(settings.state) as state, open_report(report) as add_rows:
        observer.on_report_opened(report)

        def tell(outcomes: Iterable[Outcome | RepeatedRows]) -> None:
            for outcome in outcomes:
                add_rows(format_row(outcome) if isinstance(outcome, Outcome) else outcome.text)
                tally.count(outcome)
                observer.on_outcome(outcome)

        with open_writer(run_id, settings, state) as writer:
            state.runs.start(run_id, kind, dry_run=settings.dry_run, model=model, report=report)
            try:
                yield RunSession(state, writer, tally, tell)
            finally:
                try:
                    tell(list(writer.finish()))  # first every journal entry, then the rows
                finally:
                    state.runs.finish(run_id, tally.result().summary())
