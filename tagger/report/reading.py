"""A report read back: as a run wrote it, or as somebody edited it in a spreadsheet."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TextIO

from tagger.errors import ReportError
from tagger.records import Action, Score
from tagger.report.csv import HEADER, active

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
            yield from _rows(file, path)
    except UnicodeDecodeError as error:
        raise ReportError(f"{path} is not UTF-8 (a spreadsheet can save as CSV UTF-8)") from error
    except OSError as error:
        raise ReportError(f"cannot read the report {path}: {error.strerror}") from error


def parse_row(text: str) -> ReportRow:
    """Return a row as `csv.row` made it."""
    (cells,) = csv.reader([text])
    return _row(dict(zip(HEADER, cells, strict=True)))


def _rows(file: TextIO, path: Path) -> Iterator[ReportRow]:
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
                yield _row(dict(zip(header, cells, strict=False)))
    except KeyError as error:
        raise ReportError(f"{path}, line {lines.line_num}: it ends before {error}") from error
    except (csv.Error, ValueError) as error:
        raise ReportError(f"{path}, line {lines.line_num}: {error}") from error


def _row(cells: Mapping[str, str]) -> ReportRow:
    text = {name: active(cells[name]) for name in HEADER}
    return ReportRow(
        path=text["path"],
        action=Action(text["action"].strip()),
        genres=genres_in(text["genre"]),
        score=_number(text["score"]),
        existing=genres_in(text["existing_genre"]),
        scores=tuple(_scores(text["scores"])),
        duration_s=_number(text["duration_s"]),
        model=text["model"],
        error=text["error"],
    )


def genres_in(cell: str) -> tuple[str, ...]:
    """Return the genres of a cell, in which they are joined by semicolons."""
    return tuple(filter(None, map(str.strip, cell.split(";"))))


def _number(cell: str) -> float | None:
    return float(cell.replace(",", ".")) if cell.strip() else None


SCORE = re.compile(r"(.+?)=([01]\.\d+)(?:;|$)")


def _scores(cell: str) -> Sequence[Score]:
    return [Score(genre, float(number)) for genre, number in SCORE.findall(cell)]
