"""Cut the stretches that a model listens to out of a recording, and read nothing else."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import soxr

from tagger.audio.decoders import AudioInput, AudioSource, Samples, check_complete, get_openers
from tagger.errors import DecodeError
from tagger.paths import RemotePath
from tagger.storage import open_for_reading

T = TypeVar("T")

MIN_DURATION_S = 1.0
"""Less sound than this is no basis for a genre."""

MAX_SILENCE_RMS = 10 ** (-70 / 20)
"""Windows below -70 dBFS are passed over: dither and line noise, not music played softly."""

CHECKED_TAIL_S = 2.0
"""How far before its declared end a recording must still have sound."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Windows of a recording, each mono float32 of shape (n,) at the asked rate."""

    windows: tuple[Samples, ...]
    starts_s: tuple[float, ...]
    duration_s: float


def read_windows(
    path: Path, *, rate_hz: int, window_s: float, count: int, shortest_s: float = MIN_DURATION_S
) -> Recording:
    """Decode up to `count` windows spread evenly over the recording; only these are read.

    All windows have the same length, `window_s`; a recording shorter than that gives one window
    with all of it, and one shorter than `shortest_s` none. Windows of silence are left out.
    Raises DecodeError (broken, truncated, too short, silent) and AccessError (cannot be opened).
    """

    def read(source: AudioSource) -> Recording:
        duration_s = source.duration_s
        starts_s = plan_windows(duration_s, window_s, count)
        if duration_s < shortest_s:
            return Recording((), starts_s, duration_s)
        windows = _read_all(source, starts_s, min(window_s, duration_s), rate_hz)
        return Recording(windows, starts_s, duration_s)

    found = _read_with_decoders(path, read)
    if not found.windows:
        length = f"{found.duration_s:.2f} s of sound, {shortest_s:g} s is needed"
        raise DecodeError(f"too short: {length}")
    return _drop_silence(found)


def read_duration_s(path: Path) -> float:
    """Return how long the sound of a file is. Raises DecodeError and AccessError."""
    return _read_with_decoders(path, lambda source: source.duration_s)


def _read_with_decoders(path: Path, read: Callable[[AudioSource], T]) -> T:
    """Return what `read` makes of a file, by the first decoder that can."""
    with _open_input(path) as sound:
        check_complete(sound)
        failure = DecodeError("no decoder for it")
        for opener in get_openers(path):
            try:
                with opener(sound) as source:
                    return read(source)
            except DecodeError as error:
                failure = error
        raise failure


def _open_input(path: Path) -> AbstractContextManager[AudioInput]:
    """Open what lies elsewhere, once for all who look at it; a file here they open themselves."""
    return open_for_reading(path) if isinstance(path, RemotePath) else nullcontext(path)


def plan_windows(duration_s: float, window_s: float, count: int) -> tuple[float, ...]:
    """Return the starts in seconds of at most `count` windows that do not overlap.

    The recording is divided into equal parts, with a window in the middle of each: one window is
    the middle of the song, and neither a fade-in nor applause gets a window of its own.
    """
    fitting = max(1, min(count, int(duration_s / window_s)))
    part_s = duration_s / fitting
    return tuple(max(0.0, (i + 0.5) * part_s - window_s / 2) for i in range(fitting))


def _read_all(
    source: AudioSource, starts_s: Sequence[float], length_s: float, rate_hz: int
) -> tuple[Samples, ...]:
    windows = tuple(
        _read_window(source, start_s, length_s=length_s, rate_hz=rate_hz) for start_s in starts_s
    )
    _check_tail(source)
    return windows


def _drop_silence(recording: Recording) -> Recording:
    """Leave out the windows of silence. Raises DecodeError where none is left."""
    pairs = zip(recording.windows, recording.starts_s, strict=True)
    audible = [(window, start_s) for window, start_s in pairs if _rms(window) > MAX_SILENCE_RMS]
    if not audible:
        heard = len(recording.windows)
        raise DecodeError(f"silent: nothing above -70 dBFS where it was listened to ({heard}x)")
    windows, starts_s = zip(*audible, strict=True)
    return replace(recording, windows=windows, starts_s=starts_s)


def _read_window(source: AudioSource, start_s: float, *, length_s: float, rate_hz: int) -> Samples:
    """Read one window and resample it to exactly round(length_s * rate_hz) samples."""
    samples = source.read(start_s, length_s)
    found_s = samples.size / source.rate_hz
    if found_s < 0.9 * length_s:
        raise DecodeError(
            f"truncated or damaged: {found_s:.1f} s of sound where {length_s:.1f} s"
            f" should be, {start_s:.0f} s into {source.duration_s:.0f} s"
        )
    if not np.isfinite(samples).all():
        raise DecodeError(f"damaged: samples that are no numbers, {start_s:.0f} s into it")
    if source.rate_hz != rate_hz:
        samples = soxr.resample(samples, source.rate_hz, rate_hz, quality="HQ")
    length = round(length_s * rate_hz)
    return np.pad(samples[:length], (0, max(0, length - samples.size)))


def _check_tail(source: AudioSource) -> None:
    """Prove that the end of the recording is there, for the windows alone may all lie before."""
    start_s = max(0.0, source.duration_s - CHECKED_TAIL_S)
    if not source.read(start_s, CHECKED_TAIL_S / 2).size:
        raise DecodeError(
            f"truncated: no sound {start_s:.0f} s into the {source.duration_s:.0f} s it declares"
        )


def _rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
