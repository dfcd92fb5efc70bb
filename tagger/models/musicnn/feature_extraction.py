"""Waveforms to log-mel frames, as the published musicnn networks were trained on them.

The numbers are those of musicnn's configuration.py; the steps are librosa's `melspectrogram` with
its defaults (centred frames, zeros beyond both ends, periodic Hann window, power, Slaney's bands).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tagger.models.filter_banks import make_slaney_filters

Samples = NDArray[np.float32]


@dataclass(eq=False, repr=False)
class MusicnnFeatures:
    """Turns mono clips into frames (clips, frames, 96); the fields are in preprocessor_config.json.

    `chunk_length_s` is the length of the window that makes exactly one patch of the network. A
    shorter clip is repeated until it fills that window: the network takes nothing shorter.
    """

    feature_size: int = 96
    sampling_rate: int = 16_000
    fft_length: int = 512
    hop_length: int = 256
    patch_frames: int = 187
    chunk_length_s: float = field(init=False)
    # transformers does not save attributes with these two names to preprocessor_config.json.
    window: Tensor = field(init=False)
    mel_filters: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.chunk_length_s = self.chunk_length / self.sampling_rate
        # "cpu": also where the layers around it are made without memory.
        self.window = torch.hann_window(self.fft_length, device="cpu")
        bins = self.fft_length // 2 + 1
        filters = make_slaney_filters(bins, self.feature_size, self.sampling_rate)
        self.mel_filters = torch.from_numpy(filters).float()

    @property
    def chunk_length(self) -> int:
        """The number of samples that makes exactly one patch; each hop more makes another frame."""
        return (self.patch_frames - 1) * self.hop_length

    def __call__(self, raw_speech: Sequence[Samples], **_: Any) -> Any:
        """Turn clips (n,) of one length into the input of the network."""
        frames = [torch.from_numpy(self.log_mel(self.fill_window(clip))) for clip in raw_speech]
        return {"input_values": torch.stack(frames)}

    def fill_window(self, samples: Samples) -> Samples:
        """Repeat samples (n,) from the start until they fill one window; keep longer ones."""
        if not samples.size:
            raise ValueError("an empty clip has no features")
        return np.resize(samples, max(samples.size, self.chunk_length))

    def log_mel(self, samples: Samples) -> Samples:
        """Turn samples (n,) into log10(10000 power + 1) of shape (1 + n // hop_length, bands)."""
        clip = torch.from_numpy(samples)
        frames = compute_log_mel(clip, self.window, self.mel_filters, self.hop_length)
        result: Samples = frames.numpy()
        return result


def compute_log_mel(
    samples: Tensor, window: Tensor, mel_filters: Tensor, hop_length: int
) -> Tensor:
    """Turn float32 samples (..., n) into log10(10000 power + 1), (..., 1 + n // hop_length, bands).

    In float32: float16, as in the original, overflows to infinity on loud bands.
    """
    half = len(window) // 2
    padded = torch.nn.functional.pad(samples, (half, half))
    spectrum = torch.fft.rfft(padded.unfold(-1, len(window), hop_length) * window)
    power = spectrum.real.square() + spectrum.imag.square()  # faster than abs().square()
    mel: Tensor = power @ mel_filters
    return mel.mul_(10_000).log1p_().mul_(1 / math.log(10))
