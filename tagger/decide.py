"""Existing genre + scores + settings -> what to do with a track. Pure: no file, no clock."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tagger.records import Action, Score, Tags, format_scores
from tagger.settings import Existing


@dataclass(frozen=True, slots=True)
class Decision:
    """WRITTEN with the tags to write, or another action with the reason, where one is needed."""

    action: Action
    tags: Tags | None = None
    reason: str = ""


REMOVED = "the genre that tagger wrote was removed by hand (--existing replace writes it again)"


def relabel(scores: Sequence[Score], names: Mapping[str, str]) -> tuple[Score, ...]:
    """Rename labels, adding up those that get one name and dropping those that get none.

    `names` is keyed by the case-folded label. Scores come out best first; ties keep their order.
    """
    sums: dict[str, float] = defaultdict(float)
    for score in scores:
        name = names.get(score.genre.casefold(), score.genre)
        if name:
            sums[name] += score.probability
    ranked = sorted(sums.items(), key=lambda item: -item[1])
    return tuple(Score(genre, min(probability, 1.0)) for genre, probability in ranked)


def theirs(tags: Tags) -> tuple[str, ...]:
    """Return the genres that are not the ones tagger wrote last.

    tagger's own stand at the end, where `append` puts them; anything else is somebody's edit.
    """
    own = len(tags.written)
    if own and tags.genres[-own:] == tags.written:
        return tags.genres[:-own]
    return tags.genres


def keeps(tags: Tags, existing: Existing) -> Decision | None:
    """Return a KEPT decision if the track's genre stands whatever a model may hear in it."""
    if existing is not Existing.KEEP:
        return None
    if theirs(tags):
        return Decision(Action.KEPT)
    if tags.written and not tags.genres:
        return Decision(Action.KEPT, reason=REMOVED)
    return None


def decide(
    tags: Tags, best: Sequence[Score], *, model: str, existing: Existing, min_score: float
) -> Decision:
    """Choose between keeping, leaving unchanged, abstaining and writing.

    `best`: the top k under the names that the user wants, best first.
    """
    kept = keeps(tags, existing)
    if kept:
        return kept
    if not best or best[0].probability < min_score:
        return Decision(Action.LOW_SCORE)
    wanted = wanted_tags(tags, best, model=model, existing=existing)
    if wanted is None:
        return Decision(Action.KEPT)
    return Decision(Action.UNCHANGED if wanted == tags else Action.WRITTEN, wanted)


def wanted_tags(
    tags: Tags, best: Sequence[Score], *, model: str, existing: Existing
) -> Tags | None:
    """Return the tags as they should be, or None if appending would only repeat a genre."""
    genre = best[0].genre
    before = () if existing is Existing.REPLACE else theirs(tags)
    if genre.casefold() in (name.casefold() for name in before):
        return None
    return Tags(genres=(*before, genre), written=(genre,), scores=format_scores(best), model=model)
