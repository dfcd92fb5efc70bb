"""Open a file and read stretches of it: soundfile where it is exact, PyAV for the rest.

libsndfile counts samples, so a stretch of WAV, AIFF or FLAC is exact and cheap. Its other readers
are not used: that of Ogg Vorbis crashes on broken files, Opus seeks four times slower than in
FFmpeg, and mpg123 writes warnings to the terminal and guesses the length of a variable bit rate.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import av
import av.subtitles.stream  # PyAV would load it with the first text, when memory may be short
import numpy as np
import soundfile
from av.container import InputContainer
from numpy.typing import NDArray

from tagger.audio.completeness import opened
from tagger.errors import AccessError, DecodeError

Samples = NDArray[np.float32]

Sound = Path | BinaryIO
"""A file by its path, or one that is open already because it lies on no disk here."""

EXACT_SUFFIXES = frozenset({".wav", ".aif", ".aiff", ".aifc", ".flac", ".au"})
EXACT_START = re.compile(
    rb"(RIFF|RIFX|RF64)....WAVE|riff\x2e\x91\xcf\x11|FORM....AIF[FC]|fLaC|\.snd", re.DOTALL
)
"""How WAV, W64, AIFF, FLAC and AU begin: libsndfile would go by the content, and has 20 readers."""

DEMUXERS = "aac,aiff,ape,asf,dsf,flac,mov,mp3,mpc,mpc8,ogg,tta,w64,wav,wv"
"""What FFmpeg may take a file for: a playlist named song.mp3 must not open other files."""

AV_OPTIONS = {
    "format_whitelist": DEMUXERS,
    "protocol_whitelist": "file",
    "fflags": "fastseek",  # else a seek in an MP3 without an index reads all that lies before it
}

MOST_PLANES = 7
"""PyAV (18.1) dies of a frame with more: it takes what lies behind the eighth for another."""

BLOCKS_AT_ONCE = 256
"""Frames that are joined before their channels are averaged: one by one that costs as much as
decoding them, and all at once an hour of them would lie twice in memory."""

LONGEST_APE_FRAME = 73_728 * 64
"""No Monkey's Audio makes longer ones; FFmpeg believes any number, and makes hours of 24 bytes."""


GONE = (FileNotFoundError, NotADirectoryError, PermissionError)
"""What of FFmpeg's errors is no fault of the file; PyAV's are Python's as well."""


class Source(Protocol):
    """An open recording; `read` gives mono float32 of shape (n,) at `rate_hz`."""

    rate_hz: int
    duration_s: float

    def read(self, start_s: float, length_s: float) -> Samples: ...


class SoundfileSource:
    """A recording read by libsndfile."""

    def __init__(self, file: soundfile.SoundFile) -> None:
        if file.subtype.startswith("MPEG"):
            raise DecodeError("cannot be decoded exactly: it is MP3 inside WAV")
        self.file = file
        self.rate_hz: int = file.samplerate
        self.duration_s: float = file.frames / file.samplerate

    def read(self, start_s: float, length_s: float) -> Samples:
        self.file.seek(min(round(start_s * self.rate_hz), self.file.frames))
        block = self.file.read(round(length_s * self.rate_hz), dtype="float32", always_2d=True)
        mono: Samples = block.mean(axis=1)
        return mono


class AvSource:
    """A recording read by FFmpeg through PyAV."""

    def __init__(self, container: InputContainer) -> None:
        if not container.streams.audio:
            raise DecodeError("cannot be decoded: there is no audio stream in it")
        self.container = container
        self.stream = container.streams.audio[0]
        if self.stream.codec_context is None:
            raise DecodeError("cannot be decoded: FFmpeg knows no decoder for its sound")
        self.rate_hz: int = self.stream.rate
        if not self.rate_hz:
            raise DecodeError("cannot be decoded: its sampling rate is not known")
        self.duration_s = self._duration_s()

    def _duration_s(self) -> float:
        if self.stream.duration and self.stream.time_base:
            return float(self.stream.duration * self.stream.time_base)
        if self.container.duration:
            return float(self.container.duration) / av.time_base
        raise DecodeError("cannot be decoded: its length is not known")

    def read(self, start_s: float, length_s: float) -> Samples:
        """Seek to the packet before `start_s` and decode until `length_s` is full, or the end."""
        base = self.stream.time_base
        assert base is not None
        offset = (self.stream.start_time or 0) * base
        try:
            self.container.seek(int((start_s + offset) / base), stream=self.stream)
        except av.error.EOFError:
            return np.empty(0, np.float32)
        wanted = round(length_s * self.rate_hz)
        blocks = self._stretch(start_s + float(offset), wanted)
        runs = []
        while run := list(islice(blocks, BLOCKS_AT_ONCE)):
            runs.append(_mono(run))
        return np.concatenate(runs)[:wanted] if runs else np.empty(0, np.float32)

    def _stretch(self, start_s: float, wanted: int) -> Iterator[Samples]:
        """Yield blocks (channels, n) from `start_s` on until `wanted` samples are there."""
        found = 0
        for first_s, block in self._blocks():
            if not found:
                late = round((start_s - first_s) * self.rate_hz)
                block = block[:, max(late, 0) :]  # noqa: PLW2901 - the part before the window
            found += block.shape[1]
            if found:
                yield block
            if found >= wanted:
                return

    def _packets(self) -> Iterator["av.Packet[av.AudioStream]"]:
        is_ape = self.container.format.name == "ape"
        with suppress(IndexError):  # PyAV (18.1) at the end of an Ogg with a stream begun midway
            for packet in self.container.demux(self.stream):
                if is_ape and (packet.duration or 0) > LONGEST_APE_FRAME:
                    raise DecodeError(f"damaged: a frame of {packet.duration} samples")
                yield packet

    def _blocks(self) -> Iterator[tuple[float, Samples]]:
        """Yield (time in seconds, samples (channels, n)) by frames; damaged packets are skipped.

        Only the first frame of a packet (of 64 in Musepack) tells its time, in WMA Pro and Lossless
        none: these begin about where their packet does.
        """
        planar, packed = (av.AudioResampler(name, rate=self.rate_hz) for name in ("fltp", "flt"))
        time_s: float | None = None
        for packet in self._packets():
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                continue  # the first packets after a seek may lean on ones that were not read
            if time_s is None and packet.pts is not None and packet.time_base is not None:
                time_s = float(packet.pts * packet.time_base)
            for frame in frames:
                time_s = time_s if frame.time is None else frame.time
                if time_s is None:
                    continue
                convert = planar if frame.layout.nb_channels <= MOST_PLANES else packed
                for converted in convert.resample(frame):
                    yield time_s, _planes(converted)
                time_s += frame.samples / self.rate_hz


def _planes(frame: av.AudioFrame) -> Samples:
    samples = frame.to_ndarray().astype(np.float32, copy=False)
    return samples if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels).T


def _mono(blocks: Sequence[Samples]) -> Samples:
    """Join blocks (channels, n); a stream may change its number of channels on the way."""
    if len({len(block) for block in blocks}) > 1:
        return np.concatenate([block.mean(axis=0) for block in blocks])
    joined: Samples = np.concatenate(blocks, axis=1)
    mono: Samples = joined.mean(axis=0)
    return mono


@contextmanager
def open_soundfile(sound: Sound) -> Iterator[Source]:
    _check_start(sound)
    place = os.fsencode(sound) if isinstance(sound, Path) else _from_start(sound)
    try:
        with soundfile.SoundFile(place) as file:
            yield SoundfileSource(file)
    except soundfile.LibsndfileError as error:
        raise DecodeError(f"cannot be decoded (libsndfile: {error.error_string})") from error


def _check_start(sound: Sound) -> None:
    try:
        with opened(sound) as file:
            start = file.read(12)
    except OSError as error:
        raise AccessError(f"cannot open: {error.strerror}") from error
    if not EXACT_START.match(start):
        raise DecodeError("its content is not what its name says")


@contextmanager
def open_av(sound: Sound) -> Iterator[Source]:
    """Open by absolute path, for FFmpeg reads what stands before a colon as a protocol."""
    place: Any = sound.absolute() if isinstance(sound, Path) else _from_start(sound)
    try:
        with av.open(place, options=AV_OPTIONS, metadata_errors="replace") as container:
            yield AvSource(container)
    except GONE as error:
        raise AccessError(f"cannot open: {error.strerror}") from error
    except (av.error.FFmpegError, ValueError) as error:
        raise DecodeError(f"cannot be decoded (FFmpeg: {describe(error)})") from error


def _from_start(file: BinaryIO) -> BinaryIO:
    """Return a file that others have read from as they found it: FFmpeg begins where it stands."""
    file.seek(0)
    return file


def describe(error: Exception) -> str:
    """Return what FFmpeg says of an error, without the file name that it adds."""
    return getattr(error, "strerror", None) or str(error)


def openers(path: Path) -> tuple[Callable[[Sound], AbstractContextManager[Source]], ...]:
    """Return the ways to open this file, the better one first."""
    return (open_soundfile, open_av) if path.suffix.lower() in EXACT_SUFFIXES else (open_av,)
