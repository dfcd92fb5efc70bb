"""The bundled genre model: musicnn's towers and YAMNet hear each window, one head names its genre.

`tagger.models.musicnn` and `tagger.models.yamnet` name the papers. The model takes samples and
makes the log-mel frames of both networks itself, so a window crosses to a GPU once.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, initialization

from tagger.models.musicnn.feature_extraction import MusicnnFeatureExtractor, compute_log_mel
from tagger.models.musicnn.modeling import GenreHead, MusicnnModel, MusicnnOutput
from tagger.models.musicnn_yamnet.configuration import MusicnnYamnetConfig
from tagger.models.patches import average_by_clip, cut_patches
from tagger.models.yamnet.modeling import LogMel as YamnetLogMel
from tagger.models.yamnet.modeling import YamnetModel


@dataclass
class MusicnnYamnetOutput(MusicnnOutput):
    """The same with attribute_logits: (clips, styles + moods + voices)."""

    attribute_logits: Tensor | None = None


class MusicnnLogMel(nn.Module):
    """Turns samples into the log-mel frames of `MusicnnFeatureExtractor`.

    Window and filters are constants, not weights.
    """

    window: Tensor
    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        extractor = MusicnnFeatureExtractor()
        self.hop_length = extractor.hop_length
        self.register_buffer("window", extractor.window, persistent=False)
        self.register_buffer("filters", extractor.mel_filters, persistent=False)

    @torch.no_grad()
    def reset_constants(self) -> None:
        """Compute the constants anew, where the model was made without memory and filled later."""
        extractor = MusicnnFeatureExtractor()
        initialization.copy_(self.window, extractor.window)
        initialization.copy_(self.filters, extractor.mel_filters)

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


class MusicnnYamnetPreTrainedModel(PreTrainedModel):
    """The common base of the models: configuration class, names, initial weights."""

    config_class = MusicnnYamnetConfig
    base_model_prefix = "networks"
    main_input_name = "input_values"
    has_fast_half_precision = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, MusicnnLogMel | YamnetLogMel):
            module.reset_constants()
        elif isinstance(module, GenreHead):
            initialization.zeros_(module.tag_map)
            initialization.ones_(module.sharpness)
        elif isinstance(module, FixedLinear):
            initialization.zeros_(module.weight)
            initialization.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            initialization.normal_(module.weight, std=self.config.initializer_range)
            initialization.zeros_(module.bias)


class MusicnnYamnetModel(MusicnnYamnetPreTrainedModel):
    """Both networks: windows (n, samples) -> tag logits (n, 621) and embedding (n, 1424).

    Styles, moods and voices belong to it, not to the head for genres: a newly trained head keeps
    them. They are not trained.
    """

    def __init__(self, config: MusicnnYamnetConfig) -> None:
        super().__init__(config)
        musicnn, yamnet = config.musicnn_config, config.yamnet_config
        self.musicnn_log_mel = MusicnnLogMel()
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
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        musicnn_tags, musicnn_embedding = self.musicnn(self.musicnn_log_mel(windows))
        patches, counts = cut_patches(self.yamnet_log_mel(windows), None, *self.patch)
        yamnet_embedding = average_by_clip(self.yamnet(patches), counts)
        yamnet_classes = self.yamnet_classifier(yamnet_embedding)
        tag_logits = torch.cat([musicnn_tags, yamnet_classes], 1)
        return tag_logits, torch.cat([musicnn_embedding, yamnet_embedding], 1)


class MusicnnYamnetForAudioClassification(MusicnnYamnetPreTrainedModel):
    """Genre logits of clips of any length: the mean over the windows of each clip.

    A clip shorter than a window is repeated to fill one.
    """

    def __init__(self, config: MusicnnYamnetConfig) -> None:
        super().__init__(config)
        self.networks = MusicnnYamnetModel(config)
        self.head = GenreHead(
            self.networks.tags, self.networks.embedding_size, config.num_labels or 0
        )
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> MusicnnYamnetOutput:
        """Classify clips (clips, samples), padded on the right; labels: (clips,).

        The output has the tag logits of musicnn's tags, then AudioSet's classes (clips, 621), and
        the embeddings of musicnn, then YAMNet (clips, 1424).
        """
        lengths = None if attention_mask is None else attention_mask.sum(1)
        size = self.config.window_samples
        windows, counts = cut_patches(input_values.unsqueeze(2), lengths, size, hop=size)
        tag_logits, embedding = self.networks(windows.squeeze(2))
        output = MusicnnYamnetOutput(**self.head.score_clips(tag_logits, embedding, counts, labels))
        if self.config.attributes:
            attributes = self.networks.attribute_head(tag_logits, embedding)
            output.attribute_logits = average_by_clip(attributes, counts)
        return output
