"""A whole scan: the order of its parts, its report, its counts."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from tagger.crawl import Listing, Scope, crawl_folders
from tagger.decide import unknown_labels
from tagger.engines import open_engine
from tagger.errors import WorkerError
from tagger.models import Source, fetch, find_source
from tagger.pacing import Host, Pacer
from tagger.records import Action, Failure, Outcome, Repeats, ScanResult
from tagger.report.csv import open_report, row
from tagger.scan.steps import Step, Steps
from tagger.settings import Settings
from tagger.state import RunKind, new_run_id, open_state
from tagger.tags import EXTENSIONS
from tagger.writing import open_writer

Item = TypeVar("Item")


class Watcher(Protocol):
    """Told of a scan's progress as it happens."""

    def reporting(self, report: Path) -> None:
        """Take note of where the report is being written."""

    def doubting(self, unknown: Sequence[str], labels: Sequence[str]) -> None:
        """Take note that the genre map names labels that the model, with these labels, lacks."""

    def fetching(self, done: int, total: int) -> None:
        """Take note that so many bytes of a model were downloaded."""

    def listening(self, tracks: int) -> None:
        """Take note that all tracks are settled but so many, which are listened to now."""

    def settled(self, outcome: Outcome | Repeats) -> None:
        """Take note of rows that were added to the report."""

    def resting(self, wanted: Sequence[str]) -> None:
        """Take note of a second of rest, because others wait for these resources."""

    def between_tracks(self) -> None:
        """Raise to end the run here, where nothing is half done."""


HERE = Host()


def run_scan(
    paths: Sequence[Path], settings: Settings, watcher: Watcher, host: Host = HERE
) -> ScanResult:
    """Scan `paths` and return the counts; every outcome goes to the report and to `watcher`.

    What is finished stays finished whatever ends the run: rows, tags and state agree.
    Raises the errors of a run that could not go on; a bad file is only a row.
    """
    source = find_source(settings)
    if unknown := unknown_labels(settings, source.labels):
        watcher.doubting(unknown, source.labels)
    found = crawl_folders(paths, Scope(EXTENSIONS, settings.exclude, settings.follow_symlinks))
    pacer = Pacer(host, until=settings.until, gentle=settings.gentle)
    run_id = new_run_id()
    report = settings.report or settings.state.parent / "reports" / f"{run_id}.csv"
    tally = Tally(run_id, source.identity, settings.dry_run, report)
    with ExitStack() as stack:
        state = stack.enter_context(open_state(settings.state))
        add_rows = stack.enter_context(open_report(report))
        watcher.reporting(report)
        writer = stack.enter_context(open_writer(run_id, settings, state))
        state.runs.start(
            run_id, RunKind.SCAN, dry_run=settings.dry_run, model=source.identity, report=report
        )

        def settle(outcomes: Iterable[Outcome | Repeats]) -> None:
            for outcome in outcomes:
                add_rows(row(outcome) if isinstance(outcome, Outcome) else outcome.text)
                tally.count(outcome)
                watcher.settled(outcome)

        try:
            todo = Steps(
                settings, state, source.identity, writer.guard, writer.unmended, pacer.is_over
            )
            for steps in _passes(found, source, todo, Pauses(watcher, pacer)):
                settle(writer.carry_out(steps))
            if pacer.is_over():
                tally.waiting = state.queue_length()
        finally:
            try:
                settle(list(writer.finish()))  # first every journal entry, then the rows
            finally:
                state.runs.finish(run_id, tally.result().summary())
    return tally.result()


@dataclass(slots=True)
class Tally:
    """What a scan has done so far."""

    run_id: str
    model: str
    dry_run: bool
    report: Path
    started: float = field(default_factory=time.monotonic)
    rows: Counter[Action] = field(default_factory=Counter)
    failed_new: int = 0
    waiting: int | None = None

    def count(self, outcome: Outcome | Repeats) -> None:
        if isinstance(outcome, Repeats):
            self.rows.update(outcome.actions)
        else:
            self.rows[outcome.action] += 1
            self.failed_new += outcome.new

    def result(self) -> ScanResult:
        return ScanResult(
            self.run_id,
            self.model,
            self.dry_run,
            {action: self.rows[action] for action in Action},
            self.failed_new,
            time.monotonic() - self.started,
            self.report,
            self.waiting,
        )


@dataclass(frozen=True, slots=True)
class Pauses:
    """What may happen between two tracks: an order to end the run, a rest, the end of the time."""

    watcher: Watcher
    pacer: Pacer

    def between(self, items: Iterable[Item]) -> Iterator[Item]:
        self.watcher.between_tracks()
        try:
            for item in items:
                yield item
                self._rest()
                self.watcher.between_tracks()
        except WorkerError:
            self.watcher.between_tracks()  # a TERM to all processes is an order to stop
            raise

    def in_time(self, items: Iterable[Item]) -> Iterator[Item]:
        """Do the same, but end when the time is up."""
        for item in self.between(items):
            yield item
            if self.pacer.is_over():
                return

    def _rest(self) -> None:
        for wanted in self.pacer.rests():
            self.watcher.resting(wanted)
            self.watcher.between_tracks()


def _passes(
    found: Iterable[Listing | Failure], source: Source, steps: Steps, pauses: Pauses
) -> Iterator[Iterator[Step]]:
    """Yield the passes of a scan: what needs no listening; the rest; what there is no time for."""
    settings, watcher = steps.settings, pauses.watcher
    yield (step for step in pauses.between(steps.known(found)) if step is not None)
    waiting = steps.state.queue_length()
    if waiting and not steps.is_over():
        watcher.listening(waiting)
        fetch(source, settings, watcher.fetching)
        listen = open_engine(settings.engine)
        results = listen(steps.state.queued(), source, settings)
        yield steps.heard(pauses.in_time(results))
    yield steps.left()
