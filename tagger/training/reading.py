"""Labelled music: folders, a CSV file, a data set of the Hub, or a library that people tagged."""

import csv
import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from tagger import decide
from tagger.crawl import Scope, crawl, look_at
from tagger.errors import LibraryError, TrackError
from tagger.isolation import Guard, limits_of
from tagger.paths import displayed
from tagger.records import Album, Failure, Track
from tagger.settings import Settings, dataset_cache
from tagger.tags import EXTENSIONS, read_tags
from tagger.training import hub_data
from tagger.training.clips import Clip, Dataset, make_dataset

SUFFIXES = EXTENSIONS | {".au"}
"""GTZAN was published as Sun audio."""

COLUMNS = {"path", "label"}


def read_dataset(place: Path, settings: Settings, names: Mapping[str, str]) -> Dataset:
    """Read a folder with a folder for each label, or a CSV file with the columns path and label.

    A CSV file may have the columns artist, album and part too. A folder may also be one that
    `save_to_disk` of the library datasets made, and what is no path the id of a data set on the
    Hub; sound from there is kept in tagger's own cache. `names` is as for `make_dataset`.
    Raises LibraryError where nothing can be read there, DiskFullError where the cache is full.
    """
    if hub_data.NAME.fullmatch(str(place)) and not os.path.lexists(place):
        return replace(hub_data.read_hub(str(place), names, dataset_cache()), title=str(place))
    if hub_data.is_saved(place):
        dataset = hub_data.read_saved(place, names, dataset_cache())
    else:
        found = _listed(place) if place.suffix.lower() == ".csv" else _sorted(place, settings)
        dataset = make_dataset(displayed(place), found, names)
    return replace(dataset, title=_title(place))


def _title(place: Path) -> str:
    return displayed(Path(place.resolve().name))


def read_library(place: Path, settings: Settings, names: Mapping[str, str]) -> Dataset:
    """Read a library in which people gave genres; what tagger wrote there counts for nothing."""
    scope = Scope(EXTENSIONS, settings.exclude, settings.follow_symlinks)
    with closing(Guard(limits_of(settings))) as guard:
        found = (_tagged(each, guard) for each in crawl([place], scope))
        return replace(make_dataset(displayed(place), found, names), title=_title(place))


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
    except ValueError:
        return Failure.unseen(folder, "its path has a NUL byte")
    if not track:
        return Failure.unseen(path, "there is no such file")
    more = {name: (row.get(name) or "").strip() for name in ("artist", "album", "part")}
    return Clip(track, (label,), **more)


def _tagged(found: Track | Failure, guard: Guard) -> Clip | Failure:
    if isinstance(found, Failure):
        return found
    try:
        tags = guard.call(read_tags, found.path)
    except TrackError as error:
        return Failure(found, str(error))
    genres = decide.theirs(tags)
    if not genres:
        return Failure(found, "nobody gave it a genre")
    # Two albums may have one title, but not in one folder.
    said = tags.album or Album()
    album = f"{displayed(found.path.parent)}/{said.title}" if said.title else ""
    return Clip(found, genres, said.artist, album)
