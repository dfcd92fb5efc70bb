"""Notice a file that was cut off, where its container says how long it should be.

Decoders play what is left of such a file without a word, and a genre heard in half a song would
be written into a file that its owner would rather fetch again.
"""

import struct
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO

from tagger.errors import AccessError, DecodeError

OGG_TAIL = 2**17  # two of the largest pages
STREAMED = 0x7FFFF000
"""From here on a size is what a program writes that streams into a pipe, as 0 is."""
SLACK = 8
"""Some writers forget the last filling byte, or that a size leaves out its own header."""


def check_complete(sound: Path | BinaryIO) -> None:
    """Raise DecodeError if a file is empty or shorter than it says, AccessError if unreadable."""
    try:
        with opened(sound) as file:
            size = file.seek(0, 2)
            file.seek(0)
            magic = file.read(4)
            if not magic:
                raise DecodeError("the file is empty")
            declared = DECLARED_SIZE.get(magic, _no_size)(file)
    except OSError as error:
        raise AccessError(f"cannot open: {error.strerror}") from error
    if declared > size + SLACK:
        raise DecodeError(f"truncated: {declared - size} bytes are missing at its end")


def opened(sound: Path | BinaryIO) -> AbstractContextManager[BinaryIO]:
    """Open a file, or begin anew with one that is open already."""
    if isinstance(sound, Path):
        return sound.open("rb")
    sound.seek(0)
    return nullcontext(sound)


def _no_size(_file: BinaryIO) -> int:
    return 0


def _riff_size(file: BinaryIO) -> int:
    return _chunk_size(file, "<I")


def _iff_size(file: BinaryIO) -> int:
    return _chunk_size(file, ">I")


def _chunk_size(file: BinaryIO, layout: str) -> int:
    field = file.read(4)
    size: int = struct.unpack(layout, field)[0] if len(field) == struct.calcsize(layout) else 0
    return size + 8 if 0 < size < STREAMED else 0


def _dsf_size(file: BinaryIO) -> int:
    file.seek(12)
    field = file.read(8)
    return int.from_bytes(field, "little")


def _ogg_size(file: BinaryIO) -> int:
    """Return where the last page that begins in the file should end (RFC 3533, section 6)."""
    size = file.seek(0, 2)
    start = max(size - OGG_TAIL, 0)
    file.seek(start)
    tail = file.read(OGG_TAIL)
    page = tail.rfind(b"OggS")
    if page < 0:
        return 0
    segments = tail[page + 26 : page + 27]
    count = segments[0] if segments else 255
    lacing = tail[page + 27 : page + 27 + count]
    return start + page + 27 + count + sum(lacing)


DECLARED_SIZE: dict[bytes, Callable[[BinaryIO], int]] = {
    b"RIFF": _riff_size,
    b"FORM": _iff_size,
    b"DSD ": _dsf_size,
    b"OggS": _ogg_size,
}
