"""The CSV report: one row per audio file, as CONTRACT.md section 4 fixes it (RFC 4180)."""

import csv
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import StringIO
from pathlib import Path

from tagger.errors import SettingsError
from tagger.paths import displayed
from tagger.records import Outcome, format_scores
from tagger.report.places import check_place, refusal

HEADER = (
    "path", "action", "genre", "score", "existing_genre", "scores", "duration_s", "model", "error",
)  # fmt: skip

START = ",".join(HEADER).encode()


@contextmanager
def open_report(path: Path) -> Iterator[Callable[[str], None]]:
    """Give a function that adds rows, as `row` makes them; they are handed to the system at once.

    Raises ReportError where the file cannot be written, DiskFullError where no space is left, and
    SettingsError for a file that is there and no report: it may be a song.
    """
    try:
        check_place(path, START, "--report")
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w", encoding="utf-8", errors="backslashreplace", newline="", buffering=1)
    except OSError as error:
        raise refusal("report", path, error) from error

    def add(rows: str) -> None:
        try:
            file.write(rows)
        except OSError as error:
            raise refusal("report", path, error) from error

    try:
        add(_line(HEADER))
        yield add
    finally:
        with suppress(OSError):  # what could not be flushed was raised when it was written
            file.close()


def copy_reports(reports: Sequence[Path], target: Path) -> None:
    """Copy a report, or several into one. Errors as of `open_report`, and ReportError for one gone.

    Nothing is written unless all of them can be read.
    """
    try:
        check_place(target, START, "--csv")
        with ExitStack() as stack:
            sources = [stack.enter_context(report.open("rb")) for report in reports]
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists() and any(map(target.samefile, reports)):
                raise SettingsError(f"--csv names a report that is to be copied: {target}")
            with target.open("wb") as file:
                for number, source in enumerate(sources):
                    if number:
                        source.readline()  # its header
                    shutil.copyfileobj(source, file)
    except OSError as error:
        raise refusal("report", target, error) from error


FORMULA = re.compile(r"(^|;)(?=[=+\-@\t\r\uff1d\uff0b\uff0d\uff20])")
"""Where a spreadsheet takes text for a formula; some take a semicolon for the end of a cell."""

INERT = re.compile(FORMULA.pattern.replace(")(", ")'(", 1))


def inert(cell: str) -> str:
    """Put an apostrophe before what a spreadsheet would calculate instead of show (OWASP)."""
    return FORMULA.sub(r"\1'", cell)


def active(cell: str) -> str:
    """Take away the apostrophes that `inert` put there."""
    return INERT.sub(r"\1", cell) if "'" in cell else cell


def row(outcome: Outcome) -> str:
    """Return the row of a track, its end of line included."""
    cells = (
        displayed(outcome.track.path),
        outcome.action,
        ";".join(outcome.genres),
        f"{outcome.score:.4f}" if outcome.score is not None else "",
        ";".join(outcome.existing),
        format_scores(outcome.scores),
        f"{outcome.duration_s:.2f}" if outcome.duration_s is not None else "",
        outcome.model,
        outcome.error,
    )
    return _line(map(inert, cells))


def _line(cells: Iterable[str]) -> str:
    line = StringIO(newline="")
    csv.writer(line).writerow(cells)
    return line.getvalue()
