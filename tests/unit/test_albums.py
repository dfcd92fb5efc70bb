"""The genre of an album, and its outliers."""

import pytest

from tagger.evidence import (
    AlbumTrack,
    find_outliers,
    is_compilation,
    is_outlier,
    is_single_album,
    pool_scores,
)
from tagger.records import Album, Score

ROCK, JAZZ = (Score("Rock", 0.9), Score("Jazz", 0.1)), (Score("Jazz", 0.8), Score("Rock", 0.2))


def members(*scores: tuple[Score, ...], album: Album | None = None) -> list[AlbumTrack]:
    album = album or Album("Artist", "Title")
    return [AlbumTrack(f"/a/{n}.mp3", "/a", album, each) for n, each in enumerate(scores)]


def test_a_pool_is_the_mean_of_probabilities_and_the_best_comes_first() -> None:
    pooled = pool_scores([ROCK, JAZZ, JAZZ])
    assert [score.genre for score in pooled] == ["Jazz", "Rock"]
    assert pooled[0].probability == pytest.approx(1.7 / 3)
    assert sum(score.probability for score in pooled) == pytest.approx(1)


def test_one_track_that_is_sure_has_no_veto() -> None:
    never = (Score("Jazz", 1.0), Score("Rock", 0.0))
    assert pool_scores([ROCK, ROCK, ROCK, never])[0].genre == "Rock"


def test_a_track_that_sounds_like_another_genre_stands_apart() -> None:
    (album,) = find_outliers(members(ROCK, ROCK, JAZZ, ROCK))
    assert (album.title, album.genre, album.tracks) == ("Title", "Rock", 4)
    assert [(track.path, track.best.genre) for track in album.outliers] == [("/a/2.mp3", "Jazz")]


def test_a_narrow_lead_is_none() -> None:
    narrow = (Score("Jazz", 0.5), Score("Rock", 0.45))
    assert is_outlier(JAZZ, "Rock")
    assert not is_outlier(narrow, "Rock")
    assert not list(find_outliers(members(ROCK, ROCK, narrow)))


@pytest.mark.parametrize(
    "group",
    [
        members(ROCK, JAZZ),  # too few
        members(ROCK, ROCK, JAZZ, JAZZ),  # no genre that they could stand apart from
        members(ROCK, ROCK, JAZZ, album=Album("Artist", "")),  # loose tracks
        members(ROCK, ROCK, JAZZ, album=Album("Artist", "Hits", various=True)),
        members(ROCK, ROCK, ROCK),
    ],
)
def test_what_has_none_that_stand_apart(group: list[AlbumTrack]) -> None:
    assert not list(find_outliers(group))


def test_the_same_title_in_two_folders_is_two_albums() -> None:
    album = Album("Artist", "Live")
    group = [AlbumTrack(f"/{n % 2}/{n}.mp3", f"/{n % 2}", album, ROCK) for n in range(4)]
    group.append(AlbumTrack("/0/odd.mp3", "/0", album, JAZZ))
    (found,) = find_outliers(group)
    assert (found.folder, found.tracks) == ("/0", 3)


def test_an_album_by_many_artists_is_a_compilation_whatever_its_flag_says() -> None:
    assert is_compilation([Album(name, "Hits") for name in "ABCD"])
    assert is_compilation([Album(name, "Hits") for name in ("A", "a", "B", "C", "D")])
    assert not is_compilation([Album(name, "Title") for name in ("A", "A", "A feat. B", "C")])
    assert not is_compilation([Album("A", "Title"), Album("B", "Title")])
    assert is_single_album(Album("A", "Title"))
    assert not is_single_album(None)
