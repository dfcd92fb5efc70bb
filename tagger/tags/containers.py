"""Open the tag of a file by its container; translate the errors of mutagen and of the system."""

import errno
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, Literal

from mutagen import MutagenError

from tagger.errors import FailureKind, TagError, translate_os_error
from tagger.paths import AnyPath
from tagger.storage import open_for_reading
from tagger.tags.ape import open_ape
from tagger.tags.asf import open_asf
from tagger.tags.id3 import read_id3_tag
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

EXTENSIONS = frozenset(OPENERS)
"""The suffixes of the files that tagger knows, in lower case."""

UNKNOWN_SOUND_EXTENSIONS = frozenset((
    ".3ga", ".8svx", ".aa", ".aa3", ".aax", ".aaxc", ".ac3", ".amr", ".at3", ".at9", ".au",
    ".awb", ".caf", ".dff", ".dts", ".dtshd", ".eac3", ".ec3", ".gsm", ".it", ".m3a", ".m4p",
    ".mid", ".midi", ".mka", ".mlp", ".mo3", ".mod", ".mp1", ".mpga", ".mpp", ".mptm", ".mtm",
    ".nsf", ".ofr", ".ofs", ".okt", ".oma", ".qoa", ".ra", ".rf64", ".s3m", ".shn", ".sid",
    ".snd", ".spc", ".stm", ".tak", ".thd", ".truehd", ".voc", ".vqf", ".w64", ".weba",
    ".webm", ".wsd", ".xm",
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


CONTENT_MAGICS = {
    ".wav": rb"RIFF....WAVE",
    ".aiff": rb"FORM....AIF[FC]",
    ".dsf": rb"DSD ",
    ".tta": rb"TTA[12]",
    ".flac": rb"fLaC",
    ".ogg": rb"OggS",
    ".m4a": rb"....ftyp",
    ".wma": rb"\x30\x26\xb2\x75",
    ".ape": rb"MAC ",
    ".wv": rb"wvpk",
    ".mpc": rb"MPCK|MP\+",
    ".aac": rb"\xff[\xf0\xf1]",  # f8 and f9 begin frames of FLAC as well
    ".mp3": rb"\xff[\xe2-\xe5\xf2-\xf5\xfa-\xfd]",  # fe begins text in UTF-16
}
"""How the content of a file begins behind any ID3v2 tag, by the suffix that it should have."""

MAX_MAGIC_BYTES = 12


def open_tag(suffix: str, file: BinaryIO) -> Tag:
    """Return the tag of an open file with this suffix. Raises TagError for an unknown suffix."""
    opener = OPENERS.get(suffix.lower())
    if opener is None:
        raise TagError(f"tagger knows no files named *{suffix}")
    try:
        return opener(file)
    except (TagError, *FOREIGN_ERRORS) as error:
        true_suffix = _find_true_suffix(file)
        if true_suffix and OPENERS[true_suffix] is not opener:
            reason = f"it is a {true_suffix} file, whatever its name says: give it that suffix"
            raise TagError(reason, FailureKind.WRONG_CONTENT) from error
        raise


def _find_true_suffix(file: BinaryIO) -> str | None:
    id3 = read_id3_tag(file, 0)
    magic = read_at(file, id3.size if id3 else 0, MAX_MAGIC_BYTES)
    matches = (each for each, start in CONTENT_MAGICS.items() if re.match(start, magic, re.DOTALL))
    return next(matches, None)


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
