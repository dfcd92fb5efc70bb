"""Existing genre + scores + settings -> what to do with a track. Pure: no file, no clock."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType

from tagger.records import Action, Score, Tags, format_scores
from tagger.settings import Existing, Settings


@dataclass(frozen=True, slots=True)
class Decision:
    """WRITTEN with the tags to write, or another action with the reason, where one is needed."""

    action: Action
    tags: Tags | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a model would have in a file: genres, and its top scores under the user's names.

    pooled: how likely the first genre is by all tracks of an album; by this track alone without.
    remark: what the report should say beside.
    """

    genres: tuple[str, ...]
    scores: tuple[Score, ...]
    model: str
    pooled: float | None = None
    remark: str = ""

    @property
    def score(self) -> float | None:
        """How likely the first genre is; None where nothing was heard."""
        if self.pooled is not None:
            return self.pooled
        return self.scores[0].probability if self.scores else None


class Standing(Enum):
    """Whose genre stands in a file."""

    NOBODYS = auto()
    THEIRS = auto()  # also what was tagger's, once somebody changed it
    OURS = auto()
    BOTH = auto()  # ours behind theirs, as `append` leaves them
    REMOVED = auto()  # ours, and somebody took it out


class Rule(Enum):
    """What there is to do about the genre of a file."""

    LEAVE = auto()
    OURS_ALONE = auto()
    OURS_BEHIND_THEIRS = auto()


KEEP, REPLACE, APPEND = Existing
ALONE, BEHIND = Rule.OURS_ALONE, Rule.OURS_BEHIND_THEIRS

RULES: Mapping[Standing, Mapping[Existing, Rule]] = {
    Standing.NOBODYS: {KEEP: ALONE, REPLACE: ALONE, APPEND: ALONE},
    Standing.THEIRS: {KEEP: Rule.LEAVE, REPLACE: ALONE, APPEND: BEHIND},
    Standing.OURS: {KEEP: ALONE, REPLACE: ALONE, APPEND: ALONE},
    Standing.BOTH: {KEEP: Rule.LEAVE, REPLACE: ALONE, APPEND: BEHIND},
    Standing.REMOVED: {KEEP: Rule.LEAVE, REPLACE: ALONE, APPEND: ALONE},
}
"""CONTRACT.md section 5: what to do, by whose genre stands there and by what `--existing` says."""

READY_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "blues": "Blues", "classical": "Classical", "country": "Country", "disco": "Disco",
        "hiphop": "Hip-Hop", "jazz": "Jazz", "metal": "Metal", "pop": "Pop", "reggae": "Reggae",
        "rock": "Rock",
    }
)  # fmt: skip
"""The labels of GTZAN (Tzanetakis & Cook, 2002), on which most genre checkpoints were trained."""

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


def names_for(settings: Settings) -> Mapping[str, str]:
    """Return the names for a model's labels; labels that the user chose have the user's alone."""
    ready = {} if settings.labels else READY_NAMES
    return {**ready, **settings.genre_map}


def unknown_labels(settings: Settings, labels: Iterable[str]) -> tuple[str, ...]:
    """Return what the user's genre map names and a model with these labels cannot answer."""
    known = {label.casefold() for label in labels}
    return tuple(label for label in settings.genre_map if label not in known)


def chosen(scores: Sequence[Score], *, most: int, min_score: float) -> tuple[str, ...]:
    """Return the genres to write: the best one, and others that are likely enough, best first."""
    likely = [score.genre for score in scores[:most] if score.probability >= min_score]
    return tuple(likely or [score.genre for score in scores[:1]])


def theirs(tags: Tags) -> tuple[str, ...]:
    """Return the genres that are not the ones tagger wrote last.

    tagger's own stand at the end, where `append` puts them; anything else is somebody's edit.
    """
    own = len(tags.written)
    if own and tags.genres[-own:] == tags.written:
        return tags.genres[:-own]
    return tags.genres


def standing(tags: Tags) -> Standing:
    """Tell whose genre stands in a file, by what tagger noted there when it wrote."""
    if not tags.genres:
        return Standing.REMOVED if tags.written else Standing.NOBODYS
    before = theirs(tags)
    if len(before) == len(tags.genres):
        return Standing.THEIRS
    return Standing.BOTH if before else Standing.OURS


def keeps(tags: Tags, existing: Existing) -> Decision | None:
    """Return a KEPT decision if the track's genre stands whatever a model may hear in it."""
    whose = standing(tags)
    if RULES[whose][existing] is not Rule.LEAVE:
        return None
    return Decision(Action.KEPT, reason=REMOVED if whose is Standing.REMOVED else "")


def decide(tags: Tags, wish: Wish, *, existing: Existing, min_score: float) -> Decision:
    """Choose between keeping, leaving unchanged, abstaining and writing."""
    kept = keeps(tags, existing)
    if kept:
        return kept
    if wish.score is None or wish.score < min_score:
        return Decision(Action.LOW_SCORE)
    wanted = wanted_tags(tags, wish, existing)
    if wanted is None:
        return Decision(Action.KEPT)
    return Decision(Action.UNCHANGED if wanted == tags else Action.WRITTEN, wanted)


def wanted_tags(tags: Tags, wish: Wish, existing: Existing) -> Tags | None:
    """Return the tags as they should be, or None if appending would only repeat genres."""
    rule = RULES[standing(tags)][existing]
    before = theirs(tags) if rule is BEHIND else ()
    known = {name.casefold() for name in before}
    new = tuple(genre for genre in wish.genres if genre.casefold() not in known)
    if not new:
        return None
    return Tags(
        (*before, *new),
        written=new,
        scores=format_scores(wish.scores),
        model=wish.model,
        album=tags.album,
    )
