"""The CSV report: written, and read back as a run wrote it or as somebody edited it (RFC 4180)."""

import csv
import errno
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import TextIO

from tagger.errors import DiskFullError, ReportError, SettingsError
from tagger.paths import display_path
from tagger.records import Action, Outcome, Score, format_scores


def check_overwrite(path: Path, start: bytes, option: str) -> None:
    """Raise SettingsError for a folder, and for a file that does not begin so: it may be a song.

    Raises OSError where it cannot be read.
    """
    if path.is_dir():
        raise SettingsError(f"{option} names a folder: {path}")
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            if file.read(len(start)) != start:
                raise SettingsError(f"{option} would overwrite {path}, which is none of tagger's")


def make_write_error(what: str, path: Path, error: OSError) -> ReportError | DiskFullError:
    """Return what to tell the user where the system would not write such a file."""
    kind = DiskFullError if error.errno == errno.ENOSPC else ReportError
    return kind(f"cannot write the {what} {path}: {error.strerror}")


HEADER = (
    "path", "action", "genre", "score", "existing_genre", "scores", "duration_s", "model", "error",
)  # fmt: skip

REPORT_START = ",".join(HEADER).encode()


@contextmanager
def open_report(path: Path) -> Iterator[Callable[[str], None]]:
    """Give a function that adds rows, as `row` makes them; they are handed to the system at once.

    Raises ReportError where the file cannot be written, DiskFullError where no space is left, and
    SettingsError for a file that is there and no report: it may be a song.
    """
    try:
        check_overwrite(path, REPORT_START, "--report")
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w", encoding="utf-8", errors="backslashreplace", newline="", buffering=1)
    except OSError as error:
        raise make_write_error("report", path, error) from error

    def add(rows: str) -> None:
        try:
            file.write(rows)
        except OSError as error:
            raise make_write_error("report", path, error) from error

    try:
        add(_format_line(HEADER))
        yield add
    finally:
        with suppress(OSError):  # what could not be flushed was raised when it was written
            file.close()


def copy_reports(reports: Sequence[Path], target: Path) -> None:
    """Copy a report, or several into one. Errors as of `open_report`, and ReportError for one gone.

    Nothing is written unless all of them can be read.
    """
    try:
        check_overwrite(target, REPORT_START, "--csv")
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
        raise make_write_error("report", target, error) from error


FORMULA_START = re.compile(r"(^|;)(?=[=+\-@\t\r\uff1d\uff0b\uff0d\uff20])")
"""Where a spreadsheet takes text for a formula; some take a semicolon for the end of a cell."""

ESCAPED_FORMULA = re.compile(FORMULA_START.pattern.replace(")(", ")'(", 1))


def escape_formula(cell: str) -> str:
    """Put an apostrophe before what a spreadsheet would calculate instead of show (OWASP)."""
    return FORMULA_START.sub(r"\1'", cell)


def unescape_formula(cell: str) -> str:
    """Take away the apostrophes that `inert` put there."""
    return ESCAPED_FORMULA.sub(r"\1", cell) if "'" in cell else cell


def format_row(outcome: Outcome) -> str:
    """Return the row of a track, its end of line included."""
    cells = (
        display_path(outcome.track.path),
        outcome.action,
        ";".join(outcome.genres),
        f"{outcome.score:.4f}" if outcome.score is not None else "",
        ";".join(outcome.existing),
        format_scores(outcome.scores),
        f"{outcome.duration_s:.2f}" if outcome.duration_s is not None else "",
        outcome.model,
        outcome.error,
    )
    return _format_line(map(escape_formula, cells))


def _format_line(cells: Iterable[str]) -> str:
    line = StringIO(newline="")
    csv.writer(line).writerow(cells)
    return line.getvalue()


csv.field_size_limit(1 << 30)  # a tag may hold a genre of any length

DELIMITERS = ",;\t"
"""A spreadsheet may save with a semicolon, where the comma stands in numbers."""


@dataclass(frozen=True, slots=True)
class ReportRow:
    """A row of a report. path: as text, see `paths.displayed`. scores: the top ones it names."""

    path: str
    action: Action
    genres: tuple[str, ...] = ()
    score: float | None = None
    existing: tuple[str, ...] = ()
    scores: tuple[Score, ...] = ()
    duration_s: float | None = None
    model: str = ""
    error: str = ""


def read_report(path: Path) -> Iterator[ReportRow]:
    """Yield the rows of a report. Raises ReportError for what is none, naming the line."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _parse_rows(file, path)
    except UnicodeDecodeError as error:
        raise ReportError(f"{path} is not UTF-8 (a spreadsheet can save as CSV UTF-8)") from error
    except OSError as error:
        raise ReportError(f"cannot read the report {path}: {error.strerror}") from error


def parse_row(text: str) -> ReportRow:
    """Return a row as `csv.row` made it."""
    (cells,) = csv.reader([text])
    return _parse_cells(dict(zip(HEADER, cells, strict=True)))


def _parse_rows(file: TextIO, path: Path) -> Iterator[ReportRow]:
    first = file.readline()
    delimiter = max(DELIMITERS, key=first.count)
    lines = csv.reader(chain([first], file), delimiter=delimiter)
    try:
        header = next(lines, [])
        if not set(HEADER) <= set(header):
            missing = ", ".join(name for name in HEADER if name not in header)
            raise ReportError(f"{path} is no report of tagger: it has no column {missing}")
        for cells in lines:
            if any(map(str.strip, cells)):
                yield _parse_cells(dict(zip(header, cells, strict=False)))
    except KeyError as error:
        raise ReportError(f"{path}, line {lines.line_num}: it ends before {error}") from error
    except (csv.Error, ValueError) as error:
        raise ReportError(f"{path}, line {lines.line_num}: {error}") from error


def _parse_cells(cells: Mapping[str, str]) -> ReportRow:
    text = {name: unescape_formula(cells[name]) for name in HEADER}
    return ReportRow(
        path=text["path"],
        action=Action(text["action"].strip()),
        genres=split_genre_cell(text["genre"]),
        score=_parse_number(text["score"]),
        existing=split_genre_cell(text["existing_genre"]),
        scores=tuple(_parse_scores(text["scores"])),
        duration_s=_parse_number(text["duration_s"]),
        model=text["model"],
        error=text["error"],
    )


def split_genre_cell(cell: str) -> tuple[str, ...]:
    """Return the genres of a cell, in which they are joined by semicolons."""
    return tuple(filter(None, map(str.strip, cell.split(";"))))


def _parse_number(cell: str) -> float | None:
    return float(cell.replace(",", ".")) if cell.strip() else None


SCORE_PATTERN = re.compile(r"(.+?)=([01]\.\d+)(?:;|$)")


def _parse_scores(cell: str) -> Sequence[Score]:
    return [Score(genre, float(number)) for genre, number in SCORE_PATTERN.findall(cell)]
