"""`tagger config`."""

import json
from pathlib import Path
from typing import Any

import click

from tagger.cli.options import DEFAULTS, default_of
from tagger.cli.text import printable, show
from tagger.errors import SettingsError
from tagger.paths import displayed
from tagger.settings import OPTIONS, default_config, load_settings
from tagger.values import Option, read_toml, to_flag

HEAD = """\
# Options of tagger. Every option of `tagger scan` can stand here; flags win over it.
# A line that begins with # is off: the value in it is the default, or an example.
"""

EXAMPLES: dict[str, Any] = {
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
    path = config or default_config()
    if init:
        write_config(path)
        show(f"{printable(displayed(path))} has every option, all off: take away the # of some.")
    if shown or not init:
        show_config(path, chosen=config)
    return 0


def write_config(path: Path) -> None:
    """Write a commented file. Raises SettingsError where there is one already."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(template())
    except FileExistsError as error:
        raise SettingsError(f"{path} is there already") from error
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}") from error


def template() -> str:
    """Return a config file in which every option is off, with its help and default."""
    parts = [
        f"# {option.help}\n# {name} = {_example(name, option)}" for name, option in OPTIONS.items()
    ]
    return "\n".join([HEAD, *(f"{part}\n" for part in parts)])


def _example(name: str, option: Option) -> str:
    """Return a value as TOML has it: the default if there is one, which auto is as well."""
    value = EXAMPLES.get(name)
    if value is None:
        raw = getattr(DEFAULTS, name.replace("-", "_"))
        value = raw if isinstance(raw, bool | int | float) else default_of(name)
    assert value != "", f"no example for {name}: {option.values}"
    return json.dumps(value, ensure_ascii=False)


def show_config(path: Path, chosen: Path | None) -> None:
    """Print each option, its value, and whether that is the default or stands in the file."""
    there = path.exists() or chosen is not None
    given = read_toml(path) if there else {}
    load_settings({}, path if there else None)  # what is wrong in it is told
    show(f"# {printable(displayed(path))}{'' if there else ' is not there'}")
    for name, option in OPTIONS.items():
        if name in given:
            show(printable(f"{name} = {json.dumps(given[name], default=str)}  # from the file"))
        elif default := ("false" if option.convert is to_flag else default_of(name)):
            show(printable(f"{name} = {default}  # default"))
        else:
            show(f"{name} is not set")
