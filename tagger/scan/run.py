"""A whole scan: the order of its passes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from tagger.crawl import Listing, Scope, crawl_folders
from tagger.decide import find_split_names, find_unknown_labels, get_label_names
from tagger.errors import ClusterError, WorkerError
from tagger.inference.engine import InferenceRequest, PredictTracks, open_engine
from tagger.models import ModelSource, download_missing, find_model
from tagger.pacing import Pacer, SystemClock
from tagger.paths import AnyPath
from tagger.records import Failure, ScanResult
from tagger.scan.albums import AlbumSettler
from tagger.scan.session import RunObserver, TrackStep, open_session
from tagger.scan.tracks import TrackSettler
from tagger.settings import Settings
from tagger.state import RunKind
from tagger.tags import EXTENSIONS

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
    paths: Sequence[AnyPath],
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
