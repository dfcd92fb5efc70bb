"""`tagger undo`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tagger.cli.options import settings_from, settings_options
from tagger.cli.terminal import catch_stop_signals, format_failures, format_track_count, print_line
from tagger.errors import SettingsError
from tagger.pacing import lower_priority
from tagger.paths import parse_path
from tagger.records import Action, Outcome, UndoResult

ACTION_WORDS = {
    Action.WRITTEN: "put back",
    Action.WOULD_WRITE: "to put back",
    Action.UNCHANGED: "put back",
    Action.KEPT: "refused",
    Action.FAILED: "failed",
}
"""What the actions of a scan mean here."""


@click.command()
@click.argument("paths", nargs=-1, type=str, metavar="[PATH...]")
@click.option("--run", "run_id", metavar="ID", help="Undo this run (`tagger runs` lists them).")
@settings_options(
    dry_run="Write nothing, only say what would be put back.",
    state="",
    force="Put back the genre of files that were changed since, if nobody edited that.",
    hardlinks="",
    preserve_mtime="",
    max_seconds="",
    max_memory="",
    gentle="Give way to other programs: lowest priority, fewer threads.",
    json="",
    quiet="",
    verbose="Say what became of each file.",
)
def undo(paths: tuple[str, ...], run_id: str | None, config: Path | None, **flags: Any) -> int:
    """Put back the tags that tagger replaced.

    With --run those that one run replaced, with PATH all that tagger ever wrote there, with both
    that run's below PATH, and with neither those of the newest scan. A file that somebody changed
    since is left alone. Files put back are not tagged again, unless by `scan --force`.
    """
    from tagger.cli.progress import RunProgress
    from tagger.scan.undo import run_undo

    settings = settings_from(config, flags)
    if settings.gentle:
        lower_priority()
    if "" in paths:
        raise SettingsError("a PATH is empty")
    with (
        catch_stop_signals() as stopper,
        RunProgress(settings, stopper, ACTION_WORDS) as progress,
    ):
        result = run_undo([parse_path(path) for path in paths], run_id, settings, progress)
    if settings.json:
        print_line(json.dumps(result.summary()))
    elif not settings.quiet:
        print_line(format_undo_summary(result, progress.failures))
    return 1 if result.refused or result.failed else 0


def format_undo_summary(result: UndoResult, left: Sequence[Outcome]) -> str:
    """Return the text that ends an undo; `left` are the first files that were left as they are."""
    if not result.tracks:
        return "Nothing to undo."
    lines = [f"{format_track_count(result.tracks)} in {result.seconds:.1f} s"]
    counts = {
        Action.WRITTEN: result.restored,
        Action.WOULD_WRITE: result.would_restore,
        Action.KEPT: result.refused,
        Action.FAILED: result.failed,
    }
    lines += [
        f"  {ACTION_WORDS[action]:<11} {count:>7}" for action, count in counts.items() if count
    ]
    if left:
        lines.append("Left as they are:")
        lines += format_failures(left, of=result.refused + result.failed)
    if result.dry_run:
        lines.append("This was a dry run: no file was changed.")
    elif result.restored:
        lines.append(f"To take this back: tagger undo --run {result.run_id}")
    return "\n".join(lines)
