"""Write the CSV report, and read it back, also after a person edited it (RFC 4180)."""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from shutil import copyfileobj
from typing import TextIO, TypeVar

from tagger.errors import FailureKind, KeepReason, ReportError, SettingsError, WriteReason
from tagger.paths import check_overwrite, display_path, make_write_error
from tagger.records import Action, Outcome, Score, format_scores, split_genres

OLD_COLUMNS = (
    "path", "action", "genre", "score", "existing_genre", "scores", "duration_s", "model", "error",
)  # fmt: skip
"""The columns of version 0.1.0. Every report has them."""

HEADER = (*OLD_COLUMNS, "kind", "style", "mood", "voice")

REPORT_START = ",".join(OLD_COLUMNS).encode()


@contextmanager
def open_report(path: Path) -> Iterator[Callable[[str], None]]:
    """Yield a function that adds rows of `format_row`. It hands them to the system at once.

    Raises ReportError if the file cannot be written, DiskFullError if no space is left, and
    SettingsError for an existing file that is no report.
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
        with suppress(OSError):  # `add` raised it already
            file.close()


def copy_reports(reports: Sequence[Path], target: Path) -> None:
    """Copy a report, or merge several into one. Nothing is written if one of them is missing.

    Raises the errors of `open_report` and of `read_report`.
    """
    try:
        check_overwrite(target, REPORT_START, "--csv")
        with ExitStack() as stack:
            sources = [stack.enter_context(report.open("rb")) for report in reports]
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists() and any(map(target.samefile, reports)):
                raise SettingsError(f"--csv names a report that is to be copied: {target}")
            headers = [source.readline() for source in sources]
            with target.open("wb") as file:
                if len(set(headers)) == 1:
                    file.write(headers[0])
                    for source in sources:
                        copyfileobj(source, file)
                else:  # reports of several versions, or edited ones
                    file.write(_format_line(HEADER).encode())
                    for report in reports:
                        file.writelines(_read_rows(report, _convert_cells))
    except OSError as error:
        raise make_write_error("report", target, error) from error


def _convert_cells(cells: Mapping[str, str]) -> bytes:
    """Return a row with today's columns, whatever columns its report has."""
    is_failed = cells["action"].strip() == Action.FAILED
    defaults = {"kind": FailureKind.OTHER if is_failed else ""}
    defaults |= dict.fromkeys(HEADER[len(OLD_COLUMNS) + 1 :], "")
    line = _format_line((defaults | dict(cells))[name] for name in HEADER)
    return line.encode("utf-8", "backslashreplace")


FORMULA_START = re.compile(r"(^|;)(?='*[=+\-@\t\r\uff1d\uff0b\uff0d\uff20])")
"""Where a spreadsheet reads text as a formula; some read a semicolon as the end of a cell.

Apostrophes before such text count as well: else `unescape_formula` would remove one too many."""

ESCAPED_FORMULA = re.compile(FORMULA_START.pattern.replace(")(", ")'(", 1))


def escape_formula(cell: str) -> str:
    """Put an apostrophe before text that a spreadsheet would calculate (OWASP, CSV injection)."""
    return FORMULA_START.sub(r"\1'", cell) if cell else cell


def unescape_formula(cell: str) -> str:
    """Remove the apostrophes that `escape_formula` added."""
    return ESCAPED_FORMULA.sub(r"\1", cell) if "'" in cell else cell


@lru_cache(maxsize=16)  # a row is kept in the state file first, and then stands in the report
def format_row(outcome: Outcome) -> str:
    """Return the row of a track, with its end of line."""
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
        outcome.kind or "",
        ";".join(outcome.styles),
        ";".join(outcome.moods),
        ";".join(outcome.voices),
    )
    return _format_line(map(escape_formula, cells))


class LineReturner:
    """A file for csv.writer, which returns what `write` returns."""

    def write(self, line: str) -> str:
        return line


LINE_WRITER = csv.writer(LineReturner())


def _format_line(cells: Iterable[str]) -> str:
    line: str = LINE_WRITER.writerow(cells)
    return line


csv.field_size_limit(1 << 30)  # a tag may hold a genre of any length

T = TypeVar("T")

KINDS_BY_VALUE: Mapping[str, FailureKind | KeepReason | WriteReason] = {
    kind.value: kind for kind in (*FailureKind, *KeepReason, *WriteReason)
}

DELIMITERS = ",;\t"
"""A spreadsheet saves with semicolons where numbers have a decimal comma."""


@dataclass(frozen=True, slots=True)
class ReportRow:
    """A row of a report. path: as `paths.display_path` writes it. scores: the top ones.

    kind: None where the report has none: of a version before the column, or for other actions.
    """

    path: str
    action: Action
    genres: tuple[str, ...] = ()
    score: float | None = None
    existing: tuple[str, ...] = ()
    scores: tuple[Score, ...] = ()
    duration_s: float | None = None
    model: str = ""
    error: str = ""
    kind: FailureKind | KeepReason | WriteReason | None = None
    styles: tuple[str, ...] = ()
    moods: tuple[str, ...] = ()
    voices: tuple[str, ...] = ()


def read_report(path: Path) -> Iterator[ReportRow]:
    """Yield the rows of a report. Raises ReportError, with the line, for a file that is none."""
    return _read_rows(path, _parse_cells)


def parse_row(text: str) -> ReportRow:
    """Parse a row that `format_row` made, in this version or in one with fewer columns."""
    (cells,) = csv.reader([text])
    return _parse_cells(dict(zip(HEADER, cells, strict=False)))


def _read_rows(path: Path, parse: Callable[[Mapping[str, str]], T]) -> Iterator[T]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _parse_rows(file, path, parse)
    except UnicodeDecodeError as error:
        raise ReportError(f"{path} is not UTF-8 (a spreadsheet can save as CSV UTF-8)") from error
    except OSError as error:
        raise ReportError(f"cannot read the report {path}: {error.strerror}") from error


def _parse_rows(file: TextIO, path: Path, parse: Callable[[Mapping[str, str]], T]) -> Iterator[T]:
    first = file.readline()
    delimiter = max(DELIMITERS, key=first.count)
    lines = csv.reader(chain([first], file), delimiter=delimiter)
    try:
        header = next(lines, [])
        if missing := ", ".join(name for name in OLD_COLUMNS if name not in header):
            raise ReportError(f"{path} is no report of tagger: it has no column {missing}")
        for cells in lines:
            if any(map(str.strip, cells)):
                yield parse(dict(zip(header, cells, strict=False)))
    except KeyError as error:
        raise ReportError(f"{path}, line {lines.line_num}: it ends before {error}") from error
    except (csv.Error, ValueError) as error:
        raise ReportError(f"{path}, line {lines.line_num}: {error}") from error


def _parse_cells(cells: Mapping[str, str]) -> ReportRow:
    text = {name: unescape_formula(cells[name]) for name in OLD_COLUMNS}
    return ReportRow(
        path=text["path"],
        action=Action(text["action"].strip()),
        genres=split_genres(text["genre"]),
        score=_parse_number(text["score"]),
        existing=split_genres(text["existing_genre"]),
        scores=tuple(_parse_scores(text["scores"])),
        duration_s=_parse_number(text["duration_s"]),
        model=text["model"],
        error=text["error"],
        kind=KINDS_BY_VALUE.get(cells.get("kind", "").strip()),
        styles=_parse_names(cells, "style"),
        moods=_parse_names(cells, "mood"),
        voices=_parse_names(cells, "voice"),
    )


def _parse_names(cells: Mapping[str, str], column: str) -> tuple[str, ...]:
    return split_genres(unescape_formula(cells.get(column, "")))


def _parse_number(cell: str) -> float | None:
    return float(cell.replace(",", ".")) if cell.strip() else None


SCORE_PATTERN = re.compile(r"(.+?)=([01]\.\d+)(?:;|$)")


def _parse_scores(cell: str) -> Sequence[Score]:
    return [Score(genre, float(number)) for genre, number in SCORE_PATTERN.findall(cell)]
