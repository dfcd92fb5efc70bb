"""Any Hugging Face audio-classification checkpoint, told apart by its configuration alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import (
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    BatchFeature,
    PreTrainedModel,
)

from tagger.errors import ModelError
from tagger.models import musicnn
from tagger.models.names import Source
from tagger.records import Score

DEFAULT_WINDOW_S = 30.0
"""What a model listens to at once where its checkpoint does not say, as in GTZAN's clips."""

LOADING_ERRORS = (
    OSError, ValueError, KeyError, AttributeError, ImportError, RuntimeError, SafetensorError,
)  # fmt: skip
"""What loading a checkpoint raises where files are missing, broken, or of another kind of model."""

Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Extractor:
    """Windows of samples to a network's inputs; small, and fit to be sent to worker processes."""

    feature_extractor: Callable[..., BatchFeature]
    rate_hz: int
    window_s: float

    def __call__(self, windows: Sequence[NDArray[np.float32]]) -> Inputs:
        """Turn windows (n,) of one length into tensors whose first axis counts the windows."""
        features = self.feature_extractor(
            list(windows), sampling_rate=self.rate_hz, return_tensors="pt"
        )
        return dict(features)


@dataclass(frozen=True, slots=True)
class Classifier:
    """A loaded checkpoint. Pooling rule: a track's logits are the mean of its windows' logits."""

    identity: str
    labels: tuple[str, ...]
    multi_label: bool
    model: PreTrainedModel
    extractor: Extractor

    def logits(self, inputs: Inputs) -> torch.Tensor:
        """Run the network; returns float32 logits (windows, labels) on the CPU."""
        logits: torch.Tensor = self.model(**inputs).logits
        return logits.float().cpu()

    def scores(self, logits: torch.Tensor) -> tuple[Score, ...]:
        """Turn the pooled logits (labels,) of one track into scores, best first."""
        probabilities = logits.sigmoid() if self.multi_label else logits.softmax(-1)
        ranked = probabilities.sort(descending=True, stable=True)
        pairs = zip(ranked.indices.tolist(), ranked.values.tolist(), strict=True)
        return tuple(Score(self.labels[index], probability) for index, probability in pairs)


def load_classifier(source: Source) -> Classifier:
    """Load a checkpoint; safetensors only, and no remote code.

    Raises ModelError where that is impossible.
    """
    musicnn.register()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        feature_extractor = AutoFeatureExtractor.from_pretrained(
            source.location, revision=source.revision, trust_remote_code=False
        )
        model, loading = AutoModelForAudioClassification.from_pretrained(
            source.location,
            revision=source.revision,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
        rate_hz = feature_extractor.sampling_rate
    except LOADING_ERRORS as error:
        raise ModelError(
            f"the model {source.location} cannot be loaded: {_first_line(error)}"
        ) from error
    untrained = sorted(loading["missing_keys"]) + sorted(map(str, loading["mismatched_keys"]))
    if untrained:
        raise ModelError(
            f"{source.location} is no trained audio classifier: it lacks {untrained[0]}"
        )
    config = model.config
    return Classifier(
        identity=source.identity,
        labels=tuple(config.id2label[index] for index in range(config.num_labels)),
        multi_label=config.problem_type == "multi_label_classification",
        model=model.eval(),
        extractor=Extractor(feature_extractor, rate_hz, _window_s(feature_extractor)),
    )


def _window_s(feature_extractor: object) -> float:
    for name in ("chunk_length_s", "chunk_length"):  # musicnn's, Whisper's
        length_s = getattr(feature_extractor, name, None)
        if length_s:
            return float(length_s)
    return DEFAULT_WINDOW_S


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
