"""Which clips are learned from, and on which it is seen what was learned."""

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from tagger.errors import LibraryError
from tagger.records import plain
from tagger.training.clips import PARTS, Clip, Dataset
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
        halves = [_genres(half) for half in (self.train, self.validation, self.test)]
        genres = sorted(set().union(*halves))
        return tuple(GenreCount(genre, *(half[genre] for half in halves)) for genre in genres)

    @property
    def untrained(self) -> tuple[str, ...]:
        """Return the genres that nothing is learned about: each of their clips counts as wrong."""
        return tuple(row.genre for row in self.counts() if not row.train)

    @property
    def unseen(self) -> tuple[str, ...]:
        """Return the genres that are learned, and of which nobody sees how well."""
        return tuple(row.genre for row in self.counts() if not row.validation + row.test)


def split_clips(dataset: Dataset, how: SplitKind, *, test_size: float, seed: int) -> Split:
    """Divide a data set; `test_size` is the share to hold back, above 0 and below 1.

    The same data set, share and seed give the same halves; of several labels the main one counts.
    Parts as published stay what they are. Raises LibraryError for what cannot be divided so.
    """
    _check_genres(dataset.name, dataset.clips)
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
        halves[PARTS.get(part.casefold(), "")].append(clip)
    train, validation, test, left_out = map(tuple, halves.values())
    if test and not validation:
        validation, test, how = test, (), f"{how}, the test part as the validation half"
    split = Split(train, validation, test, how, left_out, tuple(unmatched))
    return _checked(dataset, split)


def _checked(dataset: Dataset, split: Split) -> Split:
    for name, half in (("train", split.train), ("validation", split.validation)):
        if not half:
            raise LibraryError(
                f"the {name} half of {dataset.name} has no clips ({split.how}); parts are called"
                f" {', '.join(sorted(PARTS))}, and --split random cuts other halves"
            )
    _check_genres(f"the train half of {dataset.name}", split.train)
    return split


def _check_genres(name: str, clips: Iterable[Clip]) -> None:
    genres = sorted(_genres(clips))
    if len(genres) < 2:  # noqa: PLR2004 - there has to be a choice
        raise LibraryError(
            f"{name} needs two genres or more, it has only {''.join(genres) or 'none'}"
        )


def _genres(clips: Iterable[Clip]) -> Counter[str]:
    return Counter(clip.labels[0] for clip in clips)


def _held_back(dataset: Dataset, held: Indices, how: str) -> Split:
    """Return the split with these clips as its validation half, in the order of the data set."""
    numbers = set(held)
    train = tuple(clip for n, clip in enumerate(dataset.clips) if n not in numbers)
    validation = tuple(clip for n, clip in enumerate(dataset.clips) if n in numbers)
    return _checked(dataset, Split(train, validation, (), how))


def _random(dataset: Dataset, test_size: float, seed: int) -> Split:
    _, held = _tutorial_split(len(dataset.clips), test_size, seed)
    return _held_back(dataset, held, f"at random, {_share(test_size)} held back, seed {seed}")


def _tutorial_split(count: int, test_size: float, seed: int) -> tuple[Indices, Indices]:
    order = np.random.default_rng(seed).permutation(count).tolist()
    held = ceil(test_size * count)
    return order[held:], order[:held]


def _share(test_size: float) -> str:
    return f"{100 * test_size:g} %"


def _stratified(dataset: Dataset, test_size: float, seed: int) -> Split:
    """Hold back the same share of each genre; the only clip of a genre is learned from."""
    counts = _genres(dataset.clips)
    free = [n for n, clip in enumerate(dataset.clips) if counts[clip.labels[0]] > 1]
    labels = [dataset.clips[n].labels[0] for n in free]
    genres = len(set(labels))
    if not free:
        raise LibraryError(f"{dataset.name} has but one clip of each genre: none can be held back")
    held_size = min(max(ceil(test_size * len(free)), genres), len(free) - genres)
    _, held = train_test_split(free, test_size=held_size, stratify=labels, random_state=seed)
    how = f"at random, {_share(test_size)} of each genre held back, seed {seed}"
    return _held_back(dataset, held, how)


def _by_album(dataset: Dataset, test_size: float, seed: int) -> Split:
    return _grouped(dataset, "album", _album_of, test_size=test_size, seed=seed)


def _by_artist(dataset: Dataset, test_size: float, seed: int) -> Split:
    if not any(clip.artist for clip in dataset.clips):
        raise LibraryError(f"{dataset.name} does not say by which artist any clip is")
    return _grouped(dataset, "artist", _artist_of, test_size=test_size, seed=seed)


def _album_of(clip: Clip) -> str:
    return clip.album and f"album {clip.album}"


def _artist_of(clip: Clip) -> str:
    return f"artist {plain(clip.artist)}" if clip.artist else _album_of(clip)


def _grouped(
    dataset: Dataset, word: str, group_of: Callable[[Clip], str], *, test_size: float, seed: int
) -> Split:
    """Hold back whole groups. Clips of none known are groups of one.

    A genre with a single group is learned from and not held back. Of the folds that scikit-learn
    makes, the one is held back that comes nearest to the asked share of each genre.
    """
    if not any(map(group_of, dataset.clips)):
        raise LibraryError(f"{dataset.name} does not say on which {word} any clip is")
    groups = [group_of(clip) or f"clip {n}" for n, clip in enumerate(dataset.clips)]
    free = _divisible(dataset, groups)
    folds = _folds(dataset, [groups[n] for n in free], free, test_size=test_size, seed=seed)
    if not folds:
        raise LibraryError(f"{dataset.name}: no genre has clips of two {word}s to part")
    held = min(folds, key=lambda fold: _imbalance(dataset, fold, test_size))
    alone = sum(group.startswith("clip ") for group in groups)
    how = f"no {word} in both halves, {_share(test_size)} of each genre held back, seed {seed}"
    note = f"; {alone} of {len(groups)} clips do not say their {word}" if alone else ""
    return _held_back(dataset, held, how + note)


def _divisible(dataset: Dataset, groups: Sequence[str]) -> list[int]:
    """Return the clips whose group is not the only one of some genre."""
    by_genre: dict[str, set[str]] = defaultdict(set)
    for clip, group in zip(dataset.clips, groups, strict=True):
        by_genre[clip.labels[0]].add(group)
    fixed = set().union(*(found for found in by_genre.values() if len(found) == 1))
    return [n for n, group in enumerate(groups) if group not in fixed]


def _folds(
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


def _imbalance(dataset: Dataset, fold: Indices, test_size: float) -> float:
    held = _genres(dataset.clips[n] for n in fold)
    whole = _genres(dataset.clips)
    return sum(abs(held[genre] / count - test_size) for genre, count in whole.items())


def _published(dataset: Dataset, _test_size: float, _seed: int) -> Split:
    parts = [clip.part for clip in dataset.clips]
    if not any(parts):
        raise LibraryError(f"{dataset.name} was not published in parts, or does not say so")
    return split_by_parts(dataset, parts, "as published")


SPLITTERS: dict[SplitKind, Callable[[Dataset, float, int], Split]] = {
    SplitKind.RANDOM: _random,
    SplitKind.STRATIFIED: _stratified,
    SplitKind.ALBUM: _by_album,
    SplitKind.ARTIST: _by_artist,
    SplitKind.PUBLISHED: _published,
}
