"""What all runs that write into files have in common: progress, page, summary, metrics, hook."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress

from tagger.cli.progress import RunProgress
from tagger.cli.signals import stopping_on_signals
from tagger.cli.text import count_of, printable, show, size_of, told
from tagger.errors import NotifyError, TaggerError
from tagger.paths import displayed
from tagger.priority import give_way
from tagger.records import Action, Outcome, ScanResult
from tagger.report.page import check_page
from tagger.review import make_page, review_run
from tagger.service import check_metrics, measured, notify
from tagger.settings import Settings

EXPLAINED = {
    Action.WRITTEN: "",
    Action.WOULD_WRITE: "",
    Action.KEPT: "left alone; --existing replace|append writes, --audit compares",
    Action.UNCHANGED: "done in an earlier run",
    Action.LOW_SCORE: "no genre as likely as --min-score",
    Action.FAILED: "the report says why",
}


def carry_out(settings: Settings, run: Callable[[RunProgress], ScanResult]) -> int:
    """Do a run, show what came of it, and return the exit code."""
    if settings.gentle:
        give_way()
    if settings.html:
        check_page(settings.html)
    check_metrics(settings.metrics)
    with measured(settings.metrics) as metrics:
        with stopping_on_signals() as stopper, RunProgress(settings, stopper) as progress:
            try:
                result = run(progress)
            except TaggerError:
                with suppress(NotifyError):
                    notify(settings.notify_cmd, progress.changed, progress.report)
                raise
        metrics.result = result
        if settings.json:
            show(json.dumps(result.summary()))
        elif not settings.quiet:
            show(summary(result, progress.failures))
        notify(settings.notify_cmd, progress.changed, progress.report)
        if settings.html:
            make_page(review_run([settings.state], result.run_id), settings.html)
            if not settings.quiet and not settings.json:
                show(f"Page: {printable(displayed(settings.html))}")
        metrics.exit_code = 1 if result.failed_new else 0
    return metrics.exit_code


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
