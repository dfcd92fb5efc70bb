"""musicnn's log-mel spectrogram, as a layer: what `MusicnnFeatureExtractor` computes."""

import math

import torch
from torch import Tensor, nn
from transformers import initialization

from tagger.models.musicnn.feature_extraction import MusicnnFeatureExtractor


class MusicnnLogMel(nn.Module):
    """Turns samples into log10(10000 mel power + 1), in bands of Slaney's scale.

    Window and filters are constants, not weights.
    """

    window: Tensor
    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        extractor = MusicnnFeatureExtractor()
        self.fft_length, self.hop_length = extractor.fft_length, extractor.hop_length
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
        padded = nn.functional.pad(samples.float(), (self.fft_length // 2, self.fft_length // 2))
        with torch.autocast(samples.device.type, enabled=False):  # float16 overflows on loud bands
            frames = padded.unfold(-1, self.fft_length, self.hop_length)
            spectrum = torch.fft.rfft(frames * self.window)
            power = spectrum.real.square() + spectrum.imag.square()  # faster than abs().square()
            mel: Tensor = power @ self.filters
        return mel.mul_(10_000).log1p_().mul_(1 / math.log(10))
