"""Windows of sound to a network's inputs, as the checkpoint's own feature extractor makes them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import ASTFeatureExtractor

from tagger.errors import ModelError, SettingsError

DEFAULT_WINDOW_S = 30.0
"""What a model listens to at once where its checkpoint does not say, as in GTZAN's clips."""

MAX_SHORT_INPUT_S = 5.0
"""Inputs up to here make small layers, of which each core can have its own."""

AST_FRAME_S = 0.01
"""AST counts its input in frames of Kaldi's filter bank, which makes one every 10 ms."""

VALID_RATES_HZ = range(1_000, 400_000)
MAX_INPUT_S = 3600.0
"""What is beyond these is a broken configuration, not a broken file."""

DEFAULT_LISTENED_S = 30.0
MAX_DEFAULT_WINDOWS = 8
"""What is listened to of a track by default: half a minute, in windows that are not too many."""

ModelInputs = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class WindowExtractor:
    """A feature extractor with what it wants to hear; small, and fit to be sent to processes."""

    feature_extractor: Callable[..., Any]
    rate_hz: int
    window_s: float
    input_s: float
    """What the network gets for each window: some fill it up to the length that they know."""

    @property
    def windows(self) -> int:
        """How many windows of a track are listened to where the user does not say."""
        return max(1, min(MAX_DEFAULT_WINDOWS, round(DEFAULT_LISTENED_S / self.window_s)))

    def __call__(self, windows: Sequence[NDArray[np.float32]]) -> ModelInputs:
        """Turn windows (n,) of one length into tensors whose first axis counts the windows.

        Each window goes through the extractor alone: in company, CLAP's draws lots which of them
        is to count as a long one, and others pad.
        """
        features = [
            self.feature_extractor([window], sampling_rate=self.rate_hz, return_tensors="pt")
            for window in windows
        ]
        return {name: torch.cat([each[name] for each in features]) for name in features[0]}


def make_extractor(feature_extractor: Any, asked_s: float | None) -> WindowExtractor:
    """Return the extractor with the window length that was asked for, or else its own.

    Raises SettingsError for more than it can take in: it would cut that off, or CLAP's at random.
    Raises ModelError where the checkpoint wants what cannot be.
    """
    rate_hz = feature_extractor.sampling_rate
    if not isinstance(rate_hz, int) or rate_hz not in VALID_RATES_HZ:
        raise ModelError(f"no model listens to sound with a sampling rate of {rate_hz!r} Hz")
    longest_s = _get_fixed_length_s(feature_extractor, rate_hz)
    if longest_s is not None and not 0 < longest_s <= MAX_INPUT_S:
        raise ModelError(f"no model listens to {longest_s:g} s of sound at once")
    if asked_s and longest_s and asked_s > longest_s:
        raise SettingsError(f"this model listens to {longest_s:g} s at once, not to {asked_s:g} s")
    own_s = longest_s or getattr(feature_extractor, "chunk_length_s", None) or DEFAULT_WINDOW_S
    window_s = asked_s or float(own_s)
    return WindowExtractor(feature_extractor, rate_hz, window_s, longest_s or window_s)


def _get_fixed_length_s(feature_extractor: Any, rate_hz: int) -> float | None:
    """Return the length of an input that is the same for all sounds, None where they may differ."""
    if isinstance(feature_extractor, ASTFeatureExtractor):
        return float(feature_extractor.max_length * AST_FRAME_S)
    for name in ("n_samples", "nb_max_samples"):  # Whisper's, CLAP's
        samples = getattr(feature_extractor, name, None)
        if samples is not None:
            return float(samples / rate_hz)
    return None
