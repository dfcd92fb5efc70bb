"""From a track to a step of the scan: decide on each track, and repeat the rows that still hold."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from itertools import groupby, starmap
from pathlib import Path
from typing import TypeVar

from tagger import decide
from tagger.crawl import Listing
from tagger.decide import Decision, Proposal, decide_by_links, format_genre_values
from tagger.errors import KeepReason, TrackError, UnfinishedError
from tagger.labels import list_no_genres, name_genres_of_styles, name_scores
from tagger.models import ModelSource
from tagger.paths import AnyPath
from tagger.records import (
    Action,
    Album,
    ExtraField,
    Failure,
    Outcome,
    Prediction,
    RepeatedRows,
    Score,
    Tags,
    Track,
)
from tagger.report.csv import format_row
from tagger.scanning.session import TrackStep
from tagger.scanning.tag_reader import TagReader
from tagger.settings import Settings, get_row_settings
from tagger.state import AUTO_WINDOWS, CachedRow, KnownTrack, State
from tagger.version import __version__
from tagger.vocabulary import Rule
from tagger.writing import PlannedWrite

NOT_MUSIC_REMARK = "no music: {0.genre} {0.probability:.2f}"

T = TypeVar("T")

FoundTrack = tuple[Track, KnownTrack]

FoundPart = Failure | RepeatedRows | list[FoundTrack]
"""A part of what the crawl found: a failure, rows that still hold, or tracks to settle."""

ACTIONS_BY_VALUE = {action.value: action for action in Action}


@dataclass(frozen=True, slots=True)
class TrackDecider:
    """Decides what a scan does with one track. It touches a file only to read its tags.

    unrecovered: the files that a killed run left in a state that only a person can settle, with the
    error. is_time_up: whether the time of --until has come; unknown tracks then wait for the next
    run. model: its identity; empty without one. not_music: its labels of sound that is no music.
    genre_by_style: the user's name for the genre of each style.
    """

    settings: Settings
    state: State
    reader: TagReader
    unrecovered: Mapping[AnyPath, UnfinishedError] = field(default_factory=dict)
    is_time_up: Callable[[], bool] = lambda: False
    model: str = ""
    not_music: frozenset[str] = frozenset()
    genre_by_style: Mapping[str, str] = field(default_factory=dict)

    def add_model(self, source: ModelSource) -> "TrackDecider":
        """Return the decider of a run with this model."""
        styles = source.attribute_labels.styles
        return replace(
            self,
            model=source.identity,
            not_music=source.not_music,
            genre_by_style=name_genres_of_styles(styles, self.settings),
        )

    @property
    def junk(self) -> frozenset[str]:
        """The keys of names that are no genre."""
        return decide.get_junk_keys(self.settings)

    @property
    def no_genres(self) -> frozenset[str]:
        """The labels of sound that is no music to which the user gives no name."""
        return list_no_genres(self.not_music, self.settings)

    @property
    def windows(self) -> int:
        """The number of windows under which the state file has the scores."""
        return self.settings.windows or AUTO_WINDOWS

    @property
    def extras(self) -> tuple[ExtraField, ...]:
        """The extra fields that the user wants."""
        return decide.list_extra_fields(self.settings)

    def load(self, track: Track) -> KnownTrack:
        """Return what is known of a track; of the extra fields, only the wanted ones."""
        known = self.state.load_track(track, model=self.model, windows=self.windows)
        return self._select_extras(known)

    def load_tracks(self, tracks: Sequence[Track]) -> list[FoundTrack]:
        """Return the tracks with what is known of each; of the extra fields, only the wanted."""
        known = self.state.load_tracks(tracks, model=self.model, windows=self.windows)
        return list(zip(tracks, map(self._select_extras, known), strict=True))

    def _select_extras(self, known: KnownTrack) -> KnownTrack:
        return replace(known, tags=known.tags.select_extras(self.extras)) if known.tags else known

    def examine(self, track: Track, known: KnownTrack) -> TrackStep | KnownTrack:
        """Return the step for a track if scores cannot change it, else what is known of it.

        A KnownTrack without scores needs a prediction.
        """
        if track.path in self.unrecovered:
            return self.report_failure(Failure.from_error(track, self.unrecovered[track.path]))
        if self.is_time_up():
            return KnownTrack()
        force = self.settings.force
        if self.needs_tags(known):
            reading = self.reader.read(track)
            self.state.save_reading(track, reading, is_new=known.is_new)
            if reading.error:
                failure = Failure.from_error(track, reading.error)
                reported = known.failure is not None
                return Outcome.from_failure(failure, known.tags, reported=reported)
            known = replace(known, tags=reading.tags)
        step = self._decide_without_scores(track, known)
        return step or (replace(known, scores=None) if force else known)

    def needs_tags(self, known: KnownTrack) -> bool:
        """Tell whether `examine` will read the tags of a track."""
        has_failed = self._find_permanent_failure(known) and not known.is_model_failure
        return self.settings.force or (self._lacks_tags(known) and not has_failed)

    def _decide_without_scores(self, track: Track, known: KnownTrack) -> TrackStep | None:
        audit = self.settings.audit
        tags = known.tags or Tags()
        kept = decide.decide_without_scores(tags, self.settings)
        failure, rule = self._find_permanent_failure(known), self.find_rule(track, tags)
        if rule and known.tags and (known.is_model_failure or not rule.genres):
            failure = None  # a rule needs no sound, and one that keeps a file writes no tags
        if failure and (audit or not kept):
            failed = self._make_outcome(track, known, Decision(Action.FAILED), self.propose(known))
            return failed.fail(failure, reported=True)
        if rule:
            return self._follow_rule(track, known, rule)
        if not kept and (known.scores is None or self.settings.force):
            kept = self._decide_by_history_and_links(track, known)  # saves the prediction
        if kept and not audit:
            return self._make_outcome(track, known, kept, self.propose(known))
        return None

    def find_rule(self, track: Track, tags: Tags) -> Rule | None:
        """Return the rule of the user's vocabulary for a track."""
        vocabulary, album = self.settings.vocabulary, tags.album or Album()
        return vocabulary.find_rule(track.path, album.artist) if vocabulary else None

    def _follow_rule(self, track: Track, known: KnownTrack, rule: Rule) -> TrackStep:
        """Decide as a rule says, without listening, also with --audit. Extra fields stay."""
        if rule.genres:
            proposal = decide.propose_by_rule(rule, self.settings.profile)
            tags = known.tags.select_extras(()) if known.tags else None
            return self.decide_track(track, replace(known, tags=tags), proposal)
        kept = Decision.keep(KeepReason.BY_RULE)
        return self._make_outcome(track, known, kept, self.propose(known))

    def _find_permanent_failure(self, known: KnownTrack) -> Failure | None:
        """Return the failure that forbids another try."""
        is_permanent = known.failure and known.failure.permanent and not self.settings.force
        return known.failure if is_permanent else None

    def _lacks_tags(self, known: KnownTrack) -> bool:
        if known.tags is None or known.tags.extra_fields != self.extras:
            return True
        vocabulary = self.settings.vocabulary
        needs_artist = vocabulary is not None and vocabulary.needs_artist
        return (self.settings.needs_albums or needs_artist) and known.tags.album is None

    def name_scores(self, known: KnownTrack) -> tuple[Score, ...]:
        """Return the scores of a track under the user's names."""
        return name_scores(known.scores or (), self.settings, self.not_music)

    def propose(self, known: KnownTrack) -> Proposal:
        """Return what tagger would write into a track by its own scores."""
        if not known.scores:
            return Proposal((), (), self.model)
        settings = self.settings
        scores, no_genres = self.name_scores(known), self.no_genres
        music = tuple(score for score in scores if score.genre not in no_genres)
        if not decide.is_music(scores, no_genres, settings.min_score):
            remark = NOT_MUSIC_REMARK.format(scores[0])
            top = scores[: settings.top_k]
            return Proposal((), top, self.model, is_music=False, remark=remark)
        genres = decide.choose_genres(music, most=settings.genres, min_score=settings.min_score)
        styles = decide.choose_styles(known.attributes.styles, self.genre_by_style, genres)
        if decide.writes_styles_as_genres(settings):
            genres = decide.put_styles_behind(genres, styles, settings)
        return Proposal(
            format_genre_values(genres, settings.profile),
            music[: settings.top_k],
            self.model,
            styles=styles,
            moods=decide.choose_moods(known.attributes),
            voices=decide.choose_voices(known.attributes),
            numbers=decide.get_mood_numbers(known.attributes),
            min_score=settings.min_score.get(music[0].genre) if music else None,
        )

    def decide_track(self, track: Track, known: KnownTrack, proposal: Proposal) -> TrackStep:
        """Decide on a track whose tags and scores are known."""
        tags = known.tags or Tags()
        proposal = decide.limit_styles(tags, proposal, self.settings)
        decision = decide.decide(tags, proposal, self.settings)
        if decision.action is Action.WRITTEN:
            decision = self._decide_by_history_and_links(track, known) or decision
        outcome = self._make_outcome(track, known, decision, proposal)
        has_failed = known.failure is not None
        if decision.action is Action.WRITTEN and decision.tags and not self.settings.dry_run:
            return PlannedWrite(track, tags, decision.tags, outcome, reported=has_failed)
        if outcome.action is Action.WOULD_WRITE:
            outcome = self.check_writable(outcome, reported=has_failed)
        if has_failed and outcome.action is not Action.FAILED:
            self.state.delete_failure(track)
        return outcome

    def check_writable(self, outcome: Outcome, *, reported: bool) -> Outcome:
        """Return the row of a dry run, or of the failure that a real run would report."""
        try:
            self.reader.check_writable(outcome.track)
        except TrackError as error:
            failure = Failure.from_error(outcome.track, error)
            self.state.save_failure(failure)
            return outcome.fail(failure, reported=reported)
        return outcome

    def _decide_by_history_and_links(self, track: Track, known: KnownTrack) -> Decision | None:
        """Return the decision to keep a track for a reason that is not its genre."""
        if known.undone and not self.settings.force:
            return Decision.keep(KeepReason.UNDONE)
        return decide_by_links(track, self.settings.hardlinks)

    def _make_outcome(
        self, track: Track, known: KnownTrack, decision: Decision, proposal: Proposal
    ) -> Outcome:
        would_write = decision.action is Action.WRITTEN and self.settings.dry_run
        existing = known.tags.genres if known.tags else ()
        junk = decide.find_junk(known.tags or Tags(), self.junk)
        remarks = (decision.reason or proposal.remark, decide.format_junk_remark(junk))
        return Outcome(
            track,
            Action.WOULD_WRITE if would_write else decision.action,
            genres=existing if decision.keeps_genre else proposal.genres,
            existing=existing,
            scores=proposal.scores,
            score=proposal.score,
            duration_s=known.duration_s,
            model=self.model if proposal.scores else "",
            error="; ".join(filter(None, remarks)),
            kind=decision.kind,
            styles=proposal.styles,
            moods=proposal.moods,
            voices=proposal.voices,
            min_score=proposal.min_score,
        )

    def report_failure(self, failure: Failure) -> Outcome:
        """Save a failure that does not depend on the model, and return its row."""
        known = self.load(failure.track)
        self.state.save_failure(failure)
        return Outcome.from_failure(failure, known.tags, reported=known.failure is not None)

    def report_model_failure(self, failure: Failure) -> Outcome:
        """Save a failure of the prediction, and return its row."""
        known = self.load(failure.track)
        self.state.save_model_failure(failure, model=self.model, windows=self.windows)
        return Outcome.from_failure(failure, known.tags, reported=known.failure is not None)

    def settle_or_queue(
        self, track: Track, known: KnownTrack, rows: "RowRepeater"
    ) -> TrackStep | None:
        """Return the step for a track that needs no scores; queue any other track."""
        found = self.examine(track, known)
        if not isinstance(found, KnownTrack):
            return rows.save(found)
        self.state.queue.add(track, is_scored=found.scores is not None)
        return None

    def save_result(self, result: Prediction | Failure) -> Outcome | None:
        """Save the result of a queued track. It goes on waiting for others, unless it failed.

        Return the row of a failure.
        """
        if isinstance(result, Failure):
            self.state.queue.remove(result.track)
            return self.report_model_failure(result)
        self.state.queue.mark_scored(result.track)
        self.state.save_prediction(result, windows=self.windows)
        return None

    def report_unprocessed(self) -> Iterator[TrackStep]:
        """Yield the rows of the tracks that are still queued: they wait for the next run."""
        decision = Decision.keep(KeepReason.TIME_IS_UP)
        for track in self.state.queue.list_tracks(with_scored=True):
            known = self.load(track)
            yield self._make_outcome(track, known, decision, self.propose(known))


@dataclass(frozen=True, slots=True)
class RowRepeater:
    """Repeats the rows of earlier reports for files that did not change.

    digest: see `compute_row_digest`. is_enabled: else every track is decided on anew.
    """

    state: State
    digest: bytes
    is_dry_run: bool
    is_enabled: bool

    def split_listing(self, listing: Listing) -> Iterator[RepeatedRows | list[Track]]:
        """Yield the files of a listing in order: the rows that still hold, and the other tracks."""
        if not self.is_enabled:
            yield [listing.track(file) for file in listing.files]
            return
        rows = self.state.rows.find_valid(listing.folder, listing.files, self.digest)
        pairs = zip(rows, listing.files, strict=True)
        for can_repeat, group in groupby(pairs, lambda pair: self._can_repeat(pair[0])):
            if can_repeat:
                repeated = [(row, file.size) for row, file in group if row]
                actions = [ACTIONS_BY_VALUE[row.action] for row, _ in repeated]
                size = sum(size for row, size in repeated if row.action == Action.WOULD_WRITE)
                yield RepeatedRows(actions, "".join([row.text for row, _ in repeated]), size)
            else:
                yield [listing.track(file) for _, file in group]

    def _can_repeat(self, row: CachedRow | None) -> bool:
        return row is not None and (row.action != Action.WOULD_WRITE or self.is_dry_run)

    def save(self, step: TrackStep) -> TrackStep:
        """Save the row of an Outcome, but not of a failure that the next run tries again."""
        if isinstance(step, Outcome) and step.permanent:
            self.state.rows.save(step.track, self.digest, step.action, format_row(step))
        return step


def compute_row_digest(settings: Settings, model: str) -> bytes:
    """Return a digest of all that a row depends on, but the file and what is known of it."""
    facts = (__version__, hash_code(), model, *get_row_settings(settings))
    return sha256(repr(facts).encode()).digest()


@cache
def hash_code() -> str:
    """Return a hash of the source code of tagger: another code may make other rows.

    It covers the whole package, so that nobody has to keep a list of the modules that count.
    """
    package = Path(__file__).parents[1]
    digest = sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def settle_found(
    found: Iterable[Listing | Failure],
    decider: TrackDecider,
    rows: RowRepeater,
    settle_track: Callable[[Track, KnownTrack], TrackStep | None],
) -> Iterator[TrackStep | None]:
    """Repeat the rows that still hold, and settle each other track by itself."""

    def split() -> Iterator[FoundPart]:
        for item in found:
            if isinstance(item, Failure):
                yield item
                continue
            for part in rows.split_listing(item):
                yield decider.load_tracks(part) if isinstance(part, list) else part

    return settle_parts(
        split(), decider, decider.needs_tags, lambda part: starmap(settle_track, part)
    )


def settle_parts(
    parts: Iterable[FoundPart],
    decider: TrackDecider,
    needs_tags: Callable[[KnownTrack], bool],
    settle_tracks: Callable[[list[FoundTrack]], Iterable[T]],
) -> Iterator[TrackStep | T]:
    """Settle part by part, while the tags of the tracks in the next parts are read.

    needs_tags: tells whether `settle_tracks` will read the tags of a track.
    """

    def list_unread(part: FoundPart) -> list[Track]:
        if not isinstance(part, list) or decider.is_time_up():
            return []
        readable = (found for found in part if found[0].path not in decider.unrecovered)
        return [track for track, known in readable if needs_tags(known)]

    for part in decider.reader.read_ahead(parts, list_unread):
        if isinstance(part, Failure):
            yield decider.report_failure(part)
        elif isinstance(part, RepeatedRows):
            yield part
        else:
            yield from settle_tracks(part)
        decider.state.commit_if_due()
    decider.state.commit()


@dataclass(frozen=True, slots=True)
class TrackSettler:
    """Settles each track by itself."""

    decider: TrackDecider
    rows: RowRepeater

    def settle_known(self, found: Iterable[Listing | Failure]) -> Iterator[TrackStep | None]:
        """Settle the tracks that need no prediction; queue the others, and yield None for each."""
        return settle_found(found, self.decider, self.rows, self._settle_track)

    def _settle_track(self, track: Track, known: KnownTrack) -> TrackStep | None:
        found = self.decider.examine(track, known)
        if not isinstance(found, KnownTrack):
            return self.rows.save(found)
        if found.scores is None:
            self.decider.state.queue.add(track)
            return None
        return self._settle_scored(track, found)

    def _settle_scored(self, track: Track, known: KnownTrack) -> TrackStep:
        proposal = self.decider.propose(known)
        return self.rows.save(self.decider.decide_track(track, known, proposal))

    def settle_predictions(
        self, results: Iterable[Prediction | Failure]
    ) -> Iterator[TrackStep | None]:
        """Save the prediction of each queued track, and settle the track."""
        state = self.decider.state
        for result in results:
            state.queue.remove(result.track)
            if isinstance(result, Failure):
                yield self.rows.save(self.decider.report_model_failure(result))
            else:
                state.save_prediction(result, windows=self.decider.windows)
                yield self._settle_scored(result.track, self.decider.load(result.track))
            state.commit_if_due()
