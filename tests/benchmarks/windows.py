r"""Compare fixed numbers of windows with rules that stop to listen once the answer seems certain.

    python -m tests.benchmarks.windows [--gtzan FOLDER] [--music FOLDER] [--features FEATURES.npz]

The network runs once on WINDOWS windows of each clip; then the rules are tried on the logits. A
rule takes windows spread over the clip, some at first, and one more until it is content. `--gtzan`
has a folder of clips for each genre, `--music` a library without labels, of which tracks with fewer
windows are left out. Of the features (docs/bundled_model), the clips with the most windows are
judged by heads that were fitted without their source or artist.

"same genre" and "same outcome" compare with all windows. An outcome is what a scan does: the genre
that it writes, a low score, or no music.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from docs.bundled_model.fit_head import (
    LEFT_OUT_GROUPS,
    PROBABILITY_FLOOR,
    TAG_WEIGHTS,
    compute_music_lead,
    fit_calibration_factor,
    fit_head_weights,
    load_features,
    make_left_out_groups,
    read_class_names,
    read_clips,
)
from tagger.audio import read_windows
from tagger.errors import TrackError
from tagger.models import find_model
from tagger.models.classifier import Classifier, use_one_thread
from tagger.models.loading import load_classifier
from tagger.records import MAX_NOT_MUSIC, normalize_label
from tagger.settings import Settings

WINDOWS = 8
FIXED = (2, 3, 4, 5, 6)
FIRST = (2, 3)
SCORES = (0.5, 0.6, 0.7, 0.8)
LEADS = (0.3, 0.5, 0.7)
GENRES = len(TAG_WEIGHTS)

Rule = Callable[[Tensor], Tensor]
"""Takes the logits (windows, labels) of a clip, returns those of the windows that it listens to."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Clips with the logits (windows, labels) of each, and their labels if these are known."""

    title: str
    clips: tuple[Tensor, ...]
    label: tuple[int, ...] = ()


@torch.inference_mode()
def compute_logits(path: Path, classifier: Classifier) -> Tensor | None:
    """Return the logits (windows, labels) of a clip; None where it cannot be decoded."""
    extractor = classifier.extractor
    try:
        recording = read_windows(
            path, rate_hz=extractor.rate_hz, window_s=extractor.window_s, count=WINDOWS
        )
    except TrackError:
        return None
    logits: Tensor = classifier.model(**extractor(recording.windows)).logits
    return logits.float()


def spread_windows(count: int) -> list[int]:
    """Return 0 to count - 1 in an order whose beginnings are spread evenly (van der Corput)."""
    return sorted(range(count), key=lambda i: int(f"{i:04b}"[::-1], 2))


def take_fixed(logits: Tensor, count: int) -> Tensor:
    """Take `count` evenly spread windows, as `--windows` does."""
    count = min(count, len(logits))
    return logits[((torch.arange(count) + 0.5) * len(logits) / count).long()]


def take_until(logits: Tensor, is_enough: Callable[[float, float], bool], first: int) -> Tensor:
    """Take windows until the two best scores of those taken are enough."""
    order = spread_windows(len(logits))
    for used in range(min(first, len(order)), len(order)):
        best, second = logits[order[:used]].mean(0).softmax(0).topk(2).values.tolist()
        if is_enough(best, second):
            return logits[order[:used]]
    return logits


def list_rules() -> Iterator[tuple[str, Rule]]:
    for count in FIXED:
        yield f"{count} windows", partial(take_fixed, count=count)
    for first in FIRST:
        for bound in SCORES:
            reaches = lambda best, _, bound=bound: best >= bound  # noqa: E731
            name = f"{first}, then until a score of {bound}"
            yield name, partial(take_until, is_enough=reaches, first=first)
        for lead in LEADS:
            leads = lambda best, second, lead=lead: best - second >= lead  # noqa: E731
            name = f"{first}, then until a lead of {lead}"
            yield name, partial(take_until, is_enough=leads, first=first)
    yield "all windows", lambda logits: logits


def decide_outcome(logits: Tensor) -> int:
    """Return the number of the genre that a scan would write, -1 for a low score, -2 for no music.

    logits: those of the windows, (windows, labels).
    """
    scores = logits.mean(0).softmax(0)
    if scores[GENRES:].sum() > MAX_NOT_MUSIC:
        return -2
    best, number = scores[:GENRES].max(0)
    return int(number) if best >= Settings().min_score.default else -1


def find_best(logits: Tensor) -> int:
    return int(logits.mean(0).argmax())


def format_table(sample: Sample) -> Iterator[str]:
    """Yield a Markdown table of all rules."""
    yield f"{sample.title}: {len(sample.clips)} clips"
    yield "| | windows saved | same genre | same outcome | right | written | of these right |"
    yield "|---|---|---|---|---|---|---|"
    total = sum(len(clip) for clip in sample.clips)
    best = np.array([find_best(clip) for clip in sample.clips])
    outcome = np.array([decide_outcome(clip) for clip in sample.clips])
    for name, rule in list_rules():
        taken = [rule(clip) for clip in sample.clips]
        found = np.array([find_best(logits) for logits in taken])
        decided = np.array([decide_outcome(logits) for logits in taken])
        shares = [
            1 - sum(len(logits) for logits in taken) / total,
            np.mean(found == best),
            np.mean(decided == outcome),
        ]
        if sample.label:
            label, written = np.array(sample.label), decided >= 0
            shares += [
                np.mean(found == label),
                np.mean(written),
                np.mean((decided == label)[written]),
            ]
        yield f"| {name} | {' | '.join(f'{share:.1%}' for share in shares)} |"


def read_folder(
    folder: Path, classifier: Classifier, labels: Sequence[str] | None = None
) -> Sample:
    """Listen to all files below a folder that can be decoded.

    labels: those of the model, where the files are in folders named like them. Without labels, only
    tracks with WINDOWS windows are kept.
    """
    clips, label = [], []
    for path in sorted(folder.rglob("*.*")):
        logits = compute_logits(path, classifier)
        if logits is not None and (labels or len(logits) == WINDOWS):
            clips.append(logits)
            label += [labels.index(normalize_label(path.parent.name))] if labels else []
    return Sample(folder.name, tuple(clips), tuple(label))


def read_left_out(features: Path) -> Sample:
    """Score the windows of whole clips of music, each with a head fitted without its group."""
    clips, data = read_clips(features, read_class_names()), load_features(features)
    counts = data["windows"].tolist()
    inputs = torch.from_numpy(np.concatenate([data["tag_logits"], data["embedding"]], 1))
    probabilities = torch.from_numpy(data["tag_logits"]).sigmoid()
    mapped = (probabilities @ clips.tag_map.T + PROBABILITY_FLOOR).log()
    inputs_by_clip, mapped_by_clip = inputs.split(counts), mapped.split(counts)
    group = make_left_out_groups(clips) % LEFT_OUT_GROUPS  # eight fits are enough here
    windows: dict[int, Tensor] = {}
    for number in np.unique(group):
        head = fit_head_weights(clips, np.flatnonzero(group != number))
        for row in np.flatnonzero(group == number).tolist():
            clip = int(clips.number[row])
            correction = inputs_by_clip[clip] @ head.weight.T + head.bias
            windows[row] = head.sharpness * mapped_by_clip[clip] + correction
    pooled = torch.stack([windows[row].mean(0) for row in range(len(windows))])
    factor = fit_calibration_factor(clips, pooled)
    lead = compute_music_lead(clips, pooled * factor) * (torch.arange(pooled.shape[1]) >= GENRES)
    most = max(counts)
    is_kept = clips.is_music & ~clips.excerpt & (data["windows"][clips.number] == most)
    rows = np.flatnonzero(is_kept).tolist()
    return Sample(
        f"left out, {most} windows each",
        tuple(windows[row] * factor - lead for row in rows),
        tuple(clips.label[rows].tolist()),
    )


def read_samples(options: argparse.Namespace) -> Iterator[Sample]:
    if options.features:
        with use_one_thread():
            yield read_left_out(options.features)
    settings = Settings()
    classifier = load_classifier(find_model(settings), settings)
    labels = [normalize_label(label) for label in classifier.labels]
    if options.gtzan:
        yield read_folder(options.gtzan, classifier, labels)
    if options.music:
        yield read_folder(options.music, classifier)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gtzan", type=Path)
    parser.add_argument("--music", type=Path)
    parser.add_argument("--features", type=Path)
    for sample in read_samples(parser.parse_args()):
        sys.stdout.write("\n".join(format_table(sample)) + "\n\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
