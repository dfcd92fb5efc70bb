"""Files to mono float32 windows at the asked rate; owns soundfile, PyAV and the resampler."""

from tagger.audio.packets import stream_digests
from tagger.audio.windows import (
    SHORTEST_S,
    Recording,
    plan_windows,
    read_duration_s,
    read_windows,
)

__all__ = [
    "SHORTEST_S",
    "Recording",
    "plan_windows",
    "read_duration_s",
    "read_windows",
    "stream_digests",
]
