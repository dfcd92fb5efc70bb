"""Replace tags beside the run while the next tracks are decoded; the database is the run's."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tagger.audio import hash_streams
from tagger.errors import AccessError, TagError, TaggerError, TrackError, UnfinishedError
from tagger.isolation import IsolatedCaller, get_call_limits
from tagger.pacing import count_usable_cores
from tagger.paths import AnyPath
from tagger.records import Action, Failure, Outcome, RepeatedRows, TagChange, Tags, Track
from tagger.settings import Hardlinks, Settings
from tagger.state import State
from tagger.storage import look_up
from tagger.tags import read_other_fields, read_tags
from tagger.writing.recovery import recover_entries
from tagger.writing.replace import make_copy_name, replace_tags

HAS_HARD_LINKS = "it has several hard links (--hardlinks break|in-place writes it)"
"""Why a file is left alone, where that is the setting."""

MIN_WRITING_THREADS = 2
CORES_PER_WRITING_THREAD = 4
"""Writing takes a seventh of the time of listening; a thread mostly waits for its process."""


@dataclass(frozen=True, slots=True)
class PlannedWrite:
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
class PendingWrite:
    """A replacement under way and its entry in the journal."""

    rewrite: PlannedWrite
    entry: int
    future: Future[Track]


@dataclass(frozen=True, slots=True)
class FileInspector:
    """Tells all that a file holds beside our fields: other tags, pictures, sound."""

    isolated: IsolatedCaller

    def __call__(self, path: Path) -> Mapping[str, str]:
        sound = self.isolated.call(hash_streams, path, bytes_compared=True)
        return self.isolated.call(read_other_fields, path) | sound


@contextmanager
def open_writer(run_id: str, settings: Settings, state: State) -> Iterator["Writer"]:
    """Give a Writer with its guarded processes and its threads.

    Unless this is a dry run, what a killed run left is mended first.
    """
    count = (
        1
        if settings.gentle
        else max(MIN_WRITING_THREADS, count_usable_cores() // CORES_PER_WRITING_THREAD)
    )
    with (
        closing(IsolatedCaller(get_call_limits(settings))) as isolated,
        ThreadPoolExecutor(count) as threads,
    ):
        writer = Writer(run_id, settings, state, isolated, threads, most=2 * count)
        if not settings.dry_run:
            writer.unrecovered = recover_entries(state, isolated)
        yield writer


class Writer:
    """Carries out Rewrites; outcomes keep the order of the steps.

    What was started is always finished, and told, before an error ends the run: rows, tags and
    state agree about every file. unrecovered: files that a killed run left in a state that only a
    person can judge, with the reason. most: how many files at once may be between journal and
    rename.
    """

    def __init__(  # noqa: PLR0913 - what a run works with
        self,
        run_id: str,
        settings: Settings,
        state: State,
        isolated: IsolatedCaller,
        threads: ThreadPoolExecutor,
        *,
        most: int,
    ) -> None:
        self.run_id = run_id
        self.settings = settings
        self.state = state
        self.isolated = isolated
        self.threads = threads
        self.most = most
        self.waiting: deque[Outcome | RepeatedRows | PendingWrite] = deque()
        self.broken: TaggerError | None = None
        self.unrecovered: Mapping[AnyPath, str] = {}

    def process(
        self, steps: Iterable[Outcome | RepeatedRows | PlannedWrite]
    ) -> Iterator[Outcome | RepeatedRows]:
        """Yield what came of each step, in their order.

        Raises DiskFullError once all that was begun is done.
        """
        for step in steps:
            if isinstance(step, PlannedWrite) and self._is_at_work_on(step.track):
                yield from self.finish()  # two names of one file, with --hardlinks in-place
            self.waiting.append(self._start(step) if isinstance(step, PlannedWrite) else step)
            while self.waiting and (self._head_is_done() or len(self.waiting) > self.most):
                yield self._finish_head()
            if self.broken:
                break
        yield from self.finish()
        if self.broken:
            raise self.broken

    def finish(self) -> Iterator[Outcome | RepeatedRows]:
        """Wait for what was started; after an interruption too, so that each row is told."""
        while self.waiting:
            yield self._finish_head()

    def _is_at_work_on(self, track: Track) -> bool:
        tracks = (step.rewrite.track for step in self.waiting if isinstance(step, PendingWrite))
        return any(other.inode == track.inode for other in tracks)

    def _head_is_done(self) -> bool:
        head = self.waiting[0]
        return not isinstance(head, PendingWrite) or head.future.done()

    def _start(self, rewrite: PlannedWrite) -> Outcome | PendingWrite:
        track = rewrite.track
        try:
            before = self.isolated.call(read_tags, track.path)
            if before == rewrite.after:  # done meanwhile through another name of the file
                self.state.update_track(track, look_up(track.path) or track, before)
                self.state.journal.mark_undone(rewrite.undoes, self.run_id)
                self.state.commit_if_due()
                return replace(rewrite.outcome, action=Action.UNCHANGED)
        except TrackError as error:
            return self._failed(rewrite, error)
        if before != rewrite.before:  # an editor that puts size and mtime back
            self.state.remember_tags(track, before)
            return self._failed(rewrite, AccessError("its tags were changed since they were read"))
        change = TagChange(track, before, rewrite.after, make_copy_name(track), rewrite.undoes)
        entry = self.state.journal.open_entry(self.run_id, change)
        future = self.threads.submit(
            replace_tags,
            change,
            FileInspector(self.isolated),
            preserve_mtime=self.settings.preserve_mtime,
            in_place=track.links > 1 and self.settings.hardlinks is Hardlinks.IN_PLACE,
        )
        return PendingWrite(rewrite, entry, future)

    def _finish_head(self) -> Outcome | RepeatedRows:
        """Take the first one off once it is settled."""
        if isinstance(head := self.waiting[0], PendingWrite):
            head = self._finish(head)
        self.waiting.popleft()
        return head

    def _finish(self, started: PendingWrite) -> Outcome:
        rewrite = started.rewrite
        wait([started.future])  # a signal may raise here; what the thread does is another matter
        cause = started.future.exception()
        if cause is None:
            new = started.future.result()
            self.state.finish_replacement(started.entry, rewrite.track, new, rewrite.after)
            return rewrite.outcome
        unforeseen = TagError(f"unexpected error while it was written: {cause!r}")
        error = cause if isinstance(cause, TaggerError) else unforeseen
        if not isinstance(error, UnfinishedError):  # that is for the next run to settle
            self.state.journal.cancel_entry(started.entry)
        if not isinstance(error, TrackError):
            self.broken = error
        return self._failed(rewrite, error)

    def _failed(self, rewrite: PlannedWrite, error: TaggerError) -> Outcome:
        lasting = isinstance(error, TrackError) and error.permanent
        failure = Failure(rewrite.track, str(error), permanent=lasting)
        if not rewrite.by_hand:
            self.state.remember_failure(failure)
            self.state.commit_if_due()
        return Outcome.failed(failure, rewrite.before, reported=rewrite.reported)
