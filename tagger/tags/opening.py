"""A file opened for the sake of its tag; foreign errors stop here."""

import errno
import struct
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, Literal

from mutagen import MutagenError

from tagger.errors import TagError
from tagger.storage import reading
from tagger.tags.containers import open_tag
from tagger.tags.items import Tag
from tagger.tags.system import os_error

FOREIGN_ERRORS = (
    MutagenError, ValueError, LookupError, ArithmeticError, EOFError, TypeError,
    struct.error, zlib.error, RecursionError, MemoryError,
)  # fmt: skip
"""What comes of broken files: mutagen's own error, or whatever a wrong size or offset leads to.
Not OSError, which is about the disk, nor AttributeError, which would be about our own code."""


@contextmanager
def opened(
    path: Path, mode: Literal["rb", "r+b"], doing: str, already: BinaryIO | None = None
) -> Iterator[tuple[BinaryIO, Tag]]:
    """Give the open file and its tag; `already` is the file, where somebody has opened it.

    Raises TagError, AccessError, DiskFullError.
    """
    try:
        with _file(path, mode, already) as file:
            file.seek(0)
            if not file.read(1):
                raise TagError("the file is empty")  # noqa: TRY301 - told like all the rest
            yield file, open_tag(path.suffix, file)
            file.flush()
    except (OSError, TagError, *FOREIGN_ERRORS) as error:
        refusal = _refusal(error)
        if refusal:
            raise os_error(refusal, doing) from error
        if isinstance(error, TagError):
            raise
        raise TagError(
            f"{doing}: broken, or not what its name says ({str(error) or type(error).__name__})"
        ) from error


def _file(
    path: Path, mode: Literal["rb", "r+b"], already: BinaryIO | None
) -> AbstractContextManager[BinaryIO]:
    if already:
        return nullcontext(already)
    return reading(path) if mode == "rb" else path.open(mode)


def _refusal(error: BaseException | None) -> OSError | None:
    """Return what the system refused, even if mutagen turned it into an error of its own."""
    if isinstance(error, OSError):  # EINVAL: a place before the file's start, in a broken file
        return error if error.errno != errno.EINVAL else None
    return _refusal(error.__context__) if error else None
