"""One track at a time: from what is known or was heard to an Outcome, or a Rewrite to be done."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from tagger import decide
from tagger.errors import TrackError
from tagger.records import Action, Failure, Outcome, Prediction, Score, Tags, Track
from tagger.settings import Hardlinks, Settings
from tagger.state import Known, State
from tagger.tags import read_tags

COMMIT_EVERY = 500

LINKED = "it has several hard links (--hardlinks break|in-place writes it)"


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A track whose tags are to be replaced, and the Outcome if that goes well."""

    track: Track
    before: Tags
    after: Tags
    outcome: Outcome
    reported: bool
    """Whether an earlier run had already reported a failure of this track."""


Step = Outcome | Rewrite


@dataclass(frozen=True, slots=True)
class Steps:
    """What a run does with each track; nothing here touches a file but to read its tags."""

    settings: Settings
    state: State
    model: str

    def known(self, found: Iterable[Track | Failure]) -> Iterator[Step]:
        """Settle what needs no listening; queue the rest."""
        for number, track in enumerate(found, 1):
            step = self._look_up(track) if isinstance(track, Track) else self._failed(track)
            if number % COMMIT_EVERY == 0:
                self.state.commit()
            if step is not None:
                yield step
        self.state.commit()

    def heard(self, results: Iterable[Prediction | Failure]) -> Iterator[Step]:
        """Settle what the network made of the queue."""
        for result in results:
            if isinstance(result, Failure):
                yield self._failed(result)
            else:
                self.state.remember_prediction(result, windows=self.settings.windows)
                yield self._settle(result.track)
            self.state.commit()

    def _look_up(self, track: Track) -> Step | None:
        known = self._recall(track)
        if known.failure is not None and known.lasting and not self.settings.force:
            return self._failed(Failure(track, known.failure))
        tags = known.tags
        if tags is None:
            try:
                tags = read_tags(track.path)
            except TrackError as error:
                return self._failed(Failure(track, str(error), lasting=error.lasting))
            self.state.remember_tags(track, tags)
        if track.links > 1 and self.settings.hardlinks is Hardlinks.SKIP:
            return Outcome(track, Action.KEPT, existing=tags.genres, error=LINKED)
        if known.scores is not None and not self.settings.force:
            return self._settle(track)
        kept = decide.keeps(tags, self.settings.existing)
        if kept and not self.settings.audit:
            return Outcome(track, kept.action, existing=tags.genres, error=kept.reason)
        self.state.enqueue(track)
        return None

    def _settle(self, track: Track) -> Step:
        """Decide on a track whose tags and scores are known."""
        known = self._recall(track)
        assert known.tags is not None
        assert known.scores is not None
        best = self._best(known.scores)
        decision = decide.decide(
            known.tags,
            best,
            model=self.model,
            existing=self.settings.existing,
            min_score=self.settings.min_score,
        )
        outcome = Outcome(
            track,
            decision.action,
            genres=tuple(score.genre for score in best[:1]),
            existing=known.tags.genres,
            scores=best,
            duration_s=known.duration_s,
            model=self.model,
            error=decision.reason,
        )
        if decision.action is not Action.WRITTEN:
            return outcome
        if self.settings.dry_run:
            return replace(outcome, action=Action.WOULD_WRITE)
        assert decision.tags is not None
        return Rewrite(
            track, known.tags, decision.tags, outcome, reported=known.failure is not None
        )

    def _best(self, scores: tuple[Score, ...]) -> tuple[Score, ...]:
        return decide.relabel(scores, self.settings.genre_map)[: self.settings.top_k]

    def _failed(self, failure: Failure) -> Outcome:
        known = self._recall(failure.track)
        self.state.remember_failure(failure)
        return failed(failure, known.tags, reported=known.failure is not None)

    def _recall(self, track: Track) -> Known:
        return self.state.recall(track, model=self.model, windows=self.settings.windows)


def failed(failure: Failure, tags: Tags | None, *, reported: bool) -> Outcome:
    return Outcome(
        failure.track,
        Action.FAILED,
        existing=tags.genres if tags else (),
        error=failure.reason,
        new=not reported,
    )
