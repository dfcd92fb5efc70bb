"""Scores as tables with bars."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from rich.bar import Bar
from rich.table import Table
from rich.text import Text

from tagger.cli.console import PatientConsole
from tagger.cli.loading import Loading
from tagger.cli.text import printable
from tagger.paths import displayed
from tagger.records import Failure, Prediction, Score

BAR_WIDTH = 32


class ScoreTables:
    """Prints results on stdout, unless `quiet`."""

    def __init__(self, loading: Loading, *, quiet: bool) -> None:
        self.out = PatientConsole(quiet=quiet)
        self.status = loading.status

    def show(self, path: Path, result: Prediction | Failure, model: str) -> None:
        name = printable(displayed(path))
        self.status.stop()  # it would take what is printed meanwhile over to its own stream
        if isinstance(result, Failure):
            reason = (printable(result.reason), "red")
            self.out.print(Text.assemble((name, "bold"), ": ", reason), soft_wrap=True)
        else:
            length = f"{clock(result.duration_s)}  {printable(model)}"
            self.out.print(Text.assemble((name, "bold"), f"  {length}"), soft_wrap=True)
            if result.timeline:
                self.out.print(timeline_table(result))
            self.out.print(scores_table(result.scores))
        self.status.update("Listening")
        self.status.start()


def scores_table(scores: Sequence[Score]) -> Table:
    table = _table("label")
    for score in scores:
        table.add_row(*_cells(score))
    return table


def timeline_table(result: Prediction) -> Table:
    """Return a row for each window, with its best label."""
    table = _table("from", "label")
    for stretch in result.timeline:
        for score in stretch.scores[:1]:  # none, where a map drops all that it could be
            table.add_row(clock(stretch.start_s), *_cells(score))
    return table


def clock(seconds: float) -> str:
    """Return a time as `3:45`, or `1:02:03`."""
    return str(timedelta(seconds=round(seconds))).removeprefix("0:").removeprefix("0")


def _table(*columns: str) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 1))
    for name in columns:
        table.add_column(name, no_wrap=True)
    table.add_column("bar", width=BAR_WIDTH)
    table.add_column("score", justify="right")
    return table


def _cells(score: Score) -> tuple[Text, Bar, str]:
    bar = Bar(1.0, 0.0, score.probability, width=BAR_WIDTH, color="cyan")
    return Text(printable(score.genre)), bar, f"{score.probability:.3f}"
