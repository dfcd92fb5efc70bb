"""The genre in the LIST/INFO chunk of a WAV file, which is what FFmpeg and its friends read.

mutagen handles the ID3 chunk of a WAV file alone. The layout is that of Microsoft's "Multimedia
Programming Interface and Data Specifications 1.0": chunks of a name, a size and content padded to
an even length. INFO knows one value a field; several genres are joined, as FFmpeg shows them.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import BinaryIO

from tagger.errors import TagError

GENRE = "IGNR"
SEPARATOR = "; "
HEAD = 8
BLOCK = 1 << 20
SIZE_LIMIT = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk: its name, where it starts in the file and the size of its content in bytes."""

    name: bytes
    start: int
    size: int

    @property
    def stop(self) -> int:
        return self.start + HEAD + self.size + self.size % 2


def read_genres(file: BinaryIO) -> tuple[str, ...]:
    """Return the genres of the INFO chunk, none where there is no such field."""
    info = _info(file)
    entries = dict(_entries(file, info)) if info else {}
    content = entries.get(GENRE.encode(), b"").split(b"\0")[0]
    try:
        return split(content.decode("utf-8"))
    except UnicodeDecodeError:
        return split(content.decode("cp1252", "replace"))  # as Windows writes it


def join(genres: Sequence[str]) -> str:
    return SEPARATOR.join(genres)


def split(text: str) -> tuple[str, ...]:
    """Undo `join`; also what other programs write: any spaces, empty parts."""
    parts = (part.strip() for part in text.split(SEPARATOR.strip()))
    return tuple(part for part in parts if part)


def write_genres(file: BinaryIO, genres: Sequence[str]) -> None:
    """Set or remove the genre in the INFO chunk; all other entries and chunks stay as they are."""
    info = _info(file)
    entries = list(_entries(file, info)) if info else []
    kept = [(name, content) for name, content in entries if name != GENRE.encode()]
    if genres:
        kept.append((GENRE.encode(), join(genres).encode() + b"\0"))
    if kept == entries:
        return
    body = b"".join(_chunk(name, content) for name, content in kept)
    new = _chunk(b"LIST", b"INFO" + body) if kept else b""
    end = max(chunk.stop for chunk in chunks(file))
    start, stop = (info.start, info.stop) if info else (end, end)
    _splice(file, start, stop, new)
    size = file.seek(0, 2) - HEAD
    if size > SIZE_LIMIT:
        raise TagError("the WAV file would be larger than 4 GiB")
    file.seek(4)
    file.write(struct.pack("<I", size))


def other_chunks(file: BinaryIO) -> dict[str, str]:
    """Return a digest of each chunk but those of the sound and of our fields, by its place."""
    info = _info(file)
    kept = [c for c in chunks(file) if c.name not in (b"data", b"id3 ", b"ID3 ") and c != info]
    found = {
        f"chunk {number} ({chunk.name.decode('latin-1')})": _digest(file, chunk)
        for number, chunk in enumerate(kept)
    }
    entries = _entries(file, info) if info else ()
    return found | {
        f"INFO {name.decode('latin-1')}": repr(content)
        for name, content in entries
        if name != GENRE.encode()
    }


def chunks(file: BinaryIO) -> Iterator[Chunk]:
    """Yield the chunks of a RIFF/WAVE file. Raises TagError for one that cannot be edited."""
    file.seek(0)
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        raise TagError("it is no plain WAV file (RF64 and other kinds cannot be tagged)")
    position, stop = 12, file.seek(0, 2)
    while position + HEAD <= stop:
        file.seek(position)
        name, size = struct.unpack("<4sI", file.read(HEAD))
        chunk = Chunk(name, position, size)
        if chunk.start + HEAD + chunk.size > stop:
            raise TagError(f"its chunk {name.decode('latin-1')!r} is larger than the file")
        yield chunk
        position = chunk.stop


def _info(file: BinaryIO) -> Chunk | None:
    """Return the INFO chunk with a genre, else the first INFO chunk, if there is any."""
    infos = []
    for chunk in list(chunks(file)):
        file.seek(chunk.start + HEAD)
        if chunk.name == b"LIST" and file.read(4) == b"INFO":
            infos.append(chunk)
    with_genre = (info for info in infos if GENRE.encode() in dict(_entries(file, info)))
    return next(with_genre, infos[0] if infos else None)


def _entries(file: BinaryIO, info: Chunk) -> Iterator[tuple[bytes, bytes]]:
    file.seek(info.start + HEAD + 4)
    content = file.read(info.size - 4)
    position = 0
    while position + HEAD <= len(content):
        name, size = struct.unpack_from("<4sI", content, position)
        position += HEAD
        if position + size > len(content):
            raise TagError("its INFO chunk is broken")
        yield name, content[position : position + size]
        position += size + size % 2


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack("<4sI", name, len(content)) + content + b"\0" * (len(content) % 2)


def _digest(file: BinaryIO, chunk: Chunk) -> str:
    file.seek(chunk.start + HEAD)
    digest = sha256()
    for position in range(0, chunk.size, BLOCK):
        digest.update(file.read(min(BLOCK, chunk.size - position)))
    return digest.hexdigest()


def _splice(file: BinaryIO, start: int, stop: int, new: bytes) -> None:
    """Put `new` in the place of the bytes from start to stop, moving what follows in blocks."""
    end = file.seek(0, 2)
    growth = start + len(new) - stop
    blocks = range(stop, end, BLOCK)
    for position in reversed(blocks) if growth > 0 else blocks:
        file.seek(position)
        block = file.read(min(BLOCK, end - position))
        file.seek(position + growth)
        file.write(block)
    file.seek(start)
    file.write(new)
    file.truncate(end + growth)
