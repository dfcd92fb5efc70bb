"""Replace tags beside the run while the next tracks are decoded; the database is the run's."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tagger.audio import stream_digests
from tagger.crawl import look_at
from tagger.errors import (
    AccessError,
    LostWorkerError,
    TagError,
    TaggerError,
    TrackError,
    UnfinishedError,
)
from tagger.isolation import Guard, limits_of
from tagger.paths import RemotePath
from tagger.records import Action, Change, Failure, Outcome, Repeats, Tags, Track
from tagger.settings import Hardlinks, Settings
from tagger.state import State
from tagger.storage import CHANGED
from tagger.tags import (
    clear_leftovers,
    copy_name,
    other_fields,
    read_tags,
    replace_tags,
    reserve_copy,
)
from tagger.writing.hands import Crew, Hands, open_threads
from tagger.writing.recovery import Found, mend, recover

LINKED = "it has several hard links (--hardlinks break|in-place writes it)"
"""Why a file is left alone, where that is the setting."""

MOST_ATTEMPTS = 2
LOST = "the process that was to write it died; it was left as it was"


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A track whose tags are to be replaced, and the Outcome if that goes well.

    reported: an earlier run had reported a failure of this track. by_hand: a person asked for these
    very tags, so that a failure says nothing of the file. undoes: the journal entries that
    this takes back, `after.raw` being what stood there.
    """

    track: Track
    before: Tags
    after: Tags
    outcome: Outcome
    reported: bool = False
    by_hand: bool = False
    undoes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Started:
    """A replacement under way and its entry in the journal; attempt: counted from 1."""

    rewrite: Rewrite
    entry: int
    future: Future[Track]
    attempt: int


@dataclass(frozen=True, slots=True)
class Inspection:
    """Tells all that a file holds beside our fields: other tags, pictures, sound."""

    guard: Guard

    def __call__(self, path: Path) -> Mapping[str, str]:
        sound = self.guard.call(stream_digests, path, bytes_compared=True)
        return self.guard.call(other_fields, path) | sound


@contextmanager
def open_writer(
    run_id: str, settings: Settings, state: State, hands: Hands | None = None
) -> Iterator["Writer"]:
    """Give a Writer with its guarded processes and its threads; `hands` spare it most of the work.

    Unless this is a dry run, what a killed run left is mended first.
    """
    with (
        closing(Guard(limits_of(settings))) as guard,
        open_threads(gentle=settings.gentle) as threads,
    ):
        writer = Writer(run_id, settings, state, guard, Crew(threads, hands or threads))
        if not settings.dry_run:
            writer.unmended = recover(state, guard)
        yield writer


class Writer:
    """Carries out Rewrites; outcomes keep the order of the steps.

    What was started is always finished, and told, before an error ends the run: rows, tags and
    state agree about every file. unmended: files that a killed run left in a state that only a
    person can judge, with the reason.
    """

    def __init__(
        self, run_id: str, settings: Settings, state: State, guard: Guard, crew: Crew
    ) -> None:
        self.run_id = run_id
        self.settings = settings
        self.state = state
        self.guard = guard
        self.crew = crew
        self.waiting: deque[Outcome | Repeats | Started] = deque()
        self.broken: TaggerError | None = None
        self.unmended: Mapping[Path, str] = {}

    def carry_out(
        self, steps: Iterable[Outcome | Repeats | Rewrite]
    ) -> Iterator[Outcome | Repeats]:
        """Yield what came of each step, in their order.

        Raises DiskFullError once all that was begun is done.
        """
        for step in steps:
            if isinstance(step, Rewrite) and self._is_at_work_on(step.track):
                yield from self.finish()  # two names of one file, with --hardlinks in-place
            self.waiting.append(self._start(step) if isinstance(step, Rewrite) else step)
            while self.waiting and (self._head_is_done() or len(self.waiting) > self.crew.most):
                yield self._finish_head()
            if self.broken:
                break
        yield from self.finish()
        if self.broken:
            raise self.broken

    def finish(self) -> Iterator[Outcome | Repeats]:
        """Wait for what was started; after an interruption too, so that each row is told."""
        while self.waiting:
            yield self._finish_head()

    def _is_at_work_on(self, track: Track) -> bool:
        tracks = (step.rewrite.track for step in self.waiting if isinstance(step, Started))
        return any(other.inode == track.inode for other in tracks)

    def _head_is_done(self) -> bool:
        head = self.waiting[0]
        return not isinstance(head, Started) or head.future.done()

    def _start(self, rewrite: Rewrite, attempt: int = 1) -> Outcome | Started:
        track = rewrite.track
        try:
            before = self.guard.call(read_tags, track.path)
            if before == rewrite.after:  # done meanwhile through another name of the file
                self.state.renew(track, look_at(track.path) or track, before)
                self.state.journal.mark_undone(rewrite.undoes, self.run_id)
                self.state.commit_at_times()
                return replace(rewrite.outcome, action=Action.UNCHANGED)
        except TrackError as error:
            return self._failed(rewrite, error)
        if before != rewrite.before:  # an editor that puts size and mtime back
            self.state.remember_tags(track, before)
            return self._failed(rewrite, AccessError("its tags were changed since they were read"))
        hands = self._hands_for(track)
        hands.get_ready()  # what cannot be had ends the run before anything is begun
        change = Change(track, before, rewrite.after, copy_name(track), rewrite.undoes)
        entry = self.state.journal.open(self.run_id, change)
        return Started(rewrite, entry, self._submit(change, hands), attempt)

    def _hands_for(self, track: Track) -> Hands:
        """Return who is to write a file: us, where taking its copy away would not stop another.

        An object has none beside it; a file that is written over is half done without it.
        """
        is_ours = isinstance(track.path, RemotePath) or self._is_in_place(track)
        return self.crew.own if is_ours else self.crew.sent

    def _is_in_place(self, track: Track) -> bool:
        return track.links > 1 and self.settings.hardlinks is Hardlinks.IN_PLACE

    def _submit(self, change: Change, hands: Hands) -> Future[Track]:
        try:
            if hands.outlive:
                reserve_copy(change)
            return hands.submit(
                replace_tags,
                change,
                Inspection(self.guard),
                preserve_mtime=self.settings.preserve_mtime,
                in_place=self._is_in_place(change.track),
                reserved=hands.outlive,
            )
        except TaggerError as error:
            refused: Future[Track] = Future()
            refused.set_exception(error)
            return refused

    def _finish_head(self) -> Outcome | Repeats:
        """Take the first one off once it is settled; what is begun anew takes its place first."""
        while isinstance(head := self.waiting[0], Started):
            self.waiting[0] = self._finish(head)
        self.waiting.popleft()
        return head

    def _finish(self, started: Started) -> Outcome | Started:
        rewrite = started.rewrite
        # A signal may raise here; what the thread does is another matter.
        self._hands_for(rewrite.track).await_end(started.future)
        cause = started.future.exception()
        if cause is None:
            new = started.future.result()
            self.state.finish_replacement(started.entry, rewrite.track, new, rewrite.after)
            return rewrite.outcome
        if isinstance(cause, LostWorkerError):
            return self._after_loss(started)
        unforeseen = TagError(f"unexpected error while it was written: {cause!r}")
        error = cause if isinstance(cause, TaggerError) else unforeseen
        if not isinstance(error, UnfinishedError):  # that is for the next run to settle
            self._cancel(started)
        if not isinstance(error, TrackError):
            self.broken = error
        return self._failed(rewrite, error)

    def _cancel(self, started: Started) -> None:
        """Note that a file was left as it was; not where a copy that was reserved stays behind."""
        if self._hands_for(started.rewrite.track).outlive:
            entry = self.state.journal.find(started.entry)
            try:
                clear_leftovers(entry.path, entry.copy, entry.old)
            except TrackError:
                return  # the next run tries again
        self.state.journal.cancel(started.entry)

    def _after_loss(self, started: Started) -> Outcome | Started:
        """Mend what a process left that died at work on a file, and have it written once more."""
        rewrite = started.rewrite
        try:
            found = mend(self.state.journal.find(started.entry), self.state, self.guard)
            self.state.commit()
        except TrackError as error:
            return self._failed(rewrite, error)
        if found is Found.NEW:
            return rewrite.outcome
        if found is not Found.OLD:
            return self._failed(rewrite, AccessError(CHANGED))
        lost = self._failed(rewrite, AccessError(LOST))
        if started.attempt == MOST_ATTEMPTS:
            return lost
        self.waiting[0] = lost  # if nothing else comes of it
        return self._start(rewrite, started.attempt + 1)

    def _failed(self, rewrite: Rewrite, error: TaggerError) -> Outcome:
        lasting = isinstance(error, TrackError) and error.lasting
        failure = Failure(rewrite.track, str(error), lasting=lasting)
        if not rewrite.by_hand:
            self.state.remember_failure(failure)
            self.state.commit_at_times()
        return Outcome.failed(failure, rewrite.before, reported=rewrite.reported)
