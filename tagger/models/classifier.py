"""A loaded classifier: how windows become its inputs, and its logits become scores."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tagger.errors import ModelError, TaggerError
from tagger.models.sources import ModelSource
from tagger.records import MAX_NOT_MUSIC, AttributeLabels, Attributes, Score

MAX_SHORT_INPUT_S = 5.0
"""Inputs up to this length make small layers, so that each CPU core can have its own."""

DEFAULT_TOTAL_S = 30.0
MAX_DEFAULT_WINDOWS = 8
"""By default a track is predicted from half a minute of sound, in a limited number of windows."""

LARGE_PAGES_VARIABLE = "THP_MEM_ALLOC_ENABLE"
"""Makes torch put large blocks into large pages (Linux); read when torch first takes memory."""

ModelInputs = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class WindowFeatureExtractor:
    """A checkpoint's feature extractor, and the sound that it takes; small and picklable.

    input_s: the length of the network's input for each window; some extractors pad the window to a
    fixed length.
    """

    feature_extractor: Callable[..., Any]
    rate_hz: int
    window_s: float
    input_s: float

    @property
    def window_count(self) -> int:
        """The number of windows of a track, where the user does not say."""
        return max(1, min(MAX_DEFAULT_WINDOWS, round(DEFAULT_TOTAL_S / self.window_s)))

    def __call__(self, windows: Sequence[NDArray[np.float32]]) -> ModelInputs:
        """Turn windows (n,) of one length into tensors whose first axis counts the windows.

        Each window goes through the extractor alone. Of several windows, CLAP's extractor picks one
        at random to count as a long one, and other extractors pad.
        """
        features = [
            self.feature_extractor([window], sampling_rate=self.rate_hz, return_tensors="pt")
            for window in windows
        ]
        return {name: torch.cat([each[name] for each in features]) for name in features[0]}


@dataclass(frozen=True, slots=True)
class Classifier:
    """A loaded checkpoint.

    not_music: the labels of sound that is no music, in few models. The logits are those of the
    labels, then those of the attribute_labels, if there are any.
    """

    identity: str
    labels: tuple[str, ...]
    multi_label: bool
    model: torch.nn.Module
    extractor: WindowFeatureExtractor
    not_music: frozenset[str] = frozenset()
    attribute_labels: AttributeLabels = field(default_factory=AttributeLabels)

    def pool(self, logits: torch.Tensor) -> torch.Tensor:
        """Pool the logits (windows, all labels) of a track: their mean, (all labels,).

        Windows without music do not count among others with music, unless they are the majority.
        Then only they count.
        """
        if not self.not_music:
            return logits.mean(0)
        other = [number for number, label in enumerate(self.labels) if label in self.not_music]
        probabilities = logits[:, : len(self.labels)].softmax(-1)
        has_music = probabilities[:, other].sum(-1) <= MAX_NOT_MUSIC
        is_music = 2 * int(has_music.sum()) >= len(logits)
        return logits[has_music == is_music].mean(0)

    def make_scores(self, logits: torch.Tensor) -> tuple[Score, ...]:
        """Turn logits (all labels,), of one window or pooled, into scores, best first."""
        own = logits[: len(self.labels)]
        return _rank(self.labels, own.sigmoid() if self.multi_label else own.softmax(-1))

    def make_attributes(self, logits: torch.Tensor) -> Attributes:
        """Turn logits (all labels,) into styles, moods and voices."""
        styles, moods, voices = (
            tuple(self.attribute_labels.styles),
            self.attribute_labels.moods,
            self.attribute_labels.voices,
        )
        sizes = [len(self.labels), len(styles), len(moods), len(voices)]
        _, style, mood, voice = logits.split(sizes)
        return Attributes(
            _rank(styles, style.sigmoid()),
            _rank(moods, mood.softmax(-1)),
            _rank(voices, voice.softmax(-1)),
        )


def _rank(labels: Sequence[str], probabilities: torch.Tensor) -> tuple[Score, ...]:
    ranked = probabilities.sort(descending=True, stable=True)
    pairs = zip(ranked.indices.tolist(), ranked.values.tolist(), strict=True)
    return tuple(Score(labels[index], probability) for index, probability in pairs)


def make_classifier(
    source: ModelSource,
    model: torch.nn.Module,
    extractor: WindowFeatureExtractor,
    problem_type: object,
) -> Classifier:
    """Return a loaded network with what its source says of it."""
    return Classifier(
        source.identity,
        source.labels,
        multi_label=problem_type == "multi_label_classification",
        model=model.eval(),
        extractor=extractor,
        not_music=source.not_music,
        attribute_labels=source.attribute_labels,
    )


def prepare_memory(extractor: WindowFeatureExtractor) -> None:
    """Make torch use large pages for networks with large layers; call it before the weights."""
    if extractor.input_s > MAX_SHORT_INPUT_S:
        os.environ.setdefault(LARGE_PAGES_VARIABLE, "1")


@contextmanager
def use_one_thread() -> Iterator[None]:
    """Let torch work in the calling thread alone.

    Copies gain nothing from more threads, and waiting threads spin: sixteen took most of sixteen
    cores away from decoding. With one thread, sums also have one order, and round the same way.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


LOAD_ERROR_REASONS = {
    "trust_remote_code": "it brings code of its own, which --trust-remote-code would run",
    "ignore_mismatched_sizes": "its weights do not fit its configuration",
    "Weights only load failed": "its pickled weights hold more than weights",
}
"""Phrase in an error of transformers or torch that is long or gives bad advice -> our reason."""


@contextmanager
def translate_load_errors(source: ModelSource) -> Iterator[None]:
    """Turn any error of loading into a ModelError of one line; suppress warnings."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except TaggerError:
        raise
    except Exception as error:
        text = str(error).strip() or type(error).__name__
        first_lines = "; ".join(line.strip() for line in text.splitlines()[:2] if line.strip())
        reasons = (reason for phrase, reason in LOAD_ERROR_REASONS.items() if phrase in text)
        reason = next(reasons, first_lines)
        raise ModelError(f"the model {source.name} cannot be loaded: {reason}") from error
