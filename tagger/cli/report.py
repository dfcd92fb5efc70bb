"""`tagger report`."""

import json
from pathlib import Path
from typing import Any

import click

from tagger.cli.options import settings_from, settings_options
from tagger.cli.text import printable, show
from tagger.errors import SettingsError
from tagger.paths import displayed


@click.command()
@click.option(
    "--run", "run_id", metavar="ID", help="The run; without it, the newest scan or apply."
)
@click.option(
    "--csv",
    "csv_file",
    metavar="FILE.csv",
    type=click.Path(path_type=Path),
    help="Copy its report to this file.",
)
@click.option(
    "--merge",
    multiple=True,
    metavar="STATE",
    type=click.Path(path_type=Path),
    help="Count the newest run of this state file too, as of another shard. Repeatable.",
)
@settings_options(
    html="Make a page of it, for a browser.", state="", json="Print the numbers as JSON."
)
def report(config: Path | None, **flags: Any) -> int:
    """Show what a run did: in short, as a page with charts (--html), or its report (--csv)."""
    from tagger.cli.overview import print_overview
    from tagger.report.csv import copy_reports
    from tagger.review import make_page, review_run

    run_id, csv_file, merge = map(flags.pop, ("run_id", "csv_file", "merge"))
    settings = settings_from(config, flags)
    if merge and run_id:
        raise SettingsError("--merge goes by the newest runs, --run names one")
    review = review_run([settings.state, *merge], run_id)
    if csv_file:
        copy_reports(review.reports, csv_file)
    if settings.html:
        make_page(review, settings.html)
    if settings.json:
        show(json.dumps({"run_id": review.names, **review.overview.as_json()}))
        return 0
    if not csv_file and not settings.html:
        print_overview(review)
    for name, path in (("Report", csv_file), ("Page", settings.html)):
        if path:
            show(f"{name}: {printable(displayed(path))}")
    return 0
