"""Open the tag of a file by its container; translate the errors of mutagen and of the system."""

import errno
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

from mutagen import MutagenError

from tagger.errors import FailureKind, TagError, translate_os_error
from tagger.paths import AnyPath
from tagger.storage import open_for_reading
from tagger.tags.ape import open_ape
from tagger.tags.asf import HEADER_GUID, open_asf
from tagger.tags.id3 import skip_id3_tags
from tagger.tags.id3_files import open_aac, open_aiff, open_dsf, open_mp3, open_tta, open_wav
from tagger.tags.mp4 import open_mp4
from tagger.tags.ogg import open_ogg
from tagger.tags.tag import Tag, read_at
from tagger.tags.vorbis import open_flac

OPENERS: dict[str, Callable[[BinaryIO], Tag]] = {
    ".mp3": open_mp3,
    ".mp2": open_mp3,
    ".aac": open_aac,
    ".wav": open_wav,
    ".wave": open_wav,
    ".aif": open_aiff,
    ".aifc": open_aiff,
    ".aiff": open_aiff,
    ".dsf": open_dsf,
    ".tta": open_tta,
    ".flac": open_flac,
    ".oga": open_ogg,
    ".ogg": open_ogg,
    ".opus": open_ogg,
    ".spx": open_ogg,
    ".m4a": open_mp4,
    ".m4b": open_mp4,
    ".m4r": open_mp4,
    ".mp4": open_mp4,
    ".wma": open_asf,
    ".ape": open_ape,
    ".wv": open_ape,
    ".mpc": open_ape,
}

OPENERS_WITHOUT_ID3 = {open_wav, open_aiff, open_dsf, open_mp4, open_asf}
"""The openers of containers that may have no ID3 tag in front: few programs look behind it."""


@dataclass(frozen=True, slots=True)
class Content:
    """A kind of file: its name, how it begins, and the suffix that it should have."""

    name: str
    magic: re.Pattern[bytes]
    suffix: str


MAGIC_BYTES = 12
CONTENTS = (
    Content("WAV", re.compile(rb"RIFF....WAVE", re.DOTALL), ".wav"),
    Content("AIFF", re.compile(rb"FORM....AIF[FC]", re.DOTALL), ".aiff"),
    Content("DSF", re.compile(rb"DSD "), ".dsf"),
    Content("True Audio", re.compile(rb"TTA1"), ".tta"),
    Content("FLAC", re.compile(rb"fLaC"), ".flac"),
    Content("Ogg", re.compile(rb"OggS"), ".ogg"),
    Content("MP4", re.compile(rb"....ftyp", re.DOTALL), ".m4a"),
    Content("Windows Media", re.compile(re.escape(HEADER_GUID[:MAGIC_BYTES])), ".wma"),
    Content("Monkey's Audio", re.compile(rb"MAC "), ".ape"),
    Content("WavPack", re.compile(rb"wvpk"), ".wv"),
    Content("Musepack", re.compile(rb"MPCK|MP\+"), ".mpc"),
    Content("Matroska or WebM", re.compile(rb"\x1a\x45\xdf\xa3"), ".mka"),
    Content("CAF", re.compile(rb"caff"), ".caf"),
    Content("AC-3", re.compile(rb"\x0b\x77"), ".ac3"),
    Content("AAC", re.compile(rb"\xff[\xf0\xf1]"), ".aac"),  # f8 and f9 begin frames of FLAC too
    Content("MP3", re.compile(rb"\xff[\xe2-\xe5\xf2-\xf5\xfa-\xfd]"), ".mp3"),  # fe begins UTF-16
)

EXTENSIONS = frozenset(OPENERS)
"""The suffixes of the files that tagger knows, in lower case."""

UNKNOWN_SOUND_EXTENSIONS = frozenset((
    ".3ga", ".669", ".8svx", ".aa", ".aa3", ".aax", ".aaxc", ".ac3", ".adts", ".amr", ".at3",
    ".at9", ".au", ".awb", ".bwf", ".caf", ".dff", ".dts", ".dtshd", ".eac3", ".ec3", ".f4a",
    ".f4b", ".gsm", ".it", ".kar", ".m3a", ".m4p", ".mid", ".midi", ".mka", ".mlp", ".mo3",
    ".mod", ".mp1", ".mpga", ".mpp", ".mptm", ".mtm", ".nsf", ".ofr", ".ofs", ".ogx", ".okt",
    ".oma", ".qoa", ".ra", ".rf64", ".rmi", ".s3m", ".shn", ".sid", ".snd", ".spc", ".stm",
    ".tak", ".thd", ".truehd", ".umx", ".voc", ".vqf", ".w64", ".weba", ".webm", ".wsd", ".xm",
))  # fmt: skip
"""The suffixes of sound that tagger does not know. A scan says how many such files it saw."""

FOREIGN_ERRORS = (
    MutagenError, ValueError, LookupError, ArithmeticError, EOFError, TypeError,
    struct.error, zlib.error, RecursionError, MemoryError,
)  # fmt: skip
"""The errors that broken files cause: mutagen's own, and those of wrong sizes and offsets.

OSError is not among them, because it is about the disk. Neither is AttributeError, because it would
be about tagger's own code.
"""


def open_tag(suffix: str, file: BinaryIO) -> Tag:
    """Return the tag of an open file with this suffix. Raises TagError for an unknown suffix.

    A file of another kind than its suffix says can be read, but not written.
    """
    opener = OPENERS.get(suffix.lower())
    if opener is None:
        raise TagError(f"tagger knows no files named *{suffix}")
    try:
        return opener(file)
    except (TagError, *FOREIGN_ERRORS) as error:
        start = skip_id3_tags(file)
        content = _find_content(file, start)
        if content is None:
            raise
        reason = f"it is {content.name}, whatever its name says: rename it to *{content.suffix}"
        if OPENERS.get(content.suffix) is opener:
            if not start or opener not in OPENERS_WITHOUT_ID3:
                raise
            reason = f"an ID3 tag stands in front of its {content.name} content: remove this tag"
        refusal = TagError(reason, FailureKind.WRONG_CONTENT)
        with suppress(TagError, *FOREIGN_ERRORS):  # KeyError: tagger does not know this kind
            return replace(OPENERS[content.suffix](file), refusal=refusal)
        raise refusal from error


def _find_content(file: BinaryIO, start: int) -> Content | None:
    """Return what a file is by its bytes behind ID3 tags; None if they do not say."""
    head = read_at(file, start, MAGIC_BYTES)
    return next((content for content in CONTENTS if content.magic.match(head)), None)


@contextmanager
def open_tagged_file(
    path: AnyPath, mode: Literal["rb", "r+b"], step: str, open_file: BinaryIO | None = None
) -> Iterator[tuple[BinaryIO, Tag]]:
    """Open a file and its tag; errors inside the `with` block are translated too.

    step: says in messages what cannot be done. open_file: the file, if it is open already.
    Raises TagError, AccessError, DiskFullError.
    """
    try:
        with _open_file(path, mode, open_file) as file:
            file.seek(0)
            if not file.read(1):
                raise TagError("the file is empty", FailureKind.TRUNCATED)  # noqa: TRY301 - as others
            yield file, open_tag(path.suffix, file)
            file.flush()
    except (OSError, TagError, *FOREIGN_ERRORS) as error:
        os_error = _find_os_error(error)
        if os_error:
            raise translate_os_error(os_error, step) from error
        if isinstance(error, TagError):
            raise
        raise TagError(
            f"{step}: broken, or not what its name says ({str(error) or type(error).__name__})",
            FailureKind.WRONG_CONTENT,
        ) from error


def _open_file(
    path: AnyPath, mode: Literal["rb", "r+b"], open_file: BinaryIO | None
) -> AbstractContextManager[BinaryIO]:
    if open_file:
        return nullcontext(open_file)
    return open_for_reading(path) if mode == "rb" else Path(path).open(mode)


def _find_os_error(error: BaseException | None) -> OSError | None:
    """Return the error of the system behind an error, even if mutagen turned it into its own.

    EINVAL does not count: a broken file leads to a place before its start.
    """
    if isinstance(error, OSError):
        return error if error.errno != errno.EINVAL else None
    return _find_os_error(error.__context__) if error else None
