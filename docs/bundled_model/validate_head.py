"""Print the bundled head's accuracy on sources and artists that it was not fitted to.

python -m docs.bundled_model.validate_head features.npz
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from docs.bundled_model.fit_head import (
    LABELS,
    OTHER_SOUND,
    SPEECH,
    TAG_WEIGHTS,
    LabelledFeatures,
    compute_left_out_logits,
    compute_music_lead,
    fit_calibration_factor,
    make_left_out_groups,
    read_clips,
)
from tagger.inference.devices import use_one_thread
from tagger.models.yamnet import CHECKPOINT

COLLECTION = 27  # the source of most whole clips, which is left out by artist


def compute_left_out_probabilities(clips: LabelledFeatures) -> Tensor:
    """Return (clips, labels), calibrated and with the lead of music, as in the shipped head."""
    logits = compute_left_out_logits(clips, make_left_out_groups(clips))
    logits = logits * fit_calibration_factor(clips, logits)
    logits[:, len(TAG_WEIGHTS) :] -= compute_music_lead(clips, logits)
    return logits.softmax(1)


def compute_calibration_error(probabilities: Tensor, label: Tensor, bins: int = 10) -> float:
    """Return the expected calibration error of the best label's score, over bins of equal width."""
    best, predicted = probabilities.max(1)
    gap = best - (predicted == label).double()
    index = (best * bins).long().clamp(max=bins - 1)
    return float(torch.zeros(bins).double().index_add(0, index, gap).abs().sum() / len(label))


def format_summary(clips: LabelledFeatures, probabilities: Tensor) -> Iterator[str]:
    """Yield a line for each measure, with the number of clips that it is taken from."""
    label = torch.from_numpy(clips.label)
    whole = clips.is_music & ~clips.excerpt
    is_right = (probabilities.argmax(1) == label).numpy()
    music, other = probabilities.tensor_split([len(TAG_WEIGHTS)], 1)
    is_refused = (other.sum(1) > music.sum(1)).numpy()
    shares: tuple[tuple[str, NDArray[np.bool_], NDArray[np.bool_]], ...] = (
        ("whole music, accuracy", is_right, whole),
        ("of other sources, accuracy", is_right, whole & (clips.source != COLLECTION)),
        ("whole music, refused", is_refused, whole),
        ("speech, caught", is_refused, clips.label == LABELS.index(SPEECH)),
        ("other sounds, caught", is_refused, clips.label == LABELS.index(OTHER_SOUND)),
    )
    for name, is_counted, kind in shares:
        yield f"{name:28}{is_counted[kind].mean():7.1%} of {kind.sum()}"
    error = compute_calibration_error(probabilities[whole], label[whole])
    yield f"{'whole music, ECE':28}{error:7.1%}"


def format_genres(clips: LabelledFeatures, probabilities: Tensor) -> Iterator[str]:
    """Yield a row for each genre: whole clips, recall, precision, the most frequent mistakes."""
    whole = clips.is_music & ~clips.excerpt
    label, predicted = clips.label[whole], probabilities.argmax(1).numpy()[whole]
    yield f"{'genre':12}{'clips':>6}{'recall':>8}{'precision':>11}   taken for"
    for number, name in enumerate(TAG_WEIGHTS):
        counts = np.bincount(predicted[label == number], minlength=len(LABELS))
        recall = counts[number] / max(counts.sum(), 1)
        precision = counts[number] / max((predicted == number).sum(), 1)
        mistakes = [i for i in np.argsort(-counts, kind="stable") if i != number and counts[i]][:3]
        listed = ", ".join(f"{LABELS[i]} {counts[i]}" for i in mistakes)
        yield f"{name:12}{counts.sum():6}{recall:8.0%}{precision:11.0%}   {listed}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("features", type=Path, help="labelled features (npz)")
    options = parser.parse_args(arguments)
    label_by_class = json.loads((CHECKPOINT / "config.json").read_text())["id2label"]
    classes = [label_by_class[str(number)] for number in range(len(label_by_class))]
    with use_one_thread():
        clips = read_clips(options.features, classes)
        probabilities = compute_left_out_probabilities(clips)
    for text in (*format_summary(clips, probabilities), "", *format_genres(clips, probabilities)):
        sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main()
