"""How an option is described, and how its value is converted and checked."""

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import time
from enum import Flag, StrEnum, auto
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from tagger.addresses import (
    MediaServer,
    SecretUrl,
    parse_ping_url,
    parse_secret_url,
    parse_server,
)
from tagger.errors import SettingsError
from tagger.paths import to_one_line
from tagger.records import Hours, Label, MinScore, Shard, normalize_label, split_genres

DEVICE_PATTERN = re.compile(r"auto|cpu|cuda(:\d+)?|mps")

RAY_ADDRESS_PATTERN = re.compile(r"auto|local|[^\s:/]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}")

TIME_PATTERN = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")

MAX_JOBS = 256

MIN_WINDOW_S, MAX_WINDOW_S = 0.1, 3600
"""No model takes a shorter window, and no memory holds a longer one."""

MAX_DURATION_S = 86_400  # a day

DEFAULT_PROMPT = "This is a sound of {}."
"""The sentence for a label without a sentence of its own, as in transformers' pipeline."""


class Affects(Flag):
    """What changes if an option of a scan gets another value.

    ROWS: a row of the report changes; a row that an earlier run kept is not repeated.
    INFERENCE: the model gets other input or gives other scores.
    FILES: a run looks at other files, or does something else to them.
    MACHINE: speed, limits, and where output goes; neither scores nor tags.
    """

    ROWS = auto()
    INFERENCE = auto()
    FILES = auto()
    MACHINE = auto()


class Option(NamedTuple):
    """An option on the command line and in the TOML file.

    convert: makes the value of a Settings field, or raises ValueError. values: the possible values,
    as the help shows them. short: the short flag. affects: of the options of a scan, from the
    annotation behind the Option. is_secret: the value may hold a password, and no message shows it.
    """

    convert: Callable[[Any], Any]
    help: str
    values: str = ""
    short: str = ""
    affects: Affects = Affects(0)
    is_secret: bool = False


def make_choice(kind: type[StrEnum], text: str) -> Option:
    """Return an option whose values are the members of `kind`."""
    return Option(kind, text, "|".join(kind))


def list_options(kind: type) -> Mapping[str, Option]:
    """Return the options of a record whose fields are annotated with them, by flag name."""
    options = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        option, *affects = hint.__metadata__
        options[name.replace("_", "-")] = option._replace(affects=affects[0]) if affects else option
    return MappingProxyType(options)


def convert_values(
    options: Mapping[str, Option], values: Mapping[str, tuple[object, str]]
) -> dict[str, Any]:
    """Return the values of fields, by field name. Raises SettingsError.

    values: by flag name, each with the place where it was found, for the message.
    """
    return {
        name.replace("-", "_"): _convert_value(options[name], value, place)
        for name, (value, place) in values.items()
    }


def _convert_value(option: Option, value: object, place: str) -> Any:
    try:
        return option.convert(value)
    except ValueError as error:
        is_choice = isinstance(option.convert, type)
        reason = f"must be one of {option.values}" if is_choice else error
        if option.is_secret:
            raise SettingsError(f"{place}: {reason}") from None
        raise SettingsError(f"{place}: {reason}, not {value!r}") from error


def check_field_classes(record: object, allowed: Mapping[str, tuple[type, ...]]) -> None:
    """Raise SettingsError for a field that has a value of none of its classes."""
    for name, classes in allowed.items():
        value = getattr(record, name)
        if not isinstance(value, classes):
            wanted = " or ".join(each.__name__ for each in classes).replace("NoneType", "None")
            raise SettingsError(
                f"{name} must be {wanted}, not {value!r}"
                " (tagger.make_settings takes values as the command line and the config file do)"
            )


def list_field_classes(kind: type) -> Mapping[str, tuple[type, ...]]:
    """Return the classes of the value of each field; what a tuple or Mapping holds is left out."""
    return {name: tuple(_list_classes(hint)) for name, hint in get_type_hints(kind).items()}


def _list_classes(hint: Any) -> Iterator[type]:
    if get_origin(hint) in (Union, UnionType):
        for part in get_args(hint):
            yield from _list_classes(part)
    else:
        yield get_origin(hint) or hint
        if hint is float:
            yield int  # as type checkers allow


def to_flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("must be true or false")


def to_count(value: object) -> int:
    text = str(value)
    if not text.isdecimal() or int(text) < 1:
        raise ValueError("must be a whole number, 1 or more")
    return int(text)


def to_count_up_to(maximum: int) -> Callable[[object], int]:
    """Return a converter for whole numbers from 1 to `maximum`."""

    def convert(value: object) -> int:
        number = to_count(value)
        if number > maximum:
            raise ValueError(f"must be {maximum} or less")
        return number

    return convert


def to_jobs(value: object) -> int | None:
    return None if value == "auto" else to_count_up_to(MAX_JOBS)(value)


def to_count_or_auto(value: object) -> int | None:
    return None if value == "auto" else to_count(value)


def to_seconds_or_auto(value: object) -> float | None:
    if value == "auto":
        return None
    with suppress(ValueError):
        seconds = float(str(value))
        if MIN_WINDOW_S <= seconds <= MAX_WINDOW_S:
            return seconds
    raise ValueError(f"must be a number of seconds between {MIN_WINDOW_S} and {MAX_WINDOW_S}")


def to_shard(value: object) -> Shard:
    """Convert `2/5`, the second of five parts."""
    number, _, total = str(value).partition("/")
    shard = Shard(to_count(number), to_count(total))
    if shard.number > shard.total:
        raise ValueError("must be I/N, and I must not be greater than N")
    return shard


def to_time_of_day(value: object) -> time:
    """Convert `6:30`, or a value that TOML has read as a time already."""
    if isinstance(value, time):
        return value
    if match := TIME_PATTERN.fullmatch(str(value)):
        hour, minute = map(int, match.groups())
        return time(hour, minute)
    raise ValueError("must be a time of day, 00:00 to 23:59")


def to_probability(value: object) -> float:
    with suppress(ValueError):
        number = float(str(value))
        if 0 <= number <= 1:
            return number
    raise ValueError("must be a number between 0 and 1")


DEFAULT_BOUND = "default"
"""The key in the table of `min-score` for the genres that the table does not name."""


def to_min_score(value: object) -> MinScore:
    """Convert one bound for all genres, or the TOML table `[min-score]` of bounds by genre."""
    if not isinstance(value, Mapping):
        return MinScore(to_probability(value))
    bounds = {str(name): _to_bound(str(name), bound) for name, bound in value.items()}
    default = bounds.pop(DEFAULT_BOUND, MinScore().default)
    keys = [normalize_label(name) for name in bounds]
    if repeated := [name for name in bounds if keys.count(normalize_label(name)) > 1]:
        raise ValueError(f"must not name {repeated[0]!r} twice")
    return MinScore(default, dict(sorted(bounds.items())))


def _to_bound(name: str, value: object) -> float:
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return to_probability(value)
    except ValueError:
        pass
    raise ValueError(
        f"must have a number between 0 and 1 for each genre, but {name} is {value!r} (lines below"
        " a table belong to it: put the table at the end of the file)"
    )


def to_device(value: object) -> str:
    if DEVICE_PATTERN.fullmatch(str(value)):
        return str(value)
    raise ValueError("must be auto, cpu, cuda, cuda:N or mps")


def to_gpus_or_auto(value: object) -> float | None:
    return None if value == "auto" else to_probability(value)


def to_ray_address(value: object) -> str:
    if RAY_ADDRESS_PATTERN.fullmatch(str(value)):
        return str(value)
    raise ValueError("must be auto, local or HOST:PORT")


def to_text(value: object) -> str:
    text = str(value)
    if not text.strip():
        raise ValueError("must not be empty")
    if "\0" in text:
        raise ValueError("must not contain a null character")
    return text


def to_path(value: object) -> Path:
    if not isinstance(value, (str, Path)):
        raise ValueError("must be the path of a file")  # noqa: TRY004 - convert_values expects it
    if "://" in str(value):
        raise ValueError("must be a file on this machine, not a URL")
    try:
        return Path(to_text(value)).expanduser()
    except RuntimeError as error:
        raise ValueError("must not begin with the home of an unknown user") from error


def to_members(kind: type[StrEnum]) -> Callable[[object], tuple[Any, ...]]:
    """Return a converter for a list of members of `kind`, or a text with commas between them."""

    def convert(value: object) -> tuple[Any, ...]:
        names = [
            str(name).strip()
            for name in (value if isinstance(value, list) else str(value).split(","))
        ]
        if not names or not set(names) <= set(kind):
            raise ValueError(f"must be some of {', '.join(kind)}, with commas between them")
        return tuple(member for member in kind if member in names)

    return convert


def to_duration(value: object) -> float:
    with suppress(ValueError):
        seconds = float(str(value))
        if 0 <= seconds <= MAX_DURATION_S:
            return seconds
    raise ValueError(f"must be a number of seconds between 0 and {MAX_DURATION_S}")


def to_duration_or_auto(value: object) -> float | None:
    return None if value == "auto" else to_duration(value)


def to_hours(value: object) -> Hours:
    """Convert `HH:MM-HH:MM`."""
    start, _, end = str(value).partition("-")
    try:
        return Hours(to_time_of_day(start.strip()), to_time_of_day(end.strip()))
    except ValueError:
        raise ValueError("must be two times of day such as 18:00-23:30") from None


def to_patterns(value: object) -> tuple[str, ...]:
    if isinstance(value, (list, tuple)):
        return tuple(os.path.expanduser(str(pattern)) for pattern in value)  # noqa: PTH111 - no path
    raise ValueError("must be a list")


def to_servers(value: object) -> tuple[MediaServer, ...]:
    """Convert a list of `KIND=URL#HERE=THERE`."""
    if isinstance(value, (list, tuple)):
        return tuple(parse_server(str(each)) for each in value)
    raise ValueError("must be a list")


def to_secret_urls(value: object) -> tuple[SecretUrl, ...]:
    if isinstance(value, (list, tuple)):
        return tuple(parse_secret_url(str(each)) for each in value)
    raise ValueError("must be a list")


def to_ping_url(value: object) -> SecretUrl:
    return parse_ping_url(to_text(value))


REPEATABLE = {to_patterns, to_servers, to_secret_urls}
"""The converters of options that may be given several times."""

FLAG_WORDS = {"true": True, "yes": True, "on": True, "1": True} | {
    "false": False, "no": False, "off": False, "0": False
}  # fmt: skip


def parse_variable(option: Option, text: str) -> object:
    """Return what the text of an environment variable means, as a TOML file would have it.

    Each line is a value of an option that may be given several times.
    """
    if option.convert is to_flag:
        return FLAG_WORDS.get(text.strip().casefold(), text)
    return text.splitlines() if option.convert in REPEATABLE else text


def to_names(value: object) -> tuple[str, ...]:
    """Convert `A,B,C` or a list of names; an empty text is no name at all."""
    if not isinstance(value, (str, list, tuple)):
        raise ValueError("must be a list of names")  # noqa: TRY004 - convert_values expects it
    names = value.split(",") if isinstance(value, str) else map(str, value)
    return tuple(dict.fromkeys(filter(None, map(to_one_line, names))))


def to_genre_map(value: object) -> Mapping[str, str]:
    """Read a TOML file of `"label of the model" = "your name"`; an empty name drops the label.

    A name with semicolons stands for several genres. A script may give a mapping instead.
    """
    names = value if isinstance(value, Mapping) else read_toml(to_path(value))
    if all(isinstance(name, str) for name in names.values()):
        return MappingProxyType(
            {
                label.casefold(): "; ".join(split_genres(to_one_line(name)))
                for label, name in names.items()
            }
        )
    raise ValueError('every line must read "label" = "name"')


def to_labels(value: object) -> tuple[Label, ...]:
    """Convert `a,b,c`, a list, or the path of a text file with one label on each line.

    A label may be followed by `=` and a sentence that describes it; `{}` stands for the label.
    """
    if isinstance(value, list):
        lines = list(map(str, value))
    elif os.path.isfile(path := os.path.expanduser(to_text(value))):  # noqa: PTH111, PTH113 - Path's raise
        lines = read_text(Path(path)).splitlines()
    else:
        lines = str(value).split(",")
    labels = [_to_label(line) for line in lines if line.strip() and not line.startswith("#")]
    names = [label.name.casefold() for label in labels]
    if len(labels) < 2 or "" in names:  # noqa: PLR2004 - with one label there is nothing to choose
        raise ValueError("must be two labels or more, or a text file with one label on each line")
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"must not name {repeated[0]!r} twice")
    return tuple(labels)


def _to_label(line: str) -> Label:
    name, _, prompt = (part.strip() for part in line.partition("="))
    name = to_one_line(name)
    return Label(name, (prompt or DEFAULT_PROMPT).replace("{}", name))


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
