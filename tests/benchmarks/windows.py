"""Compare fixed numbers of windows with adaptive ones, which depend on how close two genres are.

    python tests/benchmarks/windows.py GTZAN_FOLDER [--music FOLDER]

The network runs once on WINDOWS windows of each clip; then the rules are tried on the logits. An
adaptive rule takes windows spread over the clip: two at first, and two more as long as the best
genre leads by less than a margin. GTZAN_FOLDER has a folder of clips for each genre. With --music,
a library without labels, a second table shows how often a rule names the same genre as all windows
do. The seconds are the average time to decode and predict a window here, times the windows.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tagger.audio import read_windows
from tagger.errors import TrackError
from tagger.models import find_model
from tagger.models.classifier import Classifier
from tagger.models.loading import load_classifier
from tagger.records import normalize_label
from tagger.settings_sources import load_settings

WINDOWS = 8
MARGINS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
FIXED = (1, 2, 3, 4, 6, 8)
WINDOWS_PER_STEP = 2
BOOTSTRAP_DRAWS = 2000


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
    return logits


def spread_windows(count: int) -> list[int]:
    """Return 0 to count - 1 in an order whose beginnings are spread evenly (van der Corput)."""
    return sorted(range(count), key=lambda i: int(f"{i:04b}"[::-1], 2))


def pool_fixed(logits: Tensor, count: int) -> tuple[Tensor, int]:
    """Pool `count` evenly spread windows; return probabilities and the number of windows."""
    count = min(count, len(logits))
    index = ((torch.arange(count) + 0.5) * len(logits) / count).long()
    return logits[index].mean(0).softmax(0), count


def pool_adaptive(logits: Tensor, margin: float) -> tuple[Tensor, int]:
    """Pool windows until the lead is as large as the margin; return as `pool_fixed`."""
    order = spread_windows(len(logits))
    for used in range(min(WINDOWS_PER_STEP, len(order)), len(order) + 1, WINDOWS_PER_STEP):
        probabilities = logits[order[:used]].mean(0).softmax(0)
        best, second = probabilities.topk(2).values
        if best - second >= margin:
            return probabilities, used
    return logits.mean(0).softmax(0), len(order)


def apply_rules(clips: Sequence[Tensor]) -> Iterator[tuple[str, list[tuple[Tensor, int]]]]:
    for count in FIXED:
        yield f"{count} windows", [pool_fixed(each, count) for each in clips]
    for margin in MARGINS:
        yield f"until a lead of {margin}", [pool_adaptive(each, margin) for each in clips]


def format_table(
    clips: Sequence[Tensor], right: Sequence[int], seconds: float, first: str
) -> Iterator[str]:
    """Yield a Markdown table; `right` is the label that counts, `seconds` those of a window."""
    yield f"| | windows a track | seconds | {first} | 95 % |"
    yield "|---|---|---|---|---|"
    draws = np.random.default_rng(0).integers(0, len(clips), (BOOTSTRAP_DRAWS, len(clips)))
    for name, results in apply_rules(clips):
        hits = np.array(
            [int(p.argmax()) == label for (p, _), label in zip(results, right, strict=True)]
        )
        low, high = np.quantile(hits[draws].mean(1), (0.025, 0.975))
        windows = np.mean([count for _, count in results])
        spent = f"{windows:.1f} | {windows * seconds:.3f}"
        yield f"| {name} | {spent} | {hits.mean():.1%} | {low:.0%} to {high:.0%} |"


def predict_all(
    paths: Sequence[Path], classifier: Classifier
) -> tuple[list[tuple[Path, Tensor]], float]:
    """Return the logits of all files that can be decoded, and the mean seconds of a window."""
    started = time.perf_counter()
    tried = [(path, compute_logits(path, classifier)) for path in paths]
    seconds = time.perf_counter() - started
    clips = [(path, logits) for path, logits in tried if logits is not None]
    return clips, seconds / max(1, sum(len(logits) for _, logits in clips))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("gtzan", type=Path)
    parser.add_argument("--music", type=Path)
    options = parser.parse_args()
    settings = load_settings({})
    classifier = load_classifier(find_model(settings), settings)
    labels = [normalize_label(label) for label in classifier.labels]
    genres = {normalize_label(folder.name) for folder in options.gtzan.iterdir()}
    known = [index for index, label in enumerate(labels) if label in genres]
    labelled, seconds = predict_all(sorted(options.gtzan.rglob("*.*")), classifier)
    clips = [logits[:, known] for _, logits in labelled]
    right = [known.index(labels.index(normalize_label(path.parent.name))) for path, _ in labelled]
    table = format_table(clips, right, seconds, "right, among its labels")
    sys.stdout.write("\n".join(table) + "\n\n")
    if options.music:
        unlabelled, seconds = predict_all(sorted(options.music.rglob("*.*")), classifier)
        songs = [logits for _, logits in unlabelled if len(logits) == WINDOWS]
        whole = [int(each.mean(0).argmax()) for each in songs]
        sys.stdout.write(
            "\n".join(format_table(songs, whole, seconds, f"as {WINDOWS} windows")) + "\n"
        )


if __name__ == "__main__":
    main()
