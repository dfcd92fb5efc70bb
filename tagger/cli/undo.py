"""`tagger undo`."""

import json
from pathlib import Path
from typing import Any

import click

from tagger.cli.options import LibraryPath, add_settings_options, merge_settings
from tagger.cli.terminal import catch_stop_signals, print_line
from tagger.errors import TaggerError
from tagger.pacing import lower_priority
from tagger.paths import AnyPath


@click.command()
@click.argument("paths", nargs=-1, type=LibraryPath(), metavar="[PATH...]")
@click.option("--run", "run_id", metavar="ID", help="Undo this run; `tagger runs` lists all runs.")
@add_settings_options(
    dry_run="Write nothing; only report what would be put back.",
    state="",
    force="Also put back the genre of files that were changed since, if the genre was not edited.",
    hardlinks="",
    owner="",
    preserve_mtime="",
    max_seconds="",
    max_memory="",
    notify_cmd="",
    notify="",
    wait="",
    gentle="Slow down for other programs: lowest priority, fewer threads.",
    json="",
    quiet="",
    verbose="Print a line for each file.",
)
def undo(paths: tuple[AnyPath, ...], run_id: str | None, config: Path | None, **flags: Any) -> int:
    """Put back the tags that tagger replaced.

    --run ID undoes one run. PATH undoes all that tagger ever wrote below PATH. Both together undo
    that run below PATH. Without both, the newest scan, apply or normalize that has something to
    take back is undone. A file that was changed since is not touched. Later scans do not tag these
    files again, except with `scan --force`.
    """
    from tagger.cli.notify import (
        check_servers,
        do_all,
        tell_of_changes,
        tell_of_changes_before_error,
    )
    from tagger.cli.progress import RunProgress
    from tagger.cli.summary import UNDO_WORDS, format_undo_summary
    from tagger.scanning.undo import run_undo

    settings = merge_settings(config, flags)
    if settings.gentle:
        lower_priority()
    check_servers(settings)
    with (
        catch_stop_signals() as stop_signal,
        RunProgress(settings, stop_signal, UNDO_WORDS) as progress,
    ):
        try:
            result = run_undo(paths, run_id, settings, progress)
        except TaggerError:
            tell_of_changes_before_error(settings, progress)
            raise
    if settings.json:
        summary = json.dumps(result.summary())
    else:
        summary = format_undo_summary(result, progress.failures, settings, config)
    do_all(
        lambda: None if settings.quiet and not settings.json else print_line(summary),
        lambda: tell_of_changes(settings, progress),
    )
    return 1 if result.refused or result.failed else 0
