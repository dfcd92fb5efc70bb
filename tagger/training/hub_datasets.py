"""Data sets of the Hugging Face Hub, and folders of `save_to_disk`, as clips; owns datasets.

A data set of the Hub is downloaded into Hugging Face's own cache (HF_HOME, HF_DATASETS_CACHE), and
is then found there without the Hub. HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN have their usual
meaning. No code of a data set is run. No sound is decoded here: sound in the rows of a data set is
written once, as the files that it was.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tagger.errors import DISK_FULL_ERRNOS, DiskFullError, LibraryError, ModelError, TaggerError
from tagger.models import hub
from tagger.paths import display_path, write_file_whole
from tagger.records import Failure, Track
from tagger.tags import EXTENSIONS
from tagger.training.clips import PART_ALIASES, Clip, Dataset, make_dataset

LABEL_COLUMNS = ("genre", "label", "genres", "labels")
"""The names of a column with the genre, the best first."""

SUFFIX_BY_MAGIC = {
    b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3", b"\xff\xfb": ".mp3",
    b".snd": ".au", b"FORM": ".aiff",
}  # fmt: skip
"""The first bytes of a file, and the suffix of such files."""


@dataclass(frozen=True, slots=True)
class _DatasetColumns:
    """The names of the columns of a table. label_type: the datasets feature of the label column."""

    sound: str
    label: str
    label_type: Any
    optional: tuple[str, ...]


def make_clips(
    name: str, loaded: Any, folder: Path, downloads: Sequence[Path] | None = None
) -> Iterator[Clip | Failure]:
    """Yield the clips of a Dataset or a DatasetDict, and write their sound into a folder.

    downloads: for rows of strangers: the folders in which a file that a row names must lie. They
    come in the order of the rows: a split by a seed depends on it. Raises LibraryError if no
    column has the genre or the sound, DiskFullError if the disk is full.
    """
    from datasets import Audio, DatasetDict

    splits = loaded if isinstance(loaded, DatasetDict) else {"": loaded}
    for split, table in splits.items():
        columns = _find_columns(name, table.features)
        selected = table.select_columns([columns.sound, columns.label, *columns.optional])
        rows = selected.cast_column(columns.sound, Audio(decode=False))
        part = PART_ALIASES.get(split.casefold(), "") if len(splits) > 1 else ""
        for number, row in enumerate(rows):
            base_path = folder / make_safe_name(split) / f"{number:06}"
            yield _make_clip(row, columns, base_path, part, downloads)


def _find_columns(name: str, features: Mapping[str, Any]) -> _DatasetColumns:
    from datasets import Audio, ClassLabel, Value

    # for a list, the type of its elements
    types = {name: getattr(feature, "feature", feature) for name, feature in features.items()}
    classes = [name for name, kind in types.items() if isinstance(kind, ClassLabel)]
    strings = (Value("string"), Value("large_string"))
    texts = [name for name, kind in types.items() if kind in strings]
    prefix = f"the data set {name} has the columns {', '.join(features)}"
    sounds = [column for column, feature in features.items() if isinstance(feature, Audio)]
    sounds = sounds if len(sounds) == 1 else [column for column in ["audio"] if column in features]
    if not sounds:
        raise LibraryError(f"{prefix}: which one has the sound is not clear (expected: audio)")
    labels = [column for column in LABEL_COLUMNS if column in (*classes, *texts)]
    if not labels and len(classes) != 1:
        raise LibraryError(
            f"{prefix}: which one has the genre is not clear (expected: genre or label)"
        )
    label = (*labels, *classes)[0]
    optional = tuple(c for c in ("artist", "album") if c != label and c in texts)
    return _DatasetColumns(sounds[0], label, types[label], optional)


def _make_clip(
    row: Mapping[str, Any],
    columns: _DatasetColumns,
    base_path: Path,
    part: str,
    downloads: Sequence[Path] | None,
) -> Clip | Failure:
    """Return the clip of a row. The path of its sound begins with `base_path`, or is in the row."""
    sound = row[columns.sound] or {}
    data, original_name = sound.get("bytes"), str(sound.get("path") or "")
    shown_path = Path(original_name or base_path.name)
    labels = tuple(_list_row_labels(row[columns.label], columns.label_type))
    if not labels:
        return Failure.without_stat(shown_path, "it has no label")
    path = Path(original_name)
    if data:
        path = _write_sound(data, PurePosixPath(labels[0], original_name), base_path)
    elif downloads is not None and not _lies_below(path, downloads):
        return Failure.without_stat(shown_path, "its sound is neither in the row nor downloaded")
    try:
        if not path.is_file():
            return Failure.without_stat(shown_path, "its sound is not in the row and not on disk")
        track = Track.from_stat(path, path.stat())  # Hugging Face's cache has symbolic links
    except (OSError, ValueError) as error:
        return Failure.without_stat(shown_path, f"its file cannot be read: {error}")
    optional: dict[str, Any] = {
        column: str(row[column] or "").strip() for column in columns.optional
    }
    return Clip(track, labels, **optional, part=part)


def _lies_below(path: Path, folders: Sequence[Path]) -> bool:
    """Tell whether a path leads into one of these folders. Its last part may be a link there."""
    place = os.path.abspath(path)  # noqa: PTH100 - without `..`, but through no link
    return any(Path(place).is_relative_to(folder.absolute()) for folder in folders)


def _list_row_labels(value: Any, label_type: Any) -> Iterator[str]:
    names = getattr(label_type, "names", None)
    for item in value if isinstance(value, list) else [value]:
        if names is None:
            text = str("" if item is None else item).strip()
        else:  # test sets with secret labels have -1
            text = names[item] if item is not None and 0 <= item < len(names) else ""
        if text:
            yield text


def _write_sound(data: bytes, original: PurePosixPath, base_path: Path) -> Path:
    """Write the sound of a row as a file, unless the file exists, and return its path.

    The path ends with a folder of the genre and the original name: published lists have such paths.
    """
    suffix = original.suffix.lower()
    if suffix not in EXTENSIONS:
        suffix = next(
            (suffix for magic, suffix in SUFFIX_BY_MAGIC.items() if data.startswith(magic)), ".bin"
        )
    digest = hashlib.sha256(data).hexdigest()[:12]
    genre = make_safe_name(original.parts[0]) or "genre"
    folder = base_path.with_name(f"{base_path.name}-{digest}") / genre
    path = folder / f"{make_safe_name(original.stem) or 'sound'}{suffix}"
    try:
        if path.exists() and path.stat().st_size == len(data):
            return path
        folder.mkdir(parents=True, exist_ok=True)
        write_file_whole(path, data)
    except OSError as error:
        kind = DiskFullError if error.errno in DISK_FULL_ERRNOS else LibraryError
        raise kind(f"cannot write {display_path(path)}: {error.strerror}") from error
    return path


def make_safe_name(text: str) -> str:
    """Return text as a part of a file name that is valid on every system."""
    return re.sub(r"[^\w.-]+", "-", text, flags=re.ASCII).strip(".-")[:60]


DATASET_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""The id of a data set on the Hub: owner/name."""

SAVED_DATASET_FILES = ("state.json", "dataset_dict.json")
"""Files that `save_to_disk` writes into the folder of a Dataset and of a DatasetDict."""

PARQUET_REVISION = "refs/convert/parquet"
"""The Git reference of the Hub's own copy of a data set, as Parquet files."""

FILE_BUILDERS = {"audiofolder", "webdataset"}
"""The builders of the library datasets for audio files."""


def is_saved_dataset(folder: Path) -> bool:
    """Return whether `save_to_disk` made a folder."""
    return any((folder / name).is_file() for name in SAVED_DATASET_FILES)


def read_saved_dataset(folder: Path, label_names: Mapping[str, str], cache: Path) -> Dataset:
    """Read a folder that `save_to_disk` made of a Dataset or a DatasetDict.

    `label_names` is as for `make_dataset`. Sound in the tables is written into `cache`. Raises
    LibraryError if the folder cannot be used, DiskFullError if the disk of the cache is full.
    """
    datasets = _import_datasets()
    name = display_path(folder)
    with _translate_dataset_errors(name):
        loaded = datasets.load_from_disk(str(folder))
        clips = make_clips(name, loaded, cache / make_safe_name(folder.resolve().name))
        return make_dataset(name, clips, label_names)


def read_hub_dataset(name: str, label_names: Mapping[str, str], cache: Path) -> Dataset:
    """Read a data set of the Hub. Download it if it is not in Hugging Face's cache.

    `label_names` and `cache` are as for `read_saved_dataset`. Raises LibraryError if the data set
    does not exist or cannot be used, DiskFullError if the disk is full.
    """
    with _translate_dataset_errors(name):
        loaded = _load_hub_dataset(name)
        downloads = hub.find_cache(), Path(_import_datasets().config.HF_DATASETS_CACHE)
        clips = make_clips(name, loaded, cache / make_safe_name(name), downloads)
        return make_dataset(name, clips, label_names)


def _import_datasets() -> Any:
    """Return the library `datasets`, without its progress bars and warnings."""
    try:
        import datasets
    except ValueError as error:
        raise LibraryError(f"HF_ENDPOINT is not an address: {error}") from error
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    return datasets


def _load_hub_dataset(name: str) -> Any:
    """Return a data set of the Hub as a DatasetDict, without running its code."""
    datasets = _import_datasets()
    hub.silence_hub()
    try:
        builder = _load_builder(name)
    except ConnectionError:
        with suppress(LibraryError):  # an earlier run may have downloaded the Parquet copy
            return _load_parquet_copy(name, "")
        raise
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        return _load_parquet_copy(name, "a script, which tagger does not run")
    if builder.info.builder_name in FILE_BUILDERS and not datasets.config.TORCHCODEC_AVAILABLE:
        return _load_parquet_copy(name, "audio files, which datasets reads only with torchcodec")
    builder.download_and_prepare()
    return builder.as_dataset()


def _load_builder(name: str) -> Any:
    datasets = _import_datasets()
    try:
        return datasets.load_dataset_builder(name)
    except ValueError as error:
        if "Config name is missing" not in str(error):
            raise
    configurations = datasets.get_dataset_config_names(name)
    return datasets.load_dataset_builder(name, _choose_configuration(name, configurations))


def _load_parquet_copy(name: str, nature: str) -> Any:
    """Return the Hub's own copy of a data set, whose files are CONFIGURATION/SPLIT/0000.parquet.

    nature: what the data set itself is, for the message if there is no copy.
    """
    try:
        try:
            files = hub.list_repo_files(name, PARQUET_REVISION, hub.DATASET_REPO)
        except ModelError:  # the Hub does not answer: use the files in the cache
            cached = hub.download_dataset(name, PARQUET_REVISION, "no file matches this")
            files = [str(path.relative_to(cached)) for path in cached.rglob("*.parquet")]
        folders = {PurePosixPath(file).parts[0] for file in files if file.endswith(".parquet")}
        chosen = _choose_configuration(name, sorted(folders))
        folder = hub.download_dataset(name, PARQUET_REVISION, f"{chosen}/*.parquet")
    except ModelError as error:
        raise LibraryError(
            f"the data set {name} is {nature}, and the Hub's copy of it as Parquet"
            f" ({PARQUET_REVISION}) cannot be downloaded: {error}"
        ) from error
    splits: dict[str, list[str]] = {}
    for file in sorted((folder / chosen).glob("*/*.parquet")):
        splits.setdefault(file.parent.name, []).append(str(file))
    if partial := [split for split in splits if split.startswith("partial-")]:
        raise LibraryError(f"the Hub's copy of the data set {name} is incomplete ({partial[0]})")
    return _import_datasets().load_dataset("parquet", data_files=splits)


def _choose_configuration(name: str, configurations: Sequence[str]) -> str:
    if len(configurations) == 1:
        return configurations[0]
    for usual in ("all", "default"):
        if usual in configurations:
            return usual
    raise LibraryError(
        f"the data set {name} has several configurations, and none is called all or default"
        f" ({', '.join(configurations)}): save the right one with save_to_disk, and name that"
        " folder"
    )


@contextmanager
def _translate_dataset_errors(name: str) -> Iterator[None]:
    """Turn errors of `datasets` into one line that says what failed and what helps.

    `models.hub` does the same for huggingface_hub, whose errors `datasets` does not raise.
    """
    datasets = _import_datasets()
    endpoint = datasets.config.HF_ENDPOINT
    try:
        yield
    except TaggerError:
        raise
    except datasets.exceptions.DatasetNotFoundError as error:
        log_in = "log in (hf auth login) or set HF_TOKEN"
        if "gated" in str(error):
            accept = f"accept its terms at {endpoint}/datasets/{name}, then {log_in}"
            raise LibraryError(f"the data set {name} is gated: {accept}") from error
        raise LibraryError(
            f"there is no folder {name}, and no data set of that name at {endpoint}, or it is"
            f" private: check its id, or {log_in}"
        ) from error
    except ConnectionError as error:
        offline = datasets.config.HF_HUB_OFFLINE
        obstacle = "HF_HUB_OFFLINE is set" if offline else f"{endpoint} cannot be reached"
        raise LibraryError(
            f"there is no folder {name}, the data set {name} is not in the cache"
            f" ({datasets.config.HF_DATASETS_CACHE}), and {obstacle}: connect once to download it"
        ) from error
    except Exception as error:  # errors of Arrow, of files, and unexpected answers
        if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
            raise DiskFullError(f"no space is left for the data set {name}") from error
        cause = error.__cause__ or error  # datasets' own message only says that it failed
        reason = (str(cause) or repr(cause)).splitlines()[0]
        raise LibraryError(f"cannot read the data set {name}: {reason}") from error
