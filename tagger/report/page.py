"""The report as a page for a browser: one file that loads nothing and runs only its own scripts.

Its HTML has the numbers. The script draws the charts (Observable Plot) and the table of tracks
(DataTables) from JSON in the page.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain, takewhile
from pathlib import Path

from tagger.errors import FAILURE_HELP
from tagger.paths import check_replacement, display_path, make_write_error, write_file_whole
from tagger.records import Action
from tagger.report.csv import ReportRow, read_report
from tagger.report.overview import (
    Disagreement,
    ReportOverview,
    RunReview,
    describe_passed_over,
    get_failure_kind,
    is_disagreement,
)

PAGE_FOLDER = Path(__file__).parent
PAGE_START = b"<!doctype html><!-- a report of tagger -->"
MAX_TABLE_ROWS = 100_000
"""A browser gets slow with more rows. Rows that need attention go in first."""

MAX_GENRE_BARS = 25
MAX_MATRIX_GENRES = 15
"""The number of genres with a row or column of their own in the table of disagreements."""

OTHER_GENRES = "other genres"
SETTLED_ACTIONS = {Action.UNCHANGED, Action.KEPT}

SCRIPTS = (
    "assets/d3.min.js", "assets/plot.umd.min.js", "assets/jquery.slim.min.js",
    "assets/dataTables.min.js", "assets/dataTables.responsive.min.js", "page.js",
)  # fmt: skip
STYLES = (
    "assets/dataTables.dataTables.min.css", "assets/responsive.dataTables.min.css", "page.css",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PageFacts:
    """The facts of a run on its page.

    report: the paths of the CSV files. passed_over: sentences.
    """

    title: str
    run_id: str
    started_at: str
    model: str
    report: str
    passed_over: tuple[str, ...]


@dataclass(slots=True)
class TableRows:
    """Rows for the table, as JSON. In a long table, those that need attention go first."""

    needing_attention: list[str] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)
    common_folder: list[str] | None = None

    def add(self, row: ReportRow) -> None:
        rows = self.settled if row.action in SETTLED_ACTIONS else self.needing_attention
        if len(rows) < MAX_TABLE_ROWS:
            rows.append(json.dumps(list(_make_cells(row)), ensure_ascii=False))
        folder = row.path.split("/")[:-1]
        common = folder if self.common_folder is None else self.common_folder
        self.common_folder = _find_common_start(common, folder)

    def as_json(self) -> str:
        rows = (self.needing_attention + self.settled)[:MAX_TABLE_ROWS]
        base = json.dumps("/".join(self.common_folder or []).rstrip("/") + "/")
        return f'{{"base": {base}, "rows": [{",".join(rows)}]}}'


def _find_common_start(first: Iterable[str], second: Iterable[str]) -> list[str]:
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    return [part for part, _ in same]


def _make_cells(row: ReportRow) -> Iterator[object]:
    yield row.path
    yield row.action
    yield ";".join(row.genres)
    yield row.score
    yield ";".join(row.existing)
    yield "; ".join(f"{score.genre} {score.probability:.2f}" for score in row.scores)
    yield row.duration_s
    yield row.error
    yield FAILURE_HELP[get_failure_kind(row)].title if row.action is Action.FAILED else ""
    yield (row.existing[0], row.genres[0]) if is_disagreement(row) else None


@dataclass(frozen=True, slots=True)
class DisagreementMatrix:
    """Tracks whose genre is not the one heard. cells: their number by row (existing) and column."""

    existing: tuple[str, ...]
    heard: tuple[str, ...]
    cells: tuple[tuple[int, ...], ...]

    @property
    def most(self) -> int:
        return max((count for line in self.cells for count in line), default=0)


def build_matrix(pairs: Iterable[Disagreement]) -> DisagreementMatrix:
    """Arrange pairs in a matrix, the commonest genres first, rare genres together at the end."""
    pairs = list(pairs)
    existing = _find_commonest((pair.existing, pair.tracks) for pair in pairs)
    heard = _find_commonest((pair.heard, pair.tracks) for pair in pairs)
    cells = [[0] * len(heard) for _ in existing]
    for pair in pairs:
        line = pair.existing if pair.existing in existing else OTHER_GENRES
        column = pair.heard if pair.heard in heard else OTHER_GENRES
        cells[existing.index(line)][heard.index(column)] += pair.tracks
    return DisagreementMatrix(existing, heard, tuple(map(tuple, cells)))


def _find_commonest(counts: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    sums: Counter[str] = Counter()
    for name, count in counts:
        sums[name] += count
    names = [name for name, _ in sums.most_common()]
    return (
        (*names[:MAX_MATRIX_GENRES], OTHER_GENRES)
        if len(names) > MAX_MATRIX_GENRES
        else tuple(names)
    )


def render_page(facts: PageFacts, overview: ReportOverview, rows: TableRows) -> str:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FileSystemLoader(PAGE_FOLDER),
    )
    return environment.get_template("page.html.j2").render(
        facts=facts,
        overview=overview,
        matrix=build_matrix(overview.pairs),
        most_rows=MAX_TABLE_ROWS,
        data=_escape_json(rows.as_json()),
        numbers=_escape_json(json.dumps(overview.as_json() | {"most_bars": MAX_GENRE_BARS})),
        styles="\n".join((PAGE_FOLDER / name).read_text("utf-8") for name in STYLES),
        scripts=[(PAGE_FOLDER / name).read_text("utf-8") for name in SCRIPTS],
    )


def _escape_json(data: str) -> str:
    """Escape JSON so that it cannot end the script element around it."""
    return data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def write_page(path: Path, page: str) -> None:
    """Write a page, whole or not at all. Errors as of `check_page`, and DiskFullError."""
    check_page(path)
    try:
        write_file_whole(path, page.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise make_write_error("page", path, error) from error


def check_page(path: Path) -> None:
    """Raise SettingsError for an existing file that is no page of tagger; ReportError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_replacement(path, PAGE_START, "--html")
    except OSError as error:
        raise make_write_error("page", path, error) from error


def write_run_page(review: RunReview, path: Path) -> None:
    """Write the page of a run. Errors as of `write_page`."""
    rows = TableRows()
    for row in chain.from_iterable(map(read_report, review.reports)):
        rows.add(row)
    run = review.runs[-1]
    kind = "Dry run" if run.dry_run else "Run"
    started_at = datetime.fromisoformat(run.started_at).astimezone()
    facts = PageFacts(
        title=f"{kind} of tagger, {started_at:%-d %B %Y}",
        run_id=review.names,
        started_at=f"{started_at:%Y-%m-%d %H:%M %Z}",
        model=review.models,
        report=", ".join(map(display_path, review.reports)),
        passed_over=tuple(describe_passed_over(review.passed_over)),
    )
    write_page(path, render_page(facts, review.overview, rows))
