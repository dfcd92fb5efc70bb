"""Look back at an earlier run: its report in numbers, as a page, or as a file of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path

from tagger.albums import Member, odd_albums
from tagger.errors import SettingsError
from tagger.paths import displayed
from tagger.report.overview import Overview, Tally
from tagger.report.page import Facts, TableRows, render_page, write_page
from tagger.report.reading import read_report
from tagger.state import Run, read_albums, read_runs


@dataclass(frozen=True, slots=True)
class Review:
    """A run, or one of each of several state files; where their reports lie; all in numbers."""

    runs: tuple[Run, ...]
    reports: tuple[Path, ...]
    overview: Overview

    @property
    def names(self) -> str:
        return ", ".join(run.id for run in self.runs)

    @property
    def models(self) -> str:
        return ", ".join(dict.fromkeys(run.model for run in self.runs if run.model))


def review_run(states: Sequence[Path], run_id: str | None) -> Review:
    """Return what a run did, by its report; without an id the newest run that wrote one.

    Of several state files, that of each counts, together. Raises SettingsError for a run that never
    was or has no report, ReportError, StateError.
    """
    found = [find_run(state, run_id) for state in states]
    tally, members = Tally(), []
    for state, (_, report) in zip(states, found, strict=True):
        albums = {displayed(path): album for path, album in read_albums(state).items()}
        for row in read_report(report):
            tally.add(row)
            if row.scores and row.path in albums:
                folder = row.path.rpartition("/")[0]
                members.append(Member(row.path, folder, albums[row.path], row.scores))
    runs, reports = (tuple(each) for each in zip(*found, strict=True))
    return Review(runs, reports, tally.overview(odd_albums(members)))


def find_run(state: Path, run_id: str | None) -> tuple[Run, Path]:
    """Return a run and where its report lies. Errors as of `review_run`."""
    runs = read_runs(state)
    if run_id is None:
        runs = [run for run in runs if run.report]
    found = next((run for run in reversed(runs) if run_id in (None, run.id)), None)
    if found is None:
        what = f"there is no run {run_id}" if run_id else "no run has written a report yet"
        raise SettingsError(f"{what} in {state} (tagger runs lists them)")
    if found.report is None:
        raise SettingsError(f"run {found.id} has no report: it was no scan")
    return found, found.report


def make_page(review: Review, path: Path) -> None:
    """Write the page of a run. Errors as of `write_page`."""
    rows = TableRows()
    for row in chain.from_iterable(map(read_report, review.reports)):
        rows.add(row)
    run = review.runs[-1]
    what = "Dry run" if run.dry_run else "Run"
    began = datetime.fromisoformat(run.started_at).astimezone()
    facts = Facts(
        title=f"{what} of tagger, {began:%-d %B %Y}",
        run_id=review.names,
        began=f"{began:%Y-%m-%d %H:%M %Z}",
        model=review.models,
        report=", ".join(map(displayed, review.reports)),
    )
    write_page(path, render_page(facts, review.overview, rows))
