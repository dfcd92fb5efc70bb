"""`tagger apply`."""

from pathlib import Path
from typing import Any

import click

from tagger.cli.options import settings_from, settings_options


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
    from tagger.cli.running import carry_out
    from tagger.scan import run_apply

    settings = settings_from(config, flags)
    return carry_out(settings, lambda progress: run_apply(edited, settings, progress))
