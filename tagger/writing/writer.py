"""Write tags in threads while the run goes on; only the run's thread uses the database."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import gettempdir

from tagger.audio import hash_streams, read_metadata
from tagger.errors import (
    AccessError,
    DiskFullError,
    FailureKind,
    TaggerError,
    TrackError,
    UnfinishedError,
)
from tagger.isolation import IsolatedCaller, get_call_limits
from tagger.pacing import count_usable_cores
from tagger.paths import AnyPath, display_path, is_remote
from tagger.records import (
    Action,
    ExtraField,
    Failure,
    Outcome,
    RepeatedRows,
    TagChange,
    Tags,
    Track,
)
from tagger.settings import Hardlinks, Settings
from tagger.state import State
from tagger.storage import check_no_writer, look_up
from tagger.tags import list_shown_names, read_other_fields, read_tags
from tagger.writing.recovery import recover_entries
from tagger.writing.replace import make_copy_name, replace_tags

MIN_WRITING_THREADS = 2
CORES_PER_WRITING_THREAD = 4
"""Writing a track takes a seventh of the time of predicting it, and a thread mostly waits for its
isolated process."""
MAX_UNFINISHED_PER_THREAD = 2
"""This many files for each thread may be between journal entry and rename at the same time."""


@dataclass(frozen=True, slots=True)
class PlannedWrite:
    """A track whose tags are to be replaced, and the Outcome for the case of success.

    reported: an earlier run reported a failure of this track. is_requested: a person asked for
    exactly these tags, so a failure says nothing about the file. restores_raw, undone_entries: see
    TagChange.
    """

    track: Track
    before: Tags
    after: Tags
    outcome: Outcome
    reported: bool = False
    is_requested: bool = False
    restores_raw: bool = False
    undone_entries: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PendingWrite:
    """A PlannedWrite that a thread carries out, and the id of its journal entry."""

    planned: PlannedWrite
    entry: int
    future: Future[Track]


@dataclass(frozen=True, slots=True)
class FileInspector:
    """Returns all content of a file except tagger's fields: other tags, pictures, sound.

    extras: the extra fields that are to be written.
    """

    isolated: IsolatedCaller
    extras: tuple[ExtraField, ...] = ()

    def __call__(self, path: Path) -> Mapping[str, str]:
        sound = self.isolated.call(hash_streams, path, bytes_compared=True)
        shown = self.isolated.call(read_metadata, path, list_shown_names(self.extras))
        return self.isolated.call(read_other_fields, path, self.extras) | sound | shown


@contextmanager
def open_writer(run_id: str, settings: Settings, state: State) -> Iterator["Writer"]:
    """Give a Writer with its isolated processes and its threads.

    First settle what a killed run left, unless this is a dry run.
    """
    count = max(MIN_WRITING_THREADS, count_usable_cores() // CORES_PER_WRITING_THREAD)
    if settings.gentle:
        count = 1
    with (
        closing(IsolatedCaller(get_call_limits(settings))) as isolated,
        ThreadPoolExecutor(count) as threads,
    ):
        writer = Writer(
            run_id,
            settings,
            state,
            isolated,
            threads,
            max_unfinished=MAX_UNFINISHED_PER_THREAD * count,
        )
        if not settings.dry_run:
            writer.unrecovered = recover_entries(state, isolated)
        yield writer


class Writer:
    """Carries out PlannedWrites. The outcomes come in the order of the steps.

    A write that was started is always finished and reported before an error ends the run: report,
    tags and state agree about every file. unrecovered: the files that a killed run left in a state
    that only a person can settle, with the error.
    """

    def __init__(  # noqa: PLR0913 - all that a run works with
        self,
        run_id: str,
        settings: Settings,
        state: State,
        isolated: IsolatedCaller,
        threads: ThreadPoolExecutor,
        *,
        max_unfinished: int,
    ) -> None:
        self.run_id = run_id
        self.settings = settings
        self.state = state
        self.isolated = isolated
        self.threads = threads
        self.max_unfinished = max_unfinished
        self.unrecovered: Mapping[AnyPath, UnfinishedError] = {}
        self.steps: deque[Outcome | RepeatedRows | PendingWrite] = deque()
        self.fatal_error: TaggerError | None = None

    def process(
        self, steps: Iterable[Outcome | RepeatedRows | PlannedWrite]
    ) -> Iterator[Outcome | RepeatedRows]:
        """Yield the outcome of each step, in their order.

        Raises DiskFullError after all started writes have finished.
        """
        for step in steps:
            if isinstance(step, PlannedWrite):
                if self._has_pending_write(step.track):
                    yield from self.finish()  # another name of the file, with --hardlinks in-place
                self.steps.append(self._start_write(step))
            else:
                self.steps.append(step)
            while self.steps and (
                self._is_first_step_done() or len(self.steps) > self.max_unfinished
            ):
                yield self._finish_first_step()
            if self.fatal_error:
                break
        yield from self.finish()
        if self.fatal_error:
            raise self.fatal_error

    def finish(self) -> Iterator[Outcome | RepeatedRows]:
        """Wait for all started writes, and yield their outcomes. Works after an interrupt too."""
        while self.steps:
            yield self._finish_first_step()

    def _has_pending_write(self, track: Track) -> bool:
        tracks = (step.planned.track for step in self.steps if isinstance(step, PendingWrite))
        return any(other.inode == track.inode for other in tracks)

    def _is_first_step_done(self) -> bool:
        step = self.steps[0]
        return not isinstance(step, PendingWrite) or step.future.done()

    def _start_write(self, planned: PlannedWrite) -> Outcome | PendingWrite:
        track = planned.track
        try:
            extras = planned.after.extra_fields
            before = self.isolated.call(read_tags, track.path, for_writing=True, extras=extras)
            if _is_written_already(planned, before):
                self.state.update_track(track, look_up(track.path) or track, before)
                self.state.journal.mark_undone(planned.undone_entries, self.run_id)
                self.state.commit_if_due()
                return replace(planned.outcome, action=Action.UNCHANGED)
            check_no_writer(track.path, is_settled=self.state.journal.has_written(track))
        except TrackError as error:
            return self._record_failure(planned, error)
        is_other = self.state.forget_other_content(track)
        if is_other or before != planned.before:  # by a program that restores size and mtime
            self.state.save_tags(track, before)
            reason = "its content was changed since it was read"
            return self._record_failure(planned, AccessError(reason, FailureKind.CHANGED))
        change = TagChange(
            track,
            before,
            planned.after,
            make_copy_name(track),
            planned.restores_raw,
            planned.undone_entries,
        )
        entry = self.state.journal.open_entry(self.run_id, change)
        future = self.threads.submit(
            replace_tags,
            change,
            FileInspector(self.isolated, extras),
            preserve_mtime=self.settings.preserve_mtime,
            in_place=track.links > 1 and self.settings.hardlinks is Hardlinks.IN_PLACE,
            owner=self.settings.owner,
        )
        return PendingWrite(planned, entry, future)

    def _finish_first_step(self) -> Outcome | RepeatedRows:
        """Remove the first step, but only after its write is settled, and return its outcome."""
        step = self.steps[0]
        outcome = self._finish_write(step) if isinstance(step, PendingWrite) else step
        self.steps.popleft()
        return outcome

    def _finish_write(self, pending: PendingWrite) -> Outcome:
        planned = pending.planned
        wait([pending.future])  # a signal may raise an error here; the write itself goes on
        cause = pending.future.exception()
        if cause is None:
            new = pending.future.result()
            self.state.finish_replacement(pending.entry, planned.track, new, planned.after)
            return planned.outcome
        if isinstance(cause, TaggerError):
            error = cause
        else:
            error = UnfinishedError(f"unexpected error while it was written: {cause!r}")
        if not isinstance(error, UnfinishedError):  # the next run settles an unfinished entry
            self.state.journal.cancel_entry(pending.entry)
        if isinstance(error, DiskFullError):
            error = _name_full_disk(error, planned.track.path)
        if not isinstance(error, TrackError):
            self.fatal_error = error
        return self._record_failure(planned, error)

    def _record_failure(self, planned: PlannedWrite, error: TaggerError) -> Outcome:
        if isinstance(error, TrackError):
            failure = Failure.from_error(planned.track, error)
        else:
            failure = Failure(planned.track, str(error), permanent=False)
        if not planned.is_requested:
            self.state.save_failure(failure)
            self.state.commit_if_due()
        return planned.outcome.fail(failure, reported=planned.reported)


def _is_written_already(planned: PlannedWrite, found: Tags) -> bool:
    """Tell whether a file was written meanwhile through another name of it.

    A write may change no genre, but only how it is stored, such as its number into its name.
    """
    changes_only_raw = planned.before == planned.after
    return found == planned.after and not (changes_only_raw and found.raw == planned.before.raw)


def _name_full_disk(error: DiskFullError, path: AnyPath) -> DiskFullError:
    folder = gettempdir() if is_remote(path) else display_path(path.parent)
    return DiskFullError(
        f"{display_path(path)}: {error} (make room on the disk of {folder}; the next run goes on)"
    )
