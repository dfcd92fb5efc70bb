"""Open audio files and decode parts of them: by soundfile where it is exact, by PyAV for the rest.

libsndfile counts samples, so a part of a WAV, AIFF or FLAC file is exact and cheap. Its other
readers are not used: the one for Ogg Vorbis crashes on broken files, Opus seeks four times slower
than in FFmpeg, and mpg123 writes warnings to the terminal and guesses the length of a variable bit
rate.
"""

import os
import re
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias

import av
import av.subtitles.stream  # PyAV would load it with the first text, when memory may be short
import numpy as np
import soundfile
from av.container import Flags, InputContainer
from numpy.typing import NDArray

from tagger.errors import AccessError, DecodeError, FailureKind
from tagger.paths import AnyPath

Samples = NDArray[np.float32]
Packet: TypeAlias = "av.Packet[av.AudioStream]"

AudioInput = Path | BinaryIO
"""A local file by its path, or an open object. Decoders read a local file faster by its path."""

OGG_TAIL_BYTES = 2**17  # two of the largest pages
MIN_STREAMED_SIZE = 0x7FFFF000
"""A program that streams into a pipe writes a size from here on, or 0."""
SIZE_SLACK_BYTES = 8
"""Some writers forget the last padding byte, or that a size leaves out its own header."""


def check_complete(audio: AudioInput) -> None:
    """Raise DecodeError if a file is empty or shorter than its container says.

    Decoders play what is left of a truncated file and report no error. A genre from half a song
    would go into a file that its owner would rather fetch again. AccessError if it is unreadable.
    """
    try:
        with _reopen(audio) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            magic = file.read(4)
            if not magic:
                raise DecodeError("the file is empty", FailureKind.TRUNCATED)
            declared_size = DECLARED_SIZE_READERS.get(magic, _read_no_size)(file)
    except OSError as error:
        raise AccessError(f"cannot open: {error.strerror}") from error
    if declared_size > size + SIZE_SLACK_BYTES:
        reason = f"truncated: {declared_size - size} bytes are missing at its end"
        raise DecodeError(reason, FailureKind.TRUNCATED)


def _reopen(audio: AudioInput) -> AbstractContextManager[BinaryIO]:
    """Open a local file, or give an open object from its start."""
    return audio.open("rb") if isinstance(audio, Path) else nullcontext(_rewind(audio))


def _rewind(file: BinaryIO) -> BinaryIO:
    """Return an open file at its start: libsndfile and FFmpeg begin where the file stands."""
    file.seek(0)
    return file


def _read_no_size(_file: BinaryIO) -> int:
    return 0


def _read_riff_size(file: BinaryIO) -> int:
    """Return where the RIFF chunk should end (IBM and Microsoft, Multimedia Programming, 1991)."""
    return _read_chunk_size(file, "<I")


def _read_iff_size(file: BinaryIO) -> int:
    """Return where the FORM chunk should end (Electronic Arts, EA IFF 85)."""
    return _read_chunk_size(file, ">I")


def _read_chunk_size(file: BinaryIO, layout: str) -> int:
    field = file.read(4)
    size: int = struct.unpack(layout, field)[0] if len(field) == struct.calcsize(layout) else 0
    return size + 8 if 0 < size < MIN_STREAMED_SIZE else 0


def _read_dsf_size(file: BinaryIO) -> int:
    """Return the size of the whole file that the DSD chunk declares (Sony, DSF 1.01)."""
    file.seek(12)
    field = file.read(8)
    return int.from_bytes(field, "little")


def _read_asf_size(file: BinaryIO) -> int:
    """Return where the packets should end: they follow the header, and both have a size.

    Microsoft, Advanced Systems Format 01.20.03, sections 3.1 and 5.1.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(16)
    header = int.from_bytes(file.read(8), "little")
    if header > size:
        return header
    file.seek(header + 16)
    return header + int.from_bytes(file.read(8), "little")


def _read_ogg_size(file: BinaryIO) -> int:
    """Return where the last page in the file should end (RFC 3533, section 6)."""
    size = file.seek(0, os.SEEK_END)
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
    b"\x30\x26\xb2\x75": _read_asf_size,
}


SOUNDFILE_SUFFIXES = frozenset({".wav", ".wave", ".aif", ".aiff", ".aifc", ".flac", ".au"})
SOUNDFILE_MAGIC = re.compile(
    rb"(RIFF|RIFX|RF64)....WAVE|riff\x2e\x91\xcf\x11|FORM....AIF[FC]|fLaC|\.snd", re.DOTALL
)
"""How WAV, W64, AIFF, FLAC and AU begin. libsndfile has 20 readers and chooses by the content."""

DEMUXERS = "aac,aiff,ape,asf,dsf,flac,mov,mp3,mpc,mpc8,ogg,tta,w64,wav,wv"
"""The only formats that FFmpeg may use: a playlist named song.mp3 must not open other files."""

AV_OPTIONS = {
    "format_whitelist": DEMUXERS,
    "protocol_whitelist": "file,subfile",
    "fflags": "fastseek",  # else a seek in an MP3 without an index reads everything before it
}

PYAV_MAJOR_VERSION = int(av.__version__.partition(".")[0])
FIRST_PYAV_WITHOUT_ERRORS_ARGUMENT = 19
AV_ARGUMENTS: dict[str, Any] = (
    {"metadata_errors": "surrogateescape"}
    if PYAV_MAJOR_VERSION < FIRST_PYAV_WITHOUT_ERRORS_ARGUMENT
    else {}
)
"""PyAV 19 reads all texts so, and has no such argument any more."""

MAX_PLANES = 7
"""PyAV (18.1) crashes on a planar frame with more: it reads past the end of its list of planes."""

MIXED_SAMPLES = 2**15
"""The length of the pieces that are mixed to mono. Single frames would take as long as decoding,
longer pieces do not fit into the processor's cache."""

MP3_DECODER, MP3_PREROLL_BYTES = "mp3float", 4096
"""A frame of MP3 needs the frame before it, and the data of that begin up to 511 bytes earlier,
headers not counted. With so many bytes before it, its samples are the same as in a decoding from
the start. A seek by the table of a Xing header goes back up to a hundredth of the recording."""

ID3_HEADER_BYTES, ID3_FOOTER_FLAG = 10, 0x10
MAGICS_BEHIND_ID3 = (b"wvpk", b"MAC ", b"MPCK", b"MP+")
"""How WavPack, Monkey's Audio and Musepack begin, which FFmpeg cannot open behind an ID3 tag."""

MAX_APE_FRAME_SAMPLES = 73_728 * 64
"""The longest that Monkey's Audio makes. FFmpeg believes any number: 24 bytes become hours."""

GUESSED_LENGTH_DEMUXERS = {"aac", "asf", "mp3", "wav"}
"""Containers that may say no length. FFmpeg then divides the size by the bit rate, as if all of the
recording had the bit rate of its first frames."""

COPY_PROTECTION = (
    "cannot be decoded: its sound is encrypted (copy protection, DRM). Get a copy without it from"
    " where you bought it, or leave it out with --exclude"
)

NO_SUCH_PLACE = (av.error.EOFError, av.error.PermissionError)
"""How a seek of FFmpeg fails where there is no sound: it returns -1, which is also EPERM."""

FAST_SEEK: Any = Flags.fast_seek  # PyAV's stub gives its value a wrong type

READ_CHUNK_BYTES = 1 << 20


class AudioSource(Protocol):
    """An open recording."""

    rate_hz: int
    duration_s: float
    is_length_declared: bool
    """Whether the file says how long it is: it is cut off if it has less sound."""

    def read(self, start_s: float, length_s: float) -> Samples:
        """Return mono float32 of shape (n,) at `rate_hz`; shorter where the recording ends."""


class SoundfileSource:
    """A recording read by libsndfile."""

    def __init__(self, file: soundfile.SoundFile) -> None:
        if file.subtype.startswith("MPEG"):
            raise DecodeError("cannot be decoded exactly: it is MP3 inside WAV")
        if not file.frames:  # or a size of 0, with which FFmpeg reads on
            raise DecodeError("too short: there is no sound in it", FailureKind.TOO_SHORT)
        self.file = file
        self.rate_hz: int = file.samplerate
        self.duration_s: float = file.frames / file.samplerate
        self.is_length_declared = True

    def read(self, start_s: float, length_s: float) -> Samples:
        self.file.seek(min(round(start_s * self.rate_hz), self.file.frames))
        frames = self.file.read(round(length_s * self.rate_hz), dtype="float32", always_2d=True)
        mono: Samples = frames.mean(axis=1)
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
        first = next(self._demux(), None)
        if self.stream.codec_context.codec_tag == "drms":  # iTunes marks the stream
            raise DecodeError(COPY_PROTECTION)
        self.rate_hz: int = self.stream.rate
        if not self.rate_hz:
            hint = " (free-format MP3?)" if container.format.name == "mp3" else ""
            raise DecodeError(f"cannot be decoded: its sampling rate is not known{hint}")
        self.duration_s = self._get_duration_s()
        self.is_length_declared = not self._is_guess(self.duration_s, first)
        if not self.is_length_declared:
            self.container.flags &= ~FAST_SEEK.value
            self.duration_s = self._measure_duration_s()

    def _get_duration_s(self) -> float:
        """Return the length that FFmpeg names, 0 if it names none."""
        if self.stream.duration and self.stream.time_base:
            return float(self.stream.duration * self.stream.time_base)
        return float(self.container.duration or 0) / av.time_base

    def _is_guess(self, duration_s: float, packet: "Packet | None") -> bool:
        """Tell whether the file itself says nothing of its length."""
        if not duration_s:
            return True
        if self.container.format.name not in GUESSED_LENGTH_DEMUXERS:
            return False
        sound_bytes = self.container.size - ((packet and packet.pos) or 0)
        bytes_per_s = (self.stream.codec_context.bit_rate or 0) / 8
        rounding_s = float(self.stream.time_base or 0)
        return abs(duration_s * bytes_per_s - sound_bytes) <= rounding_s * bytes_per_s + 1

    def _measure_duration_s(self) -> float:
        """Read all packets without decoding them. FFmpeg then knows where each of them lies."""
        base, start = self.stream.time_base, self.stream.start_time or 0
        assert base is not None
        self.container.seek(start, stream=self.stream)
        stops = ((packet.pts or 0) + (packet.duration or 0) for packet in self._demux())
        return float((max(stops, default=start) - start) * base)

    def read(self, start_s: float, length_s: float) -> Samples:
        """Seek to the packet before `start_s` and decode until `length_s` is full, or the end."""
        base = self.stream.time_base
        assert base is not None
        offset = (self.stream.start_time or 0) * base
        try:
            self.container.seek(int((start_s + offset) / base), stream=self.stream)
        except NO_SUCH_PLACE:
            return np.empty(0, np.float32)
        start_s += float(offset)
        mixer = Mixer(self.rate_hz)
        skipped, length = 0, round(length_s * self.rate_hz)
        for frame_s, frame in self._decode_frames(start_s):
            if not mixer.size:
                skipped_s = max(start_s - frame_s, 0.0)
                if round(skipped_s * frame.sample_rate) >= frame.samples:
                    continue
                skipped = round(skipped_s * self.rate_hz)
            mixer.add(frame)
            if mixer.size - skipped >= length:
                break
        return mixer.finish()[skipped : skipped + length]

    def _decode_frames(self, start_s: float) -> Iterator[tuple[float, av.AudioFrame]]:
        """Yield time in seconds and frame, some before `start_s` first; skip damaged packets.

        In Musepack only the first of the 64 frames of a packet has a time, in WMA Pro and Lossless
        none has: these frames begin about where their packet does.
        """
        time_s: float | None = None
        for packet in self._demux_from(start_s):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                continue  # the first packets after a seek may need packets that were not read
            if time_s is None and packet.pts is not None and packet.time_base:
                time_s = float(packet.pts * packet.time_base)
            for frame in frames:
                time_s = time_s if frame.time is None else frame.time
                if time_s is None:
                    continue
                yield time_s, frame
                time_s += frame.samples / frame.sample_rate

    def _demux_from(self, start_s: float) -> Iterator[Packet]:
        """Yield packets from `start_s` on, and before them only what their decoding needs."""
        packets = self._demux()
        if self.stream.codec_context.name == MP3_DECODER and self.stream.time_base:
            start = start_s / self.stream.time_base
            preroll, preroll_bytes = deque[Packet](), 0
            for packet in packets:
                preroll.append(packet)
                if not packet.duration or packet.pts is None:
                    break
                if packet.pts + packet.duration > start:
                    break
                preroll_bytes += packet.size
                while preroll_bytes - preroll[0].size >= MP3_PREROLL_BYTES:
                    preroll_bytes -= preroll.popleft().size
            yield from preroll
        yield from packets

    def _demux(self) -> Iterator[Packet]:
        packets = demux_packets(self.container, self.stream)
        check = PACKET_CHECKS.get(self.container.format.name)
        with suppress(IndexError):  # PyAV (18.1) at the end of an Ogg with a stream begun midway
            yield from map(check, packets) if check else packets


def _check_encryption(packet: Packet) -> Packet:
    if any(each.data_type == "encryption_info" for each in packet.iter_sidedata()):
        raise DecodeError(COPY_PROTECTION)
    return packet


def _check_ape_length(packet: Packet) -> Packet:
    if (packet.duration or 0) > MAX_APE_FRAME_SAMPLES:
        reason = f"damaged: a frame of {packet.duration} samples"
        raise DecodeError(reason, FailureKind.DAMAGED)
    return packet


PACKET_CHECKS = {"ape": _check_ape_length, "mov,mp4,m4a,3gp,3g2,mj2": _check_encryption}
"""By FFmpeg's names of the containers. No other demuxer here knows encryption."""


def demux_packets(
    container: InputContainer, *streams: "av.AudioStream"
) -> Iterator["av.Packet[Any]"]:
    """Yield the packets of these streams, or of all. Raises av.error.FFmpegError."""
    try:
        yield from container.demux(*streams)
    except av.error.InvalidDataError:
        if container.format.name != "wv":  # there it is the end, with an ID3v1 tag behind the sound
            raise


def get_av_options(audio: AudioInput) -> dict[str, str]:
    """Return the options to open a file with FFmpeg, which skips some ID3 tags only if told to.

    Raises AccessError.
    """
    try:
        with _reopen(audio) as file:
            start = _find_end_of_id3(file)
            file.seek(start)
            is_skipped = start > 0 and file.read(4).startswith(MAGICS_BEHIND_ID3)
    except OSError as error:
        raise AccessError(f"cannot read: {error.strerror}") from error
    return AV_OPTIONS | ({"skip_initial_bytes": str(start)} if is_skipped else {})


def _make_av_source(path: Path) -> Path | str:
    """Return the path for FFmpeg, or the URL of what stands behind the ID3 tag at its start.

    FFmpeg would look for sound in the tag, and decode its pictures. A picture of 0.9 MB takes as
    long as the windows of a song. Raises AccessError.
    """
    try:
        with path.open("rb") as file:
            start = _find_end_of_id3(file)
            size = file.seek(0, os.SEEK_END)
    except OSError as error:
        raise AccessError(f"cannot read: {error.strerror}") from error
    absolute = path.absolute()
    return f"subfile,,start,{start},end,{size},,:{absolute}" if 0 < start < size else absolute


def _find_end_of_id3(file: BinaryIO) -> int:
    """Return where an ID3v2 tag at the start of a file ends; 0 if there is none."""
    head = file.read(ID3_HEADER_BYTES)
    if not head.startswith(b"ID3") or len(head) < ID3_HEADER_BYTES:
        return 0
    digits = zip(head[6:], (21, 14, 7, 0), strict=True)
    footer_bytes = ID3_HEADER_BYTES if head[5] & ID3_FOOTER_FLAG else 0
    return ID3_HEADER_BYTES + sum((byte & 0x7F) << shift for byte, shift in digits) + footer_bytes


class Mixer:
    """Frames of a recording as mono samples at one rate. Their kind may change in a stream."""

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self.size = 0
        """The number of samples at `rate_hz`."""
        self._kind: tuple[str, int, int] | None = None
        self._joined = av.AudioFifo()
        self._mixed: list[Samples] = []

    def add(self, frame: av.AudioFrame) -> None:
        kind = (frame.format.name, frame.layout.nb_channels, frame.sample_rate)
        if kind != self._kind:
            self._mix()
            self._kind, self._joined = kind, av.AudioFifo()
            name = "fltp" if frame.layout.nb_channels <= MAX_PLANES else "flt"
            self._resampler = av.AudioResampler(name, rate=self.rate_hz)
        frame.pts = None  # else AudioFifo refuses frames after a gap
        self._joined.write(frame)
        self.size += frame.samples
        if self._joined.samples >= MIXED_SAMPLES or frame.sample_rate != self.rate_hz:
            self._mix()

    def _mix(self) -> None:
        joined = self._joined.read()
        if joined is None:
            return
        self.size -= joined.samples
        for converted in self._resampler.resample(joined):
            self._mixed.append(_compute_mean(converted))
            self.size += converted.samples

    def finish(self) -> Samples:
        """Return all that was added, of shape (n,)."""
        self._mix()
        return np.concatenate(self._mixed) if self._mixed else np.empty(0, np.float32)


def _compute_mean(frame: av.AudioFrame) -> Samples:
    """Return the mean of the channels of a frame of floats; `to_ndarray` would copy them first."""
    if frame.format.is_planar:
        buffers: Iterable[Any] = frame.planes
        planes = [np.frombuffer(each, np.float32, frame.samples) for each in buffers]
    else:
        planes = list(frame.to_ndarray().reshape(-1, frame.layout.nb_channels).T)
    mean: Samples = sum(planes[1:], planes[0]) / np.float32(len(planes))
    return mean


@contextmanager
def open_soundfile(audio: AudioInput) -> Iterator[AudioSource]:
    """Open with libsndfile. Raises DecodeError and AccessError."""
    _check_magic(audio)
    source = os.fsencode(audio) if isinstance(audio, Path) else _rewind(audio)
    try:
        with soundfile.SoundFile(source) as file:
            yield SoundfileSource(file)
    except soundfile.LibsndfileError as error:
        raise DecodeError(f"cannot be decoded (libsndfile: {error.error_string})") from error


def _check_magic(audio: AudioInput) -> None:
    try:
        with _reopen(audio) as file:
            magic = file.read(12)
    except OSError as error:
        raise AccessError(f"cannot open: {error.strerror}") from error
    if not SOUNDFILE_MAGIC.match(magic):
        raise DecodeError("its content is not what its name says", FailureKind.WRONG_CONTENT)


@contextmanager
def open_av(audio: AudioInput) -> Iterator[AudioSource]:
    """Open with FFmpeg. Raises DecodeError and AccessError.

    The path is absolute, because FFmpeg takes a relative `name:` for a protocol.
    """
    try:
        source: Any
        if isinstance(audio, Path):
            source, options = _make_av_source(audio), AV_OPTIONS
        else:
            options, source = get_av_options(audio), _rewind(audio)
        with av.open(source, options=options, **AV_ARGUMENTS) as container:
            yield AvSource(container)
    except (av.error.FFmpegError, ValueError) as error:
        kind = FailureKind.TRUNCATED if isinstance(error, av.error.EOFError) else None
        reason = f"cannot be decoded (FFmpeg: {describe_ffmpeg_error(error, audio)})"
        raise DecodeError(reason, kind) from error


def describe_ffmpeg_error(error: Exception, audio: AudioInput) -> str:
    """Return FFmpeg's message without the file name that PyAV adds.

    FFmpeg also uses the system's numbers (EPERM, EIO, ENOENT) for what it dislikes in a file. So
    only the system itself can tell whether it refused: raises AccessError if it does so again.
    """
    if not isinstance(error, OSError):
        return getattr(error, "strerror", None) or str(error)
    _check_readable(audio)
    return f"it gives up with error {error.errno}"


def _check_readable(audio: AudioInput) -> None:
    """Read a file to its end. Raises AccessError."""
    try:
        with _reopen(audio) as file:
            while file.read(READ_CHUNK_BYTES):
                pass
    except OSError as error:
        raise AccessError(f"cannot read: {error.strerror}") from error


def get_openers(
    path: AnyPath,
) -> tuple[Callable[[AudioInput], AbstractContextManager[AudioSource]], ...]:
    """Return the functions that may open a file, the better one first."""
    return (open_soundfile, open_av) if path.suffix.lower() in SOUNDFILE_SUFFIXES else (open_av,)
