"""Show whether it pays to hear more of a track only while its two best genres are close.

    python tests/benchmarks/windows.py GTZAN_FOLDER [--music FOLDER]

Each clip is heard once, in WINDOWS windows; then fixed and adaptive ways are tried on the logits.
An adaptive way hears windows spread over the clip, two at first, and two more as long as the best
genre leads by less than a margin. The folder has a folder of clips for each genre. With --music, a
library without labels, it is shown how often a way names the same genre as all windows do. Seconds
are those that reading and hearing a window took here, on average, times the windows.
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
from tagger.models.checkpoint import Classifier, load_classifier
from tagger.records import normalize_label
from tagger.settings import load_settings

WINDOWS = 8
MARGINS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
FIXED = (1, 2, 3, 4, 6, 8)
STEP = 2
DRAWS = 2000


@torch.inference_mode()
def logits_of(path: Path, classifier: Classifier) -> Tensor | None:
    """Return the logits (windows, labels) of a clip; None where it cannot be heard."""
    extractor = classifier.extractor
    try:
        recording = read_windows(
            path, rate_hz=extractor.rate_hz, window_s=extractor.window_s, count=WINDOWS
        )
    except TrackError:
        return None
    logits: Tensor = classifier.model(**extractor(recording.windows)).logits
    return logits


def spread_order(count: int) -> list[int]:
    """Return 0 to count - 1 so that any first ones are spread over the whole (van der Corput)."""
    return sorted(range(count), key=lambda i: int(f"{i:04b}"[::-1], 2))


def fixed(logits: Tensor, count: int) -> tuple[Tensor, int]:
    """Pool `count` windows in even distances; return probabilities and windows heard."""
    count = min(count, len(logits))
    index = ((torch.arange(count) + 0.5) * len(logits) / count).long()
    return logits[index].mean(0).softmax(0), count


def adaptive(logits: Tensor, margin: float) -> tuple[Tensor, int]:
    order = spread_order(len(logits))
    for heard in range(min(STEP, len(order)), len(order) + 1, STEP):
        probabilities = logits[order[:heard]].mean(0).softmax(0)
        best, second = probabilities.topk(2).values
        if best - second >= margin:
            return probabilities, heard
    return logits.mean(0).softmax(0), len(order)


def ways(clips: Sequence[Tensor]) -> Iterator[tuple[str, list[tuple[Tensor, int]]]]:
    for count in FIXED:
        yield f"{count} windows", [fixed(each, count) for each in clips]
    for margin in MARGINS:
        yield f"until a lead of {margin}", [adaptive(each, margin) for each in clips]


def rows(
    clips: Sequence[Tensor], right: Sequence[int], seconds: float, first: str
) -> Iterator[str]:
    """Yield a Markdown table; `right` is the label that counts, `seconds` those of a window."""
    yield f"| | windows a track | seconds | {first} | 95 % |"
    yield "|---|---|---|---|---|"
    draws = np.random.default_rng(0).integers(0, len(clips), (DRAWS, len(clips)))
    for name, heard in ways(clips):
        hits = np.array(
            [int(p.argmax()) == label for (p, _), label in zip(heard, right, strict=True)]
        )
        low, high = np.quantile(hits[draws].mean(1), (0.025, 0.975))
        windows = np.mean([count for _, count in heard])
        spent = f"{windows:.1f} | {windows * seconds:.3f}"
        yield f"| {name} | {spent} | {hits.mean():.1%} | {low:.0%} to {high:.0%} |"


def hear(paths: Sequence[Path], classifier: Classifier) -> tuple[list[tuple[Path, Tensor]], float]:
    """Return the logits of all that can be heard, and the mean seconds of a window."""
    started = time.perf_counter()
    found = [(path, logits_of(path, classifier)) for path in paths]
    seconds = time.perf_counter() - started
    heard = [(path, logits) for path, logits in found if logits is not None]
    return heard, seconds / max(1, sum(len(logits) for _, logits in heard))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("gtzan", type=Path)
    parser.add_argument("--music", type=Path)
    options = parser.parse_args()
    settings = load_settings({})
    classifier = load_classifier(find_model(settings), settings)
    labels = [normalize_label(label) for label in classifier.labels]
    genres = {normalize_label(folder.name) for folder in options.gtzan.iterdir()}
    asked = [index for index, label in enumerate(labels) if label in genres]
    heard, seconds = hear(sorted(options.gtzan.rglob("*.*")), classifier)
    clips = [logits[:, asked] for _, logits in heard]
    right = [asked.index(labels.index(normalize_label(path.parent.name))) for path, _ in heard]
    table = rows(clips, right, seconds, "right, among its labels")
    sys.stdout.write("\n".join(table) + "\n\n")
    if options.music:
        heard, seconds = hear(sorted(options.music.rglob("*.*")), classifier)
        songs = [logits for _, logits in heard if len(logits) == WINDOWS]
        whole = [int(each.mean(0).argmax()) for each in songs]
        sys.stdout.write("\n".join(rows(songs, whole, seconds, f"as {WINDOWS} windows")) + "\n")


if __name__ == "__main__":
    main()
