"""A whole scan: state, report, counts, and the order of its passes."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from tagger.crawl import Listing, Scope, crawl_folders
from tagger.decide import find_split_names, find_unknown_labels, get_label_names
from tagger.errors import ClusterError, WorkerError
from tagger.inference.engine import InferenceRequest, PredictTracks, open_engine
from tagger.models import ModelSource, download_missing, find_model
from tagger.pacing import Pacer, SystemClock
from tagger.records import Action, Failure, Outcome, RepeatedRows, ScanResult
from tagger.report.csv import format_row, open_report
from tagger.scan.albums import AlbumSettler
from tagger.scan.tracks import TrackSettler
from tagger.settings import Settings
from tagger.state import RunKind, State, new_run_id, open_state
from tagger.tags import EXTENSIONS
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


T = TypeVar("T")


class ScanObserver(RunObserver, Protocol):
    """Told of a scan's progress as it happens."""

    def on_unknown_labels(self, unknown: Sequence[str], labels: Sequence[str]) -> None:
        """Take note that the genre map names labels that the model, with these labels, lacks."""

    def on_split_names(self, names: Sequence[str], profile: str) -> None:
        """Take note that those for whom the tags are take these names for several genres."""

    def on_download(self, done: int, total: int) -> None:
        """Take note that so many bytes of a model were downloaded."""

    def on_inference_start(self, tracks: int) -> None:
        """Take note that all tracks are settled but so many, which are listened to now."""

    def on_rest(self, wanted: Sequence[str]) -> None:
        """Take note of a second of rest, because others wait for these resources."""


SYSTEM_CLOCK = SystemClock()


def run_scan(
    paths: Sequence[Path],
    settings: Settings,
    observer: ScanObserver,
    host: SystemClock = SYSTEM_CLOCK,
) -> ScanResult:
    """Scan `paths` and return the counts; every outcome goes to the report and to `observer`.

    What is finished stays finished whatever ends the run: rows, tags and state agree.
    Raises the errors of a run that could not go on; a bad file is only a row.
    """
    source = find_model(settings)
    if unknown := find_unknown_labels(settings, source.labels):
        observer.on_unknown_labels(unknown, source.labels)
    names = get_label_names(settings)
    written = (names.get(label.casefold(), label) for label in source.labels)
    if split := find_split_names(written, settings.profile):
        observer.on_split_names(split, settings.profile)
    scope = Scope(
        EXTENSIONS,
        settings.exclude,
        settings.follow_symlinks,
        settings.shard,
        whole_folders=settings.by_album,
    )
    found = crawl_folders(paths, scope)
    pacer = Pacer(host, until=settings.until, gentle=settings.gentle)
    with (
        open_engine(settings) as listen,
        open_session(RunKind.SCAN, source.identity, settings, observer) as session,
    ):
        state, writer = session.state, session.writer
        kind = AlbumSettler if settings.by_album else TrackSettler
        pauses = RunInterrupts(observer, pacer)
        todo = kind(
            settings, state, source.identity, writer.isolated, writer.unrecovered, pacer.is_over
        )
        for steps in _run_passes(found, source, todo, pauses, listen):
            session.process(steps)
        if pacer.is_over():
            session.tally.waiting = state.queue_length(heard=True)
    return session.tally.result()


@dataclass(frozen=True, slots=True)
class RunInterrupts:
    """What may happen between two tracks: an order to end the run, a rest, the end of the time."""

    observer: ScanObserver
    pacer: Pacer

    def between(self, items: Iterable[T]) -> Iterator[T]:
        self.observer.check_stop()
        try:
            for item in items:
                yield item
                self._rest()
                self.observer.check_stop()
        except (WorkerError, ClusterError):
            self.observer.check_stop()  # a TERM to all processes is an order to stop
            raise

    def in_time(self, items: Iterable[T]) -> Iterator[T]:
        """Do the same, but end when the time is up."""
        for item in self.between(items):
            yield item
            if self.pacer.is_over():
                return

    def _rest(self) -> None:
        for wanted in self.pacer.rests():
            self.observer.on_rest(wanted)
            self.observer.check_stop()


def _run_passes(
    found: Iterable[Listing | Failure],
    source: ModelSource,
    steps: TrackSettler,
    pauses: RunInterrupts,
    listen: PredictTracks,
) -> Iterator[Iterator[TrackStep]]:
    """Yield the passes of a scan: what needs no listening; the rest; what there is no time for."""
    settings, observer = steps.settings, pauses.observer
    yield (step for step in pauses.between(steps.known(found)) if step is not None)
    waiting = steps.state.queue_length()
    if waiting and not steps.is_over():
        observer.on_inference_start(waiting)
        download_missing(source, settings, observer.on_download)
        results = listen(
            steps.state.queued(), InferenceRequest(source, settings, check=observer.check_stop)
        )
        heard = steps.heard(pauses.in_time(results))
        yield (step for step in heard if step is not None)
    yield steps.left()
