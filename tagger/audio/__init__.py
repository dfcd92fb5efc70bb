"""Files to mono float32 windows at the asked rate; owns soundfile, PyAV and the resampler."""

from tagger.audio.packets import packet_digest
from tagger.audio.windows import Recording, plan_windows, read_windows

__all__ = ["Recording", "packet_digest", "plan_windows", "read_windows"]
