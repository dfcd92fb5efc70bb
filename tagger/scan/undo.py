"""Put back the tags that earlier runs replaced, as long as nobody has changed the files since."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from tagger.errors import AccessError, SettingsError, TagError, TrackError
from tagger.isolation import IsolatedCaller
from tagger.paths import AnyPath
from tagger.records import Action, Failure, Outcome, RepeatedRows, Tags, Track, UndoResult
from tagger.settings import Hardlinks, Settings
from tagger.state import JournalEntry, RunKind, State, new_run_id, open_state
from tagger.storage import look_up
from tagger.tags import read_tags
from tagger.writing import HAS_HARD_LINKS, PlannedWrite, open_writer

CHANGED_SINCE_WRITE = "changed since tagger wrote it (--force puts its genre back nevertheless)"
FILE_MOVED_OR_MISSING = (
    "it is not there (a scan finds files that were moved, then they can be undone)"
)
GENRE_EDITED = "its genre was edited since tagger wrote it: left as it is"


class UndoObserver(Protocol):
    """Told of an undo's progress as it happens."""

    def on_undo_start(self, tracks: int) -> None:
        """Take note of how many files are to be looked at."""

    def on_outcome(self, outcome: Outcome) -> None:
        """Take note of what became of a file: WRITTEN is put back, KEPT is refused."""

    def check_stop(self) -> None:
        """Raise to end the run here, where nothing is half done."""


def run_undo(
    paths: Sequence[AnyPath], run_id: str | None, settings: Settings, observer: UndoObserver
) -> UndoResult:
    """Undo a run, or all that tagger wrote below `paths`; without either, the newest scan.

    An undo is a run with a journal of its own, and can itself be undone by its id.
    Raises SettingsError for a run that never was, and the errors of a run that could not go on.
    """
    tally = UndoCounts(new_run_id(), settings.dry_run)

    def settle(outcomes: Iterable[Outcome | RepeatedRows]) -> None:
        for outcome in outcomes:
            assert isinstance(outcome, Outcome)
            tally.counts[outcome.action] += 1
            observer.on_outcome(outcome)

    with open_state(settings.state) as state, open_writer(tally.run_id, settings, state) as writer:
        if run_id is None and not paths:
            run_id = state.journal.find_last_run()
        plan = UndoPlan(settings, state, writer.isolated, run_id, writer.unrecovered)
        found = plan.find(paths)
        if not found:
            return tally.result()
        state.runs.start(tally.run_id, plan.kind, dry_run=settings.dry_run)
        observer.on_undo_start(len(found))
        try:
            settle(writer.process(_plan_files(found, plan, observer)))
        finally:
            settle(list(writer.finish()))
            state.runs.finish(tally.run_id, tally.result().summary())
    return tally.result()


@dataclass(frozen=True, slots=True)
class UndoCounts:
    """What an undo has done so far."""

    run_id: str
    dry_run: bool
    started: float = field(default_factory=time.monotonic)
    counts: Counter[Action] = field(default_factory=Counter)

    def result(self) -> UndoResult:
        return UndoResult(
            self.run_id,
            self.dry_run,
            restored=self.counts[Action.WRITTEN] + self.counts[Action.UNCHANGED],
            would_restore=self.counts[Action.WOULD_WRITE],
            refused=self.counts[Action.KEPT],
            failed=self.counts[Action.FAILED],
            seconds=time.monotonic() - self.started,
        )


def _plan_files(
    found: Iterable[AnyPath], plan: "UndoPlan", observer: UndoObserver
) -> Iterator[Outcome | PlannedWrite]:
    for path in found:
        observer.check_stop()
        yield plan.step(path)


@dataclass(frozen=True, slots=True)
class UndoPlan:
    """What is to be put back in which file; nothing here touches a file but to read its tags."""

    settings: Settings
    state: State
    isolated: IsolatedCaller
    run_id: str | None
    unrecovered: Mapping[AnyPath, str]

    @property
    def kind(self) -> RunKind:
        """What this run is: what takes an undo back writes tagger's tags again."""
        undone = self.run_id and self.state.runs.kind_of(self.run_id)
        return RunKind.REDO if undone is RunKind.UNDO else RunKind.UNDO

    def find(self, paths: Sequence[AnyPath]) -> list[AnyPath]:
        """Return the files below `paths` that have something to be undone, all without `paths`."""
        if self.run_id is not None and self.state.runs.kind_of(self.run_id) is None:
            raise SettingsError(f"there is no run {self.run_id} (tagger runs lists them)")
        roots = [path.resolve() for path in paths]
        return [
            path
            for path in self.state.journal.list_active_paths(self.run_id)
            if not roots or any(path.is_relative_to(root) for root in roots)
        ]

    def step(self, path: AnyPath) -> Outcome | PlannedWrite:
        """Return what is to be done about a file: a Rewrite, or why there will be none."""
        try:
            track, tags = self._look_at(path)
        except TrackError as error:
            nowhere = Track(path, size=0, mtime_ns=0, inode=0)
            return Outcome.failed(Failure(nowhere, str(error)), None, reported=False)
        standing = self.state.journal.list_active_entries(path, self.run_id)
        entries = self._chosen(standing)
        before = entries[-1].before
        outcome = Outcome(track, Action.WRITTEN, genres=before.genres, existing=tags.genres)
        reason = self._objection(track, tags, entries[0], standing[0])
        if reason:
            return replace(outcome, action=Action.KEPT, genres=(), error=reason, new=True)
        if self.settings.dry_run:
            return replace(outcome, action=Action.WOULD_WRITE)
        undoes = tuple(entry.id for entry in entries)
        return PlannedWrite(track, tags, before, outcome, undoes=undoes)

    def _look_at(self, path: AnyPath) -> tuple[Track, Tags]:
        if path in self.unrecovered:
            raise TagError(self.unrecovered[path])
        track = look_up(path)
        if track is None:
            raise AccessError(FILE_MOVED_OR_MISSING)
        return track, self.isolated.call(read_tags, path)

    def _chosen(self, standing: Sequence[JournalEntry]) -> list[JournalEntry]:
        """Return those entries of a file that are to be undone, the newest first.

        Of one run, its own. Else all that follow from each other without an edit between them: what
        somebody wrote after one run and before the next is as far back as it goes.
        """
        if self.run_id is not None:
            return [entry for entry in standing if entry.run_id == self.run_id]
        chain = [standing[0]]
        for entry in standing[1:]:
            if entry.after != chain[-1].before:
                break
            chain.append(entry)
        return chain

    def _objection(
        self, track: Track, tags: Tags, newest: JournalEntry, latest: JournalEntry
    ) -> str:
        """Return why a file is to be left alone, nothing if it may be written.

        newest: the last entry to be undone; latest: the last that there is.
        """
        if latest != newest:
            return f"run {latest.run_id} wrote it later: undo that first"
        if tags != newest.after:
            return GENRE_EDITED
        if track != newest.new and not self.settings.force:
            return CHANGED_SINCE_WRITE
        if track.links > 1 and self.settings.hardlinks is Hardlinks.SKIP:
            return HAS_HARD_LINKS
        return ""
