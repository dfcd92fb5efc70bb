"""YAMNet: MobileNet v1 on log-mel patches, trained on AudioSet's 521 kinds of sound.

Manoj Plakal and Dan Ellis, 2019: github.com/tensorflow/models, research/audioset/yamnet. The
network is that of Howard et al., "MobileNets", arXiv 1704.04861; the data is that of Gemmeke et
al., "Audio Set", ICASSP 2017. The batch norms are folded into the convolutions.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, initialization
from transformers.audio_utils import mel_filter_bank
from transformers.utils.generic import ModelOutput

from tagger.models.patches import average_by_clip, cut_patches
from tagger.models.yamnet.configuration import YamnetConfig

RATE_HZ = 16_000
FFT_LENGTH = 512
FRAME_LENGTH, HOP_LENGTH = 400, 160
"""Frames of 25 ms begin every 10 ms; their numbers of samples."""
MIN_FREQUENCY_HZ, MAX_FREQUENCY_HZ = 125.0, 7500.0
LOG_OFFSET = 0.001

PATCHES_AT_ONCE = {"cpu": 20}
"""Patches that go through the network together, by type of device. More leave the CPU's cache."""


@dataclass
class YamnetOutput(ModelOutput):
    """The outputs for each clip: means over the clip's patches.

    logits: (clips, labels). embedding: (clips, 1024).
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    embedding: Tensor | None = None


class LogMel(nn.Module):
    """Turns samples into log(mel magnitude + 0.001), in HTK's bands.

    Spectra are computed in float64, where the device has it: the logarithm shows the rounding
    errors of float32 in bands without sound. Window and filters are constants, not weights.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.bands = bands
        window, filters = self._make_constants()
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", filters, persistent=False)

    @torch.no_grad()
    def reset_constants(self) -> None:
        """Compute the constants anew, where the model was made without memory and filled later."""
        window, filters = self._make_constants()
        initialization.copy_(self.window, window)
        initialization.copy_(self.filters, filters)

    def _make_constants(self) -> tuple[Tensor, Tensor]:
        filters: NDArray[np.float64] = mel_filter_bank(
            num_frequency_bins=FFT_LENGTH // 2 + 1,
            num_mel_filters=self.bands,
            min_frequency=MIN_FREQUENCY_HZ,
            max_frequency=MAX_FREQUENCY_HZ,
            sampling_rate=RATE_HZ,
            norm=None,
            mel_scale="htk",
            triangularize_in_mel_space=True,
        )
        window = torch.hann_window(FRAME_LENGTH, dtype=torch.float64)
        return window, torch.from_numpy(filters).float()

    def count_frames(self, samples: Tensor) -> Tensor:
        """Return the number of whole frames of clips with this many samples; at least one."""
        return ((samples - FRAME_LENGTH) // HOP_LENGTH + 1).clamp(min=1)

    def forward(self, samples: Tensor) -> Tensor:
        """Turn samples (clips, n) into float32 frames (clips, frames, bands)."""
        padded = nn.functional.pad(samples, (0, max(0, FRAME_LENGTH - samples.shape[-1])))
        dtype = torch.float32 if samples.device.type == "mps" else torch.float64
        with torch.autocast(samples.device.type, enabled=False):
            frames = padded.to(dtype).unfold(-1, FRAME_LENGTH, HOP_LENGTH)
            magnitude = torch.fft.rfft(frames * self.window.to(dtype), FFT_LENGTH).abs()
            mel: Tensor = magnitude.float() @ self.filters
        return mel.add_(LOG_OFFSET).log_()


class SameConvolution(nn.Conv2d):
    """A 3 x 3 convolution with TensorFlow's "same" padding, and ReLU.

    For sides of even length a stride of 2 pads below and on the right only.
    """

    def __init__(self, channels: int, filters: int, stride: int, groups: int = 1) -> None:
        padding = 1 if stride == 1 else 0
        super().__init__(channels, filters, 3, stride, padding, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] > 1:
            x = functional.pad(x, (0, 1, 0, 1))
        return functional.relu_(super().forward(x))


class SeparableBlock(nn.Module):
    """A depthwise convolution and a pointwise one, each with ReLU."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.depthwise = SameConvolution(channels, channels, stride, groups=channels)
        self.pointwise = nn.Conv2d(channels, filters, 1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu_(self.pointwise(self.depthwise(x)))


class YamnetPreTrainedModel(PreTrainedModel):
    """The common base of the models: configuration class, names, initial weights."""

    config_class = YamnetConfig
    base_model_prefix = "yamnet"
    main_input_name = "input_values"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d | nn.Linear):
            initialization.normal_(module.weight, std=self.config.initializer_range)
            if module.bias is not None:
                initialization.zeros_(module.bias)
        elif isinstance(module, LogMel):
            module.reset_constants()


class YamnetModel(YamnetPreTrainedModel):
    """Patches (n, frames, bands) -> embeddings (n, filters of the last block)."""

    def __init__(self, config: YamnetConfig) -> None:
        super().__init__(config)
        self.first = SameConvolution(1, config.first_filters, 2)
        sizes = [config.first_filters, *(filters for filters, _ in config.blocks)]
        self.blocks = nn.Sequential(
            *(
                SeparableBlock(channels, filters, stride)
                for channels, (filters, stride) in zip(sizes, config.blocks, strict=False)
            )
        )
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, patches: Tensor) -> Tensor:
        size = PATCHES_AT_ONCE.get(patches.device.type, max(1, len(patches)))
        return torch.cat([self._embed(part) for part in patches.split(size)])

    def _embed(self, patches: Tensor) -> Tensor:
        maps: Tensor = self.first(patches.unsqueeze(1))
        # With the channels last, a CPU takes half the time for the depthwise convolutions.
        maps = self.blocks(maps.contiguous(memory_format=torch.channels_last))
        return maps.mean((2, 3))


class YamnetForAudioClassification(YamnetPreTrainedModel):
    """Logits of clips of any length: the mean over the patches of each clip."""

    def __init__(self, config: YamnetConfig) -> None:
        super().__init__(config)
        self.log_mel = LogMel(config.num_mel_bins)
        self.yamnet = YamnetModel(config)
        self.classifier = nn.Linear(config.blocks[-1][0], config.num_labels or 0)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> YamnetOutput:
        """Classify clips (clips, samples), padded on the right; labels: (clips, labels), 0 or 1."""
        frames = self.log_mel(input_values)
        samples = None if attention_mask is None else attention_mask.sum(1)
        lengths = None if samples is None else self.log_mel.count_frames(samples)
        config = self.config
        patches, counts = cut_patches(frames, lengths, config.patch_frames, config.patch_hop)
        embedding = average_by_clip(self.yamnet(patches.to(self.dtype)), counts)
        logits = self.classifier(embedding)  # linear: the mean of the patches' logits
        loss = (
            None if labels is None else functional.binary_cross_entropy_with_logits(logits, labels)
        )
        return YamnetOutput(loss=loss, logits=logits, embedding=embedding)
