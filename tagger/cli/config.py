"""`tagger config` and `tagger completion`."""

import json
from pathlib import Path
from typing import Any

import click
from click.shell_completion import get_completion_class

from tagger.cli.options import UserPath, format_value, get_default, get_default_text
from tagger.cli.terminal import escape_unprintable, print_line
from tagger.errors import SettingsError
from tagger.options import Option, read_toml, to_flag
from tagger.paths import display_path
from tagger.records import MinScore
from tagger.settings import ALL_OPTIONS
from tagger.settings_sources import (
    load_settings,
    load_watch_settings,
    name_secret_file,
    name_variable,
    read_environment,
    read_secret_files,
)
from tagger.user_folders import find_default_config

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> int:
    """Print a completion script for SHELL.

    SHELL then completes the commands and options of tagger. For bash, add this line to ~/.bashrc:
    eval "$(tagger completion bash)"
    """
    kind = get_completion_class(shell)
    assert kind is not None
    program = context.find_root().command
    print_line(kind(program, {}, "tagger", "_TAGGER_COMPLETE").source())
    return 0


CONFIG_HEADER = """\
# Options of `tagger scan` and `tagger watch`. Environment variables and flags override them.
# A line that begins with # has no effect: it shows the default, or an example.
"""

EXAMPLE_VALUES: dict[str, Any] = {
    "labels": "techno, ambient, chamber music",
    "genre-map": "~/genres.toml",
    "vocabulary": "~/vocabulary.toml",
    "exclude": ["Podcasts", "*.wav"],
    "report": "~/tagger.csv",
    "html": "~/tagger.html",
    "metrics": "/var/lib/node_exporter/tagger.prom",
    "notify-cmd": "mpc update",
    "notify": ["mpd=mpd://localhost#/srv/music", "jellyfin=http://localhost:8096"],
    "ping-url": "https://hc-ping.com/UUID",
    "alert": ["ntfy://ntfy.sh/my-topic"],
    "revision": "main",
    "shard": "1/4",
    "until": "06:00",
    "quiet-hours": "18:00-23:30",
}
"""The values in a new config file for options without a default."""


@click.command()
@click.option(
    "--init", "init", is_flag=True, help="Write a config file with every option as a comment."
)
@click.option("--show", "show", is_flag=True, help="Show the value of each option and its origin.")
@click.option(
    "--config",
    metavar="FILE.toml",
    type=UserPath(),
    help="Use this file instead of the one in the user's config folder.",
)
def config(config: Path | None, *, init: bool, show: bool) -> int:
    """Write the config file, or show what is set.

    Without --init this shows the value of each option and where the value comes from.
    """
    path = config or find_default_config()
    if init:
        write_config(path)
        print_line(
            f"{escape_unprintable(display_path(path))} has every option:"
            " remove the # before an option to set it."
        )
    if show or not init:
        show_config(path, must_exist=config is not None)
    return 0


def write_config(path: Path) -> None:
    """Write a config file in which no option is set. Raises SettingsError if the file exists."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(build_config_template())
    except FileExistsError as error:
        raise SettingsError(f"{path} exists already") from error
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}") from error


def build_config_template() -> str:
    """Return a config file in which each option is a comment with its help and default."""
    parts = [
        f"# {option.help}\n# {name} = {_format_example(name, option)}"
        for name, option in ALL_OPTIONS.items()
    ]
    return "\n".join([CONFIG_HEADER, *(f"{part}\n" for part in parts)])


def _format_example(name: str, option: Option) -> str:
    """Return an example value, or the default, as a TOML value."""
    value = EXAMPLE_VALUES.get(name)
    if value is None:
        raw = get_default(name)
        value = raw.default if isinstance(raw, MinScore) else raw
        value = value if isinstance(value, bool | int | float) else get_default_text(name)
    assert value != "", f"no example for {name}: {option.values}"
    return json.dumps(value, ensure_ascii=False)


def show_config(path: Path, *, must_exist: bool) -> None:
    """Print each option with its value and where the value comes from."""
    is_read = must_exist or path.exists()
    values = read_toml(path) if is_read else {}
    origins = dict.fromkeys(values, "from the file")
    files, variables = read_secret_files(), read_environment()
    values |= {**files, **variables}
    origins |= {name: f"from {name_secret_file(name)}" for name in files}
    origins |= {name: f"from {name_variable(name)}" for name in variables}
    settings = load_settings({}, path if is_read else None)  # raises for a wrong value
    load_watch_settings({}, path if is_read else None)
    print_line(f"# {escape_unprintable(display_path(path))}{'' if is_read else ' does not exist'}")
    for name, option in ALL_OPTIONS.items():
        if name in origins:
            if option.is_secret or name == "min-score":
                text = format_value(getattr(settings, name.replace("-", "_")))
            else:
                text = json.dumps(values[name], default=str)
            print_line(escape_unprintable(f"{name} = {text}  # {origins[name]}"))
        elif default := ("false" if option.convert is to_flag else get_default_text(name)):
            print_line(escape_unprintable(f"{name} = {default}  # default"))
        else:
            print_line(f"{name} is not set")
