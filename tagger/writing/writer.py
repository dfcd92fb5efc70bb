"""Replace tags in threads while the next tracks are decoded; the database stays with one thread."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from tagger.audio import packet_digest
from tagger.errors import AccessError, HalfWrittenError, TaggerError, TrackError
from tagger.records import Action, Failure, Outcome, Track
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


class Writer:
    """Carries out Rewrites; outcomes keep the order of the steps.

    What was started is always finished, and told, before an error ends the run: rows, tags and
    state agree about every file.
    """

    def __init__(
        self, settings: Settings, state: State, run_id: str, pool: ThreadPoolExecutor
    ) -> None:
        self.settings = settings
        self.state = state
        self.run_id = run_id
        self.pool = pool
        self.waiting: deque[Outcome | Started] = deque()
        self.broken: TaggerError | None = None

    def carry_out(self, steps: Iterable[Step]) -> Iterator[Outcome]:
        """Yield an outcome for each step. Raises DiskFullError once all that was begun is done."""
        for step in steps:
            if isinstance(step, Rewrite) and self._is_at_work_on(step.track):
                yield from self.finish()  # two names of one file, with --hardlinks in-place
            self.waiting.append(self._start(step) if isinstance(step, Rewrite) else step)
            while self.waiting and (len(self.waiting) > IN_FLIGHT or self._head_is_done()):
                yield self._finish_head()
            if self.broken:
                break
        yield from self.finish()
        if self.broken:
            raise self.broken

    def finish(self) -> Iterator[Outcome]:
        """Wait for what was started; after an interruption too, so that each row is told."""
        while self.waiting:
            yield self._finish_head()

    def _is_at_work_on(self, track: Track) -> bool:
        tracks = (step.rewrite.track for step in self.waiting if isinstance(step, Started))
        return any(other.inode == track.inode for other in tracks)

    def _head_is_done(self) -> bool:
        head = self.waiting[0]
        return isinstance(head, Outcome) or head.future.done()

    def _start(self, rewrite: Rewrite) -> Outcome | Started:
        track = rewrite.track
        try:
            before = read_tags(track.path)
            if before == rewrite.after:  # done meanwhile through another name of the file
                now = Track.from_stat(track.path, track.path.lstat())
                self.state.renew(track, now, before)
                return replace(rewrite.outcome, action=Action.UNCHANGED)
        except TrackError as error:
            return self._failed(rewrite, error)
        except OSError as error:
            return self._failed(rewrite, AccessError(f"cannot be looked at: {error.strerror}"))
        if before != rewrite.before:  # an editor that puts size and mtime back
            self.state.remember_tags(track, before)
            return self._failed(rewrite, AccessError("its tags were changed since they were read"))
        entry = self.state.open_journal(self.run_id, track, before=before, after=rewrite.after)
        future = self.pool.submit(
            replace_tags,
            track,
            rewrite.after,
            packet_digest=packet_digest,
            preserve_mtime=self.settings.preserve_mtime,
            in_place=track.links > 1 and self.settings.hardlinks is Hardlinks.IN_PLACE,
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
        except TaggerError as error:
            if not isinstance(error, HalfWrittenError):
                self.state.cancel_journal(started.entry)
            if not isinstance(error, TrackError):
                self.broken = error
            return self._failed(rewrite, error)
        self.state.close_journal(started.entry, rewrite.track, new, rewrite.after)
        return rewrite.outcome

    def _failed(self, rewrite: Rewrite, error: TaggerError) -> Outcome:
        lasting = isinstance(error, TrackError) and error.lasting
        failure = Failure(rewrite.track, str(error), lasting=lasting)
        self.state.remember_failure(failure)
        self.state.commit()
        return failed(failure, rewrite.before, reported=rewrite.reported)
