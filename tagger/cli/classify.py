"""`tagger classify`."""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from tagger import decide
from tagger.cli.options import LISTENING, settings_from, settings_options
from tagger.cli.signals import stopping_on_signals
from tagger.cli.text import doubt, show
from tagger.errors import DiskFullError, SettingsError
from tagger.models import find_source
from tagger.paths import displayed, path_of
from tagger.priority import give_way
from tagger.records import Failure, Prediction, Score, Stretch

STDIN = "-"


@click.command()
@click.argument("files", nargs=-1, required=True, type=str, metavar="FILE...")
@click.option("--timeline", is_flag=True, help="Show each window too: where the song changes.")
@settings_options(**LISTENING, top_k="How many scores to show.", json="Print the scores as JSON.")
def classify(files: tuple[str, ...], config: Path | None, *, timeline: bool, **flags: Any) -> int:
    """Show what a model hears in each FILE (- is standard input). No file is changed.

    Any audio-classification model will do: of genres, spoken words, languages, sounds.
    """
    from tagger.classify import named_by_user, run_classify
    from tagger.cli.loading import Loading
    from tagger.cli.scores import ScoreTables

    settings = settings_from(config, flags)
    if settings.gentle:
        give_way()
    if "" in files:
        raise SettingsError("a FILE is empty")
    source = find_source(settings)
    rows = []
    with stopping_on_signals("stopped", at_once=True) as stopper, _as_paths(files) as paths:
        loading = Loading(stopper)
        tables = ScoreTables(loading, quiet=settings.json)
        if unknown := decide.unknown_labels(settings, source.labels):
            loading.tell(doubt(unknown, source.labels))
        with loading.status:
            results = run_classify(paths, source, settings, loading.fetching, timeline=timeline)
            for name, heard in zip(files, results, strict=True):
                stopper.check()
                result = named_by_user(heard, settings)
                rows.append(as_json(path_of(name), result, source.identity))
                tables.show(path_of(name), result, source.identity)
    if settings.json:
        show(json.dumps(rows))
    return 1 if any("error" in row for row in rows) else 0


@contextmanager
def _as_paths(files: Sequence[str]) -> Iterator[list[Path]]:
    """Give a path for each file; what comes from standard input lies in a temporary one."""
    if STDIN not in files:
        yield [path_of(name) for name in files]
        return
    if sys.stdin is None or sys.stdin.isatty():
        raise SettingsError("- reads a file from standard input, which is closed or a terminal")
    with tempfile.NamedTemporaryFile(prefix="tagger-") as copy:
        try:
            shutil.copyfileobj(sys.stdin.buffer, copy)
            copy.flush()
        except OSError as error:
            raise DiskFullError(f"cannot keep standard input: {error.strerror}") from error
        yield [path_of(copy.name if name == STDIN else name) for name in files]


def as_json(path: Path, result: Prediction | Failure, model: str) -> dict[str, object]:
    """Return a result as `--json` prints it."""
    row: dict[str, object] = {"path": displayed(path), "model": model, "duration_s": None}
    if isinstance(result, Failure):
        return row | {"error": result.reason}
    row |= {"duration_s": round(result.duration_s, 3), "scores": _scores(result.scores)}
    if result.timeline:
        row["timeline"] = [_stretch(each) for each in result.timeline]
    return row


def _stretch(stretch: Stretch) -> dict[str, object]:
    return {
        "start_s": round(stretch.start_s, 3),
        "end_s": round(stretch.end_s, 3),
        "scores": _scores(stretch.scores),
    }


def _scores(scores: Sequence[Score]) -> list[dict[str, object]]:
    return [{"label": score.genre, "score": score.probability} for score in scores]
