"""`tagger add`, and the options of `tagger watch`, which cli.watching runs."""

import sys
from pathlib import Path
from typing import Any

import click

from tagger.cli.options import (
    LibraryPath,
    add_options,
    add_settings_options,
    drop_unset,
    format_options,
    merge_settings,
)
from tagger.cli.terminal import escape_unprintable, print_line
from tagger.errors import WatchError
from tagger.paths import AnyPath, display_path
from tagger.settings import OPTIONS, WATCH_OPTIONS, WatchSettings
from tagger.settings_sources import load_watch_settings

SINGLE_RUN_OPTIONS = {"dry-run", "report", "html", "wait", "shard"}
"""Options of a scan that a watch, which does many scans, does not have."""

SCAN_OPTIONS = [name for name in OPTIONS if name not in SINGLE_RUN_OPTIONS]


@click.command()
@click.argument("paths", nargs=-1, type=LibraryPath(), metavar="[PATH...]")
@click.option("--once", is_flag=True, help="Scan PATH and what is in the queue, and end.")
@click.option("--health", is_flag=True, help="Tell by the exit code whether a watch works.")
@click.option("--drain", is_flag=True, hidden=True)
@add_options(WATCH_OPTIONS, WatchSettings())
@add_settings_options(**{name.replace("-", "_"): "" for name in SCAN_OPTIONS})
def watch(
    paths: tuple[AnyPath, ...],
    config: Path | None,
    *,
    once: bool,
    health: bool,
    drain: bool,
    **flags: Any,
) -> int:
    """Tag new music soon after it arrives.

    This goes on until it is stopped. It scans the folders PATH at its start and once a day, and new
    and changed files soon after their last change. It also scans what `tagger add` puts into the
    queue; without PATH only that. The options of a scan are allowed, but for those of a single run.
    """
    from tagger.service.arrivals import add_arrivals, check_watch

    own = {name: flags.pop(name.replace("-", "_")) for name in WATCH_OPTIONS}
    options = load_watch_settings(drop_unset(own), config)
    settings = merge_settings(config, flags, SCAN_OPTIONS)
    if health:
        check_watch(settings.state)
        return 0
    from tagger.cli.watching import run_drain, run_watch
    from tagger.service.watch import WatchRequest, find_roots
    from tagger.storage import check_writable

    roots = find_roots(paths)
    check_writable(roots, preserve_mtime=settings.preserve_mtime)
    request = WatchRequest(roots, settings, options)
    if once:
        add_arrivals(roots, settings.state)
    if once or drain:
        return run_drain(request, idle_s=options.idle if drain else 0)
    words = format_options({**drop_unset(own), **drop_unset(flags)})
    words += ["--config", str(config.resolve())] if config else []
    program = [sys.executable, "-P", "-m", "tagger", "watch", "--drain"]
    run_watch(request, [*program, *words, "--", *map(str, roots)])
    return 0


@click.command()
@click.argument("paths", nargs=-1, required=True, type=LibraryPath(), metavar="PATH...")
@add_settings_options(state="", quiet="")
def add(paths: tuple[AnyPath, ...], config: Path | None, **flags: Any) -> int:
    """Put files and folders into the queue of `tagger watch`.

    This returns at once: programs that import music call it. Files that are no audio are ignored.
    """
    from tagger.service.arrivals import add_arrivals, check_watch

    settings = merge_settings(config, flags, ["state", "quiet"])
    count, missing = add_arrivals(paths, settings.state)
    for path in missing:
        print_line(f"tagger: {escape_unprintable(display_path(path))} is not there", err=True)
    if not settings.quiet:
        print_line(f"{count} added to the queue")
        try:
            check_watch(settings.state)
        except WatchError as error:
            print_line(f"tagger: {error}: what is in the queue waits for one", err=True)
    return 1 if missing else 0
