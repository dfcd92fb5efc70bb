"""`tagger schedule`."""

from collections.abc import Iterator, Sequence
from datetime import time
from pathlib import Path
from typing import Any

import click

from tagger.cli.options import add_settings_options, drop_unset, format_options, merge_settings
from tagger.cli.terminal import escape_unprintable, print_line
from tagger.errors import SettingsError
from tagger.options import to_time_of_day
from tagger.paths import parse_path
from tagger.settings import (
    ALL_OPTIONS,
    OPTIONS,
    Settings,
    name_secret_file,
    name_variable,
    read_environment,
    read_secret_files,
)


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
    settings = merge_settings(config, flags)  # raises for a wrong value now, not at night
    if not paths or "" in paths:
        raise SettingsError("name at least one PATH to scan; no PATH may be empty")
    variables = {
        name: value
        for name, value in read_environment().items()
        if name in OPTIONS and not OPTIONS[name].is_secret
    }
    words = [
        # at night there are no variables of this shell
        *format_options({**variables, **drop_unset(flags), "gentle": True}),
        *(["--config", str(config.resolve())] if config else []),
    ]
    roots = [str(parse_path(path).expanduser().resolve()) for path in paths]
    job = NightlyJob(name, _parse_start_time(at), ["scan", *words, "--", *roots])
    for warning in _list_warnings(settings, words):
        print_line(f"tagger: {warning}", err=True)
    if install:
        print_line(escape_unprintable(install_job(job)))
        print_line("The job runs while you are logged in. To run it always: loginctl enable-linger")
        return 0
    for unit, text in build_systemd_units(job).items():
        print_line(f"# ~/.config/systemd/user/{unit}\n{_escape_lines(text)}")
    print_line(f"# or, for crontab -e:\n{escape_unprintable(build_cron_line(job))}")
    return 0


def _list_warnings(settings: Settings, words: Sequence[str]) -> Iterator[str]:
    """Yield what to know about secrets: those that the job shows, and those that it will miss."""
    for name, option in OPTIONS.items():
        is_in_job = any(word.startswith(f"--{name}=") for word in words)
        has_secret = name != "notify" or any(server.secret for server in settings.notify)
        if option.is_secret and is_in_job and has_secret:
            yield (
                f"the job has the secret of --{name} in its command, where all users of this"
                " machine can see it; the config file keeps it from them"
            )
    for variable in _list_secret_variables(settings):
        yield f"the job will not see {variable} of this shell; the config file can have the secret"


def _list_secret_variables(settings: Settings) -> Iterator[str]:
    """Yield the variables of this shell that have a secret of the settings, or name its file."""
    yield from (name_variable(name) for name in read_environment() if ALL_OPTIONS[name].is_secret)
    yield from map(name_secret_file, read_secret_files())
    if settings.notify:
        from tagger.service.servers import find_secret, name_secret

        for server in settings.notify:
            if not server.secret and find_secret(server):
                yield name_secret(server.kind)


def _parse_start_time(text: str) -> time:
    try:
        return to_time_of_day(text)
    except ValueError as error:
        raise SettingsError(f"--at {error}, not {text!r}") from error


def _escape_lines(text: str) -> str:
    return "\n".join(map(escape_unprintable, text.splitlines()))
