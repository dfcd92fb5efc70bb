"""Which clips are learned from, and which are held back."""

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
from tagger.training.clips import PART_NAMES, Clip, Dataset
from tagger.training.datasets import DATASET_SUFFIXES
from tagger.training.recipe import SplitKind

Indices = Sequence[int]


@dataclass(frozen=True, slots=True)
class GenreCount:
    """How many clips of a genre each half has, by the main label."""

    genre: str
    train: int
    validation: int
    test: int


@dataclass(frozen=True, slots=True)
class Split:
    """The halves of a data set: learned from, held back to choose the best checkpoint, and tested.

    test: empty where nothing is held back but `validation`. how: how the halves came about, as a
    phrase for the model card. left_out: the clips that are in no half. unmatched: names that
    the published lists have and the data set has not.
    """

    train: tuple[Clip, ...]
    validation: tuple[Clip, ...]
    test: tuple[Clip, ...]
    how: str
    left_out: tuple[Clip, ...] = ()
    unmatched: tuple[str, ...] = ()

    def counts(self) -> tuple[GenreCount, ...]:
        """Return a row for each genre, by name."""
        halves = [_count_genres(half) for half in (self.train, self.validation, self.test)]
        genres = sorted(set().union(*halves))
        return tuple(GenreCount(genre, *(half[genre] for half in halves)) for genre in genres)

    @property
    def untrained(self) -> tuple[str, ...]:
        """Return the genres that nothing is learned about: each of their clips counts as wrong."""
        return tuple(row.genre for row in self.counts() if not row.train)

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """Return the genres that are learned, and of which nobody sees how well."""
        return tuple(row.genre for row in self.counts() if not row.validation + row.test)


def split_clips(dataset: Dataset, how: SplitKind, *, test_size: float, seed: int) -> Split:
    """Divide a data set; `test_size` is the share to hold back, above 0 and below 1.

    The same data set, share and seed give the same halves; of several labels the main one counts.
    Parts as published stay what they are. Raises LibraryError for what cannot be divided so.
    """
    _check_genre_count(dataset.name, dataset.clips)
    return SPLITTERS[how](dataset, test_size, seed)


def split_by_parts(
    dataset: Dataset, parts: Sequence[str], how: str, unmatched: Sequence[str] = ()
) -> Split:
    """Divide a data set by the published part of each clip; what is in no part is left out.

    Where there are but two halves, the other one is the validation half, whatever its name.
    Raises LibraryError for halves that nothing can be learned from or seen on.
    """
    halves: dict[str, list[Clip]] = {"train": [], "validation": [], "test": [], "": []}
    for clip, part in zip(dataset.clips, parts, strict=True):
        halves[PART_NAMES.get(part.casefold(), "")].append(clip)
    train, validation, test, left_out = map(tuple, halves.values())
    if test and not validation:
        validation, test, how = test, (), f"{how}, the test part as the validation half"
    split = Split(train, validation, test, how, left_out, tuple(unmatched))
    return _check_split(dataset, split)


def _check_split(dataset: Dataset, split: Split) -> Split:
    for name, half in (("train", split.train), ("validation", split.validation)):
        if not half:
            raise LibraryError(
                f"the {name} half of {dataset.name} has no clips ({split.how}); parts are called"
                f" {', '.join(sorted(PART_NAMES))}, and --split random cuts other halves"
            )
    _check_genre_count(f"the train half of {dataset.name}", split.train)
    return split


def _check_genre_count(name: str, clips: Iterable[Clip]) -> None:
    genres = sorted(_count_genres(clips))
    if len(genres) < 2:  # noqa: PLR2004 - there has to be a choice
        raise LibraryError(
            f"{name} needs two genres or more, it has only {''.join(genres) or 'none'}"
        )


def _count_genres(clips: Iterable[Clip]) -> Counter[str]:
    return Counter(clip.labels[0] for clip in clips)


def _make_split(dataset: Dataset, held: Indices, how: str) -> Split:
    """Return the split with these clips as its validation half, in the order of the data set."""
    numbers = set(held)
    train = tuple(clip for n, clip in enumerate(dataset.clips) if n not in numbers)
    validation = tuple(clip for n, clip in enumerate(dataset.clips) if n in numbers)
    return _check_split(dataset, Split(train, validation, (), how))


def _split_randomly(dataset: Dataset, test_size: float, seed: int) -> Split:
    _, held = _tutorial_split(len(dataset.clips), test_size, seed)
    return _make_split(
        dataset, held, f"at random, {_format_share(test_size)} held back, seed {seed}"
    )


def _tutorial_split(count: int, test_size: float, seed: int) -> tuple[Indices, Indices]:
    order = np.random.default_rng(seed).permutation(count).tolist()
    held = ceil(test_size * count)
    return order[held:], order[:held]


def _format_share(test_size: float) -> str:
    return f"{100 * test_size:g} %"


def _split_stratified(dataset: Dataset, test_size: float, seed: int) -> Split:
    """Hold back the same share of each genre; the only clip of a genre is learned from."""
    counts = _count_genres(dataset.clips)
    free = [n for n, clip in enumerate(dataset.clips) if counts[clip.labels[0]] > 1]
    labels = [dataset.clips[n].labels[0] for n in free]
    genres = len(set(labels))
    if not free:
        raise LibraryError(f"{dataset.name} has but one clip of each genre: none can be held back")
    held_size = min(max(ceil(test_size * len(free)), genres), len(free) - genres)
    _, held = train_test_split(free, test_size=held_size, stratify=labels, random_state=seed)
    how = f"at random, {_format_share(test_size)} of each genre held back, seed {seed}"
    return _make_split(dataset, held, how)


def _split_by_album(dataset: Dataset, test_size: float, seed: int) -> Split:
    return _split_by_group(dataset, "album", _get_album, test_size=test_size, seed=seed)


def _split_by_artist(dataset: Dataset, test_size: float, seed: int) -> Split:
    if not any(clip.artist for clip in dataset.clips):
        raise LibraryError(f"{dataset.name} does not say by which artist any clip is")
    return _split_by_group(dataset, "artist", _get_artist, test_size=test_size, seed=seed)


def _get_album(clip: Clip) -> str:
    return clip.album and f"album {clip.album}"


def _get_artist(clip: Clip) -> str:
    return f"artist {normalize_label(clip.artist)}" if clip.artist else _get_album(clip)


def _split_by_group(
    dataset: Dataset, word: str, group_of: Callable[[Clip], str], *, test_size: float, seed: int
) -> Split:
    """Hold back whole groups. Clips of none known are groups of one.

    A genre with a single group is learned from and not held back. Of the folds that scikit-learn
    makes, the one is held back that comes nearest to the asked share of each genre.
    """
    if not any(map(group_of, dataset.clips)):
        raise LibraryError(f"{dataset.name} does not say on which {word} any clip is")
    groups = [group_of(clip) or f"clip {n}" for n, clip in enumerate(dataset.clips)]
    free = _find_divisible(dataset, groups)
    folds = _make_folds(dataset, [groups[n] for n in free], free, test_size=test_size, seed=seed)
    if not folds:
        raise LibraryError(f"{dataset.name}: no genre has clips of two {word}s to part")
    held = min(folds, key=lambda fold: _measure_imbalance(dataset, fold, test_size))
    alone = sum(group.startswith("clip ") for group in groups)
    how = (
        f"no {word} in both halves, {_format_share(test_size)} of each genre held back, seed {seed}"
    )
    note = f"; {alone} of {len(groups)} clips do not say their {word}" if alone else ""
    return _make_split(dataset, held, how + note)


def _find_divisible(dataset: Dataset, groups: Sequence[str]) -> list[int]:
    """Return the clips whose group is not the only one of some genre."""
    by_genre: dict[str, set[str]] = defaultdict(set)
    for clip, group in zip(dataset.clips, groups, strict=True):
        by_genre[clip.labels[0]].add(group)
    fixed = set().union(*(found for found in by_genre.values() if len(found) == 1))
    return [n for n, group in enumerate(groups) if group not in fixed]


def _make_folds(
    dataset: Dataset, groups: Sequence[str], free: Indices, *, test_size: float, seed: int
) -> list[Indices]:
    """Return the folds of scikit-learn; fewer and larger ones where there are few groups."""
    labels = [dataset.clips[n].labels[0] for n in free]
    most = max(Counter(labels).values(), default=0)
    count = min(max(2, round(1 / test_size)), len(set(groups)), most)
    if count < 2:  # noqa: PLR2004 - one to learn from, one to hold back
        return []
    folder = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings(action="ignore"):  # of genres with fewer clips than folds
        folds = list(folder.split(free, labels, groups))
    return [[free[place] for place in held] for _, held in folds]


def _measure_imbalance(dataset: Dataset, fold: Indices, test_size: float) -> float:
    held = _count_genres(dataset.clips[n] for n in fold)
    whole = _count_genres(dataset.clips)
    return sum(abs(held[genre] / count - test_size) for genre, count in whole.items())


def _split_as_published(dataset: Dataset, _test_size: float, _seed: int) -> Split:
    parts = [clip.part for clip in dataset.clips]
    if not any(parts):
        raise LibraryError(f"{dataset.name} was not published in parts, or does not say so")
    return split_by_parts(dataset, parts, "as published")


SPLITTERS: dict[SplitKind, Callable[[Dataset, float, int], Split]] = {
    SplitKind.RANDOM: _split_randomly,
    SplitKind.STRATIFIED: _split_stratified,
    SplitKind.ALBUM: _split_by_album,
    SplitKind.ARTIST: _split_by_artist,
    SplitKind.PUBLISHED: _split_as_published,
}


PART_BY_FILE_NAME = {"train": "train", "val": "validation", "test": "test"}
"""What the name of a list says about it."""

PathKey = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SplitFileEntry:
    """A line of a list: the half, and the name of a file there."""

    half: str
    name: str

    @property
    def key(self) -> PathKey:
        return _make_key(self.name)


def read_split_files(paths: Sequence[Path], dataset: Dataset) -> Split:
    """Divide a data set as lists of files say: text files, or CSV with the columns path and part.

    Which half a text file lists is told by its name. A clip is meant by the end of its path, in
    any case and without the suffix; clips that no list names are left out. Raises LibraryError for
    lists that cannot be read or do not fit the data set, and as `split_by_parts`.
    """
    entries = [entry for path in paths for entry in _read_split_file(path)]
    names = ", ".join(display_path(Path(path.name)) for path in paths)
    _check_parts({entry.half for entry in entries}, names)
    exact = {str(clip.track.path): number for number, clip in enumerate(dataset.clips)}
    clips = _index_by_ending(dataset, max(len(entry.key) for entry in entries))
    drop = _count_common_folders(entries)
    halves: dict[int, str] = {}
    unmatched = []
    for entry in entries:
        number = exact.get(entry.name)
        if number is None:
            number = _find_clip(dataset, clips, entry, drop)
        if number is None:
            unmatched.append(entry.name)
        elif halves.setdefault(number, entry.half) != entry.half:
            path = display_path(dataset.clips[number].track.path)
            raise LibraryError(f"{path} is in two lists: {halves[number]} and {entry.half}")
    if not halves:
        raise LibraryError(
            f"none of the {len(entries)} names in {names} is that of a clip in {dataset.name},"
            f" such as {entries[0].name}"
        )
    parts = [halves.get(number, "") for number in range(len(dataset.clips))]
    return split_by_parts(dataset, parts, f"by the published lists {names}", unmatched)


def _check_parts(halves: set[str], names: str) -> None:
    if "train" not in halves:
        raise LibraryError(f"there is no list of what to learn from (train) in {names}")
    if len(halves) == 1:
        raise LibraryError(f"there is no list of what to hold back (val, test) in {names}")


def _read_split_file(path: Path) -> Iterator[SplitFileEntry]:
    read = _read_rows if path.suffix.lower() == ".csv" else _read_lines
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield from read(path, file)
    except OSError as error:
        raise LibraryError(f"cannot read {display_path(path)}: {error.strerror}") from error
    except csv.Error as error:
        raise LibraryError(f"{display_path(path)} is no list: {error}") from error


def _read_lines(path: Path, lines: Iterable[str]) -> Iterator[SplitFileEntry]:
    halves = [half for word, half in PART_BY_FILE_NAME.items() if word in path.stem.lower()]
    if len(halves) != 1:
        raise LibraryError(f"the name of {display_path(path)} has to say train, val or test")
    yield from (SplitFileEntry(halves[0], line.strip()) for line in lines if line.strip())


def _read_rows(path: Path, lines: Iterable[str]) -> Iterator[SplitFileEntry]:
    rows = csv.DictReader(lines)
    columns = [name for name in ("part", "split") if name in (rows.fieldnames or ())]
    if not columns or "path" not in (rows.fieldnames or ()):
        raise LibraryError(f"{display_path(path)} has not the columns path and part")
    for row in rows:
        half = PART_NAMES.get((row[columns[0]] or "").strip().casefold())
        if half and row["path"]:
            yield SplitFileEntry(half, row["path"])


def _make_key(name: str) -> PathKey:
    """Return the parts of a path, case-folded and without the suffix of an audio file.

    Only such a suffix: `blues.00029` has none, for all its dot.
    """
    *folders, last = PurePosixPath(name.replace("\\", "/").casefold()).parts or ("",)
    suffix = PurePosixPath(last).suffix
    return (*folders, last.removesuffix(suffix) if suffix in DATASET_SUFFIXES else last)


def _index_by_ending(dataset: Dataset, longest: int) -> Mapping[PathKey, Sequence[int]]:
    found: dict[PathKey, list[int]] = defaultdict(list)
    for number, clip in enumerate(dataset.clips):
        key = _make_key(str(clip.track.path))
        for length in range(1, min(longest, len(key)) + 1):
            found[key[-length:]].append(number)
    return found


def _count_common_folders(entries: Sequence[SplitFileEntry]) -> int:
    """Return how many folders all names begin with: where the lists were made, not here.

    The folder that a file lies in is never one of them: it may be the genre.
    """
    keys = [entry.key for entry in entries]
    shared = takewhile(lambda parts: len(set(parts)) == 1, zip(*keys, strict=False))
    return max(0, min(len(list(shared)), min(map(len, keys)) - 2))


def _find_clip(
    dataset: Dataset, clips: Mapping[PathKey, Sequence[int]], entry: SplitFileEntry, drop: int
) -> int | None:
    found = clips.get(entry.key) or clips.get(entry.key[drop:]) or ()
    if len(found) > 1:
        paths = [display_path(dataset.clips[number].track.path) for number in found[:2]]
        raise LibraryError(f"{entry.name} may be {paths[0]} or {paths[1]}")
    return found[0] if found else None
