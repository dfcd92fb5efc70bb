"""Measures of a model as tables and as JSON."""

from collections import Counter
from pathlib import Path

from rich.table import Table
from rich.text import Text

from tagger import decide
from tagger.cli.console import PatientConsole
from tagger.cli.loading import Loading
from tagger.cli.signals import Stopper
from tagger.cli.text import count_of, printable
from tagger.errors import LibraryError
from tagger.models import find_source
from tagger.paths import displayed
from tagger.settings import Settings
from tagger.training.clips import at_least
from tagger.training.evaluate import Evaluation, evaluate
from tagger.training.measures import Measures, Share
from tagger.training.reading import read_dataset, read_library

SHOWN_REASONS = 5
WIDEST = 24
"""Columns for a genre; a longer one is cut off, for the numbers beside it."""


def measure_on(
    place: Path, settings: Settings, stopper: Stopper, *, from_tags: bool, min_tracks: int
) -> Evaluation:
    """Evaluate the model of the settings on a dataset, or a library, and show how that goes on."""
    source = find_source(settings)
    loading = Loading(stopper)
    with loading.status:
        loading.doing(f"reading {printable(displayed(place))}")
        read_in = read_library if from_tags else read_dataset
        read = read_in(place, settings, decide.names_for(settings))
        dataset = at_least(read, min_tracks)
        if read.clips and not dataset.clips:
            raise LibraryError(f"{read.name} has no genre with {min_tracks} tracks (--min-tracks)")
        of = len(dataset.clips)
        return evaluate(
            dataset,
            source,
            settings,
            loading.fetching,
            lambda done: loading.doing(f"listening, {done} of {of}"),
        )


def print_tables(found: Evaluation, min_score: float) -> None:
    """Print the measures, the genres, and what was taken for what."""
    console = PatientConsole()
    for line in _lines(found, min_score):
        console.print(Text(line), soft_wrap=True)
    console.print(genre_table(found.measures))
    console.print(Text("labelled (rows) and heard as (columns):"))
    console.print(confusion_table(found.measures))


def _lines(found: Evaluation, min_score: float) -> list[str]:
    measures = found.measures
    lines = [
        f"{printable(found.model)} on {printable(found.dataset.name)}",
        f"accuracy            {_percent(measures.accuracy)}",
        f"among its labels    {_percent(found.among.accuracy)}",
        f"macro-F1            {measures.macro_f1:.3f}",
        f"calibration (ECE)   {measures.ece:.3f}",
        f"clips a second      {found.clips_per_s:.1f}",
    ]
    if found.sure:
        lines.insert(3, f"score {min_score:g} or more   {_percent(found.sure)}")
    for label, clips in found.unknown.items():
        lines.append(f"{count_of(clips)} of {printable(label)}: no label of the model, not counted")
    left_out = Counter(each.reason for each in (*found.dataset.left_out, *found.failed))
    lines += [
        f"{count_of(clips)} left out: {printable(reason)}"
        for reason, clips in left_out.most_common(SHOWN_REASONS)
    ]
    return [*lines, "…"] if len(left_out) > SHOWN_REASONS else lines


def _percent(share: Share) -> str:
    return f"{share.value:.1%} of {share.clips} (95 %: {share.low:.1%} to {share.high:.1%})"


def genre_table(measures: Measures) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("genre", no_wrap=True, max_width=WIDEST)
    for name in ("clips", "precision", "recall", "F1"):
        table.add_column(name, justify="right")
    for row in measures.genres:
        numbers = (f"{value:.2f}" for value in (row.precision, row.recall, row.f1))
        table.add_row(Text(printable(row.genre)), str(row.clips), *numbers)
    return table


def confusion_table(measures: Measures) -> Table:
    """Return the counts; columns are named by the first letters of the labels."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True, max_width=WIDEST)
    for label in measures.labels:
        table.add_column(Text(printable(label)[:4]), justify="right", no_wrap=True)
    for row, counts in zip(measures.genres, measures.confusion.tolist(), strict=False):
        cells = (Text(str(count or "·"), "" if count else "dim") for count in counts)
        table.add_row(Text(printable(row.genre)), *cells)
    return table
