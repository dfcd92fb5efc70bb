"""Waveforms to log-mel frames, as the published musicnn networks were trained on them.

The numbers are those of musicnn's configuration.py; the steps are librosa's `melspectrogram` with
its defaults (centred frames, zeros beyond both ends, periodic Hann window, power, Slaney's bands).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.audio_utils import mel_filter_bank

Samples = NDArray[np.float32]
RawClips = NDArray[Any] | Sequence[float] | Sequence[ArrayLike]


class MusicnnFeatureExtractor(SequenceFeatureExtractor):
    """Turn mono clips into `input_values` (clips, frames, 96) and `attention_mask` (clips, frames).

    `chunk_length_s` is the length of the window that makes exactly one patch of the network. A
    shorter clip is repeated until it fills that window: the network takes nothing shorter.
    """

    model_input_names = ["input_values", "attention_mask"]  # noqa: RUF012 - as the base class has it

    def __init__(
        self,
        feature_size: int = 96,
        sampling_rate: int = 16_000,
        fft_length: int = 512,
        hop_length: int = 256,
        patch_frames: int = 187,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_size, sampling_rate, kwargs.pop("padding_value", 0.0), **kwargs)
        self.fft_length = fft_length
        self.hop_length = hop_length
        self.patch_frames = patch_frames
        self.chunk_length_s = self.chunk_length / sampling_rate
        # The base class does not save attributes with these two names to preprocessor_config.json.
        self.window = torch.hann_window(fft_length)
        self.mel_filters = torch.from_numpy(
            mel_filter_bank(
                num_frequency_bins=fft_length // 2 + 1,
                num_mel_filters=feature_size,
                min_frequency=0.0,
                max_frequency=sampling_rate / 2,
                sampling_rate=sampling_rate,
                norm="slaney",
                mel_scale="slaney",
            )
        ).float()

    @property
    def chunk_length(self) -> int:
        """The number of samples that makes exactly one patch; each hop more makes another frame."""
        return (self.patch_frames - 1) * self.hop_length

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


def to_clip_list(raw_speech: RawClips) -> list[Samples]:
    """Return one or more clips as a list of float32 arrays (n,). Raises ValueError for stereo."""
    is_one_clip = len(raw_speech) == 0 or np.ndim(raw_speech[0]) == 0
    clips = [np.array(clip, np.float32) for clip in ([raw_speech] if is_one_clip else raw_speech)]
    if any(clip.ndim != 1 for clip in clips):
        raise ValueError("musicnn takes mono clips, each of shape (samples,)")
    return clips
