"""Data sets of the Hugging Face Hub, and folders of `save_to_disk`, as clips; owns datasets."""

import errno
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tagger.errors import DiskFullError, LibraryError, ModelError, TaggerError
from tagger.models import hub
from tagger.paths import display_path
from tagger.records import Failure, Track
from tagger.tags import EXTENSIONS
from tagger.training.clips import PART_NAMES, Clip, Dataset, make_dataset

LABEL_COLUMNS = ("genre", "label", "genres", "labels")
"""The columns that say what a clip is, the most telling first."""

SUFFIX_BY_MAGIC = {
    b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3", b"\xff\xfb": ".mp3",
    b".snd": ".au", b"FORM": ".aiff",
}  # fmt: skip
"""What files begin with, and how their names should end."""


@dataclass(frozen=True, slots=True)
class _DatasetColumns:
    """Where a table keeps what; kind: how its labels are coded."""

    sound: str
    label: str
    kind: Any
    more: tuple[str, ...]


def make_clips(name: str, loaded: Any, folder: Path) -> Iterator[Clip | Failure]:
    """Yield the clips of a Dataset or a DatasetDict, writing their sound into a folder.

    They come in the order of the rows, which a split by a seed counts on. Raises LibraryError where
    no column says what a clip is or how it sounds, DiskFullError where no space is left.
    """
    from datasets import Audio, DatasetDict

    splits = loaded if isinstance(loaded, DatasetDict) else {"": loaded}
    for split, table in splits.items():
        columns = _find_columns(name, table.features)
        wanted = table.select_columns([columns.sound, columns.label, *columns.more])
        rows = wanted.cast_column(columns.sound, Audio(decode=False))
        part = PART_NAMES.get(split.casefold(), "") if len(splits) > 1 else ""
        for number, row in enumerate(rows):
            yield _make_clip(row, columns, folder / make_safe_name(split) / f"{number:06}", part)


def _find_columns(name: str, features: Mapping[str, Any]) -> _DatasetColumns:
    from datasets import Audio, ClassLabel, Value

    # of a list, what it is a list of
    kinds = {name: getattr(feature, "feature", feature) for name, feature in features.items()}
    classes = [name for name, kind in kinds.items() if isinstance(kind, ClassLabel)]
    strings = (Value("string"), Value("large_string"))
    texts = [name for name, kind in kinds.items() if kind in strings]
    here = f"the data set {name} has the columns {', '.join(features)}"
    sounds = [column for column, feature in features.items() if isinstance(feature, Audio)]
    sounds = sounds if len(sounds) == 1 else [each for each in ["audio"] if each in features]
    if not sounds:
        raise LibraryError(f"{here}: which of them is the sound cannot be told (audio)")
    fitting = [each for each in LABEL_COLUMNS if each in (*classes, *texts)]
    if not fitting and len(classes) != 1:
        raise LibraryError(f"{here}: which of them is the genre cannot be told (genre, label)")
    label = (*fitting, *classes)[0]
    more = tuple(each for each in ("artist", "album") if each != label and each in texts)
    return _DatasetColumns(sounds[0], label, kinds[label], more)


def _make_clip(
    row: Mapping[str, Any], columns: _DatasetColumns, place: Path, part: str
) -> Clip | Failure:
    """Return the clip of a row; `place` is where its sound goes, without the rest of the name."""
    sound = row[columns.sound] or {}
    data, named = sound.get("bytes"), str(sound.get("path") or "")
    called = Path(named or place.name)
    labels = tuple(_get_row_labels(row[columns.label], columns.kind))
    if not labels:
        return Failure.without_stat(called, "it has no label")
    path = _write_sound(data, PurePosixPath(labels[0], named), place) if data else Path(named)
    try:
        if not path.is_file():
            return Failure.without_stat(called, "its sound is neither in the row nor on this disk")
        track = Track.from_stat(path, path.stat())  # Hugging Face's cache is made of links
    except (OSError, ValueError) as error:
        return Failure.without_stat(called, f"cannot be looked at: {error}")
    more = {each: str(row[each] or "").strip() for each in columns.more}
    return Clip(track, labels, **more, part=part)


def _get_row_labels(value: Any, kind: Any) -> Iterator[str]:
    names = getattr(kind, "names", None)
    for each in value if isinstance(value, list) else [value]:
        if names is None:
            text = str("" if each is None else each).strip()
        else:  # test sets that keep their labels secret have -1
            text = names[each] if each is not None and 0 <= each < len(names) else ""
        if text:
            yield text


def _write_sound(data: bytes, named: PurePosixPath, place: Path) -> Path:
    """Write the sound of a row as a file, unless it stands there.

    Its name ends as that of the row in a folder of its genre, for lists that go by such names.
    """
    suffix = named.suffix.lower()
    if suffix not in EXTENSIONS:
        suffix = next(
            (end for start, end in SUFFIX_BY_MAGIC.items() if data.startswith(start)), ".bin"
        )
    digest = hashlib.sha256(data).hexdigest()[:12]
    folder = place.with_name(f"{place.name}-{digest}") / (make_safe_name(named.parts[0]) or "genre")
    path = folder / f"{make_safe_name(named.stem) or 'sound'}{suffix}"
    try:
        if path.exists() and path.stat().st_size == len(data):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        kind = DiskFullError if error.errno == errno.ENOSPC else LibraryError
        raise kind(f"cannot keep {display_path(path)}: {error.strerror}") from error
    return path


def make_safe_name(text: str) -> str:
    """Return text as a part of a file name that is safe everywhere."""
    return re.sub(r"[^\w.-]+", "-", text, flags=re.ASCII).strip(".-")[:60]


DATASET_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""The id of a data set on the Hub: owner/name."""

SAVED_DATASET_FILES = ("state.json", "dataset_dict.json")
"""What `save_to_disk` leaves in the folder of a Dataset and of a DatasetDict."""

PARQUET_REVISION = "refs/convert/parquet"
"""Where the Hub keeps what a script had made of a data set, as Parquet files."""

FILE_BUILDERS = {"audiofolder", "webdataset"}
"""The builders of datasets that make tables of files of sound."""


def is_saved_dataset(place: Path) -> bool:
    """Tell whether a folder was made by `save_to_disk`."""
    return any((place / name).is_file() for name in SAVED_DATASET_FILES)


def read_saved_dataset(place: Path, names: Mapping[str, str], cache: Path) -> Dataset:
    """Read a folder that `save_to_disk` made of a Dataset or a DatasetDict.

    `names` is as for `make_dataset`; sound that the tables hold is written into `cache`. Raises
    LibraryError where the folder cannot be used, DiskFullError where the cache has no space left.
    """
    datasets = _import_datasets()
    with _translate_dataset_errors(display_path(place)):
        loaded = datasets.load_from_disk(str(place))
        found = make_clips(
            display_path(place), loaded, cache / make_safe_name(place.resolve().name)
        )
        return make_dataset(display_path(place), found, names)


def read_hub_dataset(name: str, names: Mapping[str, str], cache: Path) -> Dataset:
    """Read a data set of the Hub, downloading it where it is not in Hugging Face's cache.

    `names` and `cache` are as for `read_saved`. Raises LibraryError where there is no such data
    set, or none that can be had or used, DiskFullError where no space is left.
    """
    with _translate_dataset_errors(name):
        found = make_clips(name, _load_hub_dataset(name), cache / make_safe_name(name))
        return make_dataset(name, found, names)


def _import_datasets() -> Any:
    """Return the library `datasets`, told to be silent."""
    try:
        import datasets
    except ValueError as error:
        raise LibraryError(f"HF_ENDPOINT is no address: {error}") from error
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    return datasets


def _load_hub_dataset(name: str) -> Any:
    """Return a data set of the Hub as a DatasetDict, without running code of its own."""
    datasets = _import_datasets()
    hub.silence_hub()
    try:
        builder = _load_builder(name)
    except ConnectionError:
        with suppress(LibraryError):  # what was had in that way once is in the cache as well
            return _load_parquet_copy(name, "")
        raise
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        return _load_parquet_copy(name, "a script, which tagger does not run")
    if builder.info.builder_name in FILE_BUILDERS and not datasets.config.TORCHCODEC_AVAILABLE:
        return _load_parquet_copy(name, "files, which datasets takes in with torchcodec alone")
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
    """Return the Hub's own copy of a data set; its files are CONFIGURATION/SPLIT/0000.parquet."""
    try:
        try:
            files = hub.list_repo_files(name, PARQUET_REVISION, hub.DATASET_REPO)
        except ModelError:  # without the Hub, there is what was downloaded
            cached = hub.download_dataset(name, PARQUET_REVISION, "nothing more")
            files = [str(path.relative_to(cached)) for path in cached.rglob("*.parquet")]
        folders = {PurePosixPath(file).parts[0] for file in files if file.endswith(".parquet")}
        chosen = _choose_configuration(name, sorted(folders))
        folder = hub.download_dataset(name, PARQUET_REVISION, f"{chosen}/*.parquet")
    except ModelError as error:
        raise LibraryError(
            f"the data set {name} is {nature}, and the Hub's copy of it as Parquet ({PARQUET_REVISION})"
            f" cannot be had: {error}"
        ) from error
    splits: dict[str, list[str]] = {}
    for file in sorted((folder / chosen).glob("*/*.parquet")):
        splits.setdefault(file.parent.name, []).append(str(file))
    if partial := [split for split in splits if split.startswith("partial-")]:
        raise LibraryError(f"the Hub's copy of the data set {name} is but a part ({partial[0]})")
    return _import_datasets().load_dataset("parquet", data_files=splits)


def _choose_configuration(name: str, configurations: Sequence[str]) -> str:
    if len(configurations) == 1:
        return configurations[0]
    for usual in ("all", "default"):
        if usual in configurations:
            return usual
    raise LibraryError(
        f"the data set {name} has several configurations, and none is called all or default"
        f" ({', '.join(configurations)}): save the one you mean with save_to_disk, and name that"
        " folder"
    )


@contextmanager
def _translate_dataset_errors(name: str) -> Iterator[None]:
    """Say in one line what went wrong and what helps."""
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
            f"there is no folder {name}, nor a data set of that name at {endpoint}, or it is"
            f" private: check its id, or {log_in}"
        ) from error
    except ConnectionError as error:
        offline = datasets.config.HF_HUB_OFFLINE
        obstacle = "HF_HUB_OFFLINE is set" if offline else f"{endpoint} cannot be reached"
        raise LibraryError(
            f"there is no folder {name}, the data set {name} is not in the cache"
            f" ({datasets.config.HF_DATASETS_CACHE}), and {obstacle}: connect once to download it"
        ) from error
    except Exception as error:  # of Arrow, and of files and answers that nobody foresaw
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise DiskFullError(f"no space left for the data set {name}") from error
        cause = error.__cause__ or error  # the library's own words tell only that it failed
        reason = (str(cause) or repr(cause)).splitlines()[0]
        raise LibraryError(f"cannot read the data set {name}: {reason}") from error
