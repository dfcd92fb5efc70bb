"""One track at a time: from what is known or was heard to an Outcome, or a Rewrite to be done."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from itertools import groupby
from pathlib import Path

from tagger import __version__, decide
from tagger.crawl import Listing
from tagger.decide import format_genre_values
from tagger.errors import TrackError
from tagger.isolation import IsolatedCaller
from tagger.records import Action, Failure, Outcome, Prediction, RepeatedRows, Tags, Track
from tagger.report.csv import format_row
from tagger.scan.session import TrackStep
from tagger.settings import Hardlinks, Settings, get_row_settings
from tagger.state import CachedRow, KnownTrack, State
from tagger.tags import read_tags
from tagger.writing import HAS_HARD_LINKS, PlannedWrite

AUTO_WINDOWS = 0
"""The number of windows, in the state file, of scores that came of as many as suit the model."""

TIME_IS_UP = (
    "it was not its turn yet when the time was up (--until); the next run goes on from here"
)

UNDONE_BEFORE = "tagger's genre was undone or taken out of a report (--force writes it again)"


ACTIONS_BY_VALUE = {action.value: action for action in Action}


@dataclass(frozen=True)
class TrackSettler:
    """What a run does with each track; nothing here touches a file but to read its tags.

    is_over: the user's time is up, so that what is not known is left to the next run.
    """

    settings: Settings
    state: State
    model: str
    isolated: IsolatedCaller
    unrecovered: Mapping[Path, str] = field(default_factory=dict)
    is_over: Callable[[], bool] = lambda: False

    def known(self, found: Iterable[Listing | Failure]) -> Iterator[TrackStep | None]:
        """Settle what needs no listening; queue the rest, for which None stands."""
        for each in found:
            if isinstance(each, Listing) and self.repeats_rows:
                yield from self._in_folder(each)
            else:
                yield from self._afresh(each)
            self.state.commit_if_due()
        self.state.commit()

    def _afresh(self, found: Listing | Failure) -> Iterator[TrackStep | None]:
        """Think about each file, whatever is known of its row."""
        if isinstance(found, Failure):
            yield self._failed(found)
        else:
            yield from map(self._settled, map(found.track, found.files))

    @property
    def repeats_rows(self) -> bool:
        return not (self.settings.force or self.settings.verbose or self.unrecovered)

    def _in_folder(self, listing: Listing) -> Iterator[TrackStep | None]:
        """Repeat the rows that still hold, and think about the other files."""
        for run in self._runs(listing):
            if isinstance(run, RepeatedRows):
                yield run
            else:
                yield from map(self._settled, run)

    def _runs(self, listing: Listing) -> Iterator[RepeatedRows | list[Track]]:
        """Yield the files that follow one another and whose rows hold, or do not."""
        rows = self.state.rows.holding(listing.folder, listing.files, self.digest)
        pairs = zip(rows, listing.files, strict=True)
        for holds, group in groupby(pairs, lambda pair: self._holds(pair[0])):
            if holds:
                same = [(row, seen.size) for row, seen in group if row]
                actions = [ACTIONS_BY_VALUE[row.action] for row, _ in same]
                size = sum(size for row, size in same if row.action == Action.WOULD_WRITE)
                yield RepeatedRows(actions, "".join([row.text for row, _ in same]), size)
            else:
                yield [listing.track(seen) for _, seen in group]

    def _holds(self, row: CachedRow | None) -> bool:
        return row is not None and (row.action != Action.WOULD_WRITE or self.settings.dry_run)

    @cached_property
    def digest(self) -> bytes:
        """What beside a file and what is known of it tells its row of the report."""
        values = (__version__, self.model, *get_row_settings(self.settings))
        return sha256(repr(values).encode()).digest()

    def _settled(self, track: Track) -> TrackStep | None:
        """Settle one track that needs no listening; queue it otherwise."""
        judged = self._judged(track)
        if isinstance(judged, Failure):
            return self._failed(judged)
        found = KnownTrack() if self.is_over() else self._look_up(track)
        if isinstance(found, Outcome):
            return self._keeping(found)
        if found.scores is None:
            self.state.enqueue(track)
            return None
        return self._scored(track, found)

    def _scored(self, track: Track, known: KnownTrack) -> TrackStep | None:
        """Settle a track whose scores are known from an earlier run."""
        return self._keeping(self._settle(track, known, self._wish(known)))

    def _keeping(self, step: TrackStep) -> TrackStep:
        """Keep the row of an Outcome, but of a failure, which may have to be tried again."""
        if isinstance(step, Outcome) and step.action is not Action.FAILED:
            self.state.rows.remember(step.track, self.digest, step.action, format_row(step))
        return step

    def heard(self, results: Iterable[Prediction | Failure]) -> Iterator[TrackStep | None]:
        """Settle what the network made of the queue."""
        for result in results:
            self.state.dequeue(result.track)
            if isinstance(result, Failure):
                yield self._unheard(result)
            else:
                self.state.remember_prediction(result, windows=self._windows)
                yield self._scored(result.track, self._recall(result.track))
            self.state.commit_if_due()

    def left(self) -> Iterator[TrackStep]:
        """Leave what is still in the queue as it is."""
        late = decide.Decision(Action.KEPT, reason=TIME_IS_UP)
        for track in self.state.queued(heard=True):
            known = self._recall(track)
            yield self._outcome(track, known, late, self._wish(known))

    def _judged(self, track: Track) -> Track | Failure:
        """Return a track that is not to be touched as a Failure."""
        if track.path in self.unrecovered:
            return Failure(track, self.unrecovered[track.path], permanent=False)
        return track

    def _look_up(self, track: Track) -> Outcome | KnownTrack:
        """Return what becomes of a track by its tags alone, or what is known to decide it by.

        Without scores, it has to be listened to.
        """
        known = self._recall(track)
        failed_before = known.permanent and not self.settings.force and known.failure
        if (self._is_unread(known.tags) and not failed_before) or self.settings.force:
            try:
                tags = self.isolated.call(read_tags, track.path)
            except TrackError as error:
                return self._failed(Failure(track, str(error), permanent=error.permanent))
            self.state.remember_tags(track, tags)
            known = replace(known, tags=tags)
        kept = decide.decide_by_tags(known.tags or Tags(), self.settings.existing)
        if kept and not self.settings.audit:
            return self._outcome(track, known, kept, self._wish(known))
        if failed_before:
            return Outcome.failed(Failure(track, failed_before), known.tags, reported=True)
        if known.scores is not None and not self.settings.force:
            return known
        held = self._held(track, known)
        if held and not self.settings.audit:
            return self._outcome(track, known, held, self._wish(known))
        return replace(known, scores=None)

    def _is_unread(self, tags: Tags | None) -> bool:
        return tags is None

    def _settle(self, track: Track, known: KnownTrack, wish: decide.Proposal) -> TrackStep:
        """Decide on a track whose tags and scores are known."""
        tags = known.tags or Tags()
        decision = decide.decide(
            tags,
            wish,
            existing=self.settings.existing,
            min_score=self.settings.min_score,
        )
        if decision.action is Action.WRITTEN:
            decision = self._held(track, known) or decision
        outcome = self._outcome(track, known, decision, wish)
        if decision.action is Action.WRITTEN and decision.tags and not self.settings.dry_run:
            return PlannedWrite(track, tags, decision.tags, outcome, known.failure is not None)
        if known.failure is not None:
            self.state.forget_failure(track)
        return outcome

    def _outcome(
        self, track: Track, known: KnownTrack, decision: decide.Decision, wish: decide.Proposal
    ) -> Outcome:
        would_write = decision.action is Action.WRITTEN and self.settings.dry_run
        return Outcome(
            track,
            Action.WOULD_WRITE if would_write else decision.action,
            genres=wish.genres,
            existing=known.tags.genres if known.tags else (),
            scores=wish.scores,
            score=wish.score,
            duration_s=known.duration_s,
            model=self.model if wish.scores else "",
            error=decision.reason or wish.remark,
        )

    def _held(self, track: Track, known: KnownTrack) -> decide.Decision | None:
        """Return a KEPT decision if the track is not to be written whatever stands in its tags."""
        if known.undone and not self.settings.force:
            return decide.Decision(Action.KEPT, reason=UNDONE_BEFORE)
        if track.links > 1 and self.settings.hardlinks is Hardlinks.SKIP:
            return decide.Decision(Action.KEPT, reason=HAS_HARD_LINKS)
        return None

    def _wish(self, known: KnownTrack) -> decide.Proposal:
        settings = self.settings
        scores = decide.relabel(known.scores or (), decide.get_label_names(settings))
        genres = decide.choose_genres(scores, most=settings.genres, min_score=settings.min_score)
        values = format_genre_values(genres, settings.profile)
        return decide.Proposal(values, scores[: settings.top_k], self.model)

    def _failed(self, failure: Failure) -> Outcome:
        known = self._recall(failure.track)
        self.state.remember_failure(failure)
        return Outcome.failed(failure, known.tags, reported=known.failure is not None)

    def _unheard(self, failure: Failure) -> Outcome:
        known = self._recall(failure.track)
        self.state.remember_model_failure(failure, model=self.model, windows=self._windows)
        return Outcome.failed(failure, known.tags, reported=known.failure is not None)

    @property
    def _windows(self) -> int:
        return self.settings.windows or AUTO_WINDOWS

    def _recall(self, track: Track) -> KnownTrack:
        return self.state.recall(track, model=self.model, windows=self._windows)
