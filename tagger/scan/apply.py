"""Write what an edited report says: the genres that a person saw, and perhaps corrected, first."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from tagger import decide
from tagger.crawl import look_at
from tagger.errors import AccessError, SettingsError, TrackError
from tagger.isolation import Guard
from tagger.paths import path_of, undisplayed
from tagger.records import Action, Failure, Outcome, ScanResult, Tags, Track
from tagger.report.reading import ReportRow, genres_in, parse_row, read_report
from tagger.scan.session import RunWatcher, Step, open_session
from tagger.settings import Hardlinks, Settings
from tagger.state import RunKind, State
from tagger.tags import read_tags
from tagger.writing import LINKED, Rewrite

GONE = "it is not there any more"
CHANGED = "changed since the report was made, or not the path it was found by: a dry run tells"
TWICE = "a row before this one names the same file"
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
    for _ in read_report(report):
        pass
    if settings.report and settings.report.exists() and settings.report.samefile(report):
        raise SettingsError(f"--report would overwrite {report}, which is to be applied")
    with open_session(RunKind.APPLY, "", settings, watcher) as session:
        edits = Edits(settings, session.state, session.writer.guard, session.writer.unmended)
        watcher.applying(sum(map(edits.asks, read_report(report))))
        rows = filter(edits.asks, read_report(report))
        session.carry_out(_steps(rows, edits, watcher))
    return session.tally.result()


def _steps(rows: Iterable[ReportRow], edits: "Edits", watcher: ApplyWatcher) -> Iterator[Step]:
    seen: set[str] = set()
    for row in rows:
        watcher.between_tracks()
        yield edits.step(row) if row.path not in seen else _refused(row, TWICE)
        seen.add(row.path)


def _refused(row: ReportRow, reason: str) -> Outcome:
    track = Track(undisplayed(row.path), size=0, mtime_ns=0, inode=0)
    return Outcome.failed(Failure(track, reason), None, reported=False)


def _paths(row: ReportRow) -> tuple[Path, Path]:
    """Return what the text of a row's path may stand for."""
    return path_of(row.path), undisplayed(row.path)


@dataclass(frozen=True, slots=True)
class Edits:
    """What the rows of a report come to; nothing here touches a file but to read its tags."""

    settings: Settings
    state: State
    guard: Guard
    unmended: Mapping[Path, str]

    def asks(self, row: ReportRow) -> bool:
        """Tell whether a row asks for something: it would be written, or has a genre by hand."""
        if row.action in (Action.LOW_SCORE, Action.FAILED):
            return self.is_edited(row)
        return row.action is Action.WOULD_WRITE

    def is_edited(self, row: ReportRow) -> bool:
        """Tell whether the genres of a row are not the ones that the dry run put there.

        Its row is in the state file, unless another scan has put one in its place; a model's best
        genres are the next best guess.
        """
        for path in _paths(row):
            text = self.state.rows.text_of(path)
            proposed = parse_row(text) if text else None
            if proposed and (proposed.scores, proposed.model) == (row.scores, row.model):
                return row.genres != proposed.genres
        return row.genres != tuple(score.genre for score in row.scores[: len(row.genres)])

    def step(self, row: ReportRow) -> Step:
        """Return what is to be done about a row: a Rewrite, or why there will be none."""
        try:
            track = self._find(row)
            tags = self.guard.call(read_tags, track.path)
            if not _says(tags, row) and genres_in(";".join(tags.genres)) != row.existing:
                raise AccessError(OTHER_GENRE)
        except TrackError as error:
            return _refused(row, str(error))
        decision = self._decide(track, tags, row)
        would_write = decision.action is Action.WRITTEN and self.settings.dry_run
        outcome = Outcome(
            track,
            Action.WOULD_WRITE if would_write else decision.action,
            genres=row.genres,
            existing=tags.genres,
            scores=row.scores,
            score=row.score,
            duration_s=row.duration_s,
            model=row.model,
            error=decision.reason,
        )
        if decision.reason is DECLINED and not self.settings.dry_run:
            self.state.decline(track)
        if decision.tags is None or would_write:
            return outcome
        return Rewrite(track, tags, decision.tags, outcome, by_hand=True)

    def _find(self, row: ReportRow) -> Track:
        """Return the file of a row, if it is the one that the dry run saw. Raises AccessError."""
        for path in _paths(row):
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
            return track
        raise AccessError(GONE)

    def _decide(self, track: Track, tags: Tags, row: ReportRow) -> decide.Decision:
        """Return WRITTEN with the tags as they should be, or why they should stay."""
        existing = self.settings.existing
        if not row.genres:
            return decide.Decision(Action.KEPT, reason=DECLINED)
        if _says(tags, row):
            return decide.Decision(Action.UNCHANGED)
        if decide.keeps(tags, existing):
            return decide.Decision(Action.KEPT, reason=HAS_GENRE)
        if track.links > 1 and self.settings.hardlinks is Hardlinks.SKIP:
            return decide.Decision(Action.KEPT, reason=LINKED)
        wanted = decide.wanted_tags(tags, decide.Wish(row.genres, row.scores, row.model), existing)
        if wanted is None:
            return decide.Decision(Action.KEPT)
        if self.is_edited(row):  # what a person chose is the person's: later scans leave it alone
            wanted = replace(wanted, written=(), scores="", model="")
        return decide.Decision(Action.WRITTEN, wanted)


def _says(tags: Tags, row: ReportRow) -> bool:
    """Tell whether a file has the genres of a row already, as after an apply that was cut off."""
    return bool(row.genres) and tags.genres[-len(row.genres) :] == row.genres
