"""What to write into a track: existing genre + scores + settings -> decision. Pure functions."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType

from tagger.records import (
    Action,
    Album,
    AlbumWithOutliers,
    OutlierTrack,
    Score,
    Tags,
    format_scores,
)
from tagger.settings import Existing, Profile, Settings


@dataclass(frozen=True, slots=True)
class Decision:
    """WRITTEN with the tags to write, or another action with the reason, where one is needed."""

    action: Action
    tags: Tags | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Proposal:
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


class GenreOrigin(Enum):
    """Whose genre stands in a file."""

    NONE = auto()
    USER = auto()  # also what was tagger's, once somebody changed it
    TAGGER = auto()
    BOTH = auto()  # ours behind theirs, as `append` leaves them
    REMOVED = auto()  # ours, and somebody took it out


class GenreRule(Enum):
    """What there is to do about the genre of a file."""

    KEEP = auto()
    TAGGER_ONLY = auto()
    TAGGER_BEHIND_USER = auto()


KEEP, REPLACE, APPEND = Existing
TAGGER_ONLY, TAGGER_BEHIND_USER = GenreRule.TAGGER_ONLY, GenreRule.TAGGER_BEHIND_USER

RULES: Mapping[GenreOrigin, Mapping[Existing, GenreRule]] = {
    GenreOrigin.NONE: {KEEP: TAGGER_ONLY, REPLACE: TAGGER_ONLY, APPEND: TAGGER_ONLY},
    GenreOrigin.USER: {KEEP: GenreRule.KEEP, REPLACE: TAGGER_ONLY, APPEND: TAGGER_BEHIND_USER},
    GenreOrigin.TAGGER: {KEEP: TAGGER_ONLY, REPLACE: TAGGER_ONLY, APPEND: TAGGER_ONLY},
    GenreOrigin.BOTH: {KEEP: GenreRule.KEEP, REPLACE: TAGGER_ONLY, APPEND: TAGGER_BEHIND_USER},
    GenreOrigin.REMOVED: {KEEP: GenreRule.KEEP, REPLACE: TAGGER_ONLY, APPEND: TAGGER_ONLY},
}
"""CONTRACT.md section 5: what to do, by whose genre stands there and by what `--existing` says."""

GTZAN_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "blues": "Blues", "classical": "Classical", "country": "Country", "disco": "Disco",
        "hiphop": "Hip-Hop", "jazz": "Jazz", "metal": "Metal", "pop": "Pop", "reggae": "Reggae",
        "rock": "Rock",
    }
)  # fmt: skip
"""The labels of GTZAN (Tzanetakis & Cook, 2002), on which most genre checkpoints were trained."""

REMOVED_BY_HAND = (
    "the genre that tagger wrote was removed by hand (--existing replace writes it again)"
)


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


def get_label_names(settings: Settings) -> Mapping[str, str]:
    """Return the names for a model's labels; labels that the user chose have the user's alone."""
    ready = {} if settings.labels else GTZAN_NAMES
    return {**ready, **settings.genre_map}


def find_unknown_labels(settings: Settings, labels: Iterable[str]) -> tuple[str, ...]:
    """Return what the user's genre map names and a model with these labels cannot answer."""
    known = {label.casefold() for label in labels}
    return tuple(label for label in settings.genre_map if label not in known)


def choose_genres(scores: Sequence[Score], *, most: int, min_score: float) -> tuple[str, ...]:
    """Return the genres to write: the best one, and others that are likely enough, best first."""
    likely = [score.genre for score in scores[:most] if score.probability >= min_score]
    return tuple(likely or [score.genre for score in scores[:1]])


def find_user_genres(tags: Tags) -> tuple[str, ...]:
    """Return the genres that are not the ones tagger wrote last.

    tagger's own stand at the end, where `append` puts them; anything else is somebody's edit.
    """
    own = len(tags.written)
    if own and tags.genres[-own:] == tags.written:
        return tags.genres[:-own]
    return tags.genres


def find_genre_origin(tags: Tags) -> GenreOrigin:
    """Tell whose genre stands in a file, by what tagger noted there when it wrote."""
    if not tags.genres:
        return GenreOrigin.REMOVED if tags.written else GenreOrigin.NONE
    before = find_user_genres(tags)
    if len(before) == len(tags.genres):
        return GenreOrigin.USER
    return GenreOrigin.BOTH if before else GenreOrigin.TAGGER


def decide_by_tags(tags: Tags, existing: Existing) -> Decision | None:
    """Return a KEPT decision if the track's genre stands whatever a model may hear in it."""
    whose = find_genre_origin(tags)
    if RULES[whose][existing] is not GenreRule.KEEP:
        return None
    return Decision(Action.KEPT, reason=REMOVED_BY_HAND if whose is GenreOrigin.REMOVED else "")


def decide(tags: Tags, wish: Proposal, *, existing: Existing, min_score: float) -> Decision:
    """Choose between keeping, leaving unchanged, abstaining and writing."""
    kept = decide_by_tags(tags, existing)
    if kept:
        return kept
    if wish.score is None or wish.score < min_score:
        return Decision(Action.LOW_SCORE)
    wanted = build_tags(tags, wish, existing)
    if wanted is None:
        return Decision(Action.KEPT)
    return Decision(Action.UNCHANGED if wanted == tags else Action.WRITTEN, wanted)


def build_tags(tags: Tags, wish: Proposal, existing: Existing) -> Tags | None:
    """Return the tags as they should be, or None if appending would only repeat genres."""
    rule = RULES[find_genre_origin(tags)][existing]
    before = find_user_genres(tags) if rule is TAGGER_BEHIND_USER else ()
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


@dataclass(frozen=True, slots=True)
class GenreFormat:
    """How a program reads genres.

    joined: what several genres are joined with, for one that reads a single value; empty for one
    that reads each. splits_at: where it takes a name apart that was meant as one.
    """

    joined: str = ""
    splits_at: tuple[str, ...] = ()


GENRE_FORMATS = {
    Profile.ANY: GenreFormat(),
    Profile.NAVIDROME: GenreFormat(splits_at=(";", "/", ",")),
    Profile.JELLYFIN: GenreFormat(splits_at=("/", ";", ",")),
    Profile.KODI: GenreFormat(splits_at=(" / ",)),
    Profile.MPD: GenreFormat(),
    Profile.PLEX: GenreFormat(joined=", "),
    Profile.ITUNES: GenreFormat(joined=", "),
}


def format_genre_values(genres: tuple[str, ...], profile: Profile) -> tuple[str, ...]:
    """Return genres as the values to be written."""
    separator = GENRE_FORMATS[profile].joined
    return (separator.join(genres),) if separator and genres else genres


def find_split_names(names: Iterable[str], profile: Profile) -> tuple[str, ...]:
    """Return the names that would arrive as several genres."""
    places = GENRE_FORMATS[profile].splits_at
    return tuple(name for name in names if any(place in name for place in places))


MIN_ALBUM_TRACKS = 3
"""Of fewer tracks none can be said to stand apart."""

OUTLIER_MARGIN = 0.3
"""By so much another genre has to be likelier than the album's for a track to stand apart."""


@dataclass(frozen=True, slots=True)
class AlbumTrack:
    """A track of an album. folder: where it lies; scores: best first, all or the top ones."""

    path: str
    folder: str
    album: Album
    scores: tuple[Score, ...]


def is_single_album(album: Album | None) -> bool:
    """Tell whether the tracks of an album belong to one kind of music.

    Those without a title do not, for nothing says that they are from one; nor do compilations.
    """
    return album is not None and bool(album.title) and not album.various


def is_compilation(albums: Sequence[Album]) -> bool:
    """Tell whether tracks of one title are by many artists, so that it is a compilation after all.

    Without the field for the artist of the album, files tell only who plays each track.
    """
    artists = Counter(album.artist.casefold() for album in albums)
    _, most = artists.most_common(1)[0]
    return len(artists) >= MIN_ALBUM_TRACKS and 2 * most < len(albums)


def pool_scores(scores: Iterable[Sequence[Score]]) -> tuple[Score, ...]:
    """Return the mean probability of each genre over the tracks of an album, best first.

    A mean of probabilities, not of logits: a single track that is surely something else then has
    one vote, and no veto. What a track does not name counts as 0.
    """
    sums: dict[str, float] = defaultdict(float)
    tracks = 0
    for each in scores:
        tracks += 1
        for score in each:
            sums[score.genre] += score.probability
    ranked = sorted(sums.items(), key=lambda item: -item[1])
    return tuple(Score(genre, total / tracks) for genre, total in ranked)


def is_outlier(scores: Sequence[Score], genre: str) -> bool:
    """Tell whether a track sounds far more like another genre than like that of its album."""
    among = next((score.probability for score in scores if score.genre == genre), 0.0)
    return bool(scores) and scores[0].probability - among >= OUTLIER_MARGIN


def find_outliers(members: Iterable[AlbumTrack]) -> Iterator[AlbumWithOutliers]:
    """Yield the albums with tracks that stand apart, in the order of their first tracks.

    An album most of whose tracks stand apart has no genre that they could stand apart from.
    """
    groups: dict[tuple[str, str], list[AlbumTrack]] = defaultdict(list)
    for member in members:
        if member.scores and is_single_album(member.album):
            groups[member.folder, member.album.title].append(member)
    for (folder, title), group in groups.items():
        if len(group) < MIN_ALBUM_TRACKS or is_compilation([member.album for member in group]):
            continue
        genre = pool_scores(member.scores for member in group)[0].genre
        odd = [member for member in group if is_outlier(member.scores, genre)]
        if odd and 2 * len(odd) < len(group):
            tracks = tuple(OutlierTrack(each.path, each.scores[0]) for each in odd)
            yield AlbumWithOutliers(folder, title, genre, len(group), tracks)
