"""How each option is described, read and checked."""

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import time
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, get_type_hints

from tagger.errors import SettingsError
from tagger.records import Label, Shard

DEVICE_PATTERN = re.compile(r"auto|cpu|cuda(:\d+)?|mps")

RAY_ADDRESS_PATTERN = re.compile(r"auto|local|[^\s:/]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}")

TIME_PATTERN = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")

MAX_JOBS = 256

DEFAULT_PROMPT = "This is a sound of {}."
"""What a label without words of its own is taken for; the template of transformers' pipeline."""


def to_flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("must be true or false")


def to_count(value: object) -> int:
    text = str(value)
    if not text.isdecimal() or int(text) < 1:
        raise ValueError("must be a whole number, 1 or more")
    return int(text)


def to_limit(most: int) -> Callable[[object], int]:
    """Return what reads a whole number up to `most`."""

    def convert(value: object) -> int:
        number = to_count(value)
        if number > most:
            raise ValueError(f"must be {most} at most")
        return number

    return convert


def to_jobs(value: object) -> int | None:
    return None if value == "auto" else to_limit(MAX_JOBS)(value)


def to_count_or_auto(value: object) -> int | None:
    return None if value == "auto" else to_count(value)


def to_seconds_or_auto(value: object) -> float | None:
    if value == "auto":
        return None
    with suppress(ValueError):
        number = float(str(value))
        if 0.1 <= number <= 3600:  # noqa: PLR2004 - no model takes less, no memory holds more
            return number
    raise ValueError("must be a number of seconds between 0.1 and 3600")


def to_shard(value: object) -> Shard:
    """Read `2/5`, the second of five parts."""
    number, _, total = str(value).partition("/")
    shard = Shard(to_count(number), to_count(total))
    if shard.number > shard.total:
        raise ValueError("must be I/N, with I no more than N")
    return shard


def to_clock(value: object) -> time:
    """Read the time of a clock; TOML has a kind of value for that as well."""
    if isinstance(value, time):
        return value
    if found := TIME_PATTERN.fullmatch(str(value)):
        hours, minutes = map(int, found.groups())
        return time(hours, minutes)
    raise ValueError("must be a time of day, 00:00 to 23:59")


def to_probability(value: object) -> float:
    with suppress(ValueError):
        number = float(str(value))
        if 0 <= number <= 1:
            return number
    raise ValueError("must be a number between 0 and 1")


def to_device(value: object) -> str:
    if DEVICE_PATTERN.fullmatch(str(value)):
        return str(value)
    raise ValueError("must be auto, cpu, cuda, cuda:N or mps")


def to_gpus_or_auto(value: object) -> float | None:
    return None if value == "auto" else to_probability(value)


def to_address(value: object) -> str:
    if RAY_ADDRESS_PATTERN.fullmatch(str(value)):
        return str(value)
    raise ValueError("must be auto, local or HOST:PORT")


def to_text(value: object) -> str:
    if str(value).strip() and "\0" not in str(value):
        return str(value)
    raise ValueError("must not be empty")


def to_path(value: object) -> Path:
    if not isinstance(value, (str, Path)):
        raise ValueError("must be the name of a file")  # noqa: TRY004 - told like all wrong values
    if "://" in str(value):
        raise ValueError("must be a file on this machine")
    try:
        return Path(to_text(value)).expanduser()
    except RuntimeError as error:
        raise ValueError("must not begin with the home of an unknown user") from error


def to_patterns(value: object) -> tuple[str, ...]:
    if isinstance(value, (list, tuple)):
        return tuple(str(item) for item in value)
    raise ValueError("must be a list")


def to_genre_map(value: object) -> Mapping[str, str]:
    """Read a TOML file of `"label of the model" = "your name"`; an empty name drops the label."""
    names = read_toml(to_path(value))
    if all(isinstance(name, str) for name in names.values()):
        return MappingProxyType({label.casefold(): name.strip() for label, name in names.items()})
    raise ValueError('every line must read "label" = "name"')


def to_labels(value: object) -> tuple[Label, ...]:
    """Read `a,b,c`, a list, or a text file: one label a line, behind `=` words that describe it.

    In those words `{}` stands for the label.
    """
    if isinstance(value, list):
        lines = [str(item) for item in value]
    elif os.path.isfile(to_text(value)):  # noqa: PTH113 - never raises, however long the text is
        lines = read_text(Path(str(value))).splitlines()
    else:
        lines = str(value).split(",")
    labels = [_to_label(line) for line in lines if line.strip() and not line.startswith("#")]
    names = [label.name.casefold() for label in labels]
    if len(labels) < 2 or "" in names:  # noqa: PLR2004 - of one label, any sound is that
        raise ValueError("must be two labels or more, or a text file with one on each line")
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"must not name {repeated[0]!r} twice")
    return tuple(labels)


def _to_label(line: str) -> Label:
    name, _, prompt = (part.strip() for part in line.partition("="))
    return Label(name, (prompt or DEFAULT_PROMPT).replace("{}", name))


class Option(NamedTuple):
    """How a field of Settings is given: how it is read, its help, its values in words."""

    convert: Callable[[Any], Any]
    help: str
    values: str = ""
    short: str = ""


def make_choice(kind: type[StrEnum], text: str) -> Option:
    return Option(kind, text, "|".join(kind))


def list_options(kind: type) -> Mapping[str, Option]:
    """Return the options of such a record, each by its name on the command line."""
    return MappingProxyType(
        {
            name.replace("_", "-"): hint.__metadata__[0]
            for name, hint in get_type_hints(kind, include_extras=True).items()
        }
    )


def convert_values(
    options: Mapping[str, Option], given: Mapping[str, tuple[object, str]]
) -> dict[str, Any]:
    """Read values, each given with where it stands, into those of fields. Raises SettingsError."""
    return {
        name.replace("-", "_"): _convert_value(options[name], value, origin)
        for name, (value, origin) in given.items()
    }


def read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is no valid TOML: {error}") from error


def read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is no text in UTF-8: {error}") from error


def _convert_value(known: Option, value: object, origin: str) -> Any:
    try:
        return known.convert(value)
    except ValueError as error:
        wanted = f"must be one of {known.values}" if isinstance(known.convert, type) else error
        raise SettingsError(f"{origin}: {wanted}, not {value!r}") from error
