"""The configuration of the bundled genre model: those of its two networks."""

from dataclasses import field
from typing import Any, ClassVar

from transformers import PreTrainedConfig

from tagger.models.musicnn.configuration import MusicnnConfig
from tagger.models.yamnet.configuration import YamnetConfig


class MusicnnYamnetConfig(PreTrainedConfig):
    """The configuration of `MusicnnYamnetForAudioClassification`.

    musicnn, yamnet: what differs from the default configurations of the networks. window_samples:
    the length of a window, which is one patch of musicnn and several overlapping patches of YAMNet.
    not_music: the labels of sound that is no music. styles: style -> the label of its genre.
    moods, voices: labels of which one holds.
    """

    model_type = "musicnn-yamnet"
    # Trainer uses the other output, the logits, as predictions.
    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        "tag_logits",
        "embedding",
        "attribute_logits",
    ]

    musicnn: dict[str, Any] = field(default_factory=dict)
    yamnet: dict[str, Any] = field(default_factory=dict)
    sampling_rate: int = 16_000
    window_samples: int = 186 * 256
    audioset_classes: int = 521
    not_music: list[str] = field(default_factory=list)
    styles: dict[str, str] = field(default_factory=dict)
    moods: list[str] = field(default_factory=list)
    voices: list[str] = field(default_factory=list)
    initializer_range: float = 0.02

    @property
    def attributes(self) -> list[str]:
        """All labels beside the genres, in the order of the model's attribute logits.

        transformers sorts the keys of a mapping when it saves config.json.
        """
        return [*sorted(self.styles), *self.moods, *self.voices]

    @property
    def musicnn_config(self) -> MusicnnConfig:
        return MusicnnConfig(**self.musicnn)

    @property
    def yamnet_config(self) -> YamnetConfig:
        return YamnetConfig(**self.yamnet)
