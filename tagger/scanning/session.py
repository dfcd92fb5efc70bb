"""A run that writes into files: its state, its report, its counts."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tagger.records import Action, GenreNames, Outcome, PassedOver, RepeatedRows, ScanResult
from tagger.report.csv import format_row, open_report
from tagger.settings import Settings
from tagger.state import RunKind, State, new_run_id, open_state
from tagger.writing import PlannedWrite, Writer, open_writer

TrackStep = Outcome | RepeatedRows | PlannedWrite
"""The next step for a track: report it, or write into it; or repeat the rows of several tracks."""


class RunObserver(Protocol):
    """Is told of the progress of any run that has a report."""

    def on_report_opened(self, report: Path) -> None:
        """Handle the start of the report at this path."""

    def on_outcome(self, outcome: Outcome | RepeatedRows) -> None:
        """Handle rows that were added to the report."""

    def on_wait(self) -> None:
        """Handle that another run uses the state file. Called again and again (--wait)."""

    def check_stop(self) -> None:
        """Raise an error to end the run now. No track is half done at this point."""


@dataclass(slots=True)
class RunCounts:
    """What a run has done so far."""

    run_id: str
    model: str
    dry_run: bool
    report: Path
    started_at_s: float = field(default_factory=time.monotonic)
    actions: Counter[Action] = field(default_factory=Counter)
    failed_new: int = 0
    would_rewrite: int = 0
    waiting: int | None = None
    passed_over: PassedOver = field(default_factory=PassedOver)
    names: GenreNames | None = None

    def add(self, outcome: Outcome | RepeatedRows) -> None:
        if isinstance(outcome, RepeatedRows):
            self.actions.update(outcome.actions)
            self.would_rewrite += outcome.would_rewrite
        else:
            self.actions[outcome.action] += 1
            self.failed_new += outcome.new
            if outcome.action is Action.WOULD_WRITE:
                self.would_rewrite += outcome.track.size

    def make_result(self) -> ScanResult:
        return ScanResult(
            self.run_id,
            self.model,
            self.dry_run,
            {action: self.actions[action] for action in Action},
            self.failed_new,
            time.monotonic() - self.started_at_s,
            self.report,
            self.would_rewrite if self.dry_run else None,
            self.waiting,
            self.passed_over,
            self.names,
        )


@dataclass(frozen=True, slots=True)
class RunSession:
    """What a run works with. Rows, tags and state agree after each step.

    record: adds outcomes to the report and the counts, and tells the observer of them.
    """

    state: State
    writer: Writer
    counts: RunCounts
    record: Callable[[Iterable[Outcome | RepeatedRows]], None]

    def process(self, steps: Iterable[TrackStep]) -> None:
        self.record(self.writer.process(steps))


@contextmanager
def open_session(
    kind: RunKind,
    model: str,
    settings: Settings,
    observer: RunObserver,
) -> Iterator[RunSession]:
    """Begin a run, and end it whatever happens: finished tracks stay finished.

    Raises the errors of a run that cannot go on. A bad file is only a row.
    """
    run_id = new_run_id()
    report = settings.report or settings.state.parent / "reports" / f"{run_id}.csv"
    report = report.absolute()  # the state file knows it, wherever it is read from
    counts = RunCounts(run_id, model, settings.dry_run, report)
    on_wait = observer.on_wait if settings.wait else None
    with open_state(settings.state, on_wait) as state, open_report(report) as add_rows:
        counts.started_at_s = time.monotonic()
        observer.on_report_opened(report)

        def record(outcomes: Iterable[Outcome | RepeatedRows]) -> None:
            for outcome in outcomes:
                add_rows(format_row(outcome) if isinstance(outcome, Outcome) else outcome.text)
                counts.add(outcome)
                observer.on_outcome(outcome)

        with open_writer(run_id, settings, state) as writer:
            state.runs.start(run_id, kind, dry_run=settings.dry_run, model=model, report=report)
            try:
                yield RunSession(state, writer, counts, record)
            finally:
                try:
                    record(list(writer.finish()))  # all journal entries first, then the rows
                finally:
                    state.runs.finish(run_id, counts.make_result().summary())
