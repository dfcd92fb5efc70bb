"""The report as a page for a browser: one file, which fetches nothing and runs nothing but its own.

The numbers are in its HTML; the script draws the charts (Observable Plot) and the table of tracks
(DataTables), whose rows it takes from JSON in the page.
"""

import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain, takewhile
from pathlib import Path

from tagger.paths import display_path
from tagger.records import Action
from tagger.report.csv import ReportRow, check_overwrite, make_write_error, read_report
from tagger.report.overview import (
    Disagreement,
    ReportOverview,
    RunReview,
    find_failure_title,
    is_disagreement,
)

PAGE_FOLDER = Path(__file__).parent
PAGE_START = b"<!doctype html><!-- a report of tagger -->"
MAX_TABLE_ROWS = 100_000
"""More make a page that no browser opens with pleasure; what asks for attention goes in first."""

MAX_GENRE_BARS = 25
MAX_MATRIX_GENRES = 15
"""So many genres have a line or a column of their own in the table of disagreements."""

OTHER_GENRES = "other genres"
QUIET_ACTIONS = {Action.UNCHANGED, Action.KEPT}

SCRIPTS = (
    "assets/d3.min.js", "assets/plot.umd.min.js", "assets/jquery.slim.min.js",
    "assets/dataTables.min.js", "assets/dataTables.responsive.min.js", "page.js",
)  # fmt: skip
STYLES = (
    "assets/dataTables.dataTables.min.css", "assets/responsive.dataTables.min.css", "page.css",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PageFacts:
    """What a page tells of the run itself. title: what it was; report: where the CSV file lies."""

    title: str
    run_id: str
    began: str
    model: str
    report: str


@dataclass(slots=True)
class TableRows:
    """Rows for the table, as JSON; those that nothing happened to give way where it gets long."""

    busy: list[str] = field(default_factory=list)
    calm: list[str] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)

    def add(self, row: ReportRow) -> None:
        kept = self.calm if row.action in QUIET_ACTIONS else self.busy
        if len(kept) < MAX_TABLE_ROWS:
            kept.append(json.dumps(list(_make_cells(row)), ensure_ascii=False))
        self.folders.add(row.path.rpartition("/")[0])

    def as_json(self) -> str:
        rows = (self.busy + self.calm)[:MAX_TABLE_ROWS]
        base = json.dumps(_find_common_folder(self.folders).rstrip("/") + "/")
        return f'{{"base": {base}, "rows": [{",".join(rows)}]}}'


def _find_common_folder(folders: Collection[str]) -> str:
    """Return the folder that all of these lie in; nothing where some are elsewhere."""
    parts = [folder.split("/") for folder in folders] or [[]]
    same = takewhile(lambda pair: pair[0] == pair[1], zip(min(parts), max(parts), strict=False))
    return "/".join(part for part, _ in same)


def _make_cells(row: ReportRow) -> Iterator[object]:
    yield row.path
    yield row.action
    yield ";".join(row.genres)
    yield row.score
    yield ";".join(row.existing)
    yield "; ".join(f"{score.genre} {score.probability:.2f}" for score in row.scores)
    yield row.duration_s
    yield row.error
    yield find_failure_title(row.error).title if row.action is Action.FAILED else ""
    yield (row.existing[0], row.genres[0]) if is_disagreement(row) else None


@dataclass(frozen=True, slots=True)
class DisagreementMatrix:
    """Where existing genres and ours disagree. cells: tracks by line (existing) and column."""

    existing: tuple[str, ...]
    heard: tuple[str, ...]
    cells: tuple[tuple[int, ...], ...]

    @property
    def most(self) -> int:
        return max((count for line in self.cells for count in line), default=0)


def build_matrix(pairs: Iterable[Disagreement]) -> DisagreementMatrix:
    """Lay out pairs, the commonest genres first; what is rare is told together."""
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
    """Write JSON so that no part of it can end the element that it stands in."""
    return data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def write_page(path: Path, page: str) -> None:
    """Put a page at a path, whole or not at all. Errors as of `check_page`, and DiskFullError."""
    check_page(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            part.write_bytes(page.encode("utf-8", "backslashreplace"))
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise make_write_error("page", path, error) from error


def check_page(path: Path) -> None:
    """Raise SettingsError for a file that is there and no page of ours; ReportError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_overwrite(path, PAGE_START, "--html")
    except OSError as error:
        raise make_write_error("page", path, error) from error


def write_run_page(review: RunReview, path: Path) -> None:
    """Write the page of a run. Errors as of `write_page`."""
    rows = TableRows()
    for row in chain.from_iterable(map(read_report, review.reports)):
        rows.add(row)
    run = review.runs[-1]
    what = "Dry run" if run.dry_run else "Run"
    began = datetime.fromisoformat(run.started_at).astimezone()
    facts = PageFacts(
        title=f"{what} of tagger, {began:%-d %B %Y}",
        run_id=review.names,
        began=f"{began:%Y-%m-%d %H:%M %Z}",
        model=review.models,
        report=", ".join(map(display_path, review.reports)),
    )
    write_page(path, render_page(facts, review.overview, rows))
