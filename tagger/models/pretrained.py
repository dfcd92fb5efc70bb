"""The bundled models as classes of transformers, for its Auto classes, pipelines and Trainer.

A scan needs none of this: `tagger.models.loading` loads the same networks without transformers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    BatchFeature,
    PreTrainedConfig,
    PreTrainedModel,
    SequenceFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    initialization,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES
from transformers.utils.generic import ModelOutput

from tagger.models.musicnn.configuration import MusicnnArchitecture
from tagger.models.musicnn.feature_extraction import MusicnnFeatures, Samples
from tagger.models.musicnn.modeling import (
    FixedBatchNorm,
    GenreHead,
    MusicnnClassifier,
    PooledConvolution,
)
from tagger.models.musicnn_yamnet.configuration import MusicnnYamnetArchitecture
from tagger.models.musicnn_yamnet.modeling import (
    FixedLinear,
    MusicnnLogMel,
    MusicnnYamnetClassifier,
)
from tagger.models.patches import AudioClassifier, ClassifierOutput
from tagger.models.yamnet.configuration import YamnetArchitecture
from tagger.models.yamnet.modeling import LogMel as YamnetLogMel
from tagger.models.yamnet.modeling import YamnetClassifier

RawClips = NDArray[Any] | Sequence[float] | Sequence[ArrayLike]

OTHER_OUTPUTS = ["tag_logits", "embedding", "attribute_logits"]
"""What Trainer does not take for predictions."""


class MusicnnConfig(PreTrainedConfig, MusicnnArchitecture):
    """The configuration of `MusicnnForAudioClassification`."""

    model_type = "musicnn"
    keys_to_ignore_at_inference: ClassVar[list[str]] = OTHER_OUTPUTS

    initializer_range: float = 0.02


class YamnetConfig(PreTrainedConfig, YamnetArchitecture):
    """The configuration of `YamnetForAudioClassification`."""

    model_type = "yamnet"
    keys_to_ignore_at_inference: ClassVar[list[str]] = OTHER_OUTPUTS

    initializer_range: float = 0.02
    problem_type: (
        Literal["regression", "single_label_classification", "multi_label_classification"] | None
    ) = "multi_label_classification"


class MusicnnYamnetConfig(PreTrainedConfig, MusicnnYamnetArchitecture):
    """The configuration of `MusicnnYamnetForAudioClassification`."""

    model_type = "musicnn-yamnet"
    keys_to_ignore_at_inference: ClassVar[list[str]] = OTHER_OUTPUTS

    initializer_range: float = 0.02


@dataclass
class PreTrainedOutput(ModelOutput):
    """A `ClassifierOutput` with the loss, in the form that Trainer and pipelines take."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    tag_logits: Tensor | None = None
    embedding: Tensor | None = None
    attribute_logits: Tensor | None = None


class PreTrainedClassifier(PreTrainedModel, AudioClassifier):
    """The base of the models; each has the layers of a network of ours as its second base."""

    main_input_name = "input_values"

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.add_layers(config, config.num_labels or 0)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Any:
        """Classify clips, padded on the right; return a PreTrainedOutput.

        labels: (clips,), or (clips, labels) of 0 and 1 where several may hold.
        """
        output: ClassifierOutput = super().forward(input_values, attention_mask)
        loss = None if labels is None else self.compute_loss(output.logits, labels)
        return PreTrainedOutput(loss=loss, **vars(output))

    def compute_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.config.problem_type == "multi_label_classification":
            return functional.binary_cross_entropy_with_logits(logits, labels)
        return functional.cross_entropy(logits, labels)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        match module:
            case PooledConvolution() | nn.Conv1d() | nn.Conv2d() | nn.Linear():
                initialization.normal_(module.weight, std=self.config.initializer_range)
                if module.bias is not None:
                    initialization.zeros_(module.bias)
            case FixedBatchNorm():
                for tensor in (module.weight, module.running_var):
                    initialization.ones_(tensor)
                for tensor in (module.bias, module.running_mean):
                    initialization.zeros_(tensor)
            case GenreHead():
                initialization.zeros_(module.tag_map)
                initialization.ones_(module.sharpness)
            case FixedLinear():
                initialization.zeros_(module.weight)
                initialization.zeros_(module.bias)
            # transformers makes a model without memory for its constants, and fills it later.
            case MusicnnLogMel():
                window, filters = module.make_constants()
                initialization.copy_(module.window, window)
                initialization.copy_(module.filters, filters)
            case YamnetLogMel():
                initialization.copy_(module.filters, module.make_filters())


class MusicnnForAudioClassification(PreTrainedClassifier, MusicnnClassifier):
    """musicnn for transformers."""

    config_class = MusicnnConfig
    base_model_prefix = "musicnn"
    supports_gradient_checkpointing = True


class YamnetForAudioClassification(PreTrainedClassifier, YamnetClassifier):
    """YAMNet for transformers."""

    config_class = YamnetConfig
    base_model_prefix = "yamnet"


class MusicnnYamnetForAudioClassification(PreTrainedClassifier, MusicnnYamnetClassifier):
    """The bundled genre model for transformers."""

    config_class = MusicnnYamnetConfig
    base_model_prefix = "networks"
    supports_gradient_checkpointing = True


class MusicnnFeatureExtractor(MusicnnFeatures, SequenceFeatureExtractor):
    """Turn mono clips into `input_values` (clips, frames, 96) and `attention_mask` (clips, frames).

    `MusicnnFeatures` makes the frames.
    """

    model_input_names = ["input_values", "attention_mask"]  # noqa: RUF012 - as the base class has it

    def __init__(self, **kwargs: Any) -> None:
        names = {each.name for each in fields(MusicnnFeatures) if each.init}
        features = MusicnnFeatures(**{name: kwargs.pop(name) for name in names & kwargs.keys()})
        padding_value = kwargs.pop("padding_value", 0.0)
        chunk_length_s = kwargs.pop("chunk_length_s", features.chunk_length_s)
        super(MusicnnFeatures, self).__init__(
            features.feature_size, features.sampling_rate, padding_value, **kwargs
        )
        vars(self).update(vars(features))
        self.chunk_length_s = chunk_length_s  # a training may have set another length

    def __call__(
        self,
        raw_speech: RawClips,
        sampling_rate: int | None = None,
        return_tensors: str | None = None,
        max_length: int | None = None,
        *,
        truncation: bool = False,
        **_: Any,
    ) -> BatchFeature:
        """Make the features of one or more clips (samples,), zero-padded to the longest.

        With `truncation` each clip is first cut to `max_length` samples. The other arguments of
        Hugging Face's extractors (padding, return_attention_mask) are accepted and ignored.
        """
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise ValueError(f"musicnn takes {self.sampling_rate} Hz, not {sampling_rate} Hz")
        end = max_length if truncation else None
        frames = [self.log_mel(self.fill_window(clip[:end])) for clip in to_clip_list(raw_speech)]
        longest = max(map(len, frames))
        values = np.full((len(frames), longest, self.feature_size), self.padding_value, np.float32)
        mask = np.zeros((len(frames), longest), np.int64)
        for index, clip in enumerate(frames):
            values[index, : len(clip)] = clip
            mask[index, : len(clip)] = 1
        data = {"input_values": values, "attention_mask": mask}
        return BatchFeature(data, tensor_type=return_tensors)


def to_clip_list(raw_speech: RawClips) -> list[Samples]:
    """Return one or more clips as a list of float32 arrays (n,). Raises ValueError for stereo."""
    is_one_clip = len(raw_speech) == 0 or np.ndim(raw_speech[0]) == 0
    clips = [np.array(clip, np.float32) for clip in ([raw_speech] if is_one_clip else raw_speech)]
    if any(clip.ndim != 1 for clip in clips):
        raise ValueError("musicnn takes mono clips, each of shape (samples,)")
    return clips


def register_classifier(
    config: type[PreTrainedConfig],
    model: type[PreTrainedClassifier],
    feature_extractor: type[SequenceFeatureExtractor] = Wav2Vec2FeatureExtractor,
) -> None:
    """Register an audio classifier with the Auto classes and pipelines; may be called twice."""
    AutoConfig.register(config.model_type, config, exist_ok=True)
    AutoFeatureExtractor.register(config, feature_extractor, exist_ok=True)
    AutoModelForAudioClassification.register(config, model, exist_ok=True)
    # The pipeline looks up the class name here, and logs an error where it is missing.
    MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES.setdefault(config.model_type, model.__name__)


def register_musicnn() -> None:
    register_classifier(MusicnnConfig, MusicnnForAudioClassification, MusicnnFeatureExtractor)


def register_yamnet() -> None:
    register_classifier(YamnetConfig, YamnetForAudioClassification)


def register_musicnn_yamnet() -> None:
    register_classifier(MusicnnYamnetConfig, MusicnnYamnetForAudioClassification)
