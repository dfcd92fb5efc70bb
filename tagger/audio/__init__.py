"""Files to mono float32 windows at the asked rate; owns soundfile, PyAV and the resampler."""

from tagger.audio.comparison import SHOWN_PREFIX, hash_streams, read_metadata
from tagger.audio.decoders import Samples
from tagger.audio.windows import (
    MIN_DURATION_S,
    Recording,
    plan_windows,
    read_duration_s,
    read_windows,
)

__all__ = [
    "MIN_DURATION_S",
    "SHOWN_PREFIX",
    "Recording",
    "Samples",
    "hash_streams",
    "plan_windows",
    "read_duration_s",
    "read_metadata",
    "read_windows",
]
