"""Draw the confusion matrix, the reliability and the training curves; owns matplotlib."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from tagger.errors import ReportError
from tagger.paths import display_path
from tagger.training.evaluate import EpochMeasures, Measures

NO_MATH_TEXT = mpl.rc_context({"text.parse_math": False})
"""A dollar sign in a name does not begin a formula."""

MAX_LABEL_LENGTH = 24

MAIN_COLOUR, GRID_COLOUR, SECOND_COLOUR = "#1b3a5c", "#cccccc", "#d08030"


def check_picture(path: Path) -> None:
    """Raise ReportError if a picture cannot be written there. Call it before a long job."""
    if path.suffix.lower().removeprefix(".") not in FigureCanvasBase.get_supported_filetypes():
        raise ReportError(f"{display_path(path)} must end in .png, .pdf or .svg, as a picture")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ReportError(f"cannot write the picture {display_path(path)}: no such folder")


@NO_MATH_TEXT
def draw_measures(measures: Measures, title: str, path: Path) -> None:
    """Write a PNG, PDF or SVG, by the suffix. Raises ReportError if that fails."""
    side = max(4.5, 0.45 * len(measures.labels))
    figure = Figure(figsize=(2 * side + 1, side + 1), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_confusion(left, measures)
    draw_reliability(right, measures)
    _save_figure(figure, title, path)


@NO_MATH_TEXT
def draw_curves(
    epochs: Sequence[EpochMeasures], kept: EpochMeasures, title: str, path: Path
) -> None:
    """Draw loss and accuracy over the epochs, and mark the one that is kept. Raises ReportError."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    numbers = [epoch.number for epoch in epochs]
    left.plot(
        numbers, [epoch.train_loss for epoch in epochs], color=SECOND_COLOUR, label="training"
    )
    left.plot(
        numbers, [epoch.validation_loss for epoch in epochs], color=MAIN_COLOUR, label="validation"
    )
    left.set(xlabel="epoch", ylabel="loss")
    left.legend()
    right.plot(numbers, [epoch.accuracy for epoch in epochs], color=MAIN_COLOUR)
    right.scatter([kept.number], [kept.accuracy], color=MAIN_COLOUR, zorder=3)
    right.set(xlabel="epoch", ylabel="accuracy, validation", ylim=(0, 1.02))
    right.set_title(f"kept: {kept.accuracy:.1%} in epoch {kept.number}")
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
    _save_figure(figure, title, path)


def _save_figure(figure: Figure, title: str, path: Path) -> None:
    figure.suptitle("".join(char if char.isprintable() else "?" for char in title))
    try:
        with warnings.catch_warnings(action="ignore"):  # the font may not have all letters
            figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ReportError(f"cannot write the picture {display_path(path)}: {reason}") from error


def draw_confusion(axes: Axes, measures: Measures) -> None:
    """Draw the counts. The colour is the share of the clips of each true genre."""
    genres = [row.genre for row in measures.genres]  # the first ones of measures.labels
    counts = measures.confusion[: len(genres)]
    shares = counts / counts.sum(1, keepdims=True)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [_shorten_label(label) for label in measures.labels]
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
    axes.set_yticks(range(len(genres)), names[: len(genres)])
    axes.set_xlabel("predicted")
    axes.set_ylabel("labelled")
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"  # noqa: PLR2004 - half of the genre's clips
            axes.text(column, row, str(count), ha="center", va="center", color=colour)
    accuracy = measures.accuracy
    axes.set_title(f"accuracy {accuracy.value:.1%} ({accuracy.low:.0%} to {accuracy.high:.0%})")


def _shorten_label(label: str) -> str:
    return label if len(label) <= MAX_LABEL_LENGTH else f"{label[: MAX_LABEL_LENGTH - 1]}…"


def draw_reliability(axes: Axes, measures: Measures) -> None:
    """Draw accuracy over score. The area of a dot is the number of clips."""
    axes.plot([0, 1], [0, 1], color=GRID_COLOUR, linestyle="--")
    scores = [each.score for each in measures.bins]
    accuracies = [each.accuracy for each in measures.bins]
    most = max(each.clips for each in measures.bins)
    sizes = [20 + 180 * each.clips / most for each in measures.bins]
    axes.plot(scores, accuracies, color=MAIN_COLOUR)
    axes.scatter(scores, accuracies, s=sizes, color=MAIN_COLOUR, clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="score", ylabel="accuracy", aspect="equal")
    axes.set_title(f"calibration (ECE {measures.ece:.1%})")
