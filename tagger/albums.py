"""The tracks of one album: what they are together, and which of them sound like another."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tagger.records import Album, OddAlbum, OddTrack, Score

FEW = 3
"""Of fewer tracks none can be said to stand apart."""

LEAD = 0.3
"""By so much another genre has to be likelier than the album's for a track to stand apart."""


@dataclass(frozen=True, slots=True)
class Member:
    """A track of an album. folder: where it lies; scores: best first, all or the top ones."""

    path: str
    folder: str
    album: Album
    scores: tuple[Score, ...]


def is_whole(album: Album | None) -> bool:
    """Tell whether the tracks of an album belong to one kind of music.

    Those without a title do not, for nothing says that they are from one; nor do compilations.
    """
    return album is not None and bool(album.title) and not album.various


def are_compiled(albums: Sequence[Album]) -> bool:
    """Tell whether tracks of one title are by many artists, so that it is a compilation after all.

    Without the field for the artist of the album, files tell only who plays each track.
    """
    artists = Counter(album.artist.casefold() for album in albums)
    _, most = artists.most_common(1)[0]
    return len(artists) >= FEW and 2 * most < len(albums)


def pool(scores: Iterable[Sequence[Score]]) -> tuple[Score, ...]:
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


def stands_apart(scores: Sequence[Score], genre: str) -> bool:
    """Tell whether a track sounds far more like another genre than like that of its album."""
    among = next((score.probability for score in scores if score.genre == genre), 0.0)
    return bool(scores) and scores[0].probability - among >= LEAD


def odd_albums(members: Iterable[Member]) -> Iterator[OddAlbum]:
    """Yield the albums with tracks that stand apart, in the order of their first tracks.

    An album most of whose tracks stand apart has no genre that they could stand apart from.
    """
    groups: dict[tuple[str, str], list[Member]] = defaultdict(list)
    for member in members:
        if member.scores and is_whole(member.album):
            groups[member.folder, member.album.title].append(member)
    for (folder, title), group in groups.items():
        if len(group) < FEW or are_compiled([member.album for member in group]):
            continue
        genre = pool(member.scores for member in group)[0].genre
        odd = [member for member in group if stands_apart(member.scores, genre)]
        if odd and 2 * len(odd) < len(group):
            tracks = tuple(OddTrack(each.path, each.scores[0]) for each in odd)
            yield OddAlbum(folder, title, genre, len(group), tracks)
