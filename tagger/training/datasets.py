"""Labelled music: folders, a CSV file, a data set of the Hub, or a library that people tagged."""

import csv
import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from tagger import decide
from tagger.crawl import Scope, crawl
from tagger.errors import LibraryError, TrackError
from tagger.isolation import IsolatedCaller, get_call_limits
from tagger.paths import display_path
from tagger.records import Album, Failure, Track
from tagger.settings import Settings, find_dataset_cache
from tagger.storage import look_up
from tagger.tags import EXTENSIONS, read_tags
from tagger.training import hub_datasets
from tagger.training.clips import Clip, Dataset, make_dataset

DATASET_SUFFIXES = EXTENSIONS | {".au"}
"""GTZAN was published as Sun audio."""

CSV_COLUMNS = {"path", "label"}


def read_dataset(place: Path, settings: Settings, names: Mapping[str, str]) -> Dataset:
    """Read a folder with a folder for each label, or a CSV file with the columns path and label.

    A CSV file may have the columns artist, album and part too. A folder may also be one that
    `save_to_disk` of the library datasets made, and what is no path the id of a data set on the
    Hub; sound from there is kept in tagger's own cache. `names` is as for `make_dataset`.
    Raises LibraryError where nothing can be read there, DiskFullError where the cache is full.
    """
    if hub_datasets.DATASET_ID.fullmatch(str(place)) and not os.path.lexists(place):
        return replace(
            hub_datasets.read_hub_dataset(str(place), names, find_dataset_cache()), title=str(place)
        )
    if hub_datasets.is_saved_dataset(place):
        dataset = hub_datasets.read_saved_dataset(place, names, find_dataset_cache())
    else:
        found = (
            _read_csv(place)
            if place.suffix.lower() == ".csv"
            else _read_label_folders(place, settings)
        )
        dataset = make_dataset(display_path(place), found, names)
    return replace(dataset, title=_get_title(place))


def _get_title(place: Path) -> str:
    return display_path(Path(place.resolve().name))


def read_library(place: Path, settings: Settings, names: Mapping[str, str]) -> Dataset:
    """Read a library in which people gave genres; what tagger wrote there counts for nothing."""
    scope = Scope(EXTENSIONS, settings.exclude, settings.follow_symlinks)
    with closing(IsolatedCaller(get_call_limits(settings))) as isolated:
        found = (_read_tagged_clip(each, isolated) for each in crawl([place], scope))
        return replace(make_dataset(display_path(place), found, names), title=_get_title(place))


def _read_label_folders(place: Path, settings: Settings) -> Iterator[Clip | Failure]:
    root = place.resolve()
    scope = Scope(DATASET_SUFFIXES, settings.exclude, settings.follow_symlinks)
    for found in crawl([root], scope):
        if isinstance(found, Failure):
            yield found
            continue
        label, *rest = Path(found.path).relative_to(root).parts
        if rest:
            yield Clip(found, (label,))
        else:
            yield Failure(found, "it lies in no folder that is named after a label")


def _read_csv(place: Path) -> Iterator[Clip | Failure]:
    try:
        with place.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if not set(rows.fieldnames or ()) >= CSV_COLUMNS:
                raise LibraryError(f"{display_path(place)} has not the columns path and label")
            for row in rows:
                yield _read_csv_row(place.parent, row)
    except OSError as error:
        raise LibraryError(f"cannot read {display_path(place)}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise LibraryError(f"{display_path(place)} is no CSV file in UTF-8: {error}") from error


def _read_csv_row(folder: Path, row: Mapping[str, str]) -> Clip | Failure:
    """Return the clip of a row; its path is one from the folder of the CSV file on."""
    path = folder / (row["path"] or "")
    label = (row["label"] or "").strip()
    if not label:
        return Failure.without_stat(path, "it has no label")
    try:
        track = look_up(path)
    except TrackError as error:
        return Failure.without_stat(path, str(error))
    except ValueError:
        return Failure.without_stat(folder, "its path has a NUL byte")
    if not track:
        return Failure.without_stat(path, "there is no such file")
    more = {name: (row.get(name) or "").strip() for name in ("artist", "album", "part")}
    return Clip(track, (label,), **more)


def _read_tagged_clip(found: Track | Failure, isolated: IsolatedCaller) -> Clip | Failure:
    if isinstance(found, Failure):
        return found
    try:
        tags = isolated.call(read_tags, found.path)
    except TrackError as error:
        return Failure(found, str(error))
    genres = decide.find_user_genres(tags)
    if not genres:
        return Failure(found, "nobody gave it a genre")
    # Two albums may have one title, but not in one folder.
    said = tags.album or Album()
    album = f"{display_path(found.path.parent)}/{said.title}" if said.title else ""
    return Clip(found, genres, said.artist, album)
