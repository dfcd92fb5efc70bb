"""One track at a time: from what is known or was heard to an Outcome, or a Rewrite to be done."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tagger import decide
from tagger.errors import TrackError
from tagger.isolation import Guard
from tagger.records import Action, Failure, Outcome, Prediction, Tags, Track
from tagger.settings import Hardlinks, Settings
from tagger.state import Known, State
from tagger.tags import read_tags
from tagger.writing import LINKED, Rewrite

COMMIT_EVERY = 500

AUTO = 0
"""The number of windows, in the state file, of scores that came of as many as suit the model."""

UNDONE = "tagger's tags were undone (--force writes them again)"


Step = Outcome | Rewrite
"""What there is to do about a track: nothing but to report it, or to write into it."""


@dataclass(frozen=True, slots=True)
class Steps:
    """What a run does with each track; nothing here touches a file but to read its tags."""

    settings: Settings
    state: State
    model: str
    guard: Guard
    unmended: Mapping[Path, str] = field(default_factory=dict)

    def known(self, found: Iterable[Track | Failure]) -> Iterator[Step]:
        """Settle what needs no listening; queue the rest."""
        for number, track in enumerate(map(self._judged, found), 1):
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
                step: Step = self._unheard(result)
            else:
                self.state.remember_prediction(result, windows=self._windows)
                known = replace(
                    self._recall(result.track), scores=result.scores, duration_s=result.duration_s
                )
                step = self._settle(result.track, known)
            self.state.commit()
            yield step

    def _judged(self, found: Track | Failure) -> Track | Failure:
        """Return a track that is not to be touched as a Failure."""
        if isinstance(found, Track) and found.path in self.unmended:
            return Failure(found, self.unmended[found.path], lasting=False)
        return found

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
