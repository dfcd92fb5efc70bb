"""`tagger scan` and `tagger apply`."""

from pathlib import Path
from typing import Any

import click

from tagger.cli.options import LibraryPath, UserPath, add_settings_options, merge_settings
from tagger.paths import AnyPath
from tagger.settings import OPTIONS


@click.command()
@click.argument("paths", nargs=-1, required=True, type=LibraryPath(), metavar="PATH...")
@add_settings_options()
def scan(paths: tuple[AnyPath, ...], config: Path | None, **flags: Any) -> int:
    """Listen to all tracks and write their genres.

    Every track below PATH gets its genre in its own tags. PATH is a file, a folder, or
    s3://BUCKET/PREFIX; other URLs only work with --dry-run.

    Tracks that have a genre keep it (see --existing). Try a dry run first (-n). `tagger undo`
    takes a run back.
    """
    from tagger.cli.summary import run_and_report
    from tagger.scanning import run_scan
    from tagger.storage import check_writable

    settings = merge_settings(config, flags)
    if not settings.dry_run:
        check_writable(paths, preserve_mtime=settings.preserve_mtime)
    return run_and_report(settings, lambda progress: run_scan(paths, settings, progress), config)


@click.command()
@click.argument("edited", metavar="FILE.csv", type=UserPath())
@add_settings_options(
    dry_run="",
    report="",
    html="",
    state="",
    existing="",
    write="What to write of the report: the genre, and more.",
    styles="",
    profile="",
    junk_genres="",
    vocabulary="Names that it drops are no genre, as in the scan.",
    hardlinks="",
    owner="",
    preserve_mtime="",
    max_seconds="",
    max_memory="",
    metrics="",
    notify_cmd="",
    notify="",
    ping_url="",
    alert="",
    wait="",
    gentle="Slow down for other programs: lowest priority, fewer threads.",
    json="",
    quiet="",
    verbose="",
)
def apply(edited: Path, config: Path | None, **flags: Any) -> int:
    """Write the genres of a dry run's report. You may edit the report before.

    tagger writes the rows with the action would-write, and the rows with low-score, not-music or
    failed whose genre you changed. A genre that you entered counts as yours: later scans keep it.
    If you remove the genre of a row, neither apply nor later scans write one. A file that was
    changed since the dry run is refused.
    """
    from tagger.cli.summary import run_and_report
    from tagger.scanning import run_apply

    # A config file may name the report of every scan: often the one that is applied here.
    settings = merge_settings(config, flags, OPTIONS.keys() - {"report"})
    return run_and_report(settings, lambda progress: run_apply(edited, settings, progress), config)
