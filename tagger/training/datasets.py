"""Read labelled music: label folders, a CSV file, a data set of the Hub, or a tagged library."""

import csv
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from tagger import decide
from tagger.crawl import Scope, crawl
from tagger.errors import LibraryError, TrackError
from tagger.isolation import IsolatedCaller, get_call_limits
from tagger.paths import AnyPath, display_path
from tagger.records import Album, Failure, Track
from tagger.settings import Settings
from tagger.storage import look_up
from tagger.tags import EXTENSIONS, read_tags
from tagger.training import hub_datasets
from tagger.training.clips import Clip, Dataset, make_dataset
from tagger.user_folders import find_dataset_cache

DATASET_SUFFIXES = EXTENSIONS | {".au"}
"""The files that a data set may have. GTZAN was published as Sun audio (.au)."""

CSV_COLUMNS = {"path", "label"}
OPTIONAL_CSV_COLUMNS = ("artist", "album", "part")


def read_dataset(location: Path, settings: Settings, label_names: Mapping[str, str]) -> Dataset:
    """Read a data set from a folder, a CSV file or the Hub.

    A folder has a folder for each label, or `save_to_disk` of the library datasets made it. A CSV
    file has the columns path and label, and may have artist, album and part. A location that does
    not exist and looks like owner/name is a data set of the Hub. Sound of the Hub is kept in
    tagger's own cache. `label_names` is as for `make_dataset`.
    Raises LibraryError if nothing can be read there, DiskFullError if the cache is full.
    """
    if hub_datasets.DATASET_ID.fullmatch(str(location)) and not os.path.lexists(location):
        dataset = hub_datasets.read_hub_dataset(str(location), label_names, find_dataset_cache())
        return replace(dataset, title=str(location))
    if hub_datasets.is_saved_dataset(location):
        dataset = hub_datasets.read_saved_dataset(location, label_names, find_dataset_cache())
    elif location.suffix.lower() == ".csv":
        dataset = make_dataset(display_path(location), _read_csv(location), label_names)
    else:
        clips = _read_label_folders(location, settings)
        dataset = make_dataset(display_path(location), clips, label_names)
    return replace(dataset, title=_get_title(location))


def _get_title(path: Path) -> str:
    return display_path(Path(path.resolve().name))


def read_library(folder: Path, settings: Settings, label_names: Mapping[str, str]) -> Dataset:
    """Read a library with the genres that people gave. Genres that tagger wrote do not count."""
    dataset = make_dataset(display_path(folder), list_tagged_clips([folder], settings), label_names)
    return replace(dataset, title=_get_title(folder))


def list_tagged_clips(paths: Sequence[AnyPath], settings: Settings) -> Iterator[Clip | Failure]:
    """Yield the files below `paths` with the genres that people gave.

    A file without such a genre is a Failure.
    """
    scope = Scope(
        EXTENSIONS,
        settings.exclude,
        settings.follow_symlinks,
        include_ignored=settings.include_ignored,
    )
    with closing(IsolatedCaller(get_call_limits(settings))) as isolated:
        junk = decide.get_junk_keys(settings)
        for result in crawl(paths, scope):
            yield _read_tagged_clip(result, isolated, junk)


def _read_label_folders(folder: Path, settings: Settings) -> Iterator[Clip | Failure]:
    root = folder.resolve()
    scope = Scope(
        DATASET_SUFFIXES,
        settings.exclude,
        settings.follow_symlinks,
        include_ignored=settings.include_ignored,
    )
    for result in crawl([root], scope):
        if isinstance(result, Failure):
            yield result
            continue
        label, *rest = Path(result.path).relative_to(root).parts
        if rest:
            yield Clip(result, (label,))
        else:
            yield Failure(result, "it is in no folder that is named after a label")


def _read_csv(path: Path) -> Iterator[Clip | Failure]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if not set(rows.fieldnames or ()) >= CSV_COLUMNS:
                raise LibraryError(f"{display_path(path)} does not have the columns path and label")
            for row in rows:
                yield _read_csv_row(path.parent, row)
    except OSError as error:
        raise LibraryError(f"cannot read {display_path(path)}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise LibraryError(f"{display_path(path)} is not a CSV file in UTF-8: {error}") from error


def _read_csv_row(folder: Path, row: Mapping[str, str]) -> Clip | Failure:
    """Return the clip of a row. A relative path in it begins at `folder`, that of the CSV file."""
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
    optional: dict[str, Any] = {
        name: (row.get(name) or "").strip() for name in OPTIONAL_CSV_COLUMNS
    }
    return Clip(track, (label,), **optional)


def _read_tagged_clip(
    result: Track | Failure, isolated: IsolatedCaller, junk: Collection[str]
) -> Clip | Failure:
    if isinstance(result, Failure):
        return result
    try:
        tags = isolated.call(read_tags, result.path)
    except TrackError as error:
        return Failure.from_error(result, error)
    genres = decide.find_user_genres(tags)
    if not genres or decide.find_junk(tags, junk):
        return Failure(result, "no person gave it a genre")
    # Two albums may have the same title, but not in the same folder.
    album = tags.album or Album()
    album_key = f"{display_path(result.path.parent)}/{album.title}" if album.title else ""
    return Clip(result, genres, album.artist, album_key, various=album.various)
