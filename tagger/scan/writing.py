"""Replace tags in threads while the next tracks are decoded; the database stays with one thread."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from tagger.audio import packet_digest
from tagger.errors import AccessError, TrackError
from tagger.records import Failure, Outcome, Track
from tagger.scan.steps import Rewrite, Step, failed
from tagger.settings import Hardlinks, Settings
from tagger.state import State
from tagger.tags import read_tags, replace_tags

THREADS = 2
IN_FLIGHT = 4
"""So many files may be between journal and rename at once."""


@dataclass(frozen=True, slots=True)
class Started:
    """A replacement under way and its entry in the journal."""

    rewrite: Rewrite
    entry: int
    future: Future[Track]


@dataclass(frozen=True, slots=True)
class Writer:
    """Carries out Rewrites; outcomes keep the order of the steps."""

    settings: Settings
    state: State
    run_id: str
    pool: ThreadPoolExecutor
    waiting: deque[Outcome | Started] = field(default_factory=deque)

    def carry_out(self, steps: Iterable[Step]) -> Iterator[Outcome]:
        for step in steps:
            self.waiting.append(self._start(step) if isinstance(step, Rewrite) else step)
            while self.waiting and (len(self.waiting) > IN_FLIGHT or self._head_is_done()):
                yield self._finish_head()
        yield from self.finish()

    def finish(self) -> Iterator[Outcome]:
        """Wait for what was started; after an interruption too, so that each row is told."""
        while self.waiting:
            yield self._finish_head()

    def _head_is_done(self) -> bool:
        head = self.waiting[0]
        return isinstance(head, Outcome) or head.future.done()

    def _start(self, rewrite: Rewrite) -> Outcome | Started:
        track = rewrite.track
        try:
            before = read_tags(track.path)
        except TrackError as error:
            return self._failed(rewrite, error)
        if before != rewrite.before:  # an editor that puts size and mtime back
            return self._failed(rewrite, AccessError("its tags were changed during the scan"))
        entry = self.state.open_journal(self.run_id, track, before=before, after=rewrite.after)
        future = self.pool.submit(
            replace_tags,
            track,
            rewrite.after,
            packet_digest=packet_digest,
            preserve_mtime=self.settings.preserve_mtime,
            in_place=self.settings.hardlinks is Hardlinks.IN_PLACE,
        )
        return Started(rewrite, entry, future)

    def _finish_head(self) -> Outcome:
        head = self.waiting[0]
        outcome = head if isinstance(head, Outcome) else self._finish(head)
        self.waiting.popleft()
        return outcome

    def _finish(self, started: Started) -> Outcome:
        rewrite = started.rewrite
        try:
            new = started.future.result()
        except TrackError as error:
            self.state.cancel_journal(started.entry)
            return self._failed(rewrite, error)
        self.state.close_journal(started.entry, rewrite.track, new, rewrite.after)
        return rewrite.outcome

    def _failed(self, rewrite: Rewrite, error: TrackError) -> Outcome:
        failure = Failure(rewrite.track, str(error), lasting=error.lasting)
        self.state.remember_failure(failure)
        self.state.commit()
        return failed(failure, rewrite.before, reported=rewrite.reported)
