"""`tagger classify`."""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from tagger.cli.options import MODEL_OPTIONS, add_settings_options, merge_settings
from tagger.cli.terminal import catch_stop_signals, format_unknown_labels, print_line
from tagger.errors import DiskFullError, FailureKind, SettingsError
from tagger.labels import find_unknown_labels
from tagger.models import find_model
from tagger.pacing import lower_priority
from tagger.paths import AnyPath, display_path, parse_path
from tagger.records import Attributes, Failure, Prediction, WindowScores, scores_as_json

STDIN_NAME = "-"


@click.command()
@click.argument("files", nargs=-1, required=True, type=str, metavar="FILE...")
@click.option("--timeline", is_flag=True, help="Also show the best label of each window.")
@click.option("--moods", is_flag=True, help="Also show moods and voices (bundled model only).")
@add_settings_options(
    **MODEL_OPTIONS, top_k="The number of scores to show.", json="Print the scores as JSON."
)
def classify(
    files: tuple[str, ...], config: Path | None, *, timeline: bool, moods: bool, **flags: Any
) -> int:
    """Show the scores of a model for each FILE.

    FILE may be - for standard input. No file is changed. Any audio-classification model works: for
    genres, spoken words, languages, sounds.
    """
    from tagger.classify import run_classify, shape_result
    from tagger.cli.progress import LoadingStatus
    from tagger.cli.tables import ScoreTables

    settings = merge_settings(config, flags)
    if settings.gentle:
        lower_priority()
    if "" in files:
        raise SettingsError("a FILE is empty")
    source = find_model(settings)
    if moods and not source.attribute_labels.moods:
        raise SettingsError(f"--moods needs the bundled model; {source.name} has no moods")
    rows = []
    with catch_stop_signals("stopped", at_once=True) as stop_signal, _open_paths(files) as paths:
        loading = LoadingStatus(stop_signal)
        tables = ScoreTables(loading, quiet=settings.json)
        if unknown := find_unknown_labels(settings, source.labels):
            loading.lines.print(format_unknown_labels(unknown, source.labels))
        with loading.status:
            results = run_classify(paths, source, settings, loading.on_download, timeline=timeline)
            for name, prediction in zip(files, results, strict=True):
                stop_signal.check()
                result = shape_result(prediction, source, settings)
                if isinstance(result, Failure):
                    result = _add_help(result)
                elif not moods:
                    result = replace(result, attributes=Attributes(result.attributes.styles))
                rows.append(result_as_json(parse_path(name), result, source.identity))
                tables.show(parse_path(name), result, source.identity)
    if settings.json:
        print_line(json.dumps(rows))
    return 1 if any("error" in row for row in rows) else 0


@contextmanager
def _open_paths(files: Sequence[str]) -> Iterator[list[AnyPath]]:
    """Yield the path of each file; standard input is copied into a temporary file."""
    if STDIN_NAME not in files:
        yield [parse_path(name) for name in files]
        return
    if sys.stdin is None or sys.stdin.isatty():
        raise SettingsError("- stands for standard input, but it is closed or a terminal")
    with tempfile.NamedTemporaryFile(prefix="tagger-") as copy:
        try:
            shutil.copyfileobj(sys.stdin.buffer, copy)
            copy.flush()
        except OSError as error:
            raise DiskFullError(
                f"cannot copy standard input to a temporary file: {error.strerror}"
            ) from error
        yield [parse_path(copy.name if name == STDIN_NAME else name) for name in files]


def _add_help(failure: Failure) -> Failure:
    """Say what reads a pipe or a terminal, if the user named one."""
    path, is_other = failure.track.path, failure.kind is FailureKind.OTHER
    if is_other and isinstance(path, Path) and (path.is_fifo() or path.is_char_device()):
        return replace(failure, reason=f"{failure.reason} (- reads from standard input)")
    return failure


def result_as_json(path: AnyPath, result: Prediction | Failure, model: str) -> dict[str, object]:
    """Return the element of a result in the list that `--json` prints."""
    row: dict[str, object] = {"path": display_path(path), "model": model, "duration_s": None}
    if isinstance(result, Failure):
        return row | {"error": result.reason}
    row |= {"duration_s": round(result.duration_s, 3), "scores": scores_as_json(result.scores)}
    for name in ("styles", "moods", "voices"):
        if scores := getattr(result.attributes, name):
            row[name] = scores_as_json(scores)
    if result.timeline:
        row["timeline"] = [_window_as_json(window) for window in result.timeline]
    return row


def _window_as_json(window: WindowScores) -> dict[str, object]:
    return {
        "start_s": round(window.start_s, 3),
        "end_s": round(window.end_s, 3),
        "scores": scores_as_json(window.scores),
    }
