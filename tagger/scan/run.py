"""A whole scan: the order of its parts."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from tagger.crawl import Listing, Scope, crawl_folders
from tagger.decide import names_for, unknown_labels
from tagger.engines import Hearing, Listen, open_engine
from tagger.errors import ClusterError, WorkerError
from tagger.models import Source, fetch, find_source
from tagger.pacing import Host, Pacer
from tagger.profiles import taken_apart
from tagger.records import Failure, ScanResult
from tagger.scan.albums import AlbumSteps
from tagger.scan.session import RunWatcher, Step, open_session
from tagger.scan.steps import Steps
from tagger.settings import Settings
from tagger.state import RunKind
from tagger.tags import EXTENSIONS

Item = TypeVar("Item")


class Watcher(RunWatcher, Protocol):
    """Told of a scan's progress as it happens."""

    def doubting(self, unknown: Sequence[str], labels: Sequence[str]) -> None:
        """Take note that the genre map names labels that the model, with these labels, lacks."""

    def splitting(self, names: Sequence[str], profile: str) -> None:
        """Take note that those for whom the tags are take these names for several genres."""

    def fetching(self, done: int, total: int) -> None:
        """Take note that so many bytes of a model were downloaded."""

    def listening(self, tracks: int) -> None:
        """Take note that all tracks are settled but so many, which are listened to now."""

    def resting(self, wanted: Sequence[str]) -> None:
        """Take note of a second of rest, because others wait for these resources."""


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
    names = names_for(settings)
    written = (names.get(label.casefold(), label) for label in source.labels)
    if split := taken_apart(written, settings.profile):
        watcher.splitting(split, settings.profile)
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
        open_session(RunKind.SCAN, source.identity, settings, watcher) as session,
    ):
        state, writer = session.state, session.writer
        kind = AlbumSteps if settings.by_album else Steps
        pauses = Pauses(watcher, pacer)
        todo = kind(settings, state, source.identity, writer.guard, writer.unmended, pacer.is_over)
        for steps in _passes(found, source, todo, pauses, listen):
            session.carry_out(steps)
        if pacer.is_over():
            session.tally.waiting = state.queue_length(heard=True)
    return session.tally.result()


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
        except (WorkerError, ClusterError):
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
    found: Iterable[Listing | Failure],
    source: Source,
    steps: Steps,
    pauses: Pauses,
    listen: Listen,
) -> Iterator[Iterator[Step]]:
    """Yield the passes of a scan: what needs no listening; the rest; what there is no time for."""
    settings, watcher = steps.settings, pauses.watcher
    yield (step for step in pauses.between(steps.known(found)) if step is not None)
    waiting = steps.state.queue_length()
    if waiting and not steps.is_over():
        watcher.listening(waiting)
        fetch(source, settings, watcher.fetching)
        results = listen(
            steps.state.queued(), Hearing(source, settings, check=watcher.between_tracks)
        )
        heard = steps.heard(pauses.in_time(results))
        yield (step for step in heard if step is not None)
    yield steps.left()
