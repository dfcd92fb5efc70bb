"""A run from its start to the summary, which names the commands that may follow."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tagger.cli.notify import (
    check_servers,
    do_all,
    report_end,
    tell_of_changes,
    tell_of_changes_before_error,
)
from tagger.cli.options import format_follow_up
from tagger.cli.progress import RunProgress
from tagger.cli.terminal import (
    catch_stop_signals,
    escape_unprintable,
    format_failures,
    format_size,
    format_track_count,
    print_line,
)
from tagger.decide import list_extra_fields
from tagger.errors import TaggerError
from tagger.pacing import lower_priority
from tagger.paths import display_path
from tagger.records import Action, GenreNames, Outcome, ScanResult, UndoResult
from tagger.report.overview import describe_passed_over, review_run
from tagger.report.page import check_page, write_run_page
from tagger.service.metrics import check_metrics, record_metrics
from tagger.settings import Settings

ACTION_HINTS = {
    Action.WRITTEN: "",
    Action.WOULD_WRITE: "",
    Action.KEPT: "not changed; the report says why",
    Action.UNCHANGED: "done in an earlier run",
    Action.LOW_SCORE: "no genre reaches --min-score",
    Action.NOT_MUSIC: "speech or other sounds; the report says which",
    Action.FAILED: "the report says why",
}

EXTRAS_HINT = "a genre, other fields, or both; the report says which"
"""What it means that a track is written if not only genres are."""

NORMALIZE_HINTS = {
    **ACTION_HINTS,
    Action.KEPT: "nothing to rename; the report says why",
}
"""What the actions mean in a run that names genres by a vocabulary."""

MAX_NAME_WIDTH = 60
MAX_SHOWN_NAMES = 10
"""The summary shows at most this many renamed genres and unknown names; the JSON has them all."""

UNDO_WORDS = {
    Action.WRITTEN: "put back",
    Action.WOULD_WRITE: "to put back",
    Action.UNCHANGED: "put back",
    Action.KEPT: "refused",
    Action.FAILED: "failed",
}
"""What the actions are called in an undo."""

DRY_RUN_LINE = "This was a dry run: no file was changed."

UNDO_OPTIONS = ("dry-run", "hardlinks", "owner", "preserve-mtime", "max-seconds", "max-memory")
APPLY_OPTIONS = (
    "existing",
    "junk-genres",
    "vocabulary",
    "write",
    "styles",
    "profile",
    *UNDO_OPTIONS,
)
"""The next command must get these options of the run: without them it could act on other files,
write other tags or none, or fail to read a file that the run has read."""


def run_and_report(
    settings: Settings, run: Callable[[RunProgress], ScanResult], config: Path | None = None
) -> int:
    """Do a run, print its summary, and return the exit code. config: the file of --config."""
    with report_end(settings) as end:
        if settings.gentle:
            lower_priority()
        if settings.html:
            check_page(settings.html)
        check_metrics(settings.metrics)
        check_servers(settings)
        with record_metrics(settings.metrics) as metrics:
            with (
                catch_stop_signals() as stop_signal,
                RunProgress(settings, stop_signal) as progress,
            ):
                try:
                    result = run(progress)
                except TaggerError:
                    tell_of_changes_before_error(settings, progress)
                    raise
            metrics.result = result
            metrics.exit_code = 1 if result.failed_new else 0
            summary = format_scan_summary(result, progress.failures, settings, config)
            end.lines.append(summary)
            do_all(
                lambda: _print_result(result, summary, settings),
                lambda: _write_page(result, settings),
                lambda: tell_of_changes(settings, progress),
            )
        end.exit_code = metrics.exit_code
    return end.exit_code


def _print_result(result: ScanResult, summary: str, settings: Settings) -> None:
    if settings.json:
        print_line(json.dumps(result.summary()))
    elif not settings.quiet:
        print_line(summary)


def _write_page(result: ScanResult, settings: Settings) -> None:
    if settings.html:
        write_run_page(review_run([settings.state], result.run_id), settings.html)
        if not settings.quiet and not settings.json:
            print_line(f"Page: {escape_unprintable(display_path(settings.html))}")


def format_scan_summary(
    result: ScanResult, failures: Sequence[Outcome], settings: Settings, config: Path | None
) -> str:
    """Return the summary of a scan, apply or normalize; `failures` are the first new ones."""
    hints = NORMALIZE_HINTS if result.names else ACTION_HINTS
    if list_extra_fields(settings) and not result.names:
        hints = {**hints, Action.WRITTEN: EXTRAS_HINT, Action.WOULD_WRITE: EXTRAS_HINT}
    model = f", model {escape_unprintable(result.model)}" if result.model else ""
    lines = [f"{format_track_count(result.tracks)} in {result.seconds:.1f} s{model}"]
    lines += [
        f"  {action:<11} {count:>7}   {hints[action]}".rstrip()
        for action, count in result.counts.items()
        if count
    ]
    if result.waiting:
        waiting = format_track_count(result.waiting)
        lines.append(f"The time was up (--until): {waiting} left for the next run.")
    if result.dry_run:
        lines.append(DRY_RUN_LINE)
    if result.would_rewrite:
        lines.append(f"A run would rewrite {format_size(result.would_rewrite)}.")
    if result.names:
        lines += _format_names(result.names)
    if not result.tracks and (result.model or result.names):
        lines.append(
            "No audio file was found (--exclude or a file such as .nomedia may hide them)."
        )
    lines += describe_passed_over(result.passed_over)
    if failures:
        lines.append(f"{result.failed_new} failed for the first time:")
        lines += format_failures(failures, total=result.failed_new)
    if result.counts[Action.WRITTEN]:
        lines.append(_format_undo_line(result.run_id, settings, config))
    lines.append(f"Report: {escape_unprintable(display_path(result.report))}")
    lines += _format_next_step(result, settings, config)
    return "\n".join(lines)


def _format_next_step(result: ScanResult, settings: Settings, config: Path | None) -> Iterator[str]:
    """Yield what a person may do after a run that wrote no tags."""
    if result.names and result.names.starter:
        starter = escape_unprintable(display_path(result.names.starter))
        yield f"Vocabulary to start from: {starter}"
        yield "Edit it, and give it to the next command with --vocabulary."
    elif result.counts[Action.WOULD_WRITE]:
        writing = replace(settings, dry_run=False)
        command = format_follow_up(["apply", str(result.report)], writing, APPLY_OPTIONS, config)
        if result.names:
            yield "To write these names: the same command without --dry-run"
            yield f"To write them after you edited the report: {command}"
        else:
            yield f"To write its genres, also after you edited it: {command}"


def _format_names(names: GenreNames) -> Iterator[str]:
    """Yield what became of the names of genres, the commonest first."""
    before, after = len(names.before), len(names.after)
    yield f"Different genres: {before} before, {after} after"
    for (old, new), tracks in names.renamed.most_common(MAX_SHOWN_NAMES):
        yield escape_unprintable(
            f"  {tracks:>7}   {_shorten(old)} -> {_shorten(new) or '(no genre)'}"
        )
    if len(names.renamed) > MAX_SHOWN_NAMES:
        yield f"  … {len(names.renamed)} names in all; --json and the report have them"
    if names.unknown:
        shown = names.unknown.most_common(MAX_SHOWN_NAMES)
        text = ", ".join(f"{_shorten(name)} ({tracks})" for name, tracks in shown)
        more = ", …" if len(names.unknown) > MAX_SHOWN_NAMES else ""
        yield escape_unprintable(f"Not in the vocabulary, left as they are: {text}{more}")
    if names.filled:
        yield f"Filled from the scores of an earlier scan: {format_track_count(names.filled)}"
    if names.without:
        yield f"Without a genre: {format_track_count(names.without)} (tagger scan listens to them)"


def _shorten(name: str) -> str:
    return name if len(name) <= MAX_NAME_WIDTH else f"{name[: MAX_NAME_WIDTH - 1]}…"


def format_undo_summary(
    result: UndoResult, failures: Sequence[Outcome], settings: Settings, config: Path | None
) -> str:
    """Return the summary of an undo; `failures` are the first files that were not put back."""
    if not result.tracks:
        return "Nothing to undo."
    counts = {
        Action.WRITTEN: result.restored,
        Action.WOULD_WRITE: result.would_restore,
        Action.KEPT: result.refused,
        Action.FAILED: result.failed,
    }
    lines = [f"{format_track_count(result.tracks)} in {result.seconds:.1f} s"]
    lines += [f"  {UNDO_WORDS[action]:<11} {count:>7}" for action, count in counts.items() if count]
    if failures:
        lines.append("Not put back:")
        lines += format_failures(failures, total=result.refused + result.failed)
    if result.dry_run:
        lines.append(DRY_RUN_LINE)
    elif result.restored:
        lines.append(_format_undo_line(result.run_id, settings, config))
    return "\n".join(lines)


def _format_undo_line(run_id: str, settings: Settings, config: Path | None) -> str:
    command = format_follow_up(["undo", "--run", run_id], settings, UNDO_OPTIONS, config)
    return f"To take this back: {command}"
