"""Labelled music: a folder of folders, a CSV file, or the genres that people gave a library."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tagger import decide
from tagger.crawl import Scope, crawl, look_at
from tagger.errors import LibraryError, TrackError
from tagger.isolation import Guard
from tagger.records import Failure, Track, displayed
from tagger.settings import Settings
from tagger.tags import EXTENSIONS, read_tags

SUFFIXES = EXTENSIONS | {".au"}
"""GTZAN was published as Sun audio."""

COLUMNS = {"path", "label"}


@dataclass(frozen=True, slots=True)
class Clip:
    """A file and what it is: several labels where people gave several, the main one first."""

    track: Track
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Clips, and what was left out of them, each with its reason."""

    name: str
    clips: tuple[Clip, ...]
    left_out: tuple[Failure, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(sorted({label for clip in self.clips for label in clip.labels}))


def read_dataset(place: Path, settings: Settings) -> Dataset:
    """Read a folder with a folder for each label, or a CSV file with the columns path and label.

    Labels get the names of the genre map, as those of a model do; one that has none is left out.
    Raises LibraryError where nothing can be read there.
    """
    found = _listed(place) if place.suffix.lower() == ".csv" else _sorted(place, settings)
    return _dataset(place, found, settings)


def read_library(place: Path, settings: Settings, guard: Guard) -> Dataset:
    """Read a library in which people gave genres; what tagger wrote there counts for nothing."""
    scope = Scope(EXTENSIONS, settings.exclude, settings.follow_symlinks)
    found = (_tagged(each, guard) for each in crawl([place], scope))
    return _dataset(place, found, settings)


def at_least(dataset: Dataset, count: int) -> Dataset:
    """Leave out the labels that have fewer clips than `count`."""
    counts = Counter(label for clip in dataset.clips for label in clip.labels)
    kept, left_out = [], list(dataset.left_out)
    for clip in dataset.clips:
        labels = tuple(label for label in clip.labels if counts[label] >= count)
        if labels:
            kept.append(Clip(clip.track, labels))
        else:
            reason = f"fewer than {count} tracks are {clip.labels[0]}"
            left_out.append(Failure(clip.track, reason))
    return Dataset(dataset.name, tuple(kept), tuple(left_out))


def _dataset(place: Path, found: Iterable[Clip | Failure], settings: Settings) -> Dataset:
    names = decide.names_for(settings)
    clips, left_out = [], []
    for each in found:
        if isinstance(each, Failure):
            left_out.append(each)
            continue
        renamed = (names.get(label.casefold(), label) for label in each.labels)
        labels = tuple(dict.fromkeys(filter(None, renamed)))
        if labels:
            clips.append(Clip(each.track, labels))
        else:
            left_out.append(Failure(each.track, "the genre map drops its label"))
    return Dataset(displayed(place), tuple(clips), tuple(left_out))


def _sorted(place: Path, settings: Settings) -> Iterator[Clip | Failure]:
    root = place.resolve()
    scope = Scope(SUFFIXES, settings.exclude, settings.follow_symlinks)
    for found in crawl([root], scope):
        if isinstance(found, Failure):
            yield found
            continue
        label, *rest = found.path.relative_to(root).parts
        if rest:
            yield Clip(found, (label,))
        else:
            yield Failure(found, "it lies in no folder that is named after a label")


def _listed(place: Path) -> Iterator[Clip | Failure]:
    try:
        with place.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if not set(rows.fieldnames or ()) >= COLUMNS:
                raise LibraryError(f"{displayed(place)} has not the columns path and label")
            for row in rows:
                yield _row(place.parent, row)
    except OSError as error:
        raise LibraryError(f"cannot read {displayed(place)}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise LibraryError(f"{displayed(place)} is no CSV file in UTF-8: {error}") from error


def _row(folder: Path, row: Mapping[str, str]) -> Clip | Failure:
    """Return the clip of a row; its path is one from the folder of the CSV file on."""
    path = folder / (row["path"] or "")
    label = (row["label"] or "").strip()
    if not label:
        return Failure.unseen(path, "it has no label")
    try:
        track = look_at(path)
    except TrackError as error:
        return Failure.unseen(path, str(error))
    return Clip(track, (label,)) if track else Failure.unseen(path, "there is no such file")


def _tagged(found: Track | Failure, guard: Guard) -> Clip | Failure:
    if isinstance(found, Failure):
        return found
    try:
        genres = decide.theirs(guard.call(read_tags, found.path))
    except TrackError as error:
        return Failure(found, str(error))
    return Clip(found, genres) if genres else Failure(found, "nobody gave it a genre")
