"""Run `tagger evaluate`, and print measures. `tagger train` prints the same for its result.

cli.train imports this module late: it needs the libraries of the extra `train`. It does not import
training.job: that imports transformers, which fails with a traceback if HF_ENDPOINT is malformed.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.table import Table
from rich.text import Text

from tagger.cli.progress import LoadingStatus, PipeSafeConsole
from tagger.cli.tables import MAX_GENRE_WIDTH, make_number_table
from tagger.cli.terminal import StopSignal, escape_unprintable, format_track_count
from tagger.errors import LibraryError
from tagger.labels import get_label_names
from tagger.models import find_model
from tagger.paths import display_path
from tagger.records import MinScore
from tagger.settings import Settings
from tagger.training.clips import Dataset, drop_rare_labels
from tagger.training.datasets import read_dataset, read_library
from tagger.training.evaluate import Evaluation, Measures, Proportion, evaluate_model

MAX_SHOWN_LINES = 5
"""The most reasons, files, names or pairs in one list."""
CONFUSION_HEAD_LENGTH = 4
"""Letters of a label over a column of the confusion matrix."""


def read_labelled_clips(
    location: Path,
    settings: Settings,
    label_names: Mapping[str, str],
    *,
    from_tags: bool,
    min_tracks: int,
) -> Dataset:
    """Read a data set or a library, and leave out rare genres. Raises LibraryError."""
    read = read_library if from_tags else read_dataset
    dataset = read(location, settings, label_names)
    if not dataset.clips:
        raise LibraryError(f"{dataset.name} has no track with a genre")
    frequent = drop_rare_labels(dataset, min_tracks)
    if not frequent.clips:
        raise LibraryError(f"{dataset.name} has no genre with {min_tracks} tracks (--min-tracks)")
    return frequent


def run_evaluation(
    location: Path, settings: Settings, stop_signal: StopSignal, *, from_tags: bool, min_tracks: int
) -> Evaluation:
    """Evaluate the model of the settings on a data set or a library, and show the progress."""
    source = find_model(settings)
    loading = LoadingStatus(stop_signal)
    with loading.status:
        loading.show(f"reading {escape_unprintable(display_path(location))}")
        names = get_label_names(settings)
        dataset = read_labelled_clips(
            location, settings, names, from_tags=from_tags, min_tracks=min_tracks
        )
        return evaluate_model(
            dataset,
            source,
            settings,
            loading.on_download,
            lambda done, total: loading.show(f"listening, {done} of {total}"),
        )


def print_evaluation(evaluation: Evaluation, min_score: MinScore) -> None:
    """Print the measures, the measures of each genre, and the confusion matrix."""
    console = PipeSafeConsole()
    for line in _list_measures(evaluation, min_score):
        console.print(Text(line), soft_wrap=True)
    console.print(make_genre_table(evaluation.measures))
    console.print(Text("labelled (rows) and predicted (columns):"))
    console.print(make_confusion_table(evaluation.measures))


def _list_measures(evaluation: Evaluation, min_score: MinScore) -> list[str]:
    measures, confident = evaluation.measures, evaluation.confident_accuracy
    lines = [
        f"{escape_unprintable(evaluation.model)} on {escape_unprintable(evaluation.dataset.name)}",
        f"accuracy            {_format_proportion(measures.accuracy)}",
        f"among its labels    {_format_proportion(evaluation.restricted_measures.accuracy)}",
        f"macro-F1            {measures.macro_f1:.3f}",
        f"calibration (ECE)   {measures.ece:.3f}",
        f"clips a second      {evaluation.clips_per_s:.1f}",
    ]
    if confident:
        bound = "min-score or more" if min_score.by_genre else f"score {min_score} or more"
        lines.insert(3, f"{bound:<18}  {_format_proportion(confident)}")
    for label, clips in evaluation.unknown_labels.items():
        tracks = f"{format_track_count(clips)} of {escape_unprintable(label)}"
        lines.append(f"{tracks}: no label of the model, not counted")
    reasons = Counter(
        failure.reason for failure in (*evaluation.dataset.left_out, *evaluation.failures)
    )
    return [*lines, *list_left_out(reasons)]


def list_left_out(reasons: Counter[str]) -> Iterator[str]:
    for reason, clips in reasons.most_common(MAX_SHOWN_LINES):
        yield f"{format_track_count(clips)} left out: {escape_unprintable(reason)}"
    if len(reasons) > MAX_SHOWN_LINES:
        yield "…"


def _format_proportion(share: Proportion) -> str:
    return f"{share.value:.1%} of {share.clips} (95 %: {share.low:.1%} to {share.high:.1%})"


def make_genre_table(measures: Measures) -> Table:
    table = make_number_table("genre", "clips", "precision", "recall", "F1")
    for row in measures.genres:
        numbers = (f"{value:.2f}" for value in (row.precision, row.recall, row.f1))
        table.add_row(Text(escape_unprintable(row.genre)), str(row.clips), *numbers)
    return table


def make_confusion_table(measures: Measures) -> Table:
    """Return the counts. The first letters of a label name its column."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True, max_width=MAX_GENRE_WIDTH)
    for label in measures.labels:
        head = Text(escape_unprintable(label)[:CONFUSION_HEAD_LENGTH])
        table.add_column(head, justify="right", no_wrap=True)
    for row, counts in zip(measures.genres, measures.confusion.tolist(), strict=False):
        cells = (Text(str(count or "·"), "" if count else "dim") for count in counts)
        table.add_row(Text(escape_unprintable(row.genre)), *cells)
    return table
