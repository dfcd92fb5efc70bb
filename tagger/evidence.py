"""What other tracks of an album or artist say of a genre, and how that is pooled with the scores.

First the evidence of --context, then what is an album, its pooled scores, and its outliers.

The other tracks of a group say two things: how they sound, by their scores, and the genres that
people gave them. Both are counts of labels, smoothed, and are pooled with the scores of the track
in the logarithm:

    log p(label) + weight * log(share of the scores) + weight * log(share of the genres)
"""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tagger.records import (
    Album,
    AlbumWithOutliers,
    OutlierTrack,
    Score,
    normalize_label,
    split_genres,
)
from tagger.vocabulary import Vocabulary, list_broader, list_spellings


@dataclass(frozen=True, slots=True)
class ContextWeights:
    """How much the scores and the genres of other tracks count, beside 1 for the scores of a track.

    scores_smoothing, genres_smoothing: for how many tracks without any preference the smoothing
    counts. A high one means that a few tracks change little.
    """

    scores: float
    scores_smoothing: float
    genres: float
    genres_smoothing: float


WEIGHTS = ContextWeights(scores=0.36, scores_smoothing=4.5, genres=1.0, genres_smoothing=2.5)
"""Fitted by tests/benchmarks/context.py; docs/bundled_model has what they do."""

MIN_PROBABILITY = 1e-6
"""A label of a lower probability is as unlikely as one of this probability."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What tracks of one group say of the genre. scored, named: how many have scores, a genre.

    scores: the sum of the probabilities of each label. genres: how many tracks have each label as
    the genre that a person gave them. best: how many have it as the label with the best score.
    """

    scored: int = 0
    named: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)
    genres: Mapping[str, float] = field(default_factory=dict)
    best: Mapping[str, float] = field(default_factory=dict)

    def __add__(self, other: "Evidence") -> "Evidence":
        return self._combine(other, 1)

    def __sub__(self, other: "Evidence") -> "Evidence":
        return self._combine(other, -1)

    def __bool__(self) -> bool:
        return bool(self.scored or self.named)

    def _combine(self, other: "Evidence", sign: int) -> "Evidence":
        return Evidence(
            max(0, self.scored + sign * other.scored),
            max(0, self.named + sign * other.named),
            _add(self.scores, other.scores, sign),
            _add(self.genres, other.genres, sign),
            _add(self.best, other.best, sign),
        )


def _add(sums: Mapping[str, float], others: Mapping[str, float], sign: int) -> dict[str, float]:
    """Add the numbers of the same label, or subtract them; no sum is below 0."""
    total = dict(sums)
    for label, number in others.items():
        total[label] = max(0, total.get(label, 0) + sign * number)
    return total


def pool_with_evidence(
    scores: Sequence[Score],
    evidence: Evidence,
    not_music: Collection[str] = (),
    weights: ContextWeights = WEIGHTS,
) -> tuple[Score, ...]:
    """Return the scores of a track with its group counted in, best first.

    The probabilities of music still add up to what they did, and those of `not_music` stay. Where
    the group says nothing, the scores stay as they are.
    """
    music = [score for score in scores if score.genre not in not_music]
    if not evidence or not music:
        return tuple(scores)
    gains = [_compute_gain(evidence, score.genre, len(music), weights) for score in music]
    most = max(gains)
    masses = [
        max(score.probability, MIN_PROBABILITY) * math.exp(gain - most)
        for score, gain in zip(music, gains, strict=True)
    ]
    factor = sum(score.probability for score in music) / sum(masses)
    pooled = [
        Score(score.genre, min(1.0, mass * factor))
        for score, mass in zip(music, masses, strict=True)
    ]
    others = (score for score in scores if score.genre in not_music)
    return tuple(sorted([*pooled, *others], key=lambda score: -score.probability))


def _compute_gain(evidence: Evidence, label: str, labels: int, weights: ContextWeights) -> float:
    """Return what is added to the logarithm of the probability of one of `labels` labels.

    Without any track all labels have the same share, so the gain changes nothing.
    """
    heard = evidence.scores.get(label, 0.0) + weights.scores_smoothing / labels
    named = evidence.genres.get(label, 0) + weights.genres_smoothing / labels
    return weights.scores * math.log(
        heard / (evidence.scored + weights.scores_smoothing)
    ) + weights.genres * math.log(named / (evidence.named + weights.genres_smoothing))


def find_labels(
    genres: Iterable[str], labels_by_key: Mapping[str, tuple[str, ...]], vocabulary: Vocabulary
) -> list[str]:
    """Return the labels that the first known one of a person's genres stands for; else none.

    vocabulary: it knows other spellings of a genre, such as `Rap/Hip-Hop`, and the genres above it,
    such as Electronic above Tech House.
    """
    for genre in genres:
        for name in (*list_spellings(genre, vocabulary), *list_broader(genre, vocabulary)):
            if labels := labels_by_key.get(normalize_label(name)):
                return list(labels)
    return []


def index_labels(labels: Iterable[str], names: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the labels of the model by each spelling's key: the label's, and the user's name's.

    names: the user's names by label, as in `labels.get_label_names`. A name of the user wins over
    the same word as a label. A label without a name is no genre that tagger writes.
    """
    by_name: dict[str, tuple[str, ...]] = {}
    by_label: dict[str, tuple[str, ...]] = {}
    for label in labels:
        parts = split_genres(names.get(label.casefold(), label))
        for key in {normalize_label(part) for part in parts}:
            by_name[key] = (*by_name.get(key, ()), label)
        if parts:
            key = normalize_label(label)
            by_label[key] = (*by_label.get(key, ()), label)
    return by_label | by_name


def make_evidence(scores: Iterable[Score], labels: Collection[str]) -> Evidence:
    """Return what one track says. scores: of music, best first. labels: those that it was given."""
    scores = tuple(scores)
    return Evidence(
        int(bool(scores)),
        int(bool(labels)),
        {score.genre: score.probability for score in scores},
        Counter(labels),
        {scores[0].genre: 1} if scores else {},
    )


MIN_ALBUM_TRACKS = 3
"""An album of fewer tracks has no outliers."""

OUTLIER_MARGIN = 0.3
"""An outlier has a genre whose probability exceeds that of the album's genre by this much."""


@dataclass(frozen=True, slots=True)
class AlbumTrack:
    """A track of an album, with its scores, best first; all of them or the top ones."""

    path: str
    folder: str
    album: Album
    scores: tuple[Score, ...]


def is_single_album(album: Album | None) -> bool:
    """Tell whether tracks with these tags form one album: it has a title and is no compilation."""
    return album is not None and bool(album.title) and not album.various


def is_compilation(albums: Sequence[Album]) -> bool:
    """Tell whether the tracks of one album title are by many artists, as on a compilation.

    Without the field for the album artist, `artist` is the artist of each track.
    """
    artists = Counter(album.artist.casefold() for album in albums)
    _, most = artists.most_common(1)[0]
    return len(artists) >= MIN_ALBUM_TRACKS and 2 * most < len(albums)


def pool_scores(scores: Iterable[Sequence[Score]]) -> tuple[Score, ...]:
    """Return the mean probability of each genre over the tracks of an album, best first.

    The mean is over probabilities, not logits, so that one track with an extreme score cannot
    decide alone. A genre that is missing in a track counts as 0.
    """
    sums: dict[str, float] = defaultdict(float)
    tracks = 0
    for track_scores in scores:
        tracks += 1
        for score in track_scores:
            sums[score.genre] += score.probability
    ranked = sorted(sums.items(), key=lambda item: -item[1])
    return tuple(Score(genre, total / tracks) for genre, total in ranked)


def is_outlier(scores: Sequence[Score], genre: str) -> bool:
    """Tell whether the best score of a track exceeds that of `genre` by the margin."""
    probability = next((score.probability for score in scores if score.genre == genre), 0.0)
    return bool(scores) and scores[0].probability - probability >= OUTLIER_MARGIN


def find_outliers(tracks: Iterable[AlbumTrack]) -> Iterator[AlbumWithOutliers]:
    """Yield the albums with outliers, in the order of their first tracks.

    If half of an album's tracks or more are outliers, the album has no genre to compare with.
    """
    groups: dict[tuple[str, str], list[AlbumTrack]] = defaultdict(list)
    for track in tracks:
        if track.scores and is_single_album(track.album):
            groups[track.folder, track.album.title].append(track)
    for (folder, title), group in groups.items():
        if len(group) < MIN_ALBUM_TRACKS or is_compilation([track.album for track in group]):
            continue
        genre = pool_scores(track.scores for track in group)[0].genre
        odd = [track for track in group if is_outlier(track.scores, genre)]
        if odd and 2 * len(odd) < len(group):
            outliers = tuple(OutlierTrack(track.path, track.scores[0]) for track in odd)
            yield AlbumWithOutliers(folder, title, genre, len(group), outliers)
