"""A whole scan, in passes: settle what needs no listening, then predict the queue.

With --context, all that was queued is decided on last. What --until left is reported as waiting.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol, TypeVar

from tagger.crawl import PathSelection, Scope, crawl_folders
from tagger.decide import find_split_names
from tagger.errors import ClusterError, SettingsError, WorkerError
from tagger.inference.engine import InferenceRequest, PredictTracks, open_engine
from tagger.labels import (
    find_unknown_genres,
    find_unknown_labels,
    list_genre_names,
    list_label_names,
)
from tagger.models import ModelSource, download_missing, find_model
from tagger.pacing import SYSTEM_CLOCK, Pacer
from tagger.paths import AnyPath
from tagger.records import Failure, PassedOver, Prediction, ScanResult
from tagger.scanning.albums import AlbumSettler
from tagger.scanning.context import ContextSettler, make_context_settler
from tagger.scanning.session import RunObserver, RunSession, TrackStep, open_session
from tagger.scanning.tag_reader import open_tag_reader
from tagger.scanning.tracks import RowRepeater, TrackDecider, TrackSettler, compute_row_digest
from tagger.settings import Context, Settings, WrittenField
from tagger.state import RunKind
from tagger.tags import EXTENSIONS, UNKNOWN_SOUND_EXTENSIONS

T = TypeVar("T")


class ScanObserver(RunObserver, Protocol):
    """Is told of the progress of a scan."""

    def on_unknown_labels(self, unknown: Sequence[str], labels: Sequence[str]) -> None:
        """Handle labels of the genre map that the model, which has `labels`, lacks."""

    def on_unknown_genres(self, unknown: Sequence[str], genres: Sequence[str]) -> None:
        """Handle genres with a bound of their own that the model never gives; it gives `genres`."""

    def on_split_names(self, names: Sequence[str], profile: str) -> None:
        """Handle genres that the program of the profile would split into several."""

    def on_download(self, done: int, total: int) -> None:
        """Handle the progress of a model's download, in bytes."""

    def on_inference_start(self, tracks: int, rows: int) -> None:
        """Handle the start of the predictions.

        tracks: how many need one. rows: how many outcomes will follow: by album, tracks with scores
        wait for the others of their folder.
        """

    def on_prediction(self) -> None:
        """Handle the prediction of a track that waits for all others (--context)."""

    def on_decision_start(self, tracks: int) -> None:
        """Handle the end of this wait, with the number of tracks that are decided on now."""

    def on_rest(self, wanted: Sequence[str]) -> None:
        """Handle a second of rest, because other programs wait for these resources."""


def run_scan(
    paths: Sequence[AnyPath],
    settings: Settings,
    observer: ScanObserver,
    *,
    only: Collection[AnyPath] = (),
    predict: PredictTracks | None = None,
) -> ScanResult:
    """Scan `paths` and return the counts. The report and the observer get every outcome.

    only: if given, nothing but these files and folders below `paths` is looked at. predict: of an
    open engine that several runs share; by default the run opens its own.
    Whatever ends the run, finished tracks stay finished: rows, tags and state agree.
    Raises the errors of a run that cannot go on. A bad file is only a row.
    """
    source = find_model(settings)
    _check_fields(source, settings)
    _warn_of_genre_names(source, settings, observer)
    passed_over = PassedOver()
    found = crawl_folders(paths, make_scope(settings, only), passed_over)
    pacer = Pacer(SYSTEM_CLOCK, until=settings.until, gentle=settings.gentle)
    interrupts = RunInterrupts(observer, pacer)
    with (
        open_engine(settings) if predict is None else nullcontext(predict) as engine,
        open_session(RunKind.SCAN, source.identity, settings, observer) as session,
        open_tag_reader(session.writer.isolated, settings) as reader,
    ):
        session.counts.passed_over = passed_over
        decider = TrackDecider(
            settings, session.state, reader, session.writer.unrecovered, pacer.is_time_up
        )
        decider = decider.add_model(source)
        settler = _make_settler(decider, source, paths)
        known = settler.settle_known(found)
        session.process(_skip_queued(interrupts.check_between(known)))
        results = _predict_queued(source, decider, interrupts, engine)
        steps = settler.settle_predictions(results)
        if isinstance(settler, ContextSettler):
            session.process(_report_predictions(steps, observer))
            _settle_with_context(settler, session, interrupts)
        else:
            session.process(_skip_queued(steps))
        session.process(decider.report_unprocessed())
        if pacer.is_time_up():
            session.counts.waiting = session.state.queue.count(with_scored=True)
    return session.counts.make_result()


def make_scope(settings: Settings, only: Collection[AnyPath] = ()) -> Scope:
    """Return which files below the roots count in a scan. only: see `run_scan`."""
    return Scope(
        EXTENSIONS,
        settings.exclude,
        settings.follow_symlinks,
        settings.shard,
        whole_folders=settings.needs_albums,
        unknown_suffixes=UNKNOWN_SOUND_EXTENSIONS,
        only=PathSelection.make(only) if only else None,
        include_ignored=settings.include_ignored,
    )


def _check_fields(source: ModelSource, settings: Settings) -> None:
    """Raise SettingsError for a field that the model cannot fill: the scan would empty it."""
    labels = source.attribute_labels
    known = {
        WrittenField.STYLE: bool(labels.styles),
        WrittenField.MOOD: bool(labels.moods),
        WrittenField.VOICE: bool(labels.voices),
    }
    options = [f"--write {each}" for each in settings.write if not known.get(each, True)]
    if settings.mood_numbers and not labels.moods:
        options.append("--mood-numbers")
    if options:
        raise SettingsError(f"{', '.join(options)}: the model {source.name} knows nothing of that")


def _warn_of_genre_names(source: ModelSource, settings: Settings, observer: ScanObserver) -> None:
    if unknown := find_unknown_labels(settings, source.labels):
        observer.on_unknown_labels(unknown, source.labels)
    written = list_genre_names(settings, source.labels, source.not_music)
    names = list_label_names(settings, source.labels, source.not_music)
    if unknown_genres := find_unknown_genres(settings.min_score, names):
        observer.on_unknown_genres(unknown_genres, written)
    if split := find_split_names(written, settings.profile):
        observer.on_split_names(split, settings.profile)


def _make_settler(
    decider: TrackDecider, source: ModelSource, paths: Sequence[AnyPath]
) -> TrackSettler | AlbumSettler | ContextSettler:
    settings = decider.settings
    rows = RowRepeater(
        decider.state,
        compute_row_digest(settings, decider.model),
        is_dry_run=settings.dry_run,
        is_enabled=not (settings.force or settings.verbose or decider.unrecovered),
    )
    if settings.context is not Context.NONE:
        return make_context_settler(decider, rows, source.labels, paths)
    return AlbumSettler(decider, rows) if settings.by_album else TrackSettler(decider, rows)


def _skip_queued(steps: Iterable[TrackStep | None]) -> Iterator[TrackStep]:
    return (step for step in steps if step is not None)


def _report_predictions(
    steps: Iterable[TrackStep | None], observer: ScanObserver
) -> Iterator[TrackStep]:
    """Yield the steps. Tell the observer of each track that waits now for all others."""
    for step in steps:
        if step is None:
            observer.on_prediction()
        else:
            yield step


def _settle_with_context(
    settler: ContextSettler, session: RunSession, interrupts: "RunInterrupts"
) -> None:
    """Settle the tracks that waited for all others, until the time of --until comes."""
    if tracks := settler.count_scored():
        interrupts.observer.on_decision_start(tracks)
        session.process(interrupts.end_in_time(settler.settle_scored()))


def _predict_queued(
    source: ModelSource,
    decider: TrackDecider,
    interrupts: "RunInterrupts",
    predict: PredictTracks,
) -> Iterator[Prediction | Failure]:
    """Yield the prediction of each queued track, until the time of --until comes."""
    settings, observer, queue = decider.settings, interrupts.observer, decider.state.queue
    count = queue.count()
    if not count or decider.is_time_up():
        return
    observer.on_inference_start(count, queue.count(with_scored=settings.by_album))
    download_missing(source, settings, observer.on_download)
    request = InferenceRequest(source, settings, check=observer.check_stop)
    yield from interrupts.end_in_time(predict(queue.list_tracks(), request))


@dataclass(frozen=True, slots=True)
class RunInterrupts:
    """What may interrupt a run between two tracks: an order to stop, a rest, or --until."""

    observer: ScanObserver
    pacer: Pacer

    def check_between(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items. Check before each for an order to stop; rest after each if need be."""
        self.observer.check_stop()
        try:
            for item in items:
                yield item
                self._rest()
                self.observer.check_stop()
        except (WorkerError, ClusterError):
            self.observer.check_stop()  # a TERM that hit all processes is an order to stop
            raise

    def end_in_time(self, items: Iterable[T]) -> Iterator[T]:
        """Yield items with the checks of `check_between`; end when the time of --until comes."""
        for item in self.check_between(items):
            yield item
            if self.pacer.is_time_up():
                return

    def _rest(self) -> None:
        for wanted in self.pacer.rest():
            self.observer.on_rest(wanted)
            self.observer.check_stop()
