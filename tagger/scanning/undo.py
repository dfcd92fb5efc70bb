"""Undo: put back the tags that earlier runs replaced, if nobody changed the files since."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from tagger.decide import Decision, decide_by_links
from tagger.errors import (
    AccessError,
    FailureKind,
    KeepReason,
    SettingsError,
    TrackError,
    UnfinishedError,
)
from tagger.isolation import IsolatedCaller
from tagger.paths import AnyPath
from tagger.records import (
    Action,
    ExtraField,
    ExtraTag,
    Failure,
    Outcome,
    RawField,
    RepeatedRows,
    Tags,
    Track,
    UndoResult,
)
from tagger.settings import Settings
from tagger.state import JournalEntry, RunKind, State, new_run_id, open_state
from tagger.storage import look_up
from tagger.tags import list_extra_names, read_tags
from tagger.writing import PlannedWrite, open_writer

CHANGED_SINCE_WRITE = "changed since tagger wrote it (--force puts the old genre back all the same)"
FILE_MOVED_OR_MISSING = "it is not there (if it was moved, a scan finds it; then undo it again)"
GENRE_EDITED = "its tags were edited since tagger wrote them: left as they are"


class UndoObserver(Protocol):
    """Is told of the progress of an undo."""

    def on_undo_start(self, tracks: int) -> None:
        """Handle the start, with the number of files to examine."""

    def on_outcome(self, outcome: Outcome) -> None:
        """Handle the outcome of a file: WRITTEN if its tags were put back, KEPT if refused."""

    def on_wait(self) -> None:
        """Handle that another run uses the state file. Called again and again (--wait)."""

    def check_stop(self) -> None:
        """Raise an error to end the run now. No file is half done at this point."""


def run_undo(
    paths: Sequence[AnyPath], run_id: str | None, settings: Settings, observer: UndoObserver
) -> UndoResult:
    """Undo a run, or all that tagger wrote below `paths`; without either, the newest run.

    An undo is a run with journal entries of its own, so that it can be undone by its id.
    Raises SettingsError for an unknown run, and the errors of a run that cannot go on.
    """
    counts = UndoCounts(new_run_id(), settings.dry_run)

    def record(outcomes: Iterable[Outcome | RepeatedRows]) -> None:
        for outcome in outcomes:
            assert isinstance(outcome, Outcome)
            counts.actions[outcome.action] += 1
            observer.on_outcome(outcome)

    on_wait = observer.on_wait if settings.wait else None
    with (
        open_state(settings.state, on_wait) as state,
        open_writer(counts.run_id, settings, state) as writer,
    ):
        if run_id is None and not paths:
            run_id = state.journal.find_last_run()
        plan = UndoPlan(settings, state, writer.isolated, run_id, writer.unrecovered)
        files = plan.find_files(paths)
        if not files:
            return counts.make_result()
        state.runs.start(counts.run_id, plan.run_kind, dry_run=settings.dry_run)
        observer.on_undo_start(len(files))
        try:
            record(writer.process(_plan_files(files, plan, observer)))
        finally:
            record(list(writer.finish()))
            state.runs.finish(counts.run_id, counts.make_result().summary())
    return counts.make_result()


@dataclass(frozen=True, slots=True)
class UndoCounts:
    """What an undo has done so far."""

    run_id: str
    dry_run: bool
    started_at_s: float = field(default_factory=time.monotonic)
    actions: Counter[Action] = field(default_factory=Counter)

    def make_result(self) -> UndoResult:
        return UndoResult(
            self.run_id,
            self.dry_run,
            restored=self.actions[Action.WRITTEN] + self.actions[Action.UNCHANGED],
            would_restore=self.actions[Action.WOULD_WRITE],
            refused=self.actions[Action.KEPT],
            failed=self.actions[Action.FAILED],
            seconds=time.monotonic() - self.started_at_s,
        )


def _plan_files(
    files: Iterable[AnyPath], plan: "UndoPlan", observer: UndoObserver
) -> Iterator[Outcome | PlannedWrite]:
    for path in files:
        observer.check_stop()
        yield plan.plan_file(path)


@dataclass(frozen=True, slots=True)
class UndoPlan:
    """Which tags to put back into which file. It touches a file only to read its tags."""

    settings: Settings
    state: State
    isolated: IsolatedCaller
    run_id: str | None
    unrecovered: Mapping[AnyPath, UnfinishedError]

    @property
    def run_kind(self) -> RunKind:
        """The kind of this run. To undo an undo is a redo: it writes tagger's tags again."""
        undone = self.run_id and self.state.runs.get_kind(self.run_id)
        return RunKind.REDO if undone is RunKind.UNDO else RunKind.UNDO

    def find_files(self, paths: Sequence[AnyPath]) -> list[AnyPath]:
        """Return the files below `paths`, or all, that have something to undo."""
        if self.run_id is not None and self.state.runs.get_kind(self.run_id) is None:
            state = self.settings.state
            raise SettingsError(
                f"there is no run {self.run_id} in {state} (tagger runs --state FILE lists them)"
            )
        roots = [path.resolve() for path in paths]
        return [
            path
            for path in self.state.journal.list_active_paths(self.run_id)
            if not roots or any(path.is_relative_to(root) for root in roots)
        ]

    def plan_file(self, path: AnyPath) -> Outcome | PlannedWrite:
        """Return the write that undoes the changes of a file, or the outcome if there is none."""
        active = self.state.journal.list_active_entries(path, self.run_id)
        entries = self._choose_entries(active)
        before, after = merge_tags(entries)
        try:
            track, tags = self._read_file(path, after.extra_fields)
        except TrackError as error:
            track = Track(path, size=0, mtime_ns=0, inode=0)
            return Outcome.from_failure(Failure.from_error(track, error), None, reported=False)
        outcome = Outcome(track, Action.WRITTEN, genres=before.genres, existing=tags.genres)
        if refusal := self._find_refusal(track, entries[0], active[0], is_edited=tags != after):
            return replace(
                outcome,
                action=refusal.action,
                genres=(),
                error=refusal.reason,
                kind=refusal.kind,
                new=True,
            )
        if self.settings.dry_run:
            return replace(outcome, action=Action.WOULD_WRITE)
        return PlannedWrite(
            track,
            tags,
            before,
            outcome,
            restores_raw=True,
            undone_entries=tuple(entry.id for entry in entries),
        )

    def _read_file(self, path: AnyPath, extras: Sequence[ExtraField]) -> tuple[Track, Tags]:
        if path in self.unrecovered:
            raise self.unrecovered[path]
        track = look_up(path)
        if track is None:
            raise AccessError(FILE_MOVED_OR_MISSING, FailureKind.CHANGED)
        return track, self.isolated.call(read_tags, path, extras=extras)

    def _choose_entries(self, active: Sequence[JournalEntry]) -> list[JournalEntry]:
        """Return the entries of a file to undo, the newest first.

        If a run was named, these are its own. Else they are all entries back to the last edit by a
        person: an undo never goes back beyond what a person wrote between two runs.
        """
        if self.run_id is not None:
            return [entry for entry in active if entry.run_id == self.run_id]
        chosen = [active[0]]
        for entry in active[1:]:
            if not have_same_tags(entry.after, chosen[-1].before):
                break
            chosen.append(entry)
        return chosen

    def _find_refusal(
        self, track: Track, newest: JournalEntry, latest: JournalEntry, *, is_edited: bool
    ) -> Decision | None:
        """Return the decision to leave a file alone, or None if it may be written.

        newest: the newest entry to undo. latest: the newest active entry of the file. is_edited:
        whether the file has other tags than tagger left there.
        """
        if latest != newest:
            reason = f"run {latest.run_id} wrote it later: undo that first"
        elif is_edited:
            reason = GENRE_EDITED
        elif not (newest.new and track.is_same_version(newest.new)) and not self.settings.force:
            reason = CHANGED_SINCE_WRITE
        else:
            return decide_by_links(track, self.settings.hardlinks)
        return Decision(Action.KEPT, kind=KeepReason.CHANGED_SINCE, reason=reason)


def have_same_tags(left: Tags, right: Tags) -> bool:
    """Tell whether tags are equal, but for extra fields that only one of them has."""
    return left.select_extras(right.extra_fields) == right.select_extras(left.extra_fields)


def merge_tags(entries: Sequence[JournalEntry]) -> tuple[Tags, Tags]:
    """Return the tags before and after all these changes of a file, the newest change first.

    Not every change concerns the same extra fields. Each field has the value that it had before the
    oldest change, and after the newest change, that concerns it.
    """
    extras_before: dict[ExtraField, ExtraTag] = {}
    extras_after: dict[ExtraField, ExtraTag] = {}
    raw: dict[ExtraField, list[RawField]] = {}
    for entry in entries:
        extras_before |= {extra.field: extra for extra in entry.before.extras}
        extras_after = {extra.field: extra for extra in entry.after.extras} | extras_after
        for extra in entry.before.extra_fields:
            names = list_extra_names([extra])
            raw[extra] = [each for each in entry.before.raw if each.name in names]
    oldest, newest = entries[-1].before, entries[0].after
    names = list_extra_names(oldest.extra_fields)
    own = [each for each in oldest.raw if each.name not in names]
    before = replace(
        oldest,
        extras=_sort_extras(extras_before),
        raw=(*own, *(each for fields in raw.values() for each in fields)),
    )
    return before, replace(newest, extras=_sort_extras(extras_after))


def _sort_extras(extras: Mapping[ExtraField, ExtraTag]) -> tuple[ExtraTag, ...]:
    return tuple(extras[each] for each in ExtraField if each in extras)
