"""`tagger runs`."""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from tagger.cli.options import settings_from, settings_options
from tagger.cli.text import printable, show
from tagger.paths import displayed
from tagger.state import Run


@click.command()
@settings_options(state="", json="Print the list as JSON.")
def runs(config: Path | None, **flags: Any) -> int:
    """List earlier runs: when, what they wrote, and what of that was undone."""
    from tagger.state import read_runs

    settings = settings_from(config, flags)
    found = read_runs(settings.state)
    if settings.json:
        show(json.dumps([described(run) for run in found]))
    elif found:
        show_table(found)
    else:
        show("There was no run yet.")
    return 0


def described(run: Run) -> dict[str, object]:
    return {
        "run_id": run.id,
        "kind": run.kind,
        "started_at": run.started_at,
        "finished_at": run.finished_at or None,
        "dry_run": run.dry_run,
        "model": run.model,
        "report": displayed(run.report) if run.report else None,
        "replaced": run.replaced,
        "undone": run.undone,
        "result": dict(run.result),
    }


def show_table(found: Sequence[Run]) -> None:
    """Print a table, the newest run last."""
    from rich.table import Table
    from rich.text import Text

    from tagger.cli.console import PatientConsole

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("run", no_wrap=True, min_width=max(len(run.id) for run in found))
    for name in ("began", "what"):
        table.add_column(name, no_wrap=True)
    for name in ("tracks", "written", "undone", "failed"):
        table.add_column(name, justify="right")
    for run in found:
        notes = ("dry" * run.dry_run, "" if run.finished_at else "cut off")
        cells = (
            run.id,
            f"{datetime.fromisoformat(run.started_at).astimezone():%m-%d %H:%M}",
            ", ".join(filter(None, (run.kind, *notes))),
            str(run.result.get("tracks", "")),
            str(run.replaced or ""),
            str(run.undone or ""),
            str(run.result.get("failed") or ""),
        )
        table.add_row(*(Text(printable(cell)) for cell in cells))
    PatientConsole().print(table)
