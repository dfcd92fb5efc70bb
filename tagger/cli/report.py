"""`tagger runs` and `tagger report`."""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from tagger.cli.options import UserPath, add_settings_options, merge_settings
from tagger.cli.terminal import escape_unprintable, print_line
from tagger.errors import SettingsError
from tagger.paths import display_path
from tagger.state import Run


@click.command()
@add_settings_options(state="", json="Print the list as JSON.")
def runs(config: Path | None, **flags: Any) -> int:
    """List earlier runs.

    The list has the time of each run and how many tracks it wrote, and how many were undone since.
    """
    from tagger.state import read_runs

    settings = merge_settings(config, flags)
    all_runs = read_runs(settings.state)
    if settings.json:
        print_line(json.dumps([run_as_json(run) for run in all_runs]))
    elif all_runs:
        print_run_table(all_runs)
    else:
        print_line("There was no run yet.")
    return 0


def run_as_json(run: Run) -> dict[str, object]:
    return {
        "run_id": run.id,
        "kind": run.kind,
        "started_at": run.started_at,
        "finished_at": run.finished_at or None,
        "dry_run": run.dry_run,
        "model": run.model,
        "report": display_path(run.report) if run.report else None,
        "replaced": run.replaced,
        "undone": run.undone,
        "result": dict(run.result),
    }


def print_run_table(all_runs: Sequence[Run]) -> None:
    """Print a table with the newest run last."""
    from rich.table import Table
    from rich.text import Text

    from tagger.cli.progress import PipeSafeConsole

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("run", no_wrap=True, min_width=max(len(run.id) for run in all_runs))
    for name in ("started", "kind"):
        table.add_column(name, no_wrap=True)
    for name in ("tracks", "written", "undone", "failed"):
        table.add_column(name, justify="right")
    for run in all_runs:
        notes = ("dry" * run.dry_run, "" if run.finished_at else "interrupted")
        cells = (
            run.id,
            f"{datetime.fromisoformat(run.started_at).astimezone():%m-%d %H:%M}",
            ", ".join(filter(None, (run.kind, *notes))),
            str(run.result.get("tracks", "")),
            str(run.replaced or ""),
            str(run.undone or ""),
            str(run.result.get("failed") or ""),
        )
        table.add_row(*(Text(escape_unprintable(cell)) for cell in cells))
    PipeSafeConsole().print(table)


@click.command()
@click.option(
    "--run",
    "run_id",
    metavar="ID",
    help="The run to show.  [default: the newest run with a report]",
)
@click.option(
    "--csv",
    "csv_file",
    metavar="FILE.csv",
    type=UserPath(),
    help="Copy the CSV report of the run to this file.",
)
@click.option(
    "--merge",
    multiple=True,
    metavar="STATE",
    type=UserPath(),
    help="Add the newest run of this state file, for example of another shard. Repeatable.",
)
@add_settings_options(
    html="Write a page with charts, for a browser.", state="", json="Print the numbers as JSON."
)
def report(config: Path | None, **flags: Any) -> int:
    """Show the results of a run.

    They are printed in short, or written as a page with charts (--html) or as CSV (--csv).
    """
    from tagger.cli.tables import print_overview
    from tagger.report.csv import copy_reports
    from tagger.report.overview import review_run
    from tagger.report.page import write_run_page

    run_id, csv_file, merge = map(flags.pop, ("run_id", "csv_file", "merge"))
    settings = merge_settings(config, flags)
    if merge and run_id:
        raise SettingsError("--merge adds the newest runs and cannot be combined with --run")
    review = review_run([settings.state, *merge], run_id)
    if csv_file:
        copy_reports(review.reports, csv_file)
    if settings.html:
        write_run_page(review, settings.html)
    if settings.json:
        print_line(json.dumps({"run_id": review.names, **review.overview.as_json()}))
        return 0
    if not csv_file and not settings.html:
        print_overview(review)
    for name, path in (("Report", csv_file), ("Page", settings.html)):
        if path:
            print_line(f"{name}: {escape_unprintable(display_path(path))}")
    return 0
