"""The bundled genre model: musicnn's towers and YAMNet hear each window, one head names its genre.

`tagger.models.musicnn` and `tagger.models.yamnet` name the papers. The model takes samples and
makes the log-mel frames of both networks itself, so a window crosses to a GPU once.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from tagger.models.musicnn.feature_extraction import MusicnnFeatures, compute_log_mel
from tagger.models.musicnn.modeling import GenreHead, MusicnnModel
from tagger.models.musicnn_yamnet.configuration import MusicnnYamnetArchitecture
from tagger.models.patches import AudioClassifier, ClassifierOutput, average_by_clip, cut_patches
from tagger.models.yamnet.modeling import LogMel as YamnetLogMel
from tagger.models.yamnet.modeling import YamnetModel


class MusicnnLogMel(nn.Module):
    """Turns samples into the log-mel frames of `MusicnnFeatures`.

    Window and filters are constants, not weights.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.bands = bands
        self.hop_length = MusicnnFeatures.hop_length
        window, filters = self.make_constants()
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", filters, persistent=False)

    def make_constants(self) -> tuple[Tensor, Tensor]:
        """Compute window and filters."""
        features = MusicnnFeatures(feature_size=self.bands)
        return features.window, features.mel_filters

    def forward(self, samples: Tensor) -> Tensor:
        """Turn samples (clips, n) into float32 frames (clips, frames, bands)."""
        with torch.autocast(samples.device.type, enabled=False):
            return compute_log_mel(samples.float(), self.window, self.filters, self.hop_length)


class FixedLinear(nn.Module):
    """A linear layer that comes with the checkpoint and is not trained."""

    weight: Tensor
    bias: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(outputs, inputs))
        self.register_buffer("bias", torch.zeros(outputs))

    def forward(self, values: Tensor) -> Tensor:
        return nn.functional.linear(values, self.weight, self.bias)


class MusicnnYamnetModel(nn.Module):
    """Both networks: windows (n, samples) -> tag logits (n, 621) and embedding (n, 1424).

    Styles, moods and voices belong to it, not to the head for genres: a newly trained head keeps
    them. They are not trained.
    """

    def __init__(self, config: MusicnnYamnetArchitecture) -> None:
        super().__init__()
        musicnn, yamnet = config.musicnn_architecture, config.yamnet_architecture
        self.musicnn_log_mel = MusicnnLogMel(musicnn.num_mel_bins)
        self.musicnn = MusicnnModel(musicnn)
        self.yamnet_log_mel = YamnetLogMel(yamnet.num_mel_bins)
        self.yamnet = YamnetModel(yamnet)
        self.yamnet_classifier = nn.Linear(yamnet.blocks[-1][0], config.audioset_classes)
        self.patch = yamnet.patch_frames, yamnet.patch_hop
        self.tags = len(musicnn.tags) + config.audioset_classes
        self.embedding_size = len(musicnn.towers) * musicnn.embedding_size + yamnet.blocks[-1][0]
        if config.attributes:
            labels = len(config.attributes)
            self.attribute_head = GenreHead(self.tags, self.embedding_size, labels)
            self.attribute_head.linear = FixedLinear(self.tags + self.embedding_size, labels)

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        musicnn_tags, musicnn_embedding = self.musicnn(self.musicnn_log_mel(windows))
        patches, counts = cut_patches(self.yamnet_log_mel(windows), None, *self.patch)
        yamnet_embedding = average_by_clip(self.yamnet(patches), counts)
        yamnet_classes = self.yamnet_classifier(yamnet_embedding)
        tag_logits = torch.cat([musicnn_tags, yamnet_classes], 1)
        return tag_logits, torch.cat([musicnn_embedding, yamnet_embedding], 1)


class MusicnnYamnetClassifier(AudioClassifier):
    """Genre logits of clips of any length: the mean over the windows of each clip.

    A clip shorter than a window is repeated to fill one.
    """

    has_fast_half_precision = True

    def add_layers(self, config: MusicnnYamnetArchitecture, labels: int) -> None:
        self.window_samples = config.window_samples
        self.has_attributes = bool(config.attributes)
        self.networks = MusicnnYamnetModel(config)
        self.head = GenreHead(self.networks.tags, self.networks.embedding_size, labels)

    def forward(
        self, input_values: Tensor, attention_mask: Tensor | None = None
    ) -> ClassifierOutput:
        """Classify clips (clips, samples), padded on the right.

        The output has the tag logits of musicnn's tags, then AudioSet's classes (clips, 621), and
        the embeddings of musicnn, then YAMNet (clips, 1424).
        """
        lengths = None if attention_mask is None else attention_mask.sum(1)
        size = self.window_samples
        windows, counts = cut_patches(input_values.unsqueeze(2), lengths, size, hop=size)
        tag_logits, embedding = self.networks(windows.squeeze(2))
        output = self.head.score_clips(tag_logits, embedding, counts)
        if not self.has_attributes:
            return output
        attributes = self.networks.attribute_head(tag_logits, embedding)
        return replace(output, attribute_logits=average_by_clip(attributes, counts))
