"""`tagger scan`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tagger.cli.options import settings_from, settings_options
from tagger.cli.signals import stopping_on_signals
from tagger.cli.text import count_of, printable, show, size_of, told
from tagger.errors import SettingsError
from tagger.priority import give_way
from tagger.records import Action, Outcome, ScanResult, displayed

EXPLAINED = {
    Action.WRITTEN: "",
    Action.WOULD_WRITE: "",
    Action.KEPT: "left alone; --existing replace|append writes, --audit compares",
    Action.UNCHANGED: "done in an earlier run",
    Action.LOW_SCORE: "no genre as likely as --min-score",
    Action.FAILED: "the report says why",
}


@click.command()
@click.argument("paths", nargs=-1, required=True, type=str, metavar="PATH...")
@settings_options()
def scan(paths: tuple[str, ...], config: Path | None, **flags: Any) -> int:
    """Listen to every track below PATH and write its genre into its tags.

    Tracks that have a genre keep it (--existing). Try a dry run first (-n); `tagger undo` takes a
    run back.
    """
    from tagger.cli.progress import RunProgress
    from tagger.report.page import check_place
    from tagger.review import make_page, review_run
    from tagger.scan import run_scan

    settings = settings_from(config, flags)
    if settings.gentle:
        give_way()
    if "" in paths:
        raise SettingsError("a PATH is empty")
    if settings.html:
        check_place(settings.html)
    with (
        stopping_on_signals() as stopper,
        RunProgress(settings, stopper) as progress,
    ):
        result = run_scan([Path(path) for path in paths], settings, progress)
    if settings.html:
        make_page(review_run(settings.state, result.run_id), settings.html)
    if settings.json:
        show(json.dumps(result.summary()))
    elif not settings.quiet:
        show(summary(result, progress.failures))
        if settings.html:
            show(f"Page: {printable(displayed(settings.html))}")
    return 1 if result.failed_new else 0


def summary(result: ScanResult, failures: Sequence[Outcome]) -> str:
    """Return the text that ends a scan; `failures` are the first ones that are new."""
    lines = [
        f"{count_of(result.tracks)} in {result.seconds:.1f} s"
        + (f", model {printable(result.model)}" if result.model else "")
    ]
    for action in Action:
        count = result.counts[action]
        if count:
            lines.append(f"  {action:<11} {count:>7}   {EXPLAINED[action]}".rstrip())
    if result.waiting:
        lines.append(f"It was time to stop: {count_of(result.waiting)} left to the next run.")
    if result.dry_run:
        lines.append("This was a dry run: no file was changed.")
    if result.would_rewrite:
        lines.append(f"It would write {size_of(result.would_rewrite)} anew.")
    if not result.tracks and result.model:
        lines.append("No audio file was found (a .nomedia file or --exclude may hide them).")
    if failures:
        lines.append(f"{result.failed_new} failed for the first time:")
        lines += told(failures, of=result.failed_new)
    if result.counts[Action.WRITTEN]:
        lines.append(f"To take this back: tagger undo --run {result.run_id}")
    lines.append(f"Report: {printable(displayed(result.report))}")
    if result.counts[Action.WOULD_WRITE]:
        lines.append("To write what it says, also after editing it: tagger apply REPORT")
    return "\n".join(lines)
