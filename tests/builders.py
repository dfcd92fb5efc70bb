"""Tiny real audio in every container, with tags worth keeping, and files that are broken.

PyAV and soundfile do the encoding. Three formats have no free encoder: DSF is written here for
real, Monkey's Audio and Musepack (and Speex) only as far as a demuxer looks.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import mutagen
import numpy as np
import pytest
import soundfile
from mutagen import apev2, asf, flac, id3, mp4, ogg
from numpy.typing import NDArray

from tagger.tags.containers import OPENERS

NEW_PAGE: Any = ogg.OggPage  # mutagen has no types
RATE_HZ = 44_100
OPUS_RATE_HZ = 48_000
PARTIALS = ((1.0, 0.35), (1.5, 0.2), (2.0, 0.15), (3.02, 0.1), (5.01, 0.05))
ARPEGGIO = (1.0, 1.25, 1.5, 2.0, 1.5, 1.25)
NOTE_S = 0.25
NOISE = 0.05

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)
"""A picture of one transparent pixel."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to encode one kind of file with PyAV."""

    codec: str
    muxer: str
    sample_format: str
    rate_hz: int = RATE_HZ
    bit_rate: int | None = None
    options: Mapping[str, str] = field(default_factory=dict)


RECIPES = {
    ".mp3": Recipe("libmp3lame", "mp3", "s16p"),
    ".mp2": Recipe("mp2", "mp2", "s16"),
    ".aac": Recipe("aac", "adts", "fltp"),
    ".wav": Recipe("pcm_s16le", "wav", "s16"),
    ".wave": Recipe("pcm_s16le", "wav", "s16"),
    ".aif": Recipe("pcm_s16be", "aiff", "s16"),
    ".aiff": Recipe("pcm_s16be", "aiff", "s16"),
    ".tta": Recipe("tta", "tta", "s16"),
    ".flac": Recipe("flac", "flac", "s16"),
    ".opus": Recipe("libopus", "opus", "s16", OPUS_RATE_HZ),
    ".m4a": Recipe("aac", "ipod", "fltp"),
    ".m4b": Recipe("aac", "ipod", "fltp"),
    ".m4r": Recipe("aac", "ipod", "fltp"),
    ".mp4": Recipe("aac", "mp4", "fltp"),
    ".wma": Recipe("wmav2", "asf", "fltp", bit_rate=128_000),
    ".wv": Recipe("wavpack", "wv", "s16p"),
}
CHAPTERS: Any = [
    {
        "id": number,
        "start": 500 * number,
        "end": 500 * number + 500,
        "time_base": Fraction(1, 1000),
        "metadata": {"title": f"Chapter {number}"},
    }
    for number in range(2)
]
ALAC = Recipe("alac", "ipod", "s16p")
VBR = Recipe("libmp3lame", "mp3", "s16p", options={"flags": "+qscale", "global_quality": "236"})
CODECS = {"alac": ALAC, "aac": RECIPES[".m4a"], "vbr": VBR}


Sound = Callable[[float, int], NDArray[np.float32]]
"""A function from seconds and sampling rate in Hz to stereo samples of shape (2, n)."""


def music(seconds: float, rate_hz: int, *, frequency_hz: float, seed: int) -> NDArray[np.float32]:
    """Return stereo float32 samples of shape (2, n): a plucked arpeggio over drum beats.

    frequency_hz: of the lowest note. Up to 330 Hz the bundled model hears music in it.
    """
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    steps = np.asarray(ARPEGGIO)[(time / NOTE_S).astype(int) % len(ARPEGGIO)]
    phase = 2 * np.pi * frequency_hz * np.cumsum(steps) / rate_hz
    notes = sum(size * np.sin(ratio * phase) for ratio, size in PARTIALS)
    beats = np.random.default_rng(seed).normal(0, NOISE, (2, time.size))
    pluck, beat = np.exp(-6 * (time % NOTE_S)), np.exp(-30 * (time % (2 * NOTE_S)))
    samples: NDArray[np.float32] = np.clip(notes * pluck + beats * beat, -1, 1).astype(np.float32)
    return samples


VOWELS_HZ = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (660, 1720, 2410))
"""The first three formants of some vowels (Peterson & Barney, JASA 1952)."""
FORMANT_WIDTHS_HZ = (60, 90, 150)


def build_speech(
    path: Path, *, seconds: float = 12.0, rate_hz: int = 16_000, seed: int = 0
) -> Path:
    """Write babble of a source and three formants, which YAMNet takes for speech."""
    rng = np.random.default_rng(seed)
    parts: list[NDArray[np.float64]] = []
    while sum(map(len, parts)) < seconds * rate_hz:
        for _ in range(rng.integers(1, 4)):
            hiss = np.diff(rng.normal(0, 0.03, int(rate_hz * rng.uniform(0.04, 0.1))))
            parts += [hiss * np.hanning(len(hiss)), _speak_vowel(rng, rate_hz)]
        parts.append(np.zeros(int(rate_hz * rng.uniform(0.05, 0.3))))
    samples = np.concatenate(parts)[: int(seconds * rate_hz)]
    soundfile.write(path, samples / np.abs(samples).max() / 2, rate_hz)
    return path


def _speak_vowel(rng: np.random.Generator, rate_hz: int) -> NDArray[np.float64]:
    """Return a vowel that turns into another one, with a gliding pitch."""
    time = np.linspace(0, 1, int(rate_hz * rng.uniform(0.1, 0.25)))
    pitch = rng.uniform(95, 140) * (1 + rng.choice([-0.15, 0.15]) * np.sin(np.pi * time))
    pulses = np.diff(np.cumsum(pitch) / rate_hz % 1, prepend=0) < -0.5
    sound = pulses + rng.normal(0, 0.003, len(time))
    first, last = rng.choice(VOWELS_HZ, 2)
    for width, start, end in zip(FORMANT_WIDTHS_HZ, first, last, strict=True):
        radius = np.exp(-np.pi * width / rate_hz)
        turn = 2 * radius * np.cos(2 * np.pi * (start + (end - start) * time) / rate_hz)
        before = previous = 0.0
        for at, each in enumerate(sound):
            gain = 1 - turn[at] + radius**2
            before, previous = previous, gain * each + turn[at] * previous - radius**2 * before
            sound[at] = previous
    return np.asarray(6 * sound * np.hanning(len(time)) ** 0.3)


def build_audio(
    path: Path,
    *,
    seconds: float = 2.0,
    frequency_hz: float = 220.0,
    seed: int = 0,
    codec: str | None = None,
    sound: Sound | None = None,
    piped: bool = False,
) -> Path:
    """Write music of the kind that the path's ending asks for; `codec="alac"` for such an m4a.

    `sound` makes other samples than music. piped: as `ffmpeg -f … - > path` writes, which cannot go
    back and put lengths into the header.
    """
    suffix = path.suffix.lower()
    if sound:
        _write_audio(path, suffix, seconds, sound, codec, piped=piped)
    else:
        path.write_bytes(_encode_music(suffix, codec, seconds, frequency_hz, seed, piped=piped))
    return path


@cache
def _encode_music(
    suffix: str, codec: str | None, seconds: float, frequency_hz: float, seed: int, *, piped: bool
) -> bytes:
    """Return the bytes of a file with music; most tests build the same few files."""
    sound = partial(music, frequency_hz=frequency_hz, seed=seed)
    with TemporaryDirectory() as folder:
        path = Path(folder, f"music{suffix}")
        _write_audio(path, suffix, seconds, sound, codec, piped=piped)
        return path.read_bytes()


def _write_audio(
    path: Path, suffix: str, seconds: float, sound: Sound, codec: str | None, *, piped: bool
) -> None:
    recipe = CODECS[codec] if codec else RECIPES.get(suffix)
    samples = sound(seconds, recipe.rate_hz if recipe else RATE_HZ)
    if recipe:
        _encode(path, samples, recipe, piped=piped)
    else:
        BY_HAND[suffix](path, samples)


class Pipe:
    """A file that can only be written, from start to end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(b"")

    def write(self, data: bytes) -> int:
        with self.path.open("ab") as file:
            return file.write(data)


def _encode(
    path: Path, samples: NDArray[np.float32], recipe: Recipe, *, piped: bool = False
) -> None:
    target: Any = Pipe(path) if piped else path
    with av.open(target, "w", format=recipe.muxer) as container:
        options = dict(recipe.options)
        stream: Any = container.add_stream(recipe.codec, rate=recipe.rate_hz, options=options)
        stream.layout, stream.format = "stereo", recipe.sample_format
        if recipe.bit_rate:
            stream.bit_rate = recipe.bit_rate
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
        frame.sample_rate = recipe.rate_hz
        convert = av.AudioResampler(recipe.sample_format, "stereo", recipe.rate_hz)
        if path.suffix.lower() == ".m4b":
            container.set_chapters(CHAPTERS)
        for converted in [*convert.resample(frame), None]:
            container.mux(stream.encode(converted))


def _vorbis(path: Path, samples: NDArray[np.float32]) -> None:
    with soundfile.SoundFile(path, "w", RATE_HZ, 2, format="OGG", subtype="VORBIS") as file:
        for start in range(0, samples.shape[1], RATE_HZ):  # libsndfile dies of a long block
            file.write(samples[:, start : start + RATE_HZ].T)


def _ogg_flac(path: Path, samples: NDArray[np.float32]) -> None:
    """Put the frames of a FLAC file into Ogg pages; PyAV's muxer does not."""
    _encode(path, samples, RECIPES[".flac"])
    with av.open(str(path)) as container:
        frames = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    stream_info = path.read_bytes()[4:42]
    first = b"\x7fFLAC\x01\x00\x00\x01fLaC" + b"\x00" + stream_info[1:]
    comments = struct.pack("<I", 4) + b"made" + struct.pack("<I", 0)
    second = b"\x84" + len(comments).to_bytes(3, "big") + comments
    block = int.from_bytes(stream_info[4:6], "big")
    write_ogg(path, [first, second, *frames], samples_per_packet=block, per_page=1)


def _dsf(path: Path, samples: NDArray[np.float32]) -> None:
    """Write mono DSD: each of 64 bits per sample is one as often as the sample is loud."""
    density = (samples.mean(axis=0) * 0.5 + 1) * 127.5
    noise = np.random.default_rng(0).integers(0, 255, (density.size, 64), dtype=np.uint8)
    bits = np.packbits(noise < density.astype(np.uint8)[:, None], bitorder="little").tobytes()
    data = bits.ljust(-(-len(bits) // 4096) * 4096, b"\x69")
    layout = (1, 0, 1, 1, RATE_HZ * 64, 1, len(bits) * 8, 4096, 0)
    fmt = b"fmt " + struct.pack("<QIIIIIIQII", 52, *layout)
    body = fmt + b"data" + struct.pack("<Q", len(data) + 12) + data
    path.write_bytes(b"DSD " + struct.pack("<QQQ", 28, 28 + len(body), 0) + body)


def _ape(path: Path, samples: NDArray[np.float32]) -> None:
    """Write a Monkey's Audio file of one frame whose content no decoder would take."""
    data = np.round(samples * 127).astype(np.int8).tobytes()[:4096]
    blocks = min(samples.shape[1], 73_728)
    head = struct.pack("<IIIHHI", 73_728, blocks, 1, 16, 2, RATE_HZ)
    sizes = struct.pack("<IIIIIII16x", 52, 24 + 0, 4, 0, len(data), 0, 0)
    start = 52 + 24 + 4
    descriptor = b"MAC " + struct.pack("<HH", 3990, 0) + sizes
    flags = struct.pack("<HH", 2000, 0)
    path.write_bytes(descriptor + flags + head + struct.pack("<I", start) + data)


def _mpc(path: Path, samples: NDArray[np.float32]) -> None:
    """Write a Musepack (SV8) file: a stream header, replay gain, sound packets, an end."""
    data = np.round(samples * 127).astype(np.int8).tobytes()
    header = b"\x01\x02\x03\x04\x08" + _mpc_number(samples.shape[1]) + _mpc_number(0) + b"\x1b\x18"
    packets = [(b"SH", header), (b"RG", b"\x01" + bytes(8)), (b"EI", b"\x32\x01\x1e\x01")]
    packets += [(b"AP", data[at : at + 400]) for at in range(0, 4000, 400)]
    path.write_bytes(b"MPCK" + b"".join(_mpc_packet(*each) for each in [*packets, (b"SE", b"")]))


def _mpc_packet(key: bytes, content: bytes) -> bytes:
    size = next(n for n in range(1, 9) if len(_mpc_number(len(content) + 2 + n)) == n)
    return key + _mpc_number(len(content) + 2 + size) + content


def _mpc_number(number: int) -> bytes:
    """Encode as Musepack does: seven bits a byte, the top bit set on all but the last."""
    digits = [number & 0x7F]
    while number := number >> 7:
        digits.insert(0, number & 0x7F | 0x80)
    return bytes(digits)


def _speex(path: Path, samples: NDArray[np.float32]) -> None:
    """Write an Ogg Speex file whose packets hold noise."""
    header = struct.pack(
        "<8s20s13i", b"Speex   ", b"1.2", 1, 80, 44_100, 1, 4, 2, -1, 882, 0, 1, 0, 0, 0
    )
    comments = struct.pack("<I", 6) + b"Speex!" + struct.pack("<I", 0)
    sound = np.round(samples[0] * 127).astype(np.int8).tobytes()
    packets = [sound[at : at + 60] for at in range(0, 6000, 60)]
    write_ogg(path, [header, comments, *packets], samples_per_packet=882)


def write_ogg(
    path: Path, packets: list[bytes], *, samples_per_packet: int, per_page: int = 10
) -> None:
    """Write packets as one Ogg stream: two pages of headers, then so many packets a page."""
    groups = [packets[:1], packets[1:2]]
    groups += [packets[at : at + per_page] for at in range(2, len(packets), per_page)]
    output, position = b"", 0
    for sequence, group in enumerate(groups):
        page = NEW_PAGE()
        page.packets, page.sequence, page.serial = group, sequence, 7
        page.first, page.last = sequence == 0, sequence == len(groups) - 1
        position += samples_per_packet * len(group) if sequence > 1 else 0
        page.position = position
        output += page.write()
    path.write_bytes(output)


BY_HAND: dict[str, Callable[[Path, NDArray[np.float32]], None]] = {
    ".ogg": _vorbis,
    ".oga": _ogg_flac,
    ".dsf": _dsf,
    ".ape": _ape,
    ".mpc": _mpc,
    ".spx": _speex,
}


def open_tags(path: Path) -> Any:
    """Open a file with mutagen, which has no types; with an empty tag where there is none."""
    audio = id3.ID3FileType(path) if path.suffix == ".aac" else mutagen.File(path)
    assert audio is not None, f"mutagen does not know {path.name}"
    if audio.tags is None:
        audio.add_tags()
    return audio


def add_rich_tags(path: Path) -> Path:
    """Add what a cared-for file carries: title, artists, comment, lyrics, gain, picture."""
    audio = open_tags(path)
    KINDS[path.suffix.lower()].enrich(audio)
    audio.save()
    return path


def add_genre(path: Path, *genres: str) -> Path:
    """Add a genre as another program would have."""
    audio = open_tags(path)
    KINDS[path.suffix.lower()].set_genres(audio, list(genres))
    audio.save()
    return path


def _rich_id3(audio: Any) -> None:
    for frame in id3_frames():
        audio.tags.add(frame)


def id3_frames() -> list[Any]:
    """Return frames of every shape: text, comment, lyrics, picture, private, chapters."""
    frames: Any = id3
    title = frames.TIT2(encoding=1, text="Träume ☃")
    chapter = frames.CHAP(
        element_id="ch1",
        start_time=0,
        end_time=900,
        start_offset=0,
        end_offset=0,
        sub_frames=[title],
    )
    return [
        title,
        frames.TPE1(encoding=3, text=["One", "Other"]),
        frames.TALB(encoding=0, text="Album"),
        frames.TRCK(encoding=0, text="3/9"),
        frames.COMM(encoding=3, lang="eng", desc="", text="a comment"),
        frames.COMM(encoding=3, lang="eng", desc="Songs-DB_Custom1", text="more"),
        frames.USLT(encoding=1, lang="deu", desc="", text="la\nla"),
        frames.TXXX(encoding=3, desc="replaygain_track_gain", text="-3.20 dB"),
        frames.TXXX(encoding=3, desc="MusicBrainz Album Id", text="1234"),
        frames.APIC(encoding=0, mime="image/png", type=3, desc="front", data=PNG),
        frames.PRIV(owner="WM/Id", data=b"\x00\xff\x00\x01"),
        frames.GEOB(encoding=0, mime="bin", filename="cue", desc="Serato", data=bytes(range(256))),
        frames.POPM(email="a@b", rating=196, count=7),
        frames.UFID(owner="http://musicbrainz.org", data=b"abc"),
        chapter,
        frames.CTOC(element_id="toc", flags=3, child_element_ids=["ch1"], sub_frames=[]),
    ]


TEXTS = {
    "TITLE": "Träume ☃",
    "ARTIST": ["One", "Other"],
    "ALBUM": "Album",
    "COMMENT": "a comment",
    "LYRICS": "la\nla",
    "REPLAYGAIN_TRACK_GAIN": "-3.20 dB",
    "CHAPTER001": "00:00:00.000",
    "CHAPTER001NAME": "Start",
}


def _rich_vorbis(audio: Any) -> None:
    audio.tags.update(TEXTS)


def _rich_flac(audio: Any) -> None:
    _rich_vorbis(audio)
    kinds: Any = flac
    picture = kinds.Picture()
    picture.type, picture.mime, picture.desc, picture.data = 3, "image/png", "front", PNG
    audio.add_picture(picture)


def _rich_mp4(audio: Any) -> None:
    kinds: Any = mp4
    audio.tags.update(
        {
            "©nam": ["Träume ☃"],
            "©ART": ["One", "Other"],
            "©alb": ["Album"],
            "©cmt": ["a comment"],
            "©lyr": ["la\nla"],
            "trkn": [(3, 9)],
            "disk": [(1, 2)],
            "tmpo": [120],
            "cpil": True,
            "covr": [kinds.MP4Cover(PNG, kinds.MP4Cover.FORMAT_PNG)],
            "----:com.apple.iTunes:replaygain_track_gain": [b"-3.20 dB"],
            "----:com.apple.iTunes:iTunNORM": [b" 00000A"],
        }
    )


def _rich_asf(audio: Any) -> None:
    kinds: Any = asf
    picture = struct.pack("<BI", 3, len(PNG)) + "image/png\0front\0".encode("utf-16-le") + PNG
    audio.tags.update(
        {
            "Title": ["Träume ☃"],
            "Author": ["One"],
            "WM/AlbumTitle": ["Album"],
            "WM/TrackNumber": [kinds.ASFDWordAttribute(3)],
            "WM/Lyrics": ["la\nla"],
            "WM/Picture": [kinds.ASFByteArrayAttribute(picture)],
            "WM/IsCompilation": [kinds.ASFBoolAttribute(True)],
            "WM/Composer": [kinds.ASFUnicodeAttribute("A"), kinds.ASFUnicodeAttribute("B")],
            "replaygain_track_gain": ["-3.20 dB"],
        }
    )


def _rich_ape(audio: Any) -> None:
    kinds: Any = apev2
    audio.tags.update(TEXTS)
    audio.tags["Cover Art (Front)"] = kinds.APEValue(b"front.png\0" + PNG, kinds.BINARY)
    audio.tags["Related"] = kinds.APEValue("http://example.org", kinds.EXTERNAL)


def _genre_id3(audio: Any, genres: list[str]) -> None:
    frames: Any = id3
    audio.tags.add(frames.TCON(encoding=3, text=genres))


def _genre_named(name: str) -> Callable[[Any, list[str]], None]:
    def set_genres(audio: Any, genres: list[str]) -> None:
        audio.tags[name] = genres

    return set_genres


@dataclass(frozen=True, slots=True)
class Kind:
    """How other programs tag one kind of file."""

    enrich: Callable[[Any], None]
    set_genres: Callable[[Any, list[str]], None]


ID3 = Kind(_rich_id3, _genre_id3)
VORBIS = Kind(_rich_vorbis, _genre_named("genre"))
MP4 = Kind(_rich_mp4, _genre_named("©gen"))
APE = Kind(_rich_ape, _genre_named("Genre"))
KINDS = {
    **dict.fromkeys(
        (".mp3", ".mp2", ".aac", ".wav", ".wave", ".aif", ".aiff", ".dsf", ".tta"), ID3
    ),
    **dict.fromkeys((".ogg", ".oga", ".opus", ".spx"), VORBIS),
    ".flac": Kind(_rich_flac, _genre_named("genre")),
    **dict.fromkeys((".m4a", ".m4b", ".m4r", ".mp4"), MP4),
    ".wma": Kind(_rich_asf, _genre_named("WM/Genre")),
    **dict.fromkeys((".ape", ".wv", ".mpc"), APE),
}
ENDINGS = tuple(KINDS)
"""One ending for each kind of file that can be built."""


@cache
def audio_bytes(ending: str, *, rich: bool = False) -> bytes:
    """Return a file of half a second, made once for all tests: the quick way to many of them."""
    with TemporaryDirectory() as folder:
        path = build_audio(Path(folder, f"song{ending}"), seconds=0.5)
        return (add_rich_tags(path) if rich else path).read_bytes()


def write_empty(path: Path) -> Path:
    path.touch()
    return path


def write_text(path: Path) -> Path:
    """Write a text under the name of a song."""
    path.write_text("These are the lyrics, not the song.\n" * 50)
    return path


def truncate(path: Path, *, keep: float = 0.5) -> Path:
    """Cut off the end of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


OPENER_ENDINGS = tuple({OPENERS[ending]: ending for ending in reversed(ENDINGS)}.values())
"""One ending for each way to open a tag: the first of those that `ENDINGS` has."""

EACH_ENDING = [
    pytest.param(ending, marks=[] if ending in OPENER_ENDINGS else [pytest.mark.slow])
    for ending in ENDINGS
]
"""For `parametrize`: each kind of file. A plain pytest takes one for each way to open a tag."""
