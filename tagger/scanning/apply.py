"""Write the genres of an edited report, which a person saw and perhaps corrected first."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from tagger.decide import (
    ONLY_EXTRAS,
    Decision,
    Proposal,
    build_extras,
    build_tags,
    choose_moods,
    choose_voices,
    decide_by_links,
    decide_by_tags,
    format_extras_reason,
    get_junk_keys,
    has_stored_number,
    list_extra_fields,
    rename_genres,
)
from tagger.errors import (
    AccessError,
    FailureKind,
    KeepReason,
    SettingsError,
    TrackError,
    UnfinishedError,
    WriteReason,
)
from tagger.isolation import IsolatedCaller
from tagger.paths import AnyPath, is_remote, parse_displayed_path, parse_path
from tagger.records import (
    MOOD_NUMBERS,
    Action,
    ExtraField,
    Failure,
    Outcome,
    ScanResult,
    Tags,
    Track,
    split_genres,
)
from tagger.report.csv import ReportRow, parse_row, read_report
from tagger.scanning.session import RunObserver, TrackStep, open_session
from tagger.settings import Settings, WrittenField
from tagger.state import AUTO_WINDOWS, RunKind, State
from tagger.storage import look_up
from tagger.tags import read_tags
from tagger.vocabulary import load_default_vocabulary, make_key
from tagger.writing import PlannedWrite

FILE_MISSING = "it is not there any more"
CHANGED_SINCE_REPORT = (
    "the file changed since the report was made, or has another path: a new dry run shows it"
)
NAMED_TWICE = "a row before this one names the same file"
GENRE_DIFFERS = "its genre is no longer the one in the report: a new dry run shows it"
SCORE_ROUNDING = 0.001
"""The column `scores` has three decimals."""
NAMES_TAKEN_OUT = "its new names were taken out of the report"
HAS_GENRE = "it has a genre already (--existing replace|append writes the new one)"


class ApplyObserver(RunObserver, Protocol):
    """Is told of the progress of an apply."""

    def on_apply_start(self, tracks: int) -> None:
        """Handle the start, with the number of rows to apply."""


def run_apply(report: Path, settings: Settings, observer: ApplyObserver) -> ScanResult:
    """Write the genres of the report of a dry run, with the changes that a person made in it.

    The whole report is read before anything is written. Raises ReportError for a file that is no
    report, and the errors of a run that cannot go on.
    """
    kinds = {row.kind for row in read_report(report)}
    if settings.report and settings.report.exists() and settings.report.samefile(report):
        raise SettingsError(f"--report would overwrite the report to apply: {report}")
    has_names = WriteReason.RENAMED in kinds  # an undo then means what that of a normalize means
    kind = RunKind.NORMALIZE if has_names else RunKind.APPLY
    with open_session(kind, "", settings, observer) as session:
        edits = ReportEdits(
            settings, session.state, session.writer.isolated, session.writer.unrecovered
        )
        observer.on_apply_start(sum(1 for _ in edits.list_rows(report)))
        session.process(_plan_rows(edits.list_rows(report), edits, observer))
    return session.counts.make_result()


def _plan_rows(
    rows: Iterable["EditedRow"], edits: "ReportEdits", observer: ApplyObserver
) -> Iterator[TrackStep]:
    seen: set[str] = set()
    for edited in rows:
        observer.check_stop()
        path = edited.row.path
        if path in seen:
            yield _refuse_row(edited.row, TrackError(NAMED_TWICE))
        else:
            yield edits.plan_row(edited)
        seen.add(path)


def _refuse_row(row: ReportRow, error: TrackError) -> Outcome:
    track = Track(parse_displayed_path(row.path), size=0, mtime_ns=0, inode=0)
    return Outcome.from_failure(Failure.from_error(track, error), None, reported=False)


def _list_paths(row: ReportRow) -> tuple[AnyPath, AnyPath]:
    """Return the paths that the text in a row may mean."""
    return parse_path(row.path), parse_displayed_path(row.path)


@dataclass(frozen=True, slots=True)
class EditedRow:
    """A row of the report beside the row of the dry run.

    proposed: the latter; None if another scan has replaced it in the state file. guess: stands for
    it then.
    """

    row: ReportRow
    proposed: ReportRow | None
    guess: ReportRow

    @property
    def has_work(self) -> bool:
        """Whether the row asks for a write, by the dry run or by the person who edited it."""
        if self.row.action in (Action.LOW_SCORE, Action.NOT_MUSIC, Action.FAILED):
            return self.has_other_genres
        return self.row.action is Action.WOULD_WRITE

    @property
    def has_other_genres(self) -> bool:
        """Whether the genres of the row differ from those of the dry run.

        Without the row of the dry run, the best genres of the model are the best guess.
        """
        row = self.row
        if self.proposed:
            return row.genres != self.proposed.genres
        if row.scores and row.score is not None:
            own_score = row.scores[0].probability
            if abs(row.score - own_score) > SCORE_ROUNDING:
                return False  # the scores of other tracks count too: nobody can tell the genre
        best = [genre for score in row.scores for genre in split_genres(score.genre)]
        return row.genres != tuple(dict.fromkeys(best))[: len(row.genres)]

    @property
    def is_without_genre(self) -> bool:
        """Whether the dry run itself gave no genre to the track, but other fields."""
        if self.proposed:
            return not self.proposed.genres
        return self.row.error.startswith(ONLY_EXTRAS.format(""))

    @property
    def styles(self) -> tuple[str, ...]:
        """The styles to write. With another genre, the styles of the dry run go."""
        row, proposed = self.row, self.proposed or self.guess
        has_genres = {*map(make_key, proposed.genres)} <= {*map(make_key, row.genres)}
        keeps_genres = has_genres if self.proposed else not self.has_other_genres
        return row.styles if keeps_genres or row.styles != proposed.styles else ()

    def list_edited_extras(self) -> set[ExtraField]:
        """Return the extra fields that a person edited."""
        row, proposed = self.row, self.proposed or self.guess
        edited = {
            ExtraField.STYLE: row.styles != proposed.styles,
            ExtraField.GROUPING: row.styles != proposed.styles,
            ExtraField.MOOD: row.moods != proposed.moods,
            ExtraField.VOICE: row.voices != proposed.voices,
        }
        return {extra for extra, is_edited in edited.items() if is_edited}


@dataclass(frozen=True, slots=True)
class ReportEdits:
    """What the rows of a report ask for. It touches a file only to read its tags."""

    settings: Settings
    state: State
    isolated: IsolatedCaller
    unrecovered: Mapping[AnyPath, UnfinishedError]

    def list_rows(self, report: Path) -> Iterator[EditedRow]:
        """Yield the rows that ask for a write."""
        rows = (EditedRow(row, self._find_proposed(row), row) for row in read_report(report))
        return (edited for edited in rows if edited.has_work)

    def _find_proposed(self, row: ReportRow) -> ReportRow | None:
        """Return the row of the dry run. Call it before `_find_track`, which may delete that row.

        It does so where a file has another inode since, as on some removable disks.
        """
        for path in _list_paths(row):
            text = self.state.rows.find_text(path)
            proposed = parse_row(text) if text else None
            facts = (row.scores, row.score, row.model)
            if proposed and (proposed.scores, proposed.score, proposed.model) == facts:
                return proposed
        return None

    def _list_extras(self) -> tuple[ExtraField, ...]:
        """Return the wanted extra fields that a report has; it has no numbers."""
        fields = list_extra_fields(self.settings)
        return tuple(each for each in fields if each not in MOOD_NUMBERS.values())

    def plan_row(self, edited: EditedRow) -> TrackStep:
        """Return the write that a row asks for, or the outcome if there will be none."""
        row = edited.row
        try:
            track = self._find_track(row)
            extras = () if row.kind is WriteReason.RENAMED else self._list_extras()
            tags = self.isolated.call(read_tags, track.path, extras=extras)
            if (
                not _has_row_genres(tags, row)
                and split_genres(";".join(tags.genres)) != row.existing
            ):
                raise AccessError(GENRE_DIFFERS, FailureKind.CHANGED)
        except TrackError as error:
            return _refuse_row(row, error)
        if not edited.proposed:
            edited = replace(edited, guess=self._guess_proposed(track, row))
        if row.kind is WriteReason.RENAMED:
            decision = self._decide_names(track, tags, row)
        else:
            decision = self._decide(track, tags, edited)
        would_write = decision.action is Action.WRITTEN and self.settings.dry_run
        outcome = Outcome(
            track,
            Action.WOULD_WRITE if would_write else decision.action,
            genres=tags.genres if decision.keeps_genre else row.genres,
            existing=tags.genres,
            scores=row.scores,
            score=row.score,
            duration_s=row.duration_s,
            model=row.model,
            error=decision.reason,
            kind=decision.kind,
            styles=edited.styles,
            moods=row.moods,
            voices=row.voices,
        )
        if decision.kind is KeepReason.NOT_WANTED and not self.settings.dry_run:
            self.state.mark_not_wanted(track)
        if decision.tags is None or would_write:
            return outcome
        return PlannedWrite(track, tags, decision.tags, outcome, is_requested=True)

    def _find_track(self, row: ReportRow) -> Track:
        """Return the file of a row, if it is the one that the dry run saw. Raises AccessError."""
        for path in _list_paths(row):
            if path in self.unrecovered:
                raise self.unrecovered[path]
            if is_remote(path) and not self.state.has_path(path):
                continue  # no request goes to a server that only the report names
            track = look_up(path)
            if track is None:
                continue
            known = self.state.load_track(track, model="", windows=0)
            has_same_sound = None in (row.duration_s, known.duration_s) or (
                f"{row.duration_s:.2f}" == f"{known.duration_s:.2f}"
            )
            if known.tags is None or not has_same_sound:
                raise AccessError(CHANGED_SINCE_REPORT, FailureKind.CHANGED)
            return track
        raise AccessError(FILE_MISSING, FailureKind.CHANGED)

    def _decide(self, track: Track, tags: Tags, edited: EditedRow) -> Decision:
        """Return the decision to write, with the tags, or the decision to leave the file alone."""
        writes_genre = WrittenField.GENRE in self.settings.write
        decision = (
            self._decide_genre(track, tags, edited)
            if writes_genre
            else Decision.keep(KeepReason.NOT_ASKED)
        )
        if not tags.extras or decision.kind in (KeepReason.NOT_WANTED, KeepReason.HARD_LINKS):
            return decision
        wanted = self._build_extras(decision.tags or tags, edited)
        if wanted.extras == tags.extras:
            return decision
        if kept := decide_by_links(track, self.settings.hardlinks):
            return kept
        if decision.action is Action.WRITTEN:
            return replace(decision, tags=wanted)
        reason = decision.reason or format_extras_reason(tags, wanted)
        return Decision(Action.WRITTEN, wanted, reason=reason, keeps_genre=True)

    def _build_extras(self, tags: Tags, edited: EditedRow) -> Tags:
        """Return tags with the extra fields of a row; edited ones are the person's."""
        moods, voices = edited.row.moods, edited.row.voices
        proposal = Proposal((), (), "", styles=edited.styles, moods=moods, voices=voices)
        wanted = build_extras(tags, proposal, self.settings)
        by_hand = edited.list_edited_extras()
        extras = (
            replace(new, written=()) if new.field in by_hand and new != old else new
            for new, old in zip(wanted.extras, tags.extras, strict=True)
        )
        return replace(wanted, extras=tuple(extras))

    def _guess_proposed(self, track: Track, row: ReportRow) -> ReportRow:
        """Return a row with what the model says by the state file."""
        windows = self.settings.windows or AUTO_WINDOWS
        known = self.state.load_track(track, model=row.model, windows=windows)
        likely = {each.genre for each in known.attributes.styles}
        return replace(
            row,
            styles=tuple(style for style in row.styles if style in likely),
            moods=choose_moods(known.attributes),
            voices=choose_voices(known.attributes),
        )

    def _decide_names(self, track: Track, tags: Tags, row: ReportRow) -> Decision:
        """Decide on a row of `tagger normalize`. Names that it did not give are the person's."""
        if WrittenField.GENRE not in self.settings.write:
            return Decision.keep(KeepReason.NOT_ASKED)
        vocabulary = self.settings.vocabulary or load_default_vocabulary()
        wanted = rename_genres(tags, self.settings, vocabulary)
        if not row.genres and wanted.genres:
            return replace(Decision.keep(KeepReason.HAS_GENRE), reason=NAMES_TAKEN_OUT)
        if wanted.genres != row.genres:
            wanted = Tags(row.genres)
        if wanted == tags and not has_stored_number(tags):
            return Decision(Action.UNCHANGED)
        return decide_by_links(track, self.settings.hardlinks) or Decision(Action.WRITTEN, wanted)

    def _decide_genre(self, track: Track, tags: Tags, edited: EditedRow) -> Decision:
        row, existing = edited.row, self.settings.existing
        if not row.genres:
            is_meant = edited.is_without_genre and not tags.genres
            not_wanted = Decision.keep(KeepReason.NOT_WANTED)
            return Decision(Action.UNCHANGED) if is_meant else not_wanted
        if row.genres == tags.genres or _has_row_genres(tags, row):
            return Decision(Action.UNCHANGED)
        junk = get_junk_keys(self.settings)
        if decide_by_tags(tags, existing, junk):
            return replace(Decision.keep(KeepReason.HAS_GENRE), reason=HAS_GENRE)
        if kept := decide_by_links(track, self.settings.hardlinks):
            return kept
        wanted = build_tags(tags, Proposal(row.genres, row.scores, row.model), existing, junk)
        if wanted is None:
            return Decision.keep(KeepReason.HAS_GENRE)
        if edited.has_other_genres:  # an edited genre is the person's: later scans leave it alone
            wanted = replace(wanted, written=(), scores="", model="")
        return Decision(Action.WRITTEN, wanted)


def _has_row_genres(tags: Tags, row: ReportRow) -> bool:
    """Tell whether a file has the genres of a row already, as after an interrupted apply."""
    if row.kind is WriteReason.RENAMED:
        return tags.genres == row.genres
    return bool(row.genres) and tags.genres[-len(row.genres) :] == row.genres
