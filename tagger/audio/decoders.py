"""Notice a file that was cut off, where its container says how long it should be.

Decoders play what is left of such a file without a word, and a genre heard in half a song would
be written into a file that its owner would rather fetch again.
"""

import hashlib
import os
import re
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import av
import av.subtitles.stream  # PyAV would load it with the first text, when memory may be short
import numpy as np
import soundfile
from av.container import InputContainer
from numpy.typing import NDArray

from tagger.errors import AccessError, DecodeError

OGG_TAIL_BYTES = 2**17  # two of the largest pages
MIN_STREAMED_SIZE = 0x7FFFF000
"""From here on a size is what a program writes that streams into a pipe, as 0 is."""
SIZE_SLACK_BYTES = 8
"""Some writers forget the last filling byte, or that a size leaves out its own header."""


def check_complete(sound: Path | BinaryIO) -> None:
    """Raise DecodeError if a file is empty or shorter than it says, AccessError if unreadable."""
    try:
        with reopen(sound) as file:
            size = file.seek(0, 2)
            file.seek(0)
            magic = file.read(4)
            if not magic:
                raise DecodeError("the file is empty")
            declared = DECLARED_SIZE_READERS.get(magic, _read_no_size)(file)
    except OSError as error:
        raise AccessError(f"cannot open: {error.strerror}") from error
    if declared > size + SIZE_SLACK_BYTES:
        raise DecodeError(f"truncated: {declared - size} bytes are missing at its end")


def reopen(sound: Path | BinaryIO) -> AbstractContextManager[BinaryIO]:
    """Open a file, or begin anew with one that is open already."""
    if isinstance(sound, Path):
        return sound.open("rb")
    sound.seek(0)
    return nullcontext(sound)


def _read_no_size(_file: BinaryIO) -> int:
    return 0


def _read_riff_size(file: BinaryIO) -> int:
    return _read_chunk_size(file, "<I")


def _read_iff_size(file: BinaryIO) -> int:
    return _read_chunk_size(file, ">I")


def _read_chunk_size(file: BinaryIO, layout: str) -> int:
    field = file.read(4)
    size: int = struct.unpack(layout, field)[0] if len(field) == struct.calcsize(layout) else 0
    return size + 8 if 0 < size < MIN_STREAMED_SIZE else 0


def _read_dsf_size(file: BinaryIO) -> int:
    file.seek(12)
    field = file.read(8)
    return int.from_bytes(field, "little")


def _read_ogg_size(file: BinaryIO) -> int:
    """Return where the last page that begins in the file should end (RFC 3533, section 6)."""
    size = file.seek(0, 2)
    start = max(size - OGG_TAIL_BYTES, 0)
    file.seek(start)
    tail = file.read(OGG_TAIL_BYTES)
    page = tail.rfind(b"OggS")
    if page < 0:
        return 0
    segments = tail[page + 26 : page + 27]
    count = segments[0] if segments else 255
    lacing = tail[page + 27 : page + 27 + count]
    return start + page + 27 + count + sum(lacing)


DECLARED_SIZE_READERS: dict[bytes, Callable[[BinaryIO], int]] = {
    b"RIFF": _read_riff_size,
    b"FORM": _read_iff_size,
    b"DSD ": _read_dsf_size,
    b"OggS": _read_ogg_size,
}


Samples = NDArray[np.float32]

AudioInput = Path | BinaryIO
"""A file by its path, or one that is open already because it lies on no disk here."""

SOUNDFILE_SUFFIXES = frozenset({".wav", ".aif", ".aiff", ".aifc", ".flac", ".au"})
SOUNDFILE_MAGIC = re.compile(
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

MAX_PLANES = 7
"""PyAV (18.1) dies of a frame with more: it takes what lies behind the eighth for another."""

JOINED_FRAMES = 256
"""Frames that are joined before their channels are averaged: one by one that costs as much as
decoding them, and all at once an hour of them would lie twice in memory."""

MAX_APE_FRAME_SAMPLES = 73_728 * 64
"""No Monkey's Audio makes longer ones; FFmpeg believes any number, and makes hours of 24 bytes."""


SYSTEM_ERRORS = (FileNotFoundError, NotADirectoryError, PermissionError)
"""What of FFmpeg's errors is no fault of the file; PyAV's are Python's as well."""


class AudioSource(Protocol):
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
        while run := list(islice(blocks, JOINED_FRAMES)):
            runs.append(_mix_to_mono(run))
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
                if is_ape and (packet.duration or 0) > MAX_APE_FRAME_SAMPLES:
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
                convert = planar if frame.layout.nb_channels <= MAX_PLANES else packed
                for converted in convert.resample(frame):
                    yield time_s, _to_planes(converted)
                time_s += frame.samples / self.rate_hz


def _to_planes(frame: av.AudioFrame) -> Samples:
    samples = frame.to_ndarray().astype(np.float32, copy=False)
    return samples if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels).T


def _mix_to_mono(blocks: Sequence[Samples]) -> Samples:
    """Join blocks (channels, n); a stream may change its number of channels on the way."""
    if len({len(block) for block in blocks}) > 1:
        return np.concatenate([block.mean(axis=0) for block in blocks])
    joined: Samples = np.concatenate(blocks, axis=1)
    mono: Samples = joined.mean(axis=0)
    return mono


@contextmanager
def open_soundfile(sound: AudioInput) -> Iterator[AudioSource]:
    _check_magic(sound)
    place = os.fsencode(sound) if isinstance(sound, Path) else _rewind(sound)
    try:
        with soundfile.SoundFile(place) as file:
            yield SoundfileSource(file)
    except soundfile.LibsndfileError as error:
        raise DecodeError(f"cannot be decoded (libsndfile: {error.error_string})") from error


def _check_magic(sound: AudioInput) -> None:
    try:
        with reopen(sound) as file:
            start = file.read(12)
    except OSError as error:
        raise AccessError(f"cannot open: {error.strerror}") from error
    if not SOUNDFILE_MAGIC.match(start):
        raise DecodeError("its content is not what its name says")


@contextmanager
def open_av(sound: AudioInput) -> Iterator[AudioSource]:
    """Open by absolute path, for FFmpeg reads what stands before a colon as a protocol."""
    place: Any = sound.absolute() if isinstance(sound, Path) else _rewind(sound)
    try:
        with av.open(place, options=AV_OPTIONS, metadata_errors="replace") as container:
            yield AvSource(container)
    except SYSTEM_ERRORS as error:
        raise AccessError(f"cannot open: {error.strerror}") from error
    except (av.error.FFmpegError, ValueError) as error:
        raise DecodeError(f"cannot be decoded (FFmpeg: {describe_ffmpeg_error(error)})") from error


def _rewind(file: BinaryIO) -> BinaryIO:
    """Return a file that others have read from as they found it: FFmpeg begins where it stands."""
    file.seek(0)
    return file


def describe_ffmpeg_error(error: Exception) -> str:
    """Return what FFmpeg says of an error, without the file name that it adds."""
    return getattr(error, "strerror", None) or str(error)


def get_openers(
    path: Path,
) -> tuple[Callable[[AudioInput], AbstractContextManager[AudioSource]], ...]:
    """Return the ways to open this file, the better one first."""
    return (open_soundfile, open_av) if path.suffix.lower() in SOUNDFILE_SUFFIXES else (open_av,)


SEQUENTIAL_CONTAINERS = {"flac", "mp3"}
"""Containers whose packets follow one another and are found by nothing but what is in them."""

COMPARED_PACKETS = 500


def hash_streams(path: Path, *, bytes_compared: bool = False) -> dict[str, str]:
    """Return a SHA-256 over every packet of each stream, undecoded, and what the chapters are.

    Like `ffmpeg -c copy -f streamhash`; time stamps and stream parameters count as well. A picture
    is a stream, as FFmpeg sees it.
    bytes_compared: the sound is compared byte for byte by other means. Of MP3 and FLAC the first
    packets then do: if they are the same, FFmpeg begins at the same place, and makes the same of
    the same bytes from there on.
    Raises DecodeError where FFmpeg cannot take the container apart.
    """
    digests: dict[str, Any] = defaultdict(hashlib.sha256)
    try:
        with av.open(path.absolute(), options=AV_OPTIONS, metadata_errors="replace") as container:
            names = [f"{stream.type} stream {stream.index}" for stream in container.streams]
            for name, stream in zip(names, container.streams, strict=True):
                codec = stream.codec_context
                digests[name].update(f"{stream.disposition} {stream.time_base}".encode())
                digests[name].update((codec.extradata if codec else None) or b"")
            is_ape = container.format.name == "ape"
            known = bytes_compared and container.format.name in SEQUENTIAL_CONTAINERS
            for packet in islice(container.demux(), COMPARED_PACKETS if known else None):
                sound = _cut_ape_tag(bytes(packet)) if is_ape else bytes(packet)
                digest = digests[names[packet.stream_index]]
                digest.update(f"{packet.pts} {len(sound)} ".encode())
                digest.update(sound)
            found = {name: digest.hexdigest() for name, digest in digests.items()}
            return found | {"chapters": repr(container.chapters())}
    except SYSTEM_ERRORS as error:
        raise AccessError(f"cannot open: {error.strerror}") from error
    except (av.error.FFmpegError, ValueError) as error:
        raise DecodeError(
            f"cannot be taken apart (FFmpeg: {describe_ffmpeg_error(error)})"
        ) from error
    except IndexError as error:  # PyAV counts the streams once
        raise DecodeError("cannot be taken apart: a stream begins in the middle of it") from error


def _cut_ape_tag(packet: bytes) -> bytes:
    """Cut the tag off the last packet of a Monkey's Audio file, which FFmpeg lets reach to the end.

    It also rounds that packet down to four bytes, so up to three bytes of padding do not count.
    """
    sound = packet.partition(b"APETAGEX")[0]
    return sound[: len(sound) // 4 * 4]
