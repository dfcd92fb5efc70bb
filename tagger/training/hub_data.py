"""Labelled music as the Hugging Face Hub shares it and `save_to_disk` keeps it; owns datasets.

A data set of the Hub is downloaded into Hugging Face's own cache (HF_HOME, HF_DATASETS_CACHE), as
it was published and as tables, and is found there without the Hub from then on. HF_ENDPOINT,
HF_HUB_OFFLINE and HF_TOKEN mean what they mean everywhere. No code of a data set is run.
"""

import errno
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from tagger.errors import DiskFullError, LibraryError, ModelError, TaggerError
from tagger.models import hub
from tagger.paths import displayed
from tagger.training.clips import Dataset, make_dataset
from tagger.training.hub_rows import clips_of, plain_name

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""The id of a data set on the Hub: owner/name."""

MARKERS = ("state.json", "dataset_dict.json")
"""What `save_to_disk` leaves in the folder of a Dataset and of a DatasetDict."""

CONVERTED = "refs/convert/parquet"
"""Where the Hub keeps what a script had made of a data set, as Parquet files."""

FILES = {"audiofolder", "webdataset"}
"""The builders of datasets that make tables of files of sound."""


def is_saved(place: Path) -> bool:
    """Tell whether a folder was made by `save_to_disk`."""
    return any((place / name).is_file() for name in MARKERS)


def read_saved(place: Path, names: Mapping[str, str], cache: Path) -> Dataset:
    """Read a folder that `save_to_disk` made of a Dataset or a DatasetDict.

    `names` is as for `make_dataset`; sound that the tables hold is written into `cache`. Raises
    LibraryError where the folder cannot be used, DiskFullError where the cache has no space left.
    """
    datasets = _library()
    with _clear_errors(displayed(place)):
        loaded = datasets.load_from_disk(str(place))
        found = clips_of(displayed(place), loaded, cache / plain_name(place.resolve().name))
        return make_dataset(displayed(place), found, names)


def read_hub(name: str, names: Mapping[str, str], cache: Path) -> Dataset:
    """Read a data set of the Hub, downloading it where it is not in Hugging Face's cache.

    `names` and `cache` are as for `read_saved`. Raises LibraryError where there is no such data
    set, or none that can be had or used, DiskFullError where no space is left.
    """
    with _clear_errors(name):
        found = clips_of(name, _load(name), cache / plain_name(name))
        return make_dataset(name, found, names)


def _library() -> Any:
    """Return the library `datasets`, told to be silent."""
    try:
        import datasets
    except ValueError as error:
        raise LibraryError(f"HF_ENDPOINT is no address: {error}") from error
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    return datasets


def _load(name: str) -> Any:
    """Return a data set of the Hub as a DatasetDict, without running code of its own."""
    datasets = _library()
    hub.silence()
    try:
        builder = _builder(name)
    except ConnectionError:
        with suppress(LibraryError):  # what was had in that way once is in the cache as well
            return _converted(name, "")
        raise
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        return _converted(name, "a script, which tagger does not run")
    if builder.info.builder_name in FILES and not datasets.config.TORCHCODEC_AVAILABLE:
        return _converted(name, "files, which datasets takes in with torchcodec alone")
    builder.download_and_prepare()
    return builder.as_dataset()


def _builder(name: str) -> Any:
    datasets = _library()
    try:
        return datasets.load_dataset_builder(name)
    except ValueError as error:
        if "Config name is missing" not in str(error):
            raise
    configurations = datasets.get_dataset_config_names(name)
    return datasets.load_dataset_builder(name, _chosen(name, configurations))


def _converted(name: str, nature: str) -> Any:
    """Return the Hub's own copy of a data set; its files are CONFIGURATION/SPLIT/0000.parquet."""
    try:
        try:
            files = hub.file_names(name, CONVERTED, hub.DATA_SET)
        except ModelError:  # without the Hub, there is what was downloaded
            cached = hub.download_data(name, CONVERTED, "nothing more")
            files = [str(path.relative_to(cached)) for path in cached.rglob("*.parquet")]
        folders = {PurePosixPath(file).parts[0] for file in files if file.endswith(".parquet")}
        chosen = _chosen(name, sorted(folders))
        folder = hub.download_data(name, CONVERTED, f"{chosen}/*.parquet")
    except ModelError as error:
        raise LibraryError(
            f"the data set {name} is {nature}, and the Hub's copy of it as Parquet ({CONVERTED})"
            f" cannot be had: {error}"
        ) from error
    splits: dict[str, list[str]] = {}
    for file in sorted((folder / chosen).glob("*/*.parquet")):
        splits.setdefault(file.parent.name, []).append(str(file))
    if partial := [split for split in splits if split.startswith("partial-")]:
        raise LibraryError(f"the Hub's copy of the data set {name} is but a part ({partial[0]})")
    return _library().load_dataset("parquet", data_files=splits)


def _chosen(name: str, configurations: Sequence[str]) -> str:
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
def _clear_errors(name: str) -> Iterator[None]:
    """Say in one line what went wrong and what helps."""
    datasets = _library()
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
