"""Write what an edited report says: the genres that a person saw, and perhaps corrected, first."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from tagger import decide
from tagger.crawl import look_at
from tagger.errors import AccessError, TrackError
from tagger.isolation import Guard
from tagger.records import Action, Failure, Outcome, ScanResult, Tags, Track, undisplayed
from tagger.report.reading import ReportRow, genres_in, read_report
from tagger.scan.session import RunWatcher, Step, open_session
from tagger.settings import Hardlinks, Settings
from tagger.state import Known, RunKind, State
from tagger.tags import read_tags
from tagger.writing import LINKED, Rewrite

GONE = "it is not there any more"
CHANGED = "changed since the report was made: a new dry run shows what it is now"
OTHER_GENRE = "its genre is no longer the one in the report: a new dry run shows it"
HAS_GENRE = "a genre stands there (--existing replace|append writes it)"
DECLINED = "not wanted: the genre was taken out of the report (scan --force writes it)"


class ApplyWatcher(RunWatcher, Protocol):
    """Told of the progress as it happens."""

    def applying(self, tracks: int) -> None:
        """Take note of how many rows ask for something."""


def run_apply(report: Path, settings: Settings, watcher: ApplyWatcher) -> ScanResult:
    """Write the genres of a report of a dry run, as they stand in it by now.

    All of it is read before anything is written. Raises ReportError for what is no report, and the
    errors of a run that could not go on.
    """
    asking = sum(map(asks, read_report(report)))
    with open_session(RunKind.APPLY, "", settings, watcher) as session:
        watcher.applying(asking)
        edits = Edits(settings, session.state, session.writer.guard, session.writer.unmended)
        rows = filter(asks, read_report(report))
        session.carry_out(_steps(rows, edits, watcher))
    return session.tally.result()


def asks(row: ReportRow) -> bool:
    """Tell whether a row asks for something: it would be written, or has a genre by hand."""
    if row.action in (Action.LOW_SCORE, Action.FAILED):
        return bool(row.genres) and is_edited(row)
    return row.action is Action.WOULD_WRITE


def is_edited(row: ReportRow) -> bool:
    """Tell whether the genres of a row are not the ones that a model put there: its best ones."""
    best = tuple(score.genre for score in row.scores[: len(row.genres)])
    return row.genres != best


def _steps(rows: Iterable[ReportRow], edits: "Edits", watcher: ApplyWatcher) -> Iterator[Step]:
    for row in rows:
        watcher.between_tracks()
        yield edits.step(row)


@dataclass(frozen=True, slots=True)
class Edits:
    """What the rows of a report come to; nothing here touches a file but to read its tags."""

    settings: Settings
    state: State
    guard: Guard
    unmended: Mapping[Path, str]

    def step(self, row: ReportRow) -> Step:
        """Return what is to be done about a row: a Rewrite, or why there will be none."""
        try:
            track, known = self._find(row)
            tags = self.guard.call(read_tags, track.path)
            if genres_in(";".join(tags.genres)) != row.existing:
                raise AccessError(OTHER_GENRE)
        except TrackError as error:
            track = Track(undisplayed(row.path), size=0, mtime_ns=0, inode=0)
            return Outcome.failed(Failure(track, str(error)), None, reported=False)
        outcome = Outcome(
            track,
            Action.WRITTEN,
            genres=row.genres,
            existing=tags.genres,
            scores=row.scores,
            score=row.score,
            duration_s=row.duration_s,
            model=row.model,
        )
        if not row.genres:
            self.state.decline(track)
            return replace(outcome, action=Action.KEPT, error=DECLINED)
        after, reason = self._wanted(track, tags, row)
        if reason or after is None:
            return replace(outcome, action=Action.KEPT, error=reason)
        if after == tags:
            return replace(outcome, action=Action.UNCHANGED)
        if self.settings.dry_run:
            return replace(outcome, action=Action.WOULD_WRITE)
        return Rewrite(track, tags, after, outcome, reported=known.failure is not None)

    def _find(self, row: ReportRow) -> tuple[Track, Known]:
        """Return the file of a row, if it is the one that the dry run saw. Raises AccessError."""
        for path in (Path(row.path), undisplayed(row.path)):
            if path in self.unmended:
                raise AccessError(self.unmended[path])
            track = look_at(path)
            if track is None:
                continue
            known = self.state.recall(track, model="", windows=0)
            same_sound = None in (row.duration_s, known.duration_s) or (
                f"{row.duration_s:.2f}" == f"{known.duration_s:.2f}"
            )
            if known.tags is None or not same_sound:
                raise AccessError(CHANGED)
            return track, known
        raise AccessError(GONE)

    def _wanted(self, track: Track, tags: Tags, row: ReportRow) -> tuple[Tags | None, str]:
        """Return the tags as they should be, or why they should stay."""
        existing = self.settings.existing
        if decide.keeps(tags, existing):
            return None, HAS_GENRE
        if track.links > 1 and self.settings.hardlinks is Hardlinks.SKIP:
            return None, LINKED
        wanted = decide.wanted_tags(tags, decide.Wish(row.genres, row.scores, row.model), existing)
        if wanted is None or not is_edited(row):
            return wanted, ""
        # What a person chose is the person's: a later scan has to leave it alone.
        return replace(wanted, written=(), scores="", model=""), ""
