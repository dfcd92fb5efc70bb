"""One track at a time: from what is known or was heard to an Outcome, or a Rewrite to be done."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from itertools import groupby
from pathlib import Path

from tagger import __version__, decide
from tagger.crawl import Listing
from tagger.errors import TrackError
from tagger.isolation import Guard
from tagger.records import Action, Failure, Outcome, Prediction, Repeats, Tags, Track
from tagger.report.csv import row
from tagger.scan.session import Step
from tagger.settings import Hardlinks, Settings
from tagger.state import Known, Row, State
from tagger.tags import read_tags
from tagger.writing import LINKED, Rewrite

TELLING = (
    "existing", "min_score", "top_k", "genres", "windows", "hardlinks", "audit",
)  # fmt: skip
"""The settings that a row of the report depends on, but --dry-run, which has an action of its own.
"""

AUTO = 0
"""The number of windows, in the state file, of scores that came of as many as suit the model."""

LATE = "it was not its turn yet when the time was up (--until); the next run goes on from here"

UNDONE = "tagger's tags were undone (--force writes them again)"


ACTIONS = {action.value: action for action in Action}


@dataclass(frozen=True)
class Steps:
    """What a run does with each track; nothing here touches a file but to read its tags.

    is_over: the user's time is up, so that what is not known is left to the next run.
    """

    settings: Settings
    state: State
    model: str
    guard: Guard
    unmended: Mapping[Path, str] = field(default_factory=dict)
    is_over: Callable[[], bool] = lambda: False

    def known(self, found: Iterable[Listing | Failure]) -> Iterator[Step | None]:
        """Settle what needs no listening; queue the rest, for which None stands."""
        for each in found:
            if isinstance(each, Failure):
                yield self._failed(each)
            elif self.settings.force or self.settings.verbose or self.unmended:
                yield from map(self._settled, map(each.track, each.files))
            else:
                yield from self._in_folder(each)
            self.state.commit_at_times()
        self.state.commit()

    def _in_folder(self, listing: Listing) -> Iterator[Step | None]:
        """Repeat the rows that still hold, and think about the other files."""
        rows = self.state.rows.holding(listing.folder, listing.files, self.digest)
        pairs = zip(rows, listing.files, strict=True)
        for holds, group in groupby(pairs, lambda pair: self._repeats(pair[0])):
            if holds:
                same = [(row, seen.size) for row, seen in group if row]
                actions = [ACTIONS[row.action] for row, _ in same]
                size = sum(size for row, size in same if row.action == Action.WOULD_WRITE)
                yield Repeats(actions, "".join([row.text for row, _ in same]), size)
            else:
                yield from (self._settled(listing.track(seen)) for _, seen in group)

    def _repeats(self, row: Row | None) -> bool:
        return row is not None and (row.action != Action.WOULD_WRITE or self.settings.dry_run)

    @cached_property
    def digest(self) -> bytes:
        """What beside a file and what is known of it tells its row of the report."""
        chosen = (getattr(self.settings, name) for name in TELLING)
        told = (__version__, self.model, sorted(self.settings.genre_map.items()), *chosen)
        return sha256(repr(told).encode()).digest()

    def _settled(self, track: Track) -> Step | None:
        """Settle one track; its row is kept, but of a failure, which may have to be tried again."""
        judged = self._judged(track)
        if isinstance(judged, Failure):
            return self._failed(judged)
        if self.is_over():
            self.state.enqueue(track)
            return None
        step = self._look_up(track)
        if isinstance(step, Outcome) and step.action is not Action.FAILED:
            self._keep_row(step)
        return step

    def _keep_row(self, outcome: Outcome) -> None:
        self.state.rows.remember(outcome.track, self.digest, outcome.action, row(outcome))

    def heard(self, results: Iterable[Prediction | Failure]) -> Iterator[Step]:
        """Settle what the network made of the queue, which loses its first track with each."""
        for result in results:
            self.state.dequeue()
            if isinstance(result, Failure):
                step: Step = self._unheard(result)
            else:
                self.state.remember_prediction(result, windows=self._windows)
                known = replace(
                    self._recall(result.track), scores=result.scores, duration_s=result.duration_s
                )
                step = self._settle(result.track, known)
                if isinstance(step, Outcome):
                    self._keep_row(step)
            self.state.commit_at_times()
            yield step

    def left(self) -> Iterator[Step]:
        """Leave what is still in the queue as it is."""
        late = decide.Decision(Action.KEPT, reason=LATE)
        for track in self.state.queued():
            known = self._recall(track)
            yield self._outcome(track, known, late, self._wish(known))

    def _judged(self, track: Track) -> Track | Failure:
        """Return a track that is not to be touched as a Failure."""
        if track.path in self.unmended:
            return Failure(track, self.unmended[track.path], lasting=False)
        return track

    def _look_up(self, track: Track) -> Step | None:
        known = self._recall(track)
        failed_before = known.lasting and not self.settings.force and known.failure
        if (known.tags is None and not failed_before) or self.settings.force:
            try:
                tags = self.guard.call(read_tags, track.path)
            except TrackError as error:
                return self._failed(Failure(track, str(error), lasting=error.lasting))
            self.state.remember_tags(track, tags)
            known = replace(known, tags=tags)
        kept = decide.keeps(known.tags or Tags(), self.settings.existing)
        if kept and not self.settings.audit:
            return self._outcome(track, known, kept, self._wish(known))
        if failed_before:
            return Outcome.failed(Failure(track, failed_before), known.tags, reported=True)
        if known.scores is not None and not self.settings.force:
            return self._settle(track, known)
        held = self._held(track, known)
        if held and not self.settings.audit:
            return self._outcome(track, known, held, self._wish(known))
        self.state.enqueue(track)
        return None

    def _settle(self, track: Track, known: Known) -> Step:
        """Decide on a track whose tags and scores are known."""
        tags = known.tags or Tags()
        wish = self._wish(known)
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
            return Rewrite(track, tags, decision.tags, outcome, known.failure is not None)
        if known.failure is not None:
            self.state.forget_failure(track)
        return outcome

    def _outcome(
        self, track: Track, known: Known, decision: decide.Decision, wish: decide.Wish
    ) -> Outcome:
        would_write = decision.action is Action.WRITTEN and self.settings.dry_run
        return Outcome(
            track,
            Action.WOULD_WRITE if would_write else decision.action,
            genres=wish.genres,
            existing=known.tags.genres if known.tags else (),
            scores=wish.scores,
            duration_s=known.duration_s,
            model=self.model if wish.scores else "",
            error=decision.reason,
        )

    def _held(self, track: Track, known: Known) -> decide.Decision | None:
        """Return a KEPT decision if the track is not to be written whatever stands in its tags."""
        if known.undone and not self.settings.force:
            return decide.Decision(Action.KEPT, reason=UNDONE)
        if track.links > 1 and self.settings.hardlinks is Hardlinks.SKIP:
            return decide.Decision(Action.KEPT, reason=LINKED)
        return None

    def _wish(self, known: Known) -> decide.Wish:
        settings = self.settings
        scores = decide.relabel(known.scores or (), decide.names_for(settings))
        genres = decide.chosen(scores, most=settings.genres, min_score=settings.min_score)
        return decide.Wish(genres, scores[: settings.top_k], self.model)

    def _failed(self, failure: Failure) -> Outcome:
        known = self._recall(failure.track)
        self.state.remember_failure(failure)
        return Outcome.failed(failure, known.tags, reported=known.failure is not None)

    def _unheard(self, failure: Failure) -> Outcome:
        known = self._recall(failure.track)
        self.state.remember_unheard(failure, model=self.model, windows=self._windows)
        return Outcome.failed(failure, known.tags, reported=known.failure is not None)

    @property
    def _windows(self) -> int:
        return self.settings.windows or AUTO

    def _recall(self, track: Track) -> Known:
        return self.state.recall(track, model=self.model, windows=self._windows)
