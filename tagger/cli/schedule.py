"""`tagger schedule`."""

from pathlib import Path
from typing import Any

import click

from tagger.cli.options import drop_unset, settings_from, settings_options
from tagger.cli.terminal import escape_unprintable, print_line
from tagger.errors import SettingsError
from tagger.options import to_clock, to_flag
from tagger.paths import parse_path
from tagger.settings import OPTIONS

PATH_OR_NAME_OPTIONS = {"model", "labels"}
"""Options whose value may be a path, or something else."""


@click.command()
@click.argument("paths", nargs=-1, metavar="PATH...")
@click.option("--at", metavar="HH:MM", help="When to begin.  [default: 03:00]", default="03:00")
@click.option(
    "--name", metavar="NAME", help="Name of the job.  [default: tagger]", default="tagger"
)
@click.option("--install", is_flag=True, help="Set it up; without, it is only printed.")
@click.option("--remove", is_flag=True, help="Take down the job of this name.")
@settings_options()
def schedule(paths: tuple[str, ...], config: Path | None, **flags: Any) -> int:
    """Scan PATH every night: print or set up a systemd timer, or a cron line where none is.

    All options of a scan can be given. The scan is --gentle, and one that still runs is left to it.
    """
    from tagger import service

    at, name, install, remove = map(flags.pop, ("at", "name", "install", "remove"))
    if not name.replace("-", "").isalnum():
        raise SettingsError(f"--name may have letters, digits and hyphens, not {name!r}")
    if remove:
        print_line(service.remove_job(name))
        return 0
    settings_from(config, flags)  # what is wrong shows now, not at night
    if not paths or "" in paths:
        raise SettingsError("which PATH?")
    words = [
        *format_options(flags | {"gentle": True}),
        *(["--config", str(config.resolve())] if config else []),
    ]
    roots = [str(parse_path(path).expanduser().resolve()) for path in paths]
    job = service.NightlyJob(name, parse_time_option(at), ["scan", *words, "--", *roots])
    if install:
        print_line(escape_unprintable(service.install_job(job)))
        print_line("It runs while you are logged in; always after: loginctl enable-linger")
        return 0
    for unit, text in service.build_systemd_units(job).items():
        print_line(f"# ~/.config/systemd/user/{unit}\n{escape_lines(text)}")
    print_line(f"# or, for crontab -e:\n{escape_unprintable(service.build_cron_line(job))}")
    return 0


def parse_time_option(text: str) -> Any:
    try:
        return to_clock(text)
    except ValueError as error:
        raise SettingsError(f"--at {error}, not {text!r}") from error


def format_options(flags: dict[str, Any]) -> list[str]:
    """Return flags as they would be given on a command line."""
    words = []
    for name, value in drop_unset(flags).items():
        if OPTIONS[name].convert is to_flag:
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{name}={_make_absolute(name, each)}" for each in values]
    return words


def _make_absolute(name: str, value: str) -> str:
    """Make a path absolute, for at night another folder is the current one."""
    path = Path(value).expanduser()
    is_file = OPTIONS[name].values.startswith("FILE")
    return (
        str(path.absolute())
        if is_file or (name in PATH_OR_NAME_OPTIONS and path.exists())
        else value
    )


def escape_lines(text: str) -> str:
    return "\n".join(map(escape_unprintable, text.splitlines()))
