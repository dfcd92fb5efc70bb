"""YAMNet: MobileNet v1 on log-mel patches, trained on AudioSet's 521 kinds of sound.

Manoj Plakal and Dan Ellis, 2019: github.com/tensorflow/models, research/audioset/yamnet. The
network is that of Howard et al., "MobileNets", arXiv 1704.04861; the data is that of Gemmeke et
al., "Audio Set", ICASSP 2017. The batch norms are folded into the convolutions.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tagger.models.filter_banks import make_htk_filters
from tagger.models.patches import AudioClassifier, ClassifierOutput, average_by_clip, cut_patches
from tagger.models.yamnet.configuration import YamnetArchitecture

RATE_HZ = 16_000
FFT_LENGTH = 512
FRAME_LENGTH, HOP_LENGTH = 400, 160
"""Frames of 25 ms begin every 10 ms; their numbers of samples."""
MIN_FREQUENCY_HZ, MAX_FREQUENCY_HZ = 125.0, 7500.0
LOG_OFFSET = 0.001

PATCHES_AT_ONCE = {"cpu": 20}
"""Patches that go through the network together, by type of device. More leave the CPU's cache."""


class LogMel(nn.Module):
    """Turns samples into log(mel magnitude + 0.001), in HTK's bands.

    Spectra are computed in float64, where the device has it: the logarithm shows the rounding
    errors of float32 in bands without sound. The filters are constants, not weights. The window is
    no buffer: a Mac's GPU takes no tensor of float64.
    """

    filters: Tensor

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.bands = bands
        self.register_buffer("filters", self.make_filters(), persistent=False)

    def make_filters(self) -> Tensor:
        """Compute the filters (frequencies, bands)."""
        bins = FFT_LENGTH // 2 + 1
        filters = make_htk_filters(bins, self.bands, RATE_HZ, MIN_FREQUENCY_HZ, MAX_FREQUENCY_HZ)
        return torch.from_numpy(filters).float()

    def count_frames(self, samples: Tensor) -> Tensor:
        """Return the number of whole frames of clips with this many samples; at least one."""
        return ((samples - FRAME_LENGTH) // HOP_LENGTH + 1).clamp(min=1)

    def forward(self, samples: Tensor) -> Tensor:
        """Turn samples (clips, n) into float32 frames (clips, frames, bands)."""
        padded = nn.functional.pad(samples, (0, max(0, FRAME_LENGTH - samples.shape[-1])))
        dtype = torch.float32 if samples.device.type == "mps" else torch.float64
        window = torch.hann_window(FRAME_LENGTH, dtype=dtype, device=samples.device)
        with torch.autocast(samples.device.type, enabled=False):
            frames = padded.to(dtype).unfold(-1, FRAME_LENGTH, HOP_LENGTH)
            magnitude = torch.fft.rfft(frames * window, FFT_LENGTH).abs()
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


class YamnetModel(nn.Module):
    """Patches (n, frames, bands) -> embeddings (n, filters of the last block)."""

    def __init__(self, config: YamnetArchitecture) -> None:
        super().__init__()
        self.first = SameConvolution(1, config.first_filters, 2)
        sizes = [config.first_filters, *(filters for filters, _ in config.blocks)]
        self.blocks = nn.Sequential(
            *(
                SeparableBlock(channels, filters, stride)
                for channels, (filters, stride) in zip(sizes, config.blocks, strict=False)
            )
        )

    def forward(self, patches: Tensor) -> Tensor:
        size = PATCHES_AT_ONCE.get(patches.device.type, max(1, len(patches)))
        return torch.cat([self._embed(part) for part in patches.split(size)])

    def _embed(self, patches: Tensor) -> Tensor:
        maps: Tensor = self.first(patches.unsqueeze(1))
        # With the channels last, a CPU takes half the time for the depthwise convolutions.
        maps = self.blocks(maps.contiguous(memory_format=torch.channels_last))
        return maps.mean((2, 3))


class YamnetClassifier(AudioClassifier):
    """Logits of clips of any length: the mean over the patches of each clip."""

    def add_layers(self, config: YamnetArchitecture, labels: int) -> None:
        self.patch = config.patch_frames, config.patch_hop
        self.log_mel = LogMel(config.num_mel_bins)
        self.yamnet = YamnetModel(config)
        self.classifier = nn.Linear(config.blocks[-1][0], labels)

    def forward(
        self, input_values: Tensor, attention_mask: Tensor | None = None
    ) -> ClassifierOutput:
        """Classify clips (clips, samples), padded on the right."""
        frames = self.log_mel(input_values)
        samples = None if attention_mask is None else attention_mask.sum(1)
        lengths = None if samples is None else self.log_mel.count_frames(samples)
        patches, counts = cut_patches(frames, lengths, *self.patch)
        values = patches.to(next(self.parameters()).dtype)
        embedding = average_by_clip(self.yamnet(values), counts)
        logits = self.classifier(embedding)  # linear: the mean of the patches' logits
        return ClassifierOutput(logits=logits, embedding=embedding)
