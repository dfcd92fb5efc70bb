"""`tagger config` and `tagger completion`."""

import json
from pathlib import Path
from typing import Any

import click
from click.shell_completion import get_completion_class

from tagger.cli.options import DEFAULTS, get_default_text
from tagger.cli.terminal import escape_unprintable, print_line
from tagger.errors import SettingsError
from tagger.options import Option, read_toml, to_flag
from tagger.paths import display_path
from tagger.settings import OPTIONS, find_default_config, load_settings

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> int:
    """Print what makes SHELL complete the commands and options of tagger.

    For bash, in ~/.bashrc: eval "$(tagger completion bash)"
    """
    kind = get_completion_class(shell)
    assert kind is not None
    program = context.find_root().command
    print_line(kind(program, {}, "tagger", "_TAGGER_COMPLETE").source())
    return 0


CONFIG_HEADER = """\
# Options of tagger. Every option of `tagger scan` can stand here; flags win over it.
# A line that begins with # is off: the value in it is the default, or an example.
"""

EXAMPLE_VALUES: dict[str, Any] = {
    "labels": "techno, ambient, chamber music",
    "genre-map": "~/genres.toml",
    "exclude": ["Podcasts", "*.wav"],
    "report": "~/tagger.csv",
    "html": "~/tagger.html",
    "metrics": "/var/lib/node_exporter/tagger.prom",
    "notify-cmd": "mpc update",
    "revision": "main",
    "shard": "1/4",
    "until": "06:00",
}
"""What is shown where there is no default."""


@click.command()
@click.option("--init", "init", is_flag=True, help="Write a file with every option, all off.")
@click.option("--show", "shown", is_flag=True, help="Show the options that are set, and where.")
@click.option(
    "--config",
    metavar="FILE.toml",
    type=click.Path(path_type=Path),
    help="Instead of the one in the user's config folder.",
)
def config(config: Path | None, *, init: bool, shown: bool) -> int:
    """Make a config file, or show what options count and where they come from."""
    path = config or find_default_config()
    if init:
        write_config(path)
        print_line(
            f"{escape_unprintable(display_path(path))} has every option, all off:"
            " remove the # before an option to set it."
        )
    if shown or not init:
        show_config(path, chosen=config)
    return 0


def write_config(path: Path) -> None:
    """Write a commented file. Raises SettingsError where there is one already."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(build_config_template())
    except FileExistsError as error:
        raise SettingsError(f"{path} is there already") from error
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}") from error


def build_config_template() -> str:
    """Return a config file in which every option is off, with its help and default."""
    parts = [
        f"# {option.help}\n# {name} = {_format_example(name, option)}"
        for name, option in OPTIONS.items()
    ]
    return "\n".join([CONFIG_HEADER, *(f"{part}\n" for part in parts)])


def _format_example(name: str, option: Option) -> str:
    """Return a value as TOML has it: the default if there is one, which auto is as well."""
    value = EXAMPLE_VALUES.get(name)
    if value is None:
        raw = getattr(DEFAULTS, name.replace("-", "_"))
        value = raw if isinstance(raw, bool | int | float) else get_default_text(name)
    assert value != "", f"no example for {name}: {option.values}"
    return json.dumps(value, ensure_ascii=False)


def show_config(path: Path, chosen: Path | None) -> None:
    """Print each option, its value, and whether that is the default or stands in the file."""
    there = path.exists() or chosen is not None
    given = read_toml(path) if there else {}
    load_settings({}, path if there else None)  # what is wrong in it is told
    print_line(f"# {escape_unprintable(display_path(path))}{'' if there else ' is not there'}")
    for name, option in OPTIONS.items():
        if name in given:
            print_line(
                escape_unprintable(
                    f"{name} = {json.dumps(given[name], default=str)}  # from the file"
                )
            )
        elif default := ("false" if option.convert is to_flag else get_default_text(name)):
            print_line(escape_unprintable(f"{name} = {default}  # default"))
        else:
            print_line(f"{name} is not set")
