"""Splits that were published as lists of files."""

from pathlib import Path

import pytest

from tagger.errors import LibraryError
from tagger.records import Track
from tagger.training.clips import Clip, Dataset
from tagger.training.splits import Split, read_split_files

GENRES = ("blues", "rock")


def clip(path: str) -> Clip:
    return Clip(Track(Path(path), size=1, mtime_ns=0, inode=0), (Path(path).parent.name,))


@pytest.fixture
def gtzan() -> Dataset:
    paths = [f"/data/GTZAN/{genre}/{genre}.{n:05}.au" for genre in GENRES for n in range(4)]
    return Dataset("GTZAN", tuple(map(clip, paths)))


def lists(folder: Path, **contents: str) -> list[Path]:
    paths = [folder / f"{name}_filtered.txt" for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_text(content, "utf-8")
    return paths


def numbers(found: Split) -> list[list[str]]:
    """Return what each half has, as blues.0 for blues/blues.00000.au."""
    halves = (found.train, found.validation, found.test, found.left_out)
    return [[Path(each.track.path).stem.replace("0000", "") for each in half] for half in halves]


TRAIN = "blues/blues.00000.wav\nrock/rock.00001.wav\n"
VALID = "blues/blues.00001.wav\n\n"
TEST = "rock/rock.00000.wav\nrock/rock.00099.wav\n"
EXPECTED = [["blues.0", "rock.1"], ["blues.1"], ["rock.0"]]
LEFT_OUT = ["blues.2", "blues.3", "rock.2", "rock.3"]


def test_the_filtered_split_of_gtzan(tmp_path: Path, gtzan: Dataset) -> None:
    found = read_split_files(lists(tmp_path, train=TRAIN, valid=VALID, test=TEST), gtzan)
    assert numbers(found) == [*EXPECTED, LEFT_OUT]
    assert found.unmatched == ("rock/rock.00099.wav",)
    assert found.how == (
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
def test_names_in_other_words(tmp_path: Path, gtzan: Dataset, old: str, new: str) -> None:
    texts = [text.replace(old, new) for text in (TRAIN, VALID, TEST)]
    paths = lists(tmp_path, **dict(zip(("train", "val", "test"), texts, strict=True)))
    assert numbers(read_split_files(paths, gtzan))[:3] == EXPECTED


def test_folders_of_where_the_lists_were_made_are_none_of_ours(
    tmp_path: Path, gtzan: Dataset
) -> None:
    texts = [
        "".join(f"/home/me/genres/{line}\n" for line in text.splitlines() if line)
        for text in (TRAIN, VALID, TEST)
    ]
    paths = lists(tmp_path, **dict(zip(("train", "val", "test"), texts, strict=True)))
    assert numbers(read_split_files(paths, gtzan))[:3] == EXPECTED


@pytest.mark.parametrize("column", ["part", "split"])
def test_a_csv_does_as_well(tmp_path: Path, gtzan: Dataset, column: str) -> None:
    path = tmp_path / "halves.csv"
    rows = [("training", TRAIN), ("Valid", VALID), ("test", TEST), ("unused", "rock.00003.wav")]
    lines = [f"{half},{name}" for half, text in rows for name in text.split()]
    path.write_text("\n".join([f"{column},path", *lines]), "utf-8")
    assert numbers(read_split_files([path], gtzan))[:3] == EXPECTED


def test_two_lists_are_enough(tmp_path: Path, gtzan: Dataset) -> None:
    found = read_split_files(lists(tmp_path, train=TRAIN, test=TEST), gtzan)
    assert numbers(found)[:3] == [EXPECTED[0], EXPECTED[2], []]


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        ({"train": TRAIN, "test": TRAIN}, "blues.00000.au is in two lists: train and test"),
        ({"train": TRAIN}, "no list of what to hold back"),
        ({"valid": TRAIN, "test": TEST}, "no list of what to learn from"),
        ({"train": "", "test": TEST}, "no list of what to learn from"),
        ({"train": "a.wav", "test": "b.wav"}, "none of the 2 names in train_filtered.txt, test_"),
        ({"first": TRAIN, "test": TEST}, "first_filtered.txt has to say train, val or test"),
        ({"train_test": TRAIN, "test": TEST}, "train_test_filtered.txt has to say train, val or"),
        ({"train": TRAIN, "test": "a.wav"}, "the validation half of GTZAN has no clips"),
        ({"train": "blues.00000", "test": TEST}, "needs two genres or more, it has only blues"),
    ],
)
def test_lists_that_do_not_fit(
    tmp_path: Path, gtzan: Dataset, contents: dict[str, str], words: str
) -> None:
    with pytest.raises(LibraryError, match=words):
        read_split_files(lists(tmp_path, **contents), gtzan)


def test_a_name_must_mean_one_clip(tmp_path: Path) -> None:
    paths = [f"/data/{genre}/{number}.mp3" for genre in GENRES for number in range(2)]
    dataset = Dataset("data", tuple(map(clip, paths)))
    with pytest.raises(
        LibraryError, match=r"0\.wav may be /data/blues/0\.mp3 or /data/rock/0\.mp3"
    ):
        read_split_files(lists(tmp_path, train="0.wav\n", test="rock/1.wav\n"), dataset)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.csv", None, "cannot read .*none.csv: No such file"),
        ("a.csv", b"path,half\n", "a.csv has not the columns path and part"),
        ("train.txt", b"\xff\xfe\xfa", "there is no list of what to hold back"),
    ],
)
def test_lists_that_cannot_be_read(
    tmp_path: Path, gtzan: Dataset, name: str, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(LibraryError, match=words):
        read_split_files([tmp_path / name], gtzan)
