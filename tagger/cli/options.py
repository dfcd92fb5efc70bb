"""Flags made of the fields of Settings, so that each option is declared in one place."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from tagger.options import Option, to_flag, to_patterns
from tagger.settings import OPTIONS, Settings, load_settings

Command = Callable[..., int]

DEFAULTS = Settings()

MODEL_OPTIONS = dict.fromkeys(
    (
        "model", "revision", "labels", "genre_map", "windows", "window_seconds", "device",
        "precision", "compile", "batch_size", "allow_pickle", "trust_remote_code", "jobs",
        "max_seconds", "max_memory", "gentle",
    ),
    "",
)  # fmt: skip
"""For `settings_options`: what a command wants that has a model listen, with the usual help."""


def settings_options(**helps: str) -> Callable[[Command], Command]:
    """Return a decorator that gives a command options of Settings, and `--config`.

    `helps` names the fields, each with its own help, or nothing for the usual one. Without any, the
    command gets them all.
    """
    names = [name.replace("_", "-") for name in helps] or list(OPTIONS)

    def decorate(command: Command) -> Command:
        for name in reversed(names):
            text = helps.get(name.replace("-", "_")) or OPTIONS[name].help
            command = _make_flag(name, OPTIONS[name]._replace(help=text), get_default_text(name))(
                command
            )
        config = click.option(
            "--config",
            metavar="FILE.toml",
            type=click.Path(path_type=Path),
            help="Read options from this file instead of the one in the user's config folder.",
        )
        return config(command)

    return decorate


def make_flags(options: Mapping[str, Option], defaults: object) -> Callable[[Command], Command]:
    """Return a decorator that gives a command these options; `defaults` has a field for each."""

    def decorate(command: Command) -> Command:
        for name in reversed(list(options)):
            default = format_default(options[name], getattr(defaults, name.replace("-", "_")))
            command = _make_flag(name, options[name], default)(command)
        return command

    return decorate


def drop_unset(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the user gave of click's arguments, by the names of the flags."""
    return {
        name.replace("_", "-"): value for name, value in flags.items() if value not in (None, ())
    }


def settings_from(
    config: Path | None, flags: dict[str, Any], *, taking: Collection[str] = OPTIONS.keys()
) -> Settings:
    """Merge the flags that were given with `taking` of the config file. Raises SettingsError."""
    return load_settings(drop_unset(flags), config, taking=taking)


def _make_flag(name: str, option: Option, default: str) -> Callable[[Command], Command]:
    names = [*filter(None, [option.short]), f"--{name}"]
    if option.convert is to_flag:
        return _make_switch(name, names, option.help)
    return click.option(
        *names,
        metavar=option.values,
        multiple=option.convert is to_patterns,
        shell_complete=partial(_complete_value, option.values),
        help=f"{option.help}  [default: {default}]" if default else option.help,
    )


def _complete_value(values: str, _ctx: object, _param: object, begun: str) -> list[CompletionItem]:
    """Offer the words among the values of an option to the shell, or files where it wants one."""
    if values.startswith("FILE") or values == "ID_OR_DIR":
        return [CompletionItem(begun, type="file")]
    words = (word for word in values.split("|") if word.islower())
    return [CompletionItem(word) for word in words if word.startswith(begun)]


def _make_switch(name: str, names: list[str], text: str) -> Callable[[Command], Command]:
    """Make --name, and a silent --no-name for those whose config file says otherwise."""
    field = name.replace("-", "_")
    on = click.option(*names, field, flag_value=True, default=None, type=bool, help=text)
    off = click.option(
        f"--no-{name}", field, flag_value=False, default=None, type=bool, hidden=True
    )
    return lambda command: on(off(command))


def get_default_text(name: str) -> str:
    """Return the default of an option of a scan in words, nothing where there is none."""
    return format_default(OPTIONS[name], getattr(DEFAULTS, name.replace("-", "_")))


def format_default(option: Option, value: object) -> str:
    """Return a default as it would be given, nothing where there is none."""
    if value is None and "auto" in option.values:
        return "auto"
    if value is None or value is False or value in ((), {}):
        return ""
    return str(value).replace(str(Path.home()), "~")
