"""The CSV report: one row per audio file, as CONTRACT.md section 4 fixes it (RFC 4180)."""

import csv
import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tagger.errors import DiskFullError, ReportError
from tagger.records import Outcome, displayed, format_scores

HEADER = (
    "path", "action", "genre", "score", "existing_genre", "scores", "duration_s", "model", "error",
)  # fmt: skip


@contextmanager
def open_report(path: Path) -> Iterator[Callable[[Outcome], None]]:
    """Give a function that adds a row; each row is handed to the system at once.

    Raises ReportError where the file cannot be written, DiskFullError where no space is left.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w", encoding="utf-8", errors="backslashreplace", newline="", buffering=1)
    except OSError as error:
        raise ReportError(f"cannot write the report {path}: {error.strerror}") from error
    with file:
        writer = csv.writer(file)
        writer.writerow(HEADER)

        def add(outcome: Outcome) -> None:
            try:
                writer.writerow(row(outcome))
            except OSError as error:
                kind = DiskFullError if error.errno == errno.ENOSPC else ReportError
                raise kind(f"cannot write the report {path}: {error.strerror}") from error

        yield add


def row(outcome: Outcome) -> tuple[str, ...]:
    best = outcome.scores[0] if outcome.scores else None
    return (
        displayed(outcome.track.path),
        outcome.action,
        ";".join(outcome.genres),
        f"{best.probability:.4f}" if best else "",
        ";".join(outcome.existing),
        format_scores(outcome.scores),
        f"{outcome.duration_s:.2f}" if outcome.duration_s is not None else "",
        outcome.model,
        outcome.error,
    )
