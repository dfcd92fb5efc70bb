"""`tagger schedule`."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import time
from itertools import chain
from pathlib import Path
from typing import Any

import click

from tagger.cli.options import (
    LibraryPath,
    add_settings_options,
    drop_unset,
    format_options,
    merge_settings,
)
from tagger.cli.terminal import escape_unprintable, print_line
from tagger.errors import SettingsError
from tagger.options import to_time_of_day
from tagger.paths import AnyPath, display_path, parse_path
from tagger.settings import ALL_OPTIONS, OPTIONS, Settings
from tagger.settings_sources import (
    name_secret_file,
    name_variable,
    read_environment,
    read_secret_files,
)

JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
USER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


@click.command()
@click.argument("paths", nargs=-1, type=LibraryPath(), metavar="PATH...")
@click.option(
    "--at",
    metavar="HH:MM",
    help="The time at which the scan starts.  [default: 03:00]",
    default="03:00",
)
@click.option(
    "--name", metavar="NAME", help="The name of the job.  [default: tagger]", default="tagger"
)
@click.option(
    "--system",
    is_flag=True,
    help="Make a job of the system. It also runs when nobody is logged in.",
)
@click.option("--user", metavar="NAME", help="With --system: the user that the job runs as.")
@click.option("--install", is_flag=True, help="Install the job; without this it is only printed.")
@click.option("--remove", is_flag=True, help="Remove the installed job with the name --name.")
@add_settings_options()
def schedule(paths: tuple[AnyPath, ...], config: Path | None, **flags: Any) -> int:
    """Scan PATH every night.

    This prints or installs a systemd timer, or a cron line on systems without systemd.

    All options of a scan are allowed. The scan is always --gentle. If a scan is still running, the
    next one does not start.
    """
    from tagger.service.schedule import (
        NightlyJob,
        describe_files,
        install_job,
        make_account,
        remove_job,
    )
    from tagger.storage import check_writable

    at, name, user, is_system = map(flags.pop, ("at", "name", "user", "system"))
    install, remove = map(flags.pop, ("install", "remove"))
    if not JOB_NAME.fullmatch(name):
        raise SettingsError(f"--name may only have letters, digits and hyphens, not {name!r}")
    if remove:
        print_line(remove_job(name, is_system=is_system))
        return 0
    _check_user(user, is_system=is_system)
    settings = _read_settings(config, flags, is_system=is_system)
    if not paths:
        raise SettingsError("name at least one PATH to scan")
    variables = {
        name: value
        for name, value in read_environment().items()
        if name in OPTIONS and not OPTIONS[name].is_secret
    }
    words = [
        # at night there are no variables of this shell
        *format_options({**variables, **drop_unset(flags), "gentle": True}),
        *([f"--config={config.resolve()}"] if config else []),
        *(_choose_state(name, settings) if is_system else []),
    ]
    texts = [os.path.expanduser(str(path)) for path in paths]  # noqa: PTH111 - Path's may raise
    roots = [parse_path(text).resolve() for text in texts]
    if not settings.dry_run:
        check_writable(roots, preserve_mtime=settings.preserve_mtime)
    account = make_account(user, roots, _list_outputs(settings), words) if user else None
    arguments = ["scan", *words, "--", *map(str, roots)]
    job = NightlyJob(name, _parse_start_time(at), arguments, account)
    for warning in chain(_list_missing(roots, settings), _list_warnings(settings, words)):
        print_line(escape_unprintable(f"tagger: {warning}"), err=True)
    if not install:
        for title, text in describe_files(job):
            print_line(f"# {escape_unprintable(title)}\n{_escape_lines(text)}")
        return 0
    print_line(_escape_lines(install_job(job)))
    return 0


def _check_user(user: str | None, *, is_system: bool) -> None:
    if is_system != bool(user):
        raise SettingsError("a job of the system needs both --system and --user NAME")
    if user and (user == "root" or not USER_NAME.fullmatch(user)):
        raise SettingsError(f"--user must be the name of a user other than root, not {user!r}")


def _read_settings(config: Path | None, flags: dict[str, Any], *, is_system: bool) -> Settings:
    """Return the settings of the scan: an error in them is raised now, and not at night."""
    from tagger.service.units import SYSTEM_CONFIG

    if is_system and not config:
        config = SYSTEM_CONFIG if SYSTEM_CONFIG.exists() else Path(os.devnull)
    return merge_settings(config, flags)


def _choose_state(name: str, settings: Settings) -> list[str]:
    """Return the words by which a job of the system keeps its state in a folder of its own."""
    from tagger.service.units import STATE_FOLDER

    if _has_chosen_state(settings):
        return []
    return [f"--state={STATE_FOLDER / name / settings.state.name}"]


def _has_chosen_state(settings: Settings) -> bool:
    return settings.state != Settings().state


def _list_outputs(settings: Settings) -> list[Path]:
    """Return the files that a scan writes, except those in the folder of a system job."""
    state = settings.state if _has_chosen_state(settings) else None
    outputs = (state, settings.report, settings.html, settings.metrics)
    return [path.absolute() for path in outputs if path]


def _list_missing(roots: Iterable[AnyPath], settings: Settings) -> Iterator[str]:
    """Yield what the job would miss if it ran now; it may be there at night."""
    for root in roots:
        if isinstance(root, Path) and not os.path.exists(root):  # noqa: PTH110 - Path's may raise
            yield f"{display_path(root)} is not there: a scan without it fails"
    if settings.notify:
        from tagger.service.servers import check_server

        for server in settings.notify:
            try:
                check_server(server)
            except SettingsError as error:
                yield str(error)


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
