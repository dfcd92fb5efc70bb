"""Split a data set into parts: one to learn from, one to choose the checkpoint, one to test.

Published lists of files can do the same, such as the fault-filtered split of GTZAN. These are three
text files with a path on each line: train_filtered.txt, valid_filtered.txt and test_filtered.txt.
They leave out the repetitions, wrong labels and distortions that B. L. Sturm found ("The GTZAN
dataset: its contents, its faults, their effects on evaluation, and its future use", 2013), and keep
each artist in one part (C. Kereliuk, B. L. Sturm and J. Larsen, "Deep learning and music
adversaries", IEEE Transactions on Multimedia, 2015).
"""

import csv
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import ceil
from pathlib import Path, PurePosixPath

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from tagger.errors import LibraryError
from tagger.paths import display_path
from tagger.records import normalize_label
from tagger.training.clips import PART_ALIASES, Clip, Dataset
from tagger.training.datasets import DATASET_SUFFIXES
from tagger.training.recipe import SplitKind

ClipNumbers = Sequence[int]


@dataclass(frozen=True, slots=True)
class GenreCount:
    """The number of clips in each part whose main label is this genre."""

    genre: str
    train: int
    validation: int
    test: int


@dataclass(frozen=True, slots=True)
class Split:
    """The parts of a data set.

    validation: chooses the best checkpoint, and measures it if test is empty. method: how the parts
    were made, as a phrase for the model card. left_out: clips in no part. unmatched: names in
    published lists that are no clip of the data set.
    """

    train: tuple[Clip, ...]
    validation: tuple[Clip, ...]
    test: tuple[Clip, ...]
    method: str
    left_out: tuple[Clip, ...] = ()
    unmatched: tuple[str, ...] = ()

    def count_genres(self) -> tuple[GenreCount, ...]:
        """Return a row for each genre, in the order of the names."""
        counts = [_count_genres(clips) for clips in (self.train, self.validation, self.test)]
        genres = sorted(set().union(*counts))
        return tuple(GenreCount(genre, *(count[genre] for count in counts)) for genre in genres)

    @property
    def untrained_genres(self) -> tuple[str, ...]:
        """Return the genres without a clip to learn from: all of their clips count as wrong."""
        return tuple(row.genre for row in self.count_genres() if not row.train)

    @property
    def unmeasured_genres(self) -> tuple[str, ...]:
        """Return the genres without a clip for validation or test."""
        return tuple(row.genre for row in self.count_genres() if not row.validation + row.test)


def choose_split_kind(dataset: Dataset, *, is_library: bool) -> SplitKind:
    """Return the kind that `--split auto` stands for.

    These are the published parts if each clip has one, albums for a library with albums, else a
    random split as in the tutorial.
    """
    if all(clip.part for clip in dataset.clips):
        return SplitKind.PUBLISHED
    has_albums = any(clip.album for clip in dataset.clips)
    return SplitKind.ALBUM if is_library and has_albums else SplitKind.RANDOM


def split_clips(dataset: Dataset, kind: SplitKind, *, test_size: float, seed: int) -> Split:
    """Split a data set. `test_size` is the share for validation, above 0 and below 1.

    The same data set, share and seed give the same parts. Of several labels the main one counts.
    Published parts do not depend on share and seed. Raises LibraryError if the data set cannot be
    split in this way.
    """
    _check_genre_count(dataset.name, dataset.clips)
    return SPLITTERS[kind](dataset, test_size, seed)


def split_by_parts(
    dataset: Dataset, parts: Sequence[str], method: str, unmatched: Sequence[str] = ()
) -> Split:
    """Split a data set by the published part of each clip. Leave out the clips without a part.

    If there are only a train and a test part, the test part is used for validation.
    Raises LibraryError if the train or the validation part has too few clips.
    """
    clips: dict[str, list[Clip]] = {"train": [], "validation": [], "test": [], "": []}
    for clip, part in zip(dataset.clips, parts, strict=True):
        clips[PART_ALIASES.get(part.casefold(), "")].append(clip)
    train, validation, test, left_out = map(tuple, clips.values())
    if test and not validation:
        validation, test, method = test, (), f"{method}, the test part for validation"
    split = Split(train, validation, test, method, left_out, tuple(unmatched))
    return _check_split(dataset, split)


def _check_split(dataset: Dataset, split: Split) -> Split:
    for name, clips in (("train", split.train), ("validation", split.validation)):
        if not clips:
            raise LibraryError(
                f"the {name} part of {dataset.name} has no clips ({split.method}); known names of"
                f" parts are {', '.join(sorted(PART_ALIASES))}; --split random makes other parts"
            )
    _check_genre_count(f"the train part of {dataset.name}", split.train)
    return split


def _check_genre_count(name: str, clips: Iterable[Clip]) -> None:
    genres = sorted(_count_genres(clips))
    if len(genres) < 2:  # noqa: PLR2004 - a classifier needs a choice
        raise LibraryError(
            f"{name} needs two genres or more, it has only {''.join(genres) or 'none'}"
        )


def _count_genres(clips: Iterable[Clip]) -> Counter[str]:
    return Counter(clip.labels[0] for clip in clips)


def _make_split(dataset: Dataset, validation_numbers: ClipNumbers, method: str) -> Split:
    """Return the split with these clips for validation, in the order of the data set."""
    numbers = set(validation_numbers)
    train = tuple(clip for n, clip in enumerate(dataset.clips) if n not in numbers)
    validation = tuple(clip for n, clip in enumerate(dataset.clips) if n in numbers)
    return _check_split(dataset, Split(train, validation, (), method))


def _split_randomly(dataset: Dataset, test_size: float, seed: int) -> Split:
    """Choose the clips that `train_test_split` of the library datasets chooses, as the tutorial."""
    count = len(dataset.clips)
    order = np.random.default_rng(seed).permutation(count).tolist()
    method = f"at random, {_format_share(test_size)} for validation, seed {seed}"
    return _make_split(dataset, order[: ceil(test_size * count)], method)


def _format_share(test_size: float) -> str:
    return f"{100 * test_size:g} %"


def _split_stratified(dataset: Dataset, test_size: float, seed: int) -> Split:
    """Take the same share of each genre for validation, but never the only clip of a genre."""
    counts = _count_genres(dataset.clips)
    free = [n for n, clip in enumerate(dataset.clips) if counts[clip.labels[0]] > 1]
    labels = [dataset.clips[n].labels[0] for n in free]
    genres = len(set(labels))
    if not free:
        raise LibraryError(
            f"{dataset.name} has only one clip of each genre: none is left for validation"
        )
    size = min(max(ceil(test_size * len(free)), genres), len(free) - genres)
    _, chosen = train_test_split(free, test_size=size, stratify=labels, random_state=seed)
    method = f"at random, {_format_share(test_size)} of each genre for validation, seed {seed}"
    return _make_split(dataset, chosen, method)


def _split_by_album(dataset: Dataset, test_size: float, seed: int) -> Split:
    if not any(clip.album for clip in dataset.clips):
        raise LibraryError(f"{dataset.name} has no albums for its clips")
    return _split_by_group(dataset, "album", _get_album, test_size=test_size, seed=seed)


def _split_by_artist(dataset: Dataset, test_size: float, seed: int) -> Split:
    if not any(clip.artist for clip in dataset.clips):
        raise LibraryError(f"{dataset.name} has no artists for its clips")
    return _split_by_group(dataset, "artist", _get_artist, test_size=test_size, seed=seed)


def _get_album(clip: Clip) -> str:
    return clip.album and f"album {clip.album}"


def _get_artist(clip: Clip) -> str:
    return f"artist {normalize_label(clip.artist)}" if clip.artist else _get_album(clip)


def _split_by_group(
    dataset: Dataset, noun: str, get_group: Callable[[Clip], str], *, test_size: float, seed: int
) -> Split:
    """Take whole groups for validation. A clip without a group is a group of its own.

    The group of a genre with a single group is for training. Of scikit-learn's folds, the one that
    is nearest to the share of each genre is for validation.
    """
    groups = [get_group(clip) or f"clip {n}" for n, clip in enumerate(dataset.clips)]
    free = _find_divisible_clips(dataset, groups)
    folds = _make_folds(dataset, [groups[n] for n in free], free, test_size=test_size, seed=seed)
    if not folds:
        raise LibraryError(f"{dataset.name}: no genre has clips of two {noun}s or more")
    chosen = min(folds, key=lambda fold: _measure_imbalance(dataset, fold, test_size))
    share = _format_share(test_size)
    method = f"no {noun} in two parts, {share} of each genre for validation, seed {seed}"
    if alone := sum(group.startswith("clip ") for group in groups):
        method += f"; {alone} of {len(groups)} clips have no {noun}"
    return _make_split(dataset, chosen, method)


def _find_divisible_clips(dataset: Dataset, groups: Sequence[str]) -> list[int]:
    """Return the clips whose group is not the only one of some genre."""
    by_genre: dict[str, set[str]] = defaultdict(set)
    for clip, group in zip(dataset.clips, groups, strict=True):
        by_genre[clip.labels[0]].add(group)
    single = set().union(*(names for names in by_genre.values() if len(names) == 1))
    return [n for n, group in enumerate(groups) if group not in single]


def _make_folds(
    dataset: Dataset, groups: Sequence[str], free: ClipNumbers, *, test_size: float, seed: int
) -> list[ClipNumbers]:
    """Return the folds of scikit-learn, fewer and larger ones if there are few groups."""
    labels = [dataset.clips[n].labels[0] for n in free]
    largest = max(Counter(labels).values(), default=0)
    count = min(max(2, round(1 / test_size)), len(set(groups)), largest)
    if count < 2:  # noqa: PLR2004 - one for training, one for validation
        return []
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings(action="ignore"):  # a genre may have fewer clips than folds
        folds = list(splitter.split(free, labels, groups))
    return [[free[place] for place in places] for _, places in folds]


def _measure_imbalance(dataset: Dataset, fold: ClipNumbers, test_size: float) -> float:
    chosen = _count_genres(dataset.clips[n] for n in fold)
    totals = _count_genres(dataset.clips)
    return sum(abs(chosen[genre] / total - test_size) for genre, total in totals.items())


def _split_as_published(dataset: Dataset, _test_size: float, _seed: int) -> Split:
    parts = [clip.part for clip in dataset.clips]
    if not any(parts):
        raise LibraryError(f"{dataset.name} has no published parts: choose another --split")
    return split_by_parts(dataset, parts, "as published")


SPLITTERS: dict[SplitKind, Callable[[Dataset, float, int], Split]] = {
    SplitKind.RANDOM: _split_randomly,
    SplitKind.STRATIFIED: _split_stratified,
    SplitKind.ALBUM: _split_by_album,
    SplitKind.ARTIST: _split_by_artist,
    SplitKind.PUBLISHED: _split_as_published,
}


PART_BY_FILE_NAME = {"train": "train", "val": "validation", "test": "test"}
"""A word in the name of a text file, and the part that the file lists."""

PathKey = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SplitFileEntry:
    """One line of a published list: a part, and the name of a file in it."""

    part: str
    name: str

    @property
    def key(self) -> PathKey:
        return _make_path_key(self.name)


def read_split_files(paths: Sequence[Path], dataset: Dataset) -> Split:
    """Split a data set by published lists: text files, or CSV files with the columns path and part.

    The name of a text file says which part it lists. A name matches a clip whose path ends with it,
    in any case and without the suffix. Clips without a match are left out. Raises LibraryError if a
    list cannot be read or does not fit the data set, and what `split_by_parts` raises.
    """
    entries = [entry for path in paths for entry in _read_split_file(path)]
    names = ", ".join(display_path(Path(path.name)) for path in paths)
    _check_parts({entry.part for entry in entries}, names)
    by_path = {str(clip.track.path): number for number, clip in enumerate(dataset.clips)}
    by_ending = _index_by_ending(dataset, max(len(entry.key) for entry in entries))
    common_folders = _count_common_folders(entries)
    parts: dict[int, str] = {}
    unmatched = []
    for entry in entries:
        number = by_path.get(entry.name)
        if number is None:
            number = _find_clip(dataset, by_ending, entry, common_folders)
        if number is None:
            unmatched.append(entry.name)
        elif parts.setdefault(number, entry.part) != entry.part:
            path = display_path(dataset.clips[number].track.path)
            raise LibraryError(f"{path} is in two lists: {parts[number]} and {entry.part}")
    if not parts:
        raise LibraryError(
            f"none of the {len(entries)} names in {names} is a clip of {dataset.name}; the first"
            f" one is {entries[0].name}"
        )
    part_of_clip = [parts.get(number, "") for number in range(len(dataset.clips))]
    return split_by_parts(dataset, part_of_clip, f"by the published lists {names}", unmatched)


def _check_parts(parts: set[str], names: str) -> None:
    if "train" not in parts:
        raise LibraryError(f"there is no list of clips for training (train) in {names}")
    if len(parts) == 1:
        raise LibraryError(f"there is no list of clips for validation (val, test) in {names}")


def _read_split_file(path: Path) -> Iterator[SplitFileEntry]:
    read = _read_csv_list if path.suffix.lower() == ".csv" else _read_text_list
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield from read(path, file)
    except OSError as error:
        raise LibraryError(f"cannot read {display_path(path)}: {error.strerror}") from error
    except csv.Error as error:
        raise LibraryError(f"{display_path(path)} is not a CSV file: {error}") from error


def _read_text_list(path: Path, lines: Iterable[str]) -> Iterator[SplitFileEntry]:
    parts = [part for word, part in PART_BY_FILE_NAME.items() if word in path.stem.lower()]
    if len(parts) != 1:
        raise LibraryError(f"the name of {display_path(path)} has to say train, val or test")
    yield from (SplitFileEntry(parts[0], line.strip()) for line in lines if line.strip())


def _read_csv_list(path: Path, lines: Iterable[str]) -> Iterator[SplitFileEntry]:
    rows = csv.DictReader(lines)
    columns = [name for name in ("part", "split") if name in (rows.fieldnames or ())]
    if not columns or "path" not in (rows.fieldnames or ()):
        raise LibraryError(f"{display_path(path)} does not have the columns path and part")
    for row in rows:
        part = PART_ALIASES.get((row[columns[0]] or "").strip().casefold())
        if part and row["path"]:
            yield SplitFileEntry(part, row["path"])


def _make_path_key(name: str) -> PathKey:
    """Return the folders and the name of a path, case-folded, without the suffix of an audio file.

    Other suffixes stay: `blues.00029` is a whole name.
    """
    *folders, last = PurePosixPath(name.replace("\\", "/").casefold()).parts or ("",)
    suffix = PurePosixPath(last).suffix
    return (*folders, last.removesuffix(suffix) if suffix in DATASET_SUFFIXES else last)


def _index_by_ending(dataset: Dataset, max_length: int) -> Mapping[PathKey, ClipNumbers]:
    """Return the clips by each ending of their paths, up to `max_length` folders and the name."""
    index: dict[PathKey, list[int]] = defaultdict(list)
    for number, clip in enumerate(dataset.clips):
        key = _make_path_key(str(clip.track.path))
        for length in range(1, min(max_length, len(key)) + 1):
            index[key[-length:]].append(number)
    return index


def _count_common_folders(entries: Sequence[SplitFileEntry]) -> int:
    """Return the number of folders with which all names begin: those of the author's machine.

    The folder of the file itself does not count: it may be the genre.
    """
    keys = [entry.key for entry in entries]
    common = takewhile(lambda names: len(set(names)) == 1, zip(*keys, strict=False))
    return max(0, min(len(list(common)), min(map(len, keys)) - 2))


def _find_clip(
    dataset: Dataset, by_ending: Mapping[PathKey, ClipNumbers], entry: SplitFileEntry, skip: int
) -> int | None:
    """Return the clip whose path ends with the name, or with the name without `skip` folders."""
    numbers = by_ending.get(entry.key) or by_ending.get(entry.key[skip:]) or ()
    if len(numbers) > 1:
        paths = [display_path(dataset.clips[number].track.path) for number in numbers[:2]]
        raise LibraryError(f"{entry.name} may be {paths[0]} or {paths[1]}")
    return numbers[0] if numbers else None
