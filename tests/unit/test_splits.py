"""Splits of a data set: at random, by genre, album and artist, as published, by lists of files."""

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
from tagger.training.splits import Split, choose_split_kind, read_split_files, split_clips

ROOT = Path(__file__).parents[2]
PRINT_SPLITS = """
from tests.unit.test_splits import build_dataset, list_parts, split
for kind in ("random", "stratified", "album", "artist"):
    print(list_parts(split(build_dataset(), kind)))
"""


def make_clip(number: int, genre: str, artist: str = "", album: str = "", part: str = "") -> Clip:
    path = Path("/music", genre, f"{number:03}.flac")
    return Clip(Track(path, size=1, mtime_ns=0, inode=number), (genre,), artist, album, part)


def build_dataset(genres: Sequence[str] = ("Jazz", "Pop", "Rock")) -> Dataset:
    """Build 40 clips of each genre: of ten artists with two albums of two clips."""
    clips = [
        make_clip(number, genre, f"{genre} {number // 4}", f"{genre} {number // 2}")
        for genre in genres
        for number in range(40)
    ]
    return Dataset("music", tuple(clips))


def split(dataset: Dataset, kind: str, *, test_size: float = 0.2, seed: int = 42) -> Split:
    return split_clips(dataset, SplitKind(kind), test_size=test_size, seed=seed)


def list_parts(result: Split) -> list[list[str]]:
    parts = (result.train, result.validation)
    return [[str(clip.track.path) for clip in clips] for clips in parts]


def collect_values(clips: Sequence[Clip], field: str) -> set[str]:
    return {getattr(clip, field) for clip in clips}


@pytest.mark.parametrize("kind", ["random", "stratified", "album", "artist"])
def test_every_clip_is_in_one_part_and_the_share_is_kept(kind: str) -> None:
    dataset = build_dataset()
    result = split(dataset, kind)
    assert sorted([*result.train, *result.validation], key=dataset.clips.index) == [*dataset.clips]
    assert len(result.validation) == pytest.approx(24, abs=2)
    assert result.test == ()
    assert result.untrained_genres == result.unmeasured_genres == ()
    assert "20 %" in result.method
    assert "seed 42" in result.method


@pytest.mark.parametrize("kind", ["random", "stratified", "album", "artist"])
def test_the_seed_decides(kind: str) -> None:
    assert split(build_dataset(), kind) == split(build_dataset(), kind)
    assert split(build_dataset(), kind) != split(build_dataset(), kind, seed=1)


@pytest.mark.slow
def test_parts_do_not_depend_on_the_process() -> None:
    command = [sys.executable, "-c", PRINT_SPLITS]
    outputs = {
        subprocess.check_output(command, env=os.environ | {"PYTHONHASHSEED": seed}, cwd=ROOT)
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_each_genre_has_the_same_share() -> None:
    genres = ["Jazz"] * 50 + ["Pop"] * 10 + ["Rock"] * 40
    dataset = Dataset("music", tuple(make_clip(n, genre) for n, genre in enumerate(genres)))
    rows = [
        (row.genre, row.train, row.validation)
        for row in split(dataset, "stratified").count_genres()
    ]
    assert rows == [("Jazz", 40, 10), ("Pop", 8, 2), ("Rock", 32, 8)]


@pytest.mark.parametrize("kind", ["album", "artist"])
def test_no_group_is_in_two_parts(kind: str) -> None:
    for seed in range(5):
        result = split(build_dataset(), kind, seed=seed)
        assert not collect_values(result.train, kind) & collect_values(result.validation, kind)
        assert [row.validation for row in result.count_genres()] == [8, 8, 8]


def test_groups_are_artists_in_any_spelling_else_albums_else_clips() -> None:
    spellings = ["The Band", "the band", "THE BAND"]
    clips = [make_clip(n, "Rock", spellings[n % 3]) for n in range(6)]
    clips += [make_clip(n, "Rock", album=f"Album {n % 2}") for n in range(6, 10)]
    clips += [make_clip(n, "Jazz") for n in range(10, 20)]
    for seed in range(5):
        result = split(Dataset("music", tuple(clips)), "artist", test_size=0.5, seed=seed)
        parts = [{clip.track.inode for clip in part} for part in (result.train, result.validation)]
        for group in ({*range(6)}, {6, 8}, {7, 9}):
            assert any(group <= part for part in parts)
        assert "10 of 20 clips have no artist" in result.method


def test_a_genre_of_one_artist_is_only_for_training() -> None:
    clips = [*build_dataset(("Jazz", "Rock")).clips]
    clips += [make_clip(n, "Polka", "Only One", f"Album {n}") for n in range(5)]
    result = split(Dataset("music", tuple(clips)), "artist")
    assert result.unmeasured_genres == ("Polka",)
    assert result.untrained_genres == ()
    assert split(Dataset("music", tuple(clips)), "album").unmeasured_genres == ()


def test_the_only_clip_of_a_genre_is_for_training() -> None:
    dataset = Dataset("music", (*build_dataset(("Jazz", "Rock")).clips, make_clip(0, "Polka")))
    assert split(dataset, "stratified").unmeasured_genres == ("Polka",)


@pytest.mark.parametrize("kind", ["stratified", "album", "artist"])
def test_few_clips_are_split_as_well_as_possible(kind: str) -> None:
    clips = [make_clip(n, genre, str(n), str(n)) for n, genre in enumerate(["Jazz", "Rock"] * 2)]
    rows = split(Dataset("music", tuple(clips)), kind).count_genres()
    assert [(row.train, row.validation) for row in rows] == [(1, 1), (1, 1)]


def test_a_random_split_may_leave_a_genre_without_training_clips() -> None:
    dataset = Dataset("music", (*build_dataset(("Jazz", "Rock")).clips, make_clip(0, "Polka")))
    untrained = [split(dataset, "random", seed=seed).untrained_genres for seed in range(20)]
    assert set(untrained) == {(), ("Polka",)}


def test_published_parts_are_kept() -> None:
    parts = ["train", "Training", "val", "test", "unlabelled", ""]
    clips = [make_clip(n, ("Jazz", "Rock")[n % 2], part=part) for n, part in enumerate(parts)]
    result = split(Dataset("music", tuple(clips)), "published")
    assert [len(clips) for clips in (result.train, result.validation, result.test)] == [2, 1, 1]
    assert result.left_out == tuple(clips[4:])
    assert result.method == "as published"


def test_a_published_test_part_is_for_validation_if_there_is_no_other() -> None:
    parts = ["train", "train", "test"]
    clips = [make_clip(n, ("Jazz", "Rock")[n % 2], part=part) for n, part in enumerate(parts)]
    result = split(Dataset("music", tuple(clips)), "published")
    assert result.validation == (clips[2],)
    assert result.test == ()
    assert result.method == "as published, the test part for validation"


def test_of_several_labels_the_main_one_counts() -> None:
    both = [
        Clip(each.track, (*each.labels, "Pop")) for each in build_dataset(("Jazz", "Rock")).clips
    ]
    rows = split(Dataset("music", tuple(both)), "stratified").count_genres()
    assert [(row.genre, row.train, row.validation) for row in rows] == [
        ("Jazz", 32, 8),
        ("Rock", 32, 8),
    ]


@pytest.mark.parametrize(
    ("clips", "kind", "words"),
    [
        ([], "random", "music needs two genres or more, it has only none"),
        (
            [make_clip(0, "Rock"), make_clip(1, "Rock")],
            "random",
            "two genres or more, it has only Rock",
        ),
        (
            [make_clip(0, "Rock"), make_clip(1, "Pop")],
            "stratified",
            "has only one clip of each genre",
        ),
        (
            [make_clip(0, "Rock"), make_clip(1, "Pop")],
            "random",
            "the train part of music needs two genres",
        ),
        ([make_clip(0, "Rock"), make_clip(1, "Pop")], "album", "music has no albums for its clips"),
        (
            [make_clip(0, "Rock"), make_clip(1, "Pop")],
            "artist",
            "music has no artists for its clips",
        ),
        (
            [make_clip(0, "Rock", "A"), make_clip(1, "Pop", "A")],
            "artist",
            "no genre has clips of two artists or more",
        ),
        ([make_clip(0, "Rock"), make_clip(1, "Pop")], "published", "music has no published parts"),
        (
            [make_clip(0, "Rock", part="train"), make_clip(1, "Pop", part="train")],
            "published",
            "the validation part of music has no clips",
        ),
        (
            [make_clip(0, "Rock", part="test"), make_clip(1, "Pop", part="val")],
            "published",
            "the train part of music has no clips",
        ),
    ],
)
def test_data_sets_that_cannot_be_split(clips: list[Clip], kind: str, words: str) -> None:
    with pytest.raises(LibraryError, match=words):
        split(Dataset("music", tuple(clips)), kind)


def test_auto_prefers_published_parts_then_the_albums_of_a_library() -> None:
    dataset = build_dataset()
    assert choose_split_kind(dataset, is_library=True) is SplitKind.ALBUM
    assert choose_split_kind(dataset, is_library=False) is SplitKind.RANDOM
    published = Dataset("music", (make_clip(0, "Jazz", album="A", part="train"),))
    assert choose_split_kind(published, is_library=True) is SplitKind.PUBLISHED


GTZAN_GENRES = ("blues", "rock")


def make_clip_at(path: str) -> Clip:
    return Clip(Track(Path(path), size=1, mtime_ns=0, inode=0), (Path(path).parent.name,))


@pytest.fixture
def gtzan() -> Dataset:
    paths = [f"/data/GTZAN/{genre}/{genre}.{n:05}.au" for genre in GTZAN_GENRES for n in range(4)]
    return Dataset("GTZAN", tuple(map(make_clip_at, paths)))


def write_lists(folder: Path, **contents: str) -> list[Path]:
    paths = [folder / f"{name}_filtered.txt" for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_text(content, "utf-8")
    return paths


def list_short_names(result: Split) -> list[list[str]]:
    """Return the clips of each part, blues/blues.00000.au as blues.0."""
    parts = (result.train, result.validation, result.test, result.left_out)
    return [[Path(clip.track.path).stem.replace("0000", "") for clip in clips] for clips in parts]


TRAIN = "blues/blues.00000.wav\nrock/rock.00001.wav\n"
VALID = "blues/blues.00001.wav\n\n"
TEST = "rock/rock.00000.wav\nrock/rock.00099.wav\n"
EXPECTED = [["blues.0", "rock.1"], ["blues.1"], ["rock.0"]]
LEFT_OUT = ["blues.2", "blues.3", "rock.2", "rock.3"]


def test_the_filtered_split_of_gtzan(tmp_path: Path, gtzan: Dataset) -> None:
    result = read_split_files(write_lists(tmp_path, train=TRAIN, valid=VALID, test=TEST), gtzan)
    assert list_short_names(result) == [*EXPECTED, LEFT_OUT]
    assert result.unmatched == ("rock/rock.00099.wav",)
    assert result.method == (
        "by the published lists train_filtered.txt, valid_filtered.txt, test_filtered.txt"
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("blues/", ""),  # names without a folder
        (".wav", ""),
        ("blues/blues", "BLUES\\Blues"),
        ("\n", "\r\n"),
        ("blues/blues", "./blues/blues"),
    ],
)
def test_names_in_other_spellings(tmp_path: Path, gtzan: Dataset, old: str, new: str) -> None:
    texts = [text.replace(old, new) for text in (TRAIN, VALID, TEST)]
    paths = write_lists(tmp_path, **dict(zip(("train", "val", "test"), texts, strict=True)))
    assert list_short_names(read_split_files(paths, gtzan))[:3] == EXPECTED


def test_folders_of_the_authors_machine_do_not_count(tmp_path: Path, gtzan: Dataset) -> None:
    texts = [
        "".join(f"/home/me/genres/{line}\n" for line in text.splitlines() if line)
        for text in (TRAIN, VALID, TEST)
    ]
    paths = write_lists(tmp_path, **dict(zip(("train", "val", "test"), texts, strict=True)))
    assert list_short_names(read_split_files(paths, gtzan))[:3] == EXPECTED


@pytest.mark.parametrize("column", ["part", "split"])
def test_a_csv_file_can_have_all_parts(tmp_path: Path, gtzan: Dataset, column: str) -> None:
    path = tmp_path / "parts.csv"
    rows = [("training", TRAIN), ("Valid", VALID), ("test", TEST), ("unused", "rock.00003.wav")]
    lines = [f"{part},{name}" for part, text in rows for name in text.split()]
    path.write_text("\n".join([f"{column},path", *lines]), "utf-8")
    assert list_short_names(read_split_files([path], gtzan))[:3] == EXPECTED


def test_two_lists_are_enough(tmp_path: Path, gtzan: Dataset) -> None:
    result = read_split_files(write_lists(tmp_path, train=TRAIN, test=TEST), gtzan)
    assert list_short_names(result)[:3] == [EXPECTED[0], EXPECTED[2], []]


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        ({"train": TRAIN, "test": TRAIN}, "blues.00000.au is in two lists: train and test"),
        ({"train": TRAIN}, "no list of clips for validation"),
        ({"valid": TRAIN, "test": TEST}, "no list of clips for training"),
        ({"train": "", "test": TEST}, "no list of clips for training"),
        ({"train": "a.wav", "test": "b.wav"}, "none of the 2 names in train_filtered.txt, test_"),
        ({"first": TRAIN, "test": TEST}, "first_filtered.txt has to say train, val or test"),
        ({"train_test": TRAIN, "test": TEST}, "train_test_filtered.txt has to say train, val or"),
        ({"train": TRAIN, "test": "a.wav"}, "the validation part of GTZAN has no clips"),
        ({"train": "blues.00000", "test": TEST}, "needs two genres or more, it has only blues"),
    ],
)
def test_lists_that_do_not_fit(
    tmp_path: Path, gtzan: Dataset, contents: dict[str, str], words: str
) -> None:
    with pytest.raises(LibraryError, match=words):
        read_split_files(write_lists(tmp_path, **contents), gtzan)


def test_a_name_must_match_one_clip(tmp_path: Path) -> None:
    paths = [f"/data/{genre}/{number}.mp3" for genre in GTZAN_GENRES for number in range(2)]
    dataset = Dataset("data", tuple(map(make_clip_at, paths)))
    with pytest.raises(
        LibraryError, match=r"0\.wav may be /data/blues/0\.mp3 or /data/rock/0\.mp3"
    ):
        read_split_files(write_lists(tmp_path, train="0.wav\n", test="rock/1.wav\n"), dataset)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.csv", None, "cannot read .*none.csv: No such file"),
        ("a.csv", b"path,half\n", "a.csv does not have the columns path and part"),
        ("train.txt", b"\xff\xfe\xfa", "there is no list of clips for validation"),
    ],
)
def test_lists_that_cannot_be_read(
    tmp_path: Path, gtzan: Dataset, name: str, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(LibraryError, match=words):
        read_split_files([tmp_path / name], gtzan)
