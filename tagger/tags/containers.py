"""Open the tag of a file by its container; errors of the system and of mutagen stop here."""

import errno
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import BinaryIO, Literal

from mutagen import MutagenError

from tagger.errors import AccessError, DiskFullError, TagError, TaggerError
from tagger.paths import AnyPath
from tagger.storage import open_for_reading
from tagger.tags.ape import open_ape
from tagger.tags.asf import open_asf
from tagger.tags.id3_files import open_aiff, open_dsf, open_mp3, open_tta, open_wav
from tagger.tags.mp4 import open_mp4
from tagger.tags.ogg import open_ogg
from tagger.tags.tag import Tag
from tagger.tags.vorbis import open_flac

OPENERS: dict[str, Callable[[BinaryIO], Tag]] = {
    ".mp3": open_mp3,
    ".wav": open_wav,
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
    ".mp4": open_mp4,
    ".wma": open_asf,
    ".ape": open_ape,
    ".wv": open_ape,
    ".mpc": open_ape,
}

EXTENSIONS = frozenset(OPENERS)
"""The suffixes of the files that tagger knows, in lower case."""


def open_tag(suffix: str, file: BinaryIO) -> Tag:
    """Return the tag of an open file with this suffix. Raises TagError for one unknown."""
    opener = OPENERS.get(suffix.lower())
    if opener is None:
        raise TagError(f"tagger knows no files named *{suffix}")
    return opener(file)


DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT}


def translate_os_error(error: OSError, doing: str) -> TaggerError:
    """Return our error for a refusal of the operating system; a full disk ends the run."""
    reason = f"{doing}: {error.strerror or error}"
    return DiskFullError(reason) if error.errno in DISK_FULL_ERRNOS else AccessError(reason)


FOREIGN_ERRORS = (
    MutagenError, ValueError, LookupError, ArithmeticError, EOFError, TypeError,
    struct.error, zlib.error, RecursionError, MemoryError,
)  # fmt: skip
"""What comes of broken files: mutagen's own error, or whatever a wrong size or offset leads to.
Not OSError, which is about the disk, nor AttributeError, which would be about our own code."""


@contextmanager
def open_tagged_file(
    path: AnyPath, mode: Literal["rb", "r+b"], doing: str, already: BinaryIO | None = None
) -> Iterator[tuple[BinaryIO, Tag]]:
    """Give the open file and its tag; `already` is the file, where somebody has opened it.

    Raises TagError, AccessError, DiskFullError.
    """
    try:
        with _open_file(path, mode, already) as file:
            file.seek(0)
            if not file.read(1):
                raise TagError("the file is empty")  # noqa: TRY301 - told like all the rest
            yield file, open_tag(path.suffix, file)
            file.flush()
    except (OSError, TagError, *FOREIGN_ERRORS) as error:
        refusal = _find_os_error(error)
        if refusal:
            raise translate_os_error(refusal, doing) from error
        if isinstance(error, TagError):
            raise
        raise TagError(
            f"{doing}: broken, or not what its name says ({str(error) or type(error).__name__})"
        ) from error


def _open_file(
    path: AnyPath, mode: Literal["rb", "r+b"], already: BinaryIO | None
) -> AbstractContextManager[BinaryIO]:
    if already:
        return nullcontext(already)
    return open_for_reading(path) if mode == "rb" else open(path, mode)


def _find_os_error(error: BaseException | None) -> OSError | None:
    """Return what the system refused, even if mutagen turned it into an error of its own."""
    if isinstance(error, OSError):  # EINVAL: a place before the file's start, in a broken file
        return error if error.errno != errno.EINVAL else None
    return _find_os_error(error.__context__) if error else None
