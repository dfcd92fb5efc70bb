"""`tagger schedule`."""

import os
from collections.abc import Mapping
from datetime import time
from pathlib import Path
from typing import Any

import click

from tagger.cli.options import add_settings_options, drop_unset, merge_settings
from tagger.cli.terminal import escape_unprintable, print_line
from tagger.errors import SettingsError
from tagger.options import to_flag, to_time_of_day
from tagger.paths import parse_path
from tagger.settings import OPTIONS, read_environment

PATH_OR_NAME_OPTIONS = {"model", "labels"}
"""Options whose value is a path or something else."""


@click.command()
@click.argument("paths", nargs=-1, metavar="PATH...")
@click.option(
    "--at",
    metavar="HH:MM",
    help="The time at which the scan starts.  [default: 03:00]",
    default="03:00",
)
@click.option(
    "--name", metavar="NAME", help="The name of the job.  [default: tagger]", default="tagger"
)
@click.option("--install", is_flag=True, help="Install the job; without this it is only printed.")
@click.option("--remove", is_flag=True, help="Remove the installed job with the name --name.")
@add_settings_options()
def schedule(paths: tuple[str, ...], config: Path | None, **flags: Any) -> int:
    """Scan PATH every night.

    This prints or installs a systemd timer, or a cron line on systems without systemd.

    All options of a scan are allowed. The scan is always --gentle. If a scan is still running, the
    next one does not start.
    """
    from tagger.service.schedule import (
        NightlyJob,
        build_cron_line,
        build_systemd_units,
        install_job,
        remove_job,
    )

    at, name, install, remove = map(flags.pop, ("at", "name", "install", "remove"))
    if not name.replace("-", "").isalnum():
        raise SettingsError(f"--name may only have letters, digits and hyphens, not {name!r}")
    if remove:
        print_line(remove_job(name))
        return 0
    merge_settings(config, flags)  # raises for a wrong value now, not at night
    if not paths or "" in paths:
        raise SettingsError("name at least one PATH to scan; no PATH may be empty")
    words = [
        # at night there are no variables of this shell
        *_format_options({**read_environment(), **drop_unset(flags), "gentle": True}),
        *(["--config", str(config.resolve())] if config else []),
    ]
    roots = [str(parse_path(path).expanduser().resolve()) for path in paths]
    job = NightlyJob(name, _parse_start_time(at), ["scan", *words, "--", *roots])
    if install:
        print_line(escape_unprintable(install_job(job)))
        print_line("The job runs while you are logged in. To run it always: loginctl enable-linger")
        return 0
    for unit, text in build_systemd_units(job).items():
        print_line(f"# ~/.config/systemd/user/{unit}\n{_escape_lines(text)}")
    print_line(f"# or, for crontab -e:\n{escape_unprintable(build_cron_line(job))}")
    return 0


def _parse_start_time(text: str) -> time:
    try:
        return to_time_of_day(text)
    except ValueError as error:
        raise SettingsError(f"--at {error}, not {text!r}") from error


def _format_options(options: Mapping[str, Any]) -> list[str]:
    """Return options as the words of a command line."""
    words = []
    for name, value in options.items():
        if OPTIONS[name].convert is to_flag:
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            values = value if isinstance(value, tuple | list) else (value,)
            words += [f"--{name}={_make_absolute(name, word)}" for word in values]
    return words


def _make_absolute(name: str, value: str) -> str:
    """Make a path absolute: the nightly job has another current folder."""
    path = os.path.expanduser(value)  # noqa: PTH111 - Path's raises for `~nobody, rock`
    is_file = OPTIONS[name].values.startswith("FILE")
    if is_file or (name in PATH_OR_NAME_OPTIONS and os.path.exists(path)):  # noqa: PTH110 - as above
        return os.path.abspath(path)  # noqa: PTH100 - as above
    return value


def _escape_lines(text: str) -> str:
    return "\n".join(map(escape_unprintable, text.splitlines()))
