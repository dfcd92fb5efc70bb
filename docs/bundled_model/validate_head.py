"""Print how the bundled head does on sources and artists that it was not fitted to.

python -m docs.bundled_model.validate_head features.npz
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from docs.bundled_model.head import (
    GENRE_LABELS,
    LabelledFeatures,
    calibrating_factor,
    left_out_logits,
    read_clips,
)
from tagger.models.runtime import use_one_thread

VARIANTS: dict[str, dict[str, float]] = {
    "map and biases alone": {"penalty": 1e4},
    "no lead asked": {"lead": 0.0},
    "a lead of 1": {"lead": 1.0},
    "penalty 2": {"penalty": 2.0},
    "penalty 0.2": {"penalty": 0.2},
    "shipped": {},
}
COLLECTION = 3  # the source of 30 s samples that holds two thirds of the whole clips
ARTIST_GROUPS = 10


def calibration_error(probabilities: Tensor, label: Tensor, bins: int = 10) -> float:
    """Return the expected calibration error of the best genre's score, over bins of equal width."""
    best, guess = probabilities.max(1)
    gap = best - (guess == label).double()
    index = (best * bins).long().clamp(max=bins - 1)
    return float(torch.zeros(bins).double().index_add(0, index, gap).abs().sum() / len(label))


def line(name: str, clips: LabelledFeatures, logits: Tensor) -> str:
    """One row of the table: accuracy by part of the data, then accuracy and error of all whole."""
    label = torch.from_numpy(clips.label)
    hit = logits.argmax(1) == label
    inside = torch.from_numpy(clips.source == COLLECTION)
    excerpt = torch.from_numpy(clips.excerpt)
    whole = ~excerpt
    parts = (whole & ~inside, inside, excerpt, whole)
    accuracies = "".join(f"{hit[part].double().mean():9.1%}" for part in parts)
    scores = (logits * calibrating_factor(clips, logits)).softmax(1)
    return f"{name:32}{accuracies}{calibration_error(scores[whole], label[whole]):9.1%}"


def genre_lines(clips: LabelledFeatures, logits: Tensor) -> Iterator[str]:
    """For each genre its whole clips, how many were found, and what the others were taken for."""
    whole = ~clips.excerpt
    guess = logits.argmax(1).numpy()
    for number, name in enumerate(GENRE_LABELS):
        guesses = guess[whole & (clips.label == number)]
        counts = np.bincount(guesses, minlength=len(GENRE_LABELS))
        others = [i for i in np.argsort(-counts, kind="stable") if i != number and counts[i]][:3]
        taken = ", ".join(f"{GENRE_LABELS[i]} {counts[i]}" for i in others)
        yield f"{name:12}{len(guesses):5}{counts[number]:6}   {taken}"


def table(clips: LabelledFeatures) -> Iterator[str]:
    columns = ("others", "collect.", "excerpts", "whole", "ECE")
    yield f"{'left out: one source at a time':32}" + "".join(f"{name:>9}" for name in columns)
    for name, settings in VARIANTS.items():
        logits = left_out_logits(clips, clips.source, **settings)
        yield line(name, clips, logits)
    artists = clips.artist % ARTIST_GROUPS
    yield line("shipped, a tenth of the artists", clips, left_out_logits(clips, artists))
    yield f"\n{'genre':12}{'clips':>5}{'found':>6}   taken for (one source left out)"
    yield from genre_lines(clips, logits)  # of the last variant


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("features", type=Path, help="labelled features (npz)")
    options = parser.parse_args(arguments)
    with use_one_thread():
        for text in table(read_clips(options.features)):
            sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main()
