"""Decode the windows of a recording that a model gets, and nothing else of the file."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import soxr

from tagger.audio.decoders import AudioSource, Samples, check_complete, get_openers
from tagger.errors import DecodeError, FailureKind
from tagger.paths import AnyPath
from tagger.storage import open_for_decoding

T = TypeVar("T")

MIN_DURATION_S = 1.0
"""Less sound is no basis for a genre."""

MAX_SILENCE_RMS = 10 ** (-70 / 20)
"""Windows up to -70 dBFS are dropped: they hold dither or line noise, and no soft music."""

MIN_DECODED_SHARE = 0.9
"""A window with less sound than this share of its length is truncated or damaged."""

CHECKED_TAIL_S = 2.0
"""A recording must have sound this many seconds before the end that it declares."""

TAIL_SAMPLE_S = 0.01
"""How many seconds are read there. One frame shows whether there is sound."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Windows of a recording, each mono float32 of shape (n,) at the rate asked for."""

    windows: tuple[Samples, ...]
    starts_s: tuple[float, ...]
    duration_s: float


def read_windows(
    path: AnyPath, *, rate_hz: int, window_s: float, count: int, shortest_s: float = MIN_DURATION_S
) -> Recording:
    """Decode up to `count` windows spread evenly over the recording; only these are read.

    All windows have the length `window_s`. A recording shorter than `window_s` gives one window
    with all of it, one shorter than `shortest_s` a DecodeError. Silent windows are left out.
    Raises DecodeError (damaged, truncated, too short, silent) and AccessError (cannot be opened).
    """

    def decode(source: AudioSource) -> Recording:
        duration_s = source.duration_s
        starts_s = plan_windows(duration_s, window_s, count)
        if duration_s < shortest_s:
            return Recording((), starts_s, duration_s)
        length_s = min(window_s, duration_s)
        windows = {}
        for start_s in starts_s:
            try:
                windows[start_s] = _decode_window(source, start_s, length_s, rate_hz)
            except DecodeError:
                if source.is_length_declared or (start_s == starts_s[-1] and not windows):
                    raise
        if source.is_length_declared:
            _check_tail(source)
        return Recording(tuple(windows.values()), tuple(windows), duration_s)

    recording = _try_decoders(path, decode)
    if not recording.windows:
        length = f"{recording.duration_s:.2f} s of sound, {shortest_s:g} s is needed"
        raise DecodeError(f"too short: {length}", FailureKind.TOO_SHORT)
    return _drop_silent_windows(recording)


def read_duration_s(path: AnyPath) -> float:
    """Return the length of a recording. Raises DecodeError and AccessError."""
    return _try_decoders(path, lambda source: source.duration_s)


def _try_decoders(path: AnyPath, decode: Callable[[AudioSource], T]) -> T:
    """Return what `decode` makes of a file, by the first decoder that can read it."""
    with open_for_decoding(path) as audio:
        check_complete(audio)
        failures = []
        for opener in get_openers(path):
            try:
                with opener(audio) as source:
                    return decode(source)
            except DecodeError as error:
                failures.append(error)
        telling = (each for each in reversed(failures) if each.kind is not each.default_kind)
        raise next(telling, failures[-1])


def plan_windows(duration_s: float, window_s: float, count: int) -> tuple[float, ...]:
    """Return the starts in seconds of at most `count` windows that do not overlap.

    The recording is divided into equal parts, with a window in the middle of each: one window is
    the middle of the song, and neither a fade-in nor applause gets a window of its own.
    """
    fitting = max(1, min(count, int(duration_s / window_s)))
    part_s = duration_s / fitting
    return tuple(max(0.0, (i + 0.5) * part_s - window_s / 2) for i in range(fitting))


def _drop_silent_windows(recording: Recording) -> Recording:
    """Return a recording without its silent windows. Raises DecodeError where all are silent."""
    pairs = zip(recording.windows, recording.starts_s, strict=True)
    audible = [(window, start_s) for window, start_s in pairs if _rms(window) > MAX_SILENCE_RMS]
    if not audible:
        count = len(recording.windows)
        reason = f"silent: nothing above -70 dBFS in the windows that were decoded ({count})"
        raise DecodeError(reason, FailureKind.SILENT)
    windows, starts_s = zip(*audible, strict=True)
    return replace(recording, windows=windows, starts_s=starts_s)


def _decode_window(source: AudioSource, start_s: float, length_s: float, rate_hz: int) -> Samples:
    """Decode one window and resample it to exactly round(length_s * rate_hz) samples."""
    samples = source.read(start_s, length_s)
    decoded_s = samples.size / source.rate_hz
    if decoded_s < MIN_DECODED_SHARE * length_s:
        raise DecodeError(
            f"truncated or damaged: {decoded_s:.1f} s of sound where {length_s:.1f} s"
            f" should be, {start_s:.0f} s into {source.duration_s:.0f} s",
            FailureKind.TRUNCATED,
        )
    if not np.isfinite(samples).all():
        reason = f"damaged: samples that are no numbers, {start_s:.0f} s into it"
        raise DecodeError(reason, FailureKind.DAMAGED)
    if source.rate_hz != rate_hz:
        samples = soxr.resample(samples, source.rate_hz, rate_hz, quality="HQ")
    length = round(length_s * rate_hz)
    return np.pad(samples[:length], (0, max(0, length - samples.size)))


def _check_tail(source: AudioSource) -> None:
    """Raise DecodeError where the end of the recording is missing: all windows may be before it."""
    start_s = max(0.0, source.duration_s - CHECKED_TAIL_S)
    if not source.read(start_s, TAIL_SAMPLE_S).size:
        raise DecodeError(
            f"truncated: no sound {start_s:.0f} s into the {source.duration_s:.0f} s it declares",
            FailureKind.TRUNCATED,
        )


def _rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
