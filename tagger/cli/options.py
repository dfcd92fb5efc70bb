"""Command line flags made from the fields of Settings and other lists of options."""

import os
import shlex
import string
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from tagger.errors import SettingsError
from tagger.options import REPEATABLE, Option, to_flag, to_path
from tagger.paths import parse_path
from tagger.settings import ALL_OPTIONS, OPTIONS, Settings, WatchSettings
from tagger.settings_sources import load_settings

Command = Callable[..., int]

DEFAULTS, WATCH_DEFAULTS = Settings(), WatchSettings()

PATH_OR_NAME_OPTIONS = {"model", "labels"}
"""Options whose value is a path or something else."""

PLAIN_CHARACTERS = string.ascii_letters + string.digits + "/._-"
"""The characters that `quote_for_shell` leaves as they are between escaped ones."""

MODEL_OPTIONS = dict.fromkeys(
    (
        "model", "revision", "labels", "genre_map", "windows", "window_seconds", "device",
        "precision", "compile", "batch_size", "allow_pickle", "trust_remote_code", "jobs",
        "max_seconds", "max_memory", "gentle",
    ),
    "",
)  # fmt: skip
"""For `add_settings_options`: the options of commands that run a model, with their usual help."""


class UserPath(click.Path):
    """The path of a file of this machine, or of a folder; `~` is the user's home."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return to_path(value)
        except ValueError as error:
            self.fail(f"{error}, not {value!r}", param, ctx)


class LibraryPath(click.Path):
    """The path of music: a file or a folder of this machine, or a URL."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return parse_path(value) if value else self.fail("must not be empty", param, ctx)


def add_settings_options(**helps: str) -> Callable[[Command], Command]:
    """Return a decorator that adds options of Settings, and `--config`, to a command.

    helps: a help text for each field, or an empty one for the usual help. Without any argument the
    command gets all options.
    """
    names = [name.replace("_", "-") for name in helps] or list(OPTIONS)

    def decorate(command: Command) -> Command:
        for name in reversed(names):
            text = helps.get(name.replace("-", "_")) or OPTIONS[name].help
            option = OPTIONS[name]._replace(help=text)
            command = _make_flag(name, option, get_default_text(name))(command)
        config = click.option(
            "--config",
            metavar="FILE.toml",
            type=UserPath(),
            help="Read options from this file instead of the one in the user's config folder.",
        )
        return config(command)

    return decorate


def add_options(options: Mapping[str, Option], defaults: object) -> Callable[[Command], Command]:
    """Return a decorator that adds options to a command; `defaults` has a field for each."""

    def decorate(command: Command) -> Command:
        for name in reversed(list(options)):
            default = format_default(options[name], getattr(defaults, name.replace("-", "_")))
            command = _make_flag(name, options[name], default)(command)
        return command

    return decorate


def _make_flag(name: str, option: Option, default: str) -> Callable[[Command], Command]:
    names = [*filter(None, [option.short]), f"--{name}"]
    if option.convert is to_flag:
        return _make_switch(name, names, option.help)
    return click.option(
        *names,
        metavar=option.values,
        multiple=option.convert in REPEATABLE,
        shell_complete=partial(_complete_value, option.values),
        help=f"{option.help}  [default: {default}]" if default else option.help,
    )


def _make_switch(name: str, names: list[str], text: str) -> Callable[[Command], Command]:
    """Make --name, and a hidden --no-name that overrides the config file."""
    field = name.replace("-", "_")
    on = click.option(*names, field, flag_value=True, default=None, type=bool, help=text)
    off = click.option(
        f"--no-{name}", field, flag_value=False, default=None, type=bool, hidden=True
    )
    return lambda command: on(off(command))


def _complete_value(values: str, _ctx: object, _param: object, prefix: str) -> list[CompletionItem]:
    """Offer the shell the words among the values of an option, or files."""
    if values.startswith("FILE") or values == "ID_OR_DIR":
        return [CompletionItem(prefix, type="file")]
    words = (word for word in values.split("|") if word.islower())
    return [CompletionItem(word) for word in words if word.startswith(prefix)]


def get_default(name: str) -> object:
    """Return the default of an option that the config file may set."""
    record = DEFAULTS if name in OPTIONS else WATCH_DEFAULTS
    return getattr(record, name.replace("-", "_"))


def get_default_text(name: str) -> str:
    """Return this default as text, or an empty text where there is none."""
    return format_default(ALL_OPTIONS[name], get_default(name))


def format_default(option: Option, value: object) -> str:
    """Return a default as a user would write it, or an empty text where there is none."""
    if value is None and "auto" in option.values:
        return "auto"
    if value is None or value is False or value in ((), {}):
        return ""
    return format_value(value).replace(str(Path.home()), "~")


def format_value(value: object) -> str:
    """Return a value of Settings as it stands on a command line."""
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def drop_unset(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of click that the user gave, by flag name."""
    return {
        name.replace("_", "-"): value for name, value in flags.items() if value not in (None, ())
    }


def format_options(options: Mapping[str, Any]) -> list[str]:
    """Return options as the words of a command line for another process."""
    words = []
    for name, value in options.items():
        if ALL_OPTIONS[name].convert is to_flag:
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            values = value if isinstance(value, tuple | list) else (value,)
            words += [f"--{name}={_make_absolute(name, word)}" for word in values]
    return words


def _make_absolute(name: str, value: str) -> str:
    """Make a path absolute: the other process may have another current folder."""
    path = os.path.expanduser(value)  # noqa: PTH111 - Path's raises for `~nobody, rock`
    is_file = ALL_OPTIONS[name].values.startswith("FILE")
    if is_file or (name in PATH_OR_NAME_OPTIONS and os.path.exists(path)):  # noqa: PTH110 - as above
        return os.path.abspath(path)  # noqa: PTH100 - as above
    return value


def merge_settings(
    config: Path | None, flags: dict[str, Any], config_options: Collection[str] = OPTIONS.keys()
) -> Settings:
    """Merge the config file with the arguments of click. Raises SettingsError."""
    return load_settings(drop_unset(flags), config, config_options=config_options)


def format_follow_up(
    words: Sequence[str], settings: Settings, options: Sequence[str], config: Path | None
) -> str:
    """Return a command line of tagger to type after a run, quoted for a shell.

    options: those of the run that the command needs. An option is left out where the command
    has the same value without it. config: that of the run, if the user named one; the command
    names it too.
    """
    usual = DEFAULTS
    with suppress(SettingsError):  # a watch may have read another config file than the user's own
        usual = load_settings({}, config)
    changed = _list_changed(settings, usual, options)
    return format_command([*words, *name_files(settings, config), *changed])


def name_files(settings: Settings, config: Path | None) -> list[str]:
    """Return the options by which a command finds the same state file and the same config file.

    The state file is always named: without it the command would depend on the environment.
    """
    named = ["--state", str(settings.state.absolute())]
    return [*named, "--config", str(config.absolute())] if config else named


def format_command(words: Sequence[str]) -> str:
    """Return a command line of tagger, quoted for a shell."""
    return " ".join(map(quote_for_shell, ("tagger", *words)))


def quote_for_shell(word: str) -> str:
    """Quote a word for a shell. A word that cannot be shown is quoted by its bytes (POSIX)."""
    if word.isprintable():
        return shlex.quote(word)
    codes = "".join(
        chr(byte) if chr(byte) in PLAIN_CHARACTERS else f"\\0{byte:03o}"
        for byte in os.fsencode(word)
    )
    return f"\"$(printf %b '{codes}')\""


def _list_changed(settings: Settings, usual: Settings, options: Sequence[str]) -> Iterator[str]:
    for name in options:
        value = getattr(settings, name.replace("-", "_"))
        if value == getattr(usual, name.replace("-", "_")):
            continue
        if isinstance(value, bool):
            yield f"--{name}" if value else f"--no-{name}"
        else:
            yield f"--{name}"
            yield ",".join(map(str, value)) if isinstance(value, tuple) else format_value(value)
