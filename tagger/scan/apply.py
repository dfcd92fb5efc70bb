"""Write what an edited report says: the genres that a person saw, and perhaps corrected, first."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from tagger import decide
from tagger.errors import AccessError, SettingsError, TrackError
from tagger.isolation import IsolatedCaller
from tagger.paths import AnyPath, parse_displayed_path, parse_path
from tagger.records import Action, Failure, Outcome, ScanResult, Tags, Track
from tagger.report.csv import ReportRow, parse_row, read_report, split_genre_cell
from tagger.scan.session import RunObserver, TrackStep, open_session
from tagger.settings import Hardlinks, Settings
from tagger.state import RunKind, State
from tagger.storage import look_up
from tagger.tags import read_tags
from tagger.writing import HAS_HARD_LINKS, PlannedWrite

FILE_MISSING = "it is not there any more"
CHANGED_SINCE_REPORT = (
    "changed since the report was made, or not the path it was found by: a dry run tells"
)
NAMED_TWICE = "a row before this one names the same file"
GENRE_DIFFERS = "its genre is no longer the one in the report: a new dry run shows it"
HAS_GENRE = "a genre stands there (--existing replace|append writes it)"
GENRE_REMOVED_FROM_REPORT = (
    "not wanted: the genre was taken out of the report (scan --force writes it)"
)


class ApplyObserver(RunObserver, Protocol):
    """Told of the progress as it happens."""

    def on_apply_start(self, tracks: int) -> None:
        """Take note of how many rows ask for something."""


def run_apply(report: Path, settings: Settings, observer: ApplyObserver) -> ScanResult:
    """Write the genres of a report of a dry run, as they stand in it by now.

    All of it is read before anything is written. Raises ReportError for what is no report, and the
    errors of a run that could not go on.
    """
    for _ in read_report(report):
        pass
    if settings.report and settings.report.exists() and settings.report.samefile(report):
        raise SettingsError(f"--report would overwrite {report}, which is to be applied")
    with open_session(RunKind.APPLY, "", settings, observer) as session:
        edits = ReportEdits(
            settings, session.state, session.writer.isolated, session.writer.unrecovered
        )
        observer.on_apply_start(sum(map(edits.asks, read_report(report))))
        rows = filter(edits.asks, read_report(report))
        session.process(_plan_rows(rows, edits, observer))
    return session.tally.result()


def _plan_rows(
    rows: Iterable[ReportRow], edits: "ReportEdits", observer: ApplyObserver
) -> Iterator[TrackStep]:
    seen: set[str] = set()
    for row in rows:
        observer.check_stop()
        yield edits.step(row) if row.path not in seen else _refuse_row(row, NAMED_TWICE)
        seen.add(row.path)


def _refuse_row(row: ReportRow, reason: str) -> Outcome:
    track = Track(parse_displayed_path(row.path), size=0, mtime_ns=0, inode=0)
    return Outcome.failed(Failure(track, reason), None, reported=False)


def _list_paths(row: ReportRow) -> tuple[AnyPath, AnyPath]:
    """Return what the text of a row's path may stand for."""
    return parse_path(row.path), parse_displayed_path(row.path)


@dataclass(frozen=True, slots=True)
class ReportEdits:
    """What the rows of a report come to; nothing here touches a file but to read its tags."""

    settings: Settings
    state: State
    isolated: IsolatedCaller
    unrecovered: Mapping[AnyPath, str]

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
        for path in _list_paths(row):
            text = self.state.rows.text_of(path)
            proposed = parse_row(text) if text else None
            if proposed and (proposed.scores, proposed.model) == (row.scores, row.model):
                return row.genres != proposed.genres
        return row.genres != tuple(score.genre for score in row.scores[: len(row.genres)])

    def step(self, row: ReportRow) -> TrackStep:
        """Return what is to be done about a row: a Rewrite, or why there will be none."""
        try:
            track = self._find(row)
            tags = self.isolated.call(read_tags, track.path)
            if (
                not _has_row_genres(tags, row)
                and split_genre_cell(";".join(tags.genres)) != row.existing
            ):
                raise AccessError(GENRE_DIFFERS)
        except TrackError as error:
            return _refuse_row(row, str(error))
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
        if decision.reason is GENRE_REMOVED_FROM_REPORT and not self.settings.dry_run:
            self.state.decline(track)
        if decision.tags is None or would_write:
            return outcome
        return PlannedWrite(track, tags, decision.tags, outcome, by_hand=True)

    def _find(self, row: ReportRow) -> Track:
        """Return the file of a row, if it is the one that the dry run saw. Raises AccessError."""
        for path in _list_paths(row):
            if path in self.unrecovered:
                raise AccessError(self.unrecovered[path])
            track = look_up(path)
            if track is None:
                continue
            known = self.state.recall(track, model="", windows=0)
            same_sound = None in (row.duration_s, known.duration_s) or (
                f"{row.duration_s:.2f}" == f"{known.duration_s:.2f}"
            )
            if known.tags is None or not same_sound:
                raise AccessError(CHANGED_SINCE_REPORT)
            return track
        raise AccessError(FILE_MISSING)

    def _decide(self, track: Track, tags: Tags, row: ReportRow) -> decide.Decision:
        """Return WRITTEN with the tags as they should be, or why they should stay."""
        existing = self.settings.existing
        if not row.genres:
            return decide.Decision(Action.KEPT, reason=GENRE_REMOVED_FROM_REPORT)
        if _has_row_genres(tags, row):
            return decide.Decision(Action.UNCHANGED)
        if decide.decide_by_tags(tags, existing):
            return decide.Decision(Action.KEPT, reason=HAS_GENRE)
        if track.links > 1 and self.settings.hardlinks is Hardlinks.SKIP:
            return decide.Decision(Action.KEPT, reason=HAS_HARD_LINKS)
        wanted = decide.build_tags(
            tags, decide.Proposal(row.genres, row.scores, row.model), existing
        )
        if wanted is None:
            return decide.Decision(Action.KEPT)
        if self.is_edited(row):  # what a person chose is the person's: later scans leave it alone
            wanted = replace(wanted, written=(), scores="", model="")
        return decide.Decision(Action.WRITTEN, wanted)


def _has_row_genres(tags: Tags, row: ReportRow) -> bool:
    """Tell whether a file has the genres of a row already, as after an apply that was cut off."""
    return bool(row.genres) and tags.genres[-len(row.genres) :] == row.genres
