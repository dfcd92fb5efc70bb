"""What the bundled genre model is made of: its two networks, and the labels beside the genres."""

from dataclasses import dataclass, field
from typing import Any

from tagger.models.musicnn.configuration import MusicnnArchitecture
from tagger.models.yamnet.configuration import YamnetArchitecture


@dataclass(kw_only=True)
class MusicnnYamnetArchitecture:
    """The values of config.json that shape the network.

    musicnn, yamnet: what differs from the default architectures of the networks. window_samples:
    the length of a window, which is one patch of musicnn and several overlapping patches of YAMNet.
    not_music: the labels of sound that is no music. styles: style -> the label of its genre.
    moods, voices: labels of which one holds.
    """

    musicnn: dict[str, Any] = field(default_factory=dict)
    yamnet: dict[str, Any] = field(default_factory=dict)
    window_samples: int = 186 * 256
    audioset_classes: int = 521
    not_music: list[str] = field(default_factory=list)
    styles: dict[str, str] = field(default_factory=dict)
    moods: list[str] = field(default_factory=list)
    voices: list[str] = field(default_factory=list)

    @property
    def attributes(self) -> list[str]:
        """All labels beside the genres, in the order of the model's attribute logits.

        transformers sorts the keys of a mapping when it saves config.json.
        """
        return [*sorted(self.styles), *self.moods, *self.voices]

    @property
    def musicnn_architecture(self) -> MusicnnArchitecture:
        return MusicnnArchitecture(**self.musicnn)

    @property
    def yamnet_architecture(self) -> YamnetArchitecture:
        return YamnetArchitecture(**self.yamnet)
