"""YAMNet's log-mel spectrogram, as a layer of the network."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import initialization
from transformers.audio_utils import mel_filter_bank

RATE_HZ = 16_000
FFT_LENGTH = 512
FRAME_LENGTH, HOP_LENGTH = 400, 160
"""Frames of 25 ms begin every 10 ms; their numbers of samples."""
MIN_FREQUENCY_HZ, MAX_FREQUENCY_HZ = 125.0, 7500.0
LOG_OFFSET = 0.001


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
