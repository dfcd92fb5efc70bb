"""`tagger schedule`."""

from datetime import time
from pathlib import Path
from typing import Any

import click

from tagger.cli.options import add_settings_options, drop_unset, format_options, merge_settings
from tagger.cli.terminal import escape_unprintable, print_line
from tagger.errors import SettingsError
from tagger.options import to_time_of_day
from tagger.paths import parse_path
from tagger.settings import OPTIONS, read_environment


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
    variables = {name: value for name, value in read_environment().items() if name in OPTIONS}
    words = [
        # at night there are no variables of this shell
        *format_options({**variables, **drop_unset(flags), "gentle": True}),
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


def _escape_lines(text: str) -> str:
    return "\n".join(map(escape_unprintable, text.splitlines()))
