"""Stretches of a file: their digest, and one put in the place of another."""

from hashlib import sha256
from typing import BinaryIO

BLOCK = 1 << 20
V1_SIZE = 128


def size_of(file: BinaryIO) -> int:
    return file.seek(0, 2)


def read_at(file: BinaryIO, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(size)


def digest(file: BinaryIO, start: int, stop: int) -> str:
    """Return the SHA-256 of the bytes from start to stop, or to the end if that comes first."""
    file.seek(start)
    found = sha256()
    left = stop - start
    while left > 0 and (block := file.read(min(BLOCK, left))):
        found.update(block)
        left -= len(block)
    return found.hexdigest()


def splice(file: BinaryIO, start: int, stop: int, new: bytes) -> None:
    """Put `new` in the place of the bytes from start to stop, moving what follows in blocks."""
    end = size_of(file)
    growth = start + len(new) - stop
    blocks = range(stop, end, BLOCK) if growth else ()
    for position in reversed(blocks) if growth > 0 else blocks:
        block = read_at(file, position, min(BLOCK, end - position))
        file.seek(position + growth)
        file.write(block)
    file.seek(start)
    file.write(new)
    file.truncate(end + growth)


def v1_trailer(file: BinaryIO) -> bytes:
    """Return the ID3v1 tag at the end of a file, if there is one."""
    trailer = read_at(file, max(size_of(file) - V1_SIZE, 0), V1_SIZE)
    return trailer if trailer.startswith(b"TAG") and len(trailer) == V1_SIZE else b""
