"""The table of containers: their suffixes, their fields, and the way mutagen goes to them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from mutagen.aiff import AIFF
from mutagen.apev2 import APEv2File
from mutagen.asf import ASF, ASFUnicodeAttribute
from mutagen.dsf import DSF
from mutagen.flac import FLAC
from mutagen.id3 import (
    TCON,
    TXXX,
    Encoding,
    ID3EncryptionUnsupportedError,
    ID3JunkFrameError,
)
from mutagen.mp3 import MP3
from mutagen.mp4 import MP4, AtomDataType, MP4FreeForm
from mutagen.oggflac import OggFLAC
from mutagen.oggopus import OggOpus
from mutagen.oggspeex import OggSpeex
from mutagen.oggvorbis import OggVorbis
from mutagen.trueaudio import TrueAudio
from mutagen.wave import WAVE

from tagger.errors import TagError

Values = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of tag: the names of our four fields in it, and how a field is read and set.

    `get` gives the values as stored, `put` sets or, without values, removes them.
    """

    genre: str
    scores: str
    model: str
    written: str
    get: Callable[[Any, str], Values]
    put: Callable[[Any, str, Values], None]

    @property
    def fields(self) -> Values:
        return (self.genre, self.scores, self.model, self.written)


def _get_id3(tags: Any, name: str) -> Values:
    return tuple(text for frame in tags.getall(name) for text in frame.text)


def _put_id3(tags: Any, name: str, values: Values) -> None:
    kind, _, description = name.partition(":")
    tags.delall(name)
    # UTF-16 is the only Unicode that ID3v2.3 knows, and 2.4 prefers UTF-8.
    encoding = Encoding.UTF16 if tags.version < (2, 4, 0) else Encoding.UTF8
    text = list(values)
    if values:
        tags.add(
            TXXX(encoding=encoding, desc=description, text=text)
            if kind == "TXXX"
            else TCON(encoding=encoding, text=text)
        )


def _get_list(tags: Any, name: str) -> Values:
    """Read Vorbis comments and APEv2 items, whose names go by any case."""
    return tuple(str(value) for value in tags.get(name, ()))


def _put_list(tags: Any, name: str, values: tuple[Any, ...]) -> None:
    if name in tags:
        del tags[name]
    if values:
        tags[name] = list(values)


def _get_mp4(tags: Any, name: str) -> Values:
    values = tags.get(name, ())
    return tuple(v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in values)


def _put_mp4(tags: Any, name: str, values: Values) -> None:
    freeform = name.startswith("----:")
    text = (MP4FreeForm(v.encode(), AtomDataType.UTF8) if freeform else v for v in values)
    _put_list(tags, name, tuple(text))


def _put_asf(tags: Any, name: str, values: Values) -> None:
    _put_list(tags, name, tuple(ASFUnicodeAttribute(value) for value in values))


class OurTXXX(TXXX):
    """Our own user text frames; mutagen keeps any other, or one it cannot parse, as bytes.

    It does so with every frame whose parsing is not implemented. Its other way with frames that
    it cannot parse, or that share a description, is to drop and to merge them.
    """

    @classmethod
    def _fromData(cls, header: Any, tflags: int, data: bytes) -> TXXX:  # noqa: N802
        compressed = cls.FLAG23_COMPRESS if header.version < (2, 4, 0) else cls.FLAG24_COMPRESS
        if tflags & compressed:  # never ours, and a few bytes may hold gigabytes
            raise NotImplementedError
        try:
            frame: Any = TXXX._fromData(header, tflags, data)  # noqa: SLF001 - mutagen's only hook
        except (ID3JunkFrameError, ID3EncryptionUnsupportedError) as error:
            raise NotImplementedError from error
        if f"TXXX:{frame.desc}" not in ID3.fields:
            raise NotImplementedError
        return frame  # type: ignore[no-any-return]


ID3 = Family(
    "TCON", "TXXX:TAGGER_SCORES", "TXXX:TAGGER_MODEL", "TXXX:TAGGER_GENRE", _get_id3, _put_id3
)
VORBIS = Family("GENRE", "TAGGER_SCORES", "TAGGER_MODEL", "TAGGER_GENRE", _get_list, _put_list)
APE = Family("Genre", "TAGGER_SCORES", "TAGGER_MODEL", "TAGGER_GENRE", _get_list, _put_list)
ASF_FAMILY = Family(
    "WM/Genre", "TAGGER/SCORES", "TAGGER/MODEL", "TAGGER/GENRE", _get_list, _put_asf
)
ITUNES = "----:com.apple.iTunes:TAGGER"
MP4_FAMILY = Family(
    "\xa9gen", f"{ITUNES}_SCORES", f"{ITUNES}_MODEL", f"{ITUNES}_GENRE", _get_mp4, _put_mp4
)

FAMILIES: dict[type, Family] = {
    **dict.fromkeys((MP3, WAVE, AIFF, DSF, TrueAudio), ID3),
    **dict.fromkeys((FLAC, OggFLAC, OggVorbis, OggOpus, OggSpeex), VORBIS),
    APEv2File: APE,
    ASF: ASF_FAMILY,
    MP4: MP4_FAMILY,
}

OGG_CODECS = {
    b"\x01vorbis": OggVorbis,
    b"OpusHead": OggOpus,
    b"Speex   ": OggSpeex,
    b"\x7fFLAC": OggFLAC,
}
OGG_FIRST_PACKET = 28


def _ogg(file: BinaryIO) -> type:
    """Tell the codec of an Ogg file by its first packet (RFC 3533; any suffix stands for any)."""
    file.seek(OGG_FIRST_PACKET)
    head = file.read(8)
    for magic, kind in OGG_CODECS.items():
        if head.startswith(magic):
            return kind
    raise TagError("it holds no Ogg Vorbis, Opus, FLAC or Speex, whatever its name says")


APE_MAGICS = (b"MAC ", b"wvpk", b"MPCK", b"MP+", b"ID3")


def _ape(file: BinaryIO) -> type:
    """Tell a file with an APEv2 tag; its sound is none of mutagen's business.

    mutagen's reader of Musepack streams does not come back from some broken ones (1.48).
    """
    file.seek(0)
    if file.read(4).startswith(APE_MAGICS):
        return APEv2File
    raise TagError("it holds no Monkey's Audio, WavPack or Musepack, whatever its name says")


SUFFIXES: dict[str, type | Callable[[BinaryIO], type]] = {
    ".mp3": MP3,
    ".wav": WAVE,
    ".aif": AIFF,
    ".aifc": AIFF,
    ".aiff": AIFF,
    ".dsf": DSF,
    ".tta": TrueAudio,
    ".flac": FLAC,
    ".oga": _ogg,
    ".ogg": _ogg,
    ".opus": _ogg,
    ".spx": _ogg,
    ".m4a": MP4,
    ".m4b": MP4,
    ".mp4": MP4,
    ".wma": ASF,
    ".ape": _ape,
    ".wv": _ape,
    ".mpc": _ape,
}

EXTENSIONS = frozenset(SUFFIXES)
"""The suffixes of the files that tagger knows, in lower case."""


def kind_of(suffix: str, file: BinaryIO) -> type:
    """Return mutagen's class for a file with this suffix. Raises TagError for one unknown."""
    found = SUFFIXES.get(suffix.lower())
    if found is None:
        raise TagError(f"tagger knows no files named *{suffix}")
    return found if isinstance(found, type) else found(file)
