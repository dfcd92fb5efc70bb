"""`tagger scan` and `tagger apply`."""

from pathlib import Path
from typing import Any

import click

from tagger.cli.options import settings_from, settings_options
from tagger.errors import SettingsError
from tagger.paths import parse_path


@click.command()
@click.argument("edited", metavar="FILE.csv", type=click.Path(path_type=Path))
@settings_options(
    dry_run="Write nothing, only report what would be written.",
    report="",
    html="",
    state="",
    existing="What to do with files that have a genre.",
    hardlinks="",
    preserve_mtime="",
    max_seconds="",
    max_memory="",
    metrics="",
    notify_cmd="",
    gentle="Give way to other programs: lowest priority, fewer threads.",
    json="",
    quiet="",
    verbose="",
)
def apply(edited: Path, config: Path | None, **flags: Any) -> int:
    """Write the genres of a dry run's report, as they stand in it after you edited it.

    Written are the rows that say would-write, and those that say low-score or failed if you gave
    them another genre. A genre that you chose counts as yours: later scans leave it alone. A row
    without a genre is not written, nor by later scans. A file that was changed since is refused.
    """
    from tagger.cli.progress import run_and_report
    from tagger.scan import run_apply

    settings = settings_from(config, flags)
    return run_and_report(settings, lambda progress: run_apply(edited, settings, progress))


@click.command()
@click.argument("paths", nargs=-1, required=True, type=str, metavar="PATH...")
@settings_options()
def scan(paths: tuple[str, ...], config: Path | None, **flags: Any) -> int:
    """Listen to every track below PATH and write its genre into its tags.

    PATH is a file, a folder, or s3://BUCKET/PREFIX; other URLs only for dry runs.

    Tracks that have a genre keep it (--existing). Try a dry run first (-n); `tagger undo` takes a
    run back.
    """
    from tagger.cli.progress import run_and_report
    from tagger.scan import run_scan
    from tagger.storage import check_writable

    settings = settings_from(config, flags)
    if "" in paths:
        raise SettingsError("a PATH is empty")
    roots = [parse_path(path) for path in paths]
    if not settings.dry_run:
        check_writable(roots, preserve_mtime=settings.preserve_mtime)
    return run_and_report(settings, lambda progress: run_scan(roots, settings, progress))
