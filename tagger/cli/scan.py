"""`tagger scan`."""

from pathlib import Path
from typing import Any

import click

from tagger.cli.options import settings_from, settings_options
from tagger.errors import SettingsError
from tagger.paths import path_of


@click.command()
@click.argument("paths", nargs=-1, required=True, type=str, metavar="PATH...")
@settings_options()
def scan(paths: tuple[str, ...], config: Path | None, **flags: Any) -> int:
    """Listen to every track below PATH and write its genre into its tags.

    PATH is a file, a folder, or s3://BUCKET/PREFIX; other URLs only for dry runs.

    Tracks that have a genre keep it (--existing). Try a dry run first (-n); `tagger undo` takes a
    run back.
    """
    from tagger.cli.running import carry_out
    from tagger.scan import run_scan
    from tagger.storage import check_writable

    settings = settings_from(config, flags)
    if "" in paths:
        raise SettingsError("a PATH is empty")
    roots = [path_of(path) for path in paths]
    if not settings.dry_run:
        check_writable(roots, preserve_mtime=settings.preserve_mtime)
    return carry_out(settings, lambda progress: run_scan(roots, settings, progress))
