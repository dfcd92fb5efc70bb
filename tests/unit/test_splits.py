"""How a data set is divided: by chance, by genre, by album and artist, as published."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tagger.errors import LibraryError
from tagger.records import Track
from tagger.training.clips import Clip, Dataset
from tagger.training.recipe import SplitKind
from tagger.training.splits import Split, split_clips

ROOT = Path(__file__).parents[2]
SAME_IN_ANY_PROCESS = """
from tests.unit.test_splits import halves_of, library, split
for kind in ("random", "stratified", "album", "artist"):
    print(halves_of(split(library(), kind)))
"""


def clip(number: int, genre: str, artist: str = "", album: str = "", part: str = "") -> Clip:
    path = Path("/music", genre, f"{number:03}.flac")
    return Clip(Track(path, size=1, mtime_ns=0, inode=number), (genre,), artist, album, part)


def library(genres: Sequence[str] = ("Jazz", "Pop", "Rock")) -> Dataset:
    """Build 40 clips of each genre: of ten artists with two albums of two clips."""
    clips = [
        clip(number, genre, f"{genre} {number // 4}", f"{genre} {number // 2}")
        for genre in genres
        for number in range(40)
    ]
    return Dataset("music", tuple(clips))


def split(dataset: Dataset, how: str, *, test_size: float = 0.2, seed: int = 42) -> Split:
    return split_clips(dataset, SplitKind(how), test_size=test_size, seed=seed)


def halves_of(found: Split) -> list[list[str]]:
    return [[str(each.track.path) for each in half] for half in (found.train, found.validation)]


def names(clips: Sequence[Clip], field: str) -> set[str]:
    return {getattr(each, field) for each in clips}


@pytest.mark.parametrize("how", ["random", "stratified", "album", "artist"])
def test_every_clip_is_in_one_half_and_the_share_is_kept(how: str) -> None:
    dataset = library()
    found = split(dataset, how)
    assert sorted([*found.train, *found.validation], key=dataset.clips.index) == [*dataset.clips]
    assert len(found.validation) == pytest.approx(24, abs=2)
    assert found.test == ()
    assert found.untrained == found.unmeasured == ()
    assert "20 %" in found.how
    assert "seed 42" in found.how


@pytest.mark.parametrize("how", ["random", "stratified", "album", "artist"])
def test_the_seed_decides(how: str) -> None:
    assert split(library(), how) == split(library(), how)
    assert split(library(), how) != split(library(), how, seed=1)


def test_halves_do_not_depend_on_the_process() -> None:
    command = [sys.executable, "-c", SAME_IN_ANY_PROCESS]
    outputs = {
        subprocess.check_output(command, env=os.environ | {"PYTHONHASHSEED": seed}, cwd=ROOT)
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_each_genre_has_the_same_share() -> None:
    genres = ["Jazz"] * 50 + ["Pop"] * 10 + ["Rock"] * 40
    dataset = Dataset("music", tuple(clip(n, genre) for n, genre in enumerate(genres)))
    rows = [(row.genre, row.train, row.validation) for row in split(dataset, "stratified").counts()]
    assert rows == [("Jazz", 40, 10), ("Pop", 8, 2), ("Rock", 32, 8)]


@pytest.mark.parametrize("how", ["album", "artist"])
def test_no_group_is_in_both_halves(how: str) -> None:
    for seed in range(5):
        found = split(library(), how, seed=seed)
        assert not names(found.train, how) & names(found.validation, how)
        assert [row.validation for row in found.counts()] == [8, 8, 8]


def test_an_artist_is_one_in_any_spelling_and_else_the_album_or_the_clip_stands_for_itself() -> (
    None
):
    spellings = ["The Band", "the band", "THE BAND"]
    clips = [clip(n, "Rock", spellings[n % 3]) for n in range(6)]
    clips += [clip(n, "Rock", album=f"Album {n % 2}") for n in range(6, 10)]
    clips += [clip(n, "Jazz") for n in range(10, 20)]
    for seed in range(5):
        found = split(Dataset("music", tuple(clips)), "artist", test_size=0.5, seed=seed)
        halves = [{each.track.inode for each in half} for half in (found.train, found.validation)]
        for group in ({*range(6)}, {6, 8}, {7, 9}):
            assert any(group <= half for half in halves)
        assert "10 of 20 clips do not say their artist" in found.how


def test_a_genre_of_one_artist_is_learned_and_not_held_back() -> None:
    clips = [*library(("Jazz", "Rock")).clips]
    clips += [clip(n, "Polka", "Only One", f"Album {n}") for n in range(5)]
    found = split(Dataset("music", tuple(clips)), "artist")
    assert found.unmeasured == ("Polka",)
    assert found.untrained == ()
    assert split(Dataset("music", tuple(clips)), "album").unmeasured == ()


def test_the_only_clip_of_a_genre_is_learned_from() -> None:
    dataset = Dataset("music", (*library(("Jazz", "Rock")).clips, clip(0, "Polka")))
    assert split(dataset, "stratified").unmeasured == ("Polka",)


@pytest.mark.parametrize("how", ["stratified", "album", "artist"])
def test_few_clips_are_divided_as_well_as_they_can_be(how: str) -> None:
    clips = [clip(n, genre, str(n), str(n)) for n, genre in enumerate(["Jazz", "Rock"] * 2)]
    rows = split(Dataset("music", tuple(clips)), how).counts()
    assert [(row.train, row.validation) for row in rows] == [(1, 1), (1, 1)]


def test_chance_may_leave_a_genre_with_nothing_to_learn_from() -> None:
    dataset = Dataset("music", (*library(("Jazz", "Rock")).clips, clip(0, "Polka")))
    left = [split(dataset, "random", seed=seed).untrained for seed in range(20)]
    assert set(left) == {(), ("Polka",)}


def test_published_parts_are_kept() -> None:
    parts = ["train", "Training", "val", "test", "unlabelled", ""]
    clips = [clip(n, ("Jazz", "Rock")[n % 2], part=part) for n, part in enumerate(parts)]
    found = split(Dataset("music", tuple(clips)), "published")
    assert [len(half) for half in (found.train, found.validation, found.test)] == [2, 1, 1]
    assert found.left_out == tuple(clips[4:])
    assert found.how == "as published"


def test_of_two_published_parts_the_other_one_chooses_the_checkpoint() -> None:
    parts = ["train", "train", "test"]
    clips = [clip(n, ("Jazz", "Rock")[n % 2], part=part) for n, part in enumerate(parts)]
    found = split(Dataset("music", tuple(clips)), "published")
    assert found.validation == (clips[2],)
    assert found.test == ()
    assert found.how == "as published, the test part as the validation half"


def test_of_several_labels_the_main_one_counts() -> None:
    both = [Clip(each.track, (*each.labels, "Pop")) for each in library(("Jazz", "Rock")).clips]
    rows = split(Dataset("music", tuple(both)), "stratified").counts()
    assert [(row.genre, row.train, row.validation) for row in rows] == [
        ("Jazz", 32, 8),
        ("Rock", 32, 8),
    ]


@pytest.mark.parametrize(
    ("clips", "how", "words"),
    [
        ([], "random", "music needs two genres or more, it has only none"),
        ([clip(0, "Rock"), clip(1, "Rock")], "random", "two genres or more, it has only Rock"),
        ([clip(0, "Rock"), clip(1, "Pop")], "stratified", "has but one clip of each genre"),
        ([clip(0, "Rock"), clip(1, "Pop")], "random", "the train half of music needs two genres"),
        ([clip(0, "Rock"), clip(1, "Pop")], "album", "does not say on which album any clip is"),
        ([clip(0, "Rock"), clip(1, "Pop")], "artist", "does not say by which artist any clip is"),
        ([clip(0, "Rock", "A"), clip(1, "Pop", "A")], "artist", "of two artists to part"),
        ([clip(0, "Rock"), clip(1, "Pop")], "published", "was not published in parts"),
        (
            [clip(0, "Rock", part="train"), clip(1, "Pop", part="train")],
            "published",
            "the validation half of music has no clips",
        ),
        (
            [clip(0, "Rock", part="test"), clip(1, "Pop", part="val")],
            "published",
            "the train half of music has no clips",
        ),
    ],
)
def test_what_cannot_be_divided(clips: list[Clip], how: str, words: str) -> None:
    with pytest.raises(LibraryError, match=words):
        split(Dataset("music", tuple(clips)), how)
