"""Print the bundled head's accuracy on sources and artists that it was not fitted to.

python -m docs.bundled_model.validate_head features.npz
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from docs.bundled_model.fit_head import (
    GENRE_LABELS,
    LabelledFeatures,
    compute_left_out_logits,
    fit_calibration_factor,
    read_clips,
)
from tagger.inference.devices import use_one_thread

VARIANTS: dict[str, dict[str, float]] = {
    "map and biases alone": {"penalty": 1e4},
    "no lead": {"lead": 0.0},
    "a lead of 1": {"lead": 1.0},
    "penalty 2": {"penalty": 2.0},
    "penalty 0.2": {"penalty": 0.2},
    "shipped": {},
}
COLLECTION = 3  # the source of 30 s samples that holds two thirds of the whole clips
ARTIST_GROUPS = 10


def compute_calibration_error(probabilities: Tensor, label: Tensor, bins: int = 10) -> float:
    """Return the expected calibration error of the best genre's score, over bins of equal width."""
    best, predicted = probabilities.max(1)
    gap = best - (predicted == label).double()
    index = (best * bins).long().clamp(max=bins - 1)
    return float(torch.zeros(bins).double().index_add(0, index, gap).abs().sum() / len(label))


def format_accuracies(name: str, clips: LabelledFeatures, logits: Tensor) -> str:
    """Return a row of the table: accuracies by kind of clip, and the error of all whole clips."""
    label = torch.from_numpy(clips.label)
    is_right = logits.argmax(1) == label
    collection = torch.from_numpy(clips.source == COLLECTION)
    excerpt = torch.from_numpy(clips.excerpt)
    whole = ~excerpt
    kinds = (whole & ~collection, collection, excerpt, whole)
    accuracies = "".join(f"{is_right[kind].double().mean():9.1%}" for kind in kinds)
    scores = (logits * fit_calibration_factor(clips, logits)).softmax(1)
    return f"{name:32}{accuracies}{compute_calibration_error(scores[whole], label[whole]):9.1%}"


def format_genres(clips: LabelledFeatures, logits: Tensor) -> Iterator[str]:
    """Yield a row for each genre: whole clips, how many were found, the most frequent mistakes."""
    whole = ~clips.excerpt
    predicted = logits.argmax(1).numpy()
    for number, name in enumerate(GENRE_LABELS):
        predictions = predicted[whole & (clips.label == number)]
        counts = np.bincount(predictions, minlength=len(GENRE_LABELS))
        mistakes = [i for i in np.argsort(-counts, kind="stable") if i != number and counts[i]][:3]
        listed = ", ".join(f"{GENRE_LABELS[i]} {counts[i]}" for i in mistakes)
        yield f"{name:12}{len(predictions):5}{counts[number]:6}   {listed}"


def format_tables(clips: LabelledFeatures) -> Iterator[str]:
    columns = ("others", "collect.", "excerpts", "whole", "ECE")
    yield f"{'left out: one source at a time':32}" + "".join(f"{name:>9}" for name in columns)
    for name, settings in VARIANTS.items():
        logits = compute_left_out_logits(clips, clips.source, **settings)
        yield format_accuracies(name, clips, logits)
    artists = clips.artist % ARTIST_GROUPS
    yield format_accuracies(
        "shipped, a tenth of the artists", clips, compute_left_out_logits(clips, artists)
    )
    yield f"\n{'genre':12}{'clips':>5}{'found':>6}   taken for (one source left out)"
    yield from format_genres(clips, logits)  # of the last variant


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("features", type=Path, help="labelled features (npz)")
    options = parser.parse_args(arguments)
    with use_one_thread():
        for text in format_tables(read_clips(options.features)):
            sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main()
