"""The chunks of RIFF (WAV) and IFF (AIFF) files: a name, a size, content padded to an even length.

By "Multimedia Programming Interface and Data Specifications 1.0" and "Audio Interchange File
Format 1.3". All chunks but the one that is replaced keep their bytes and their order.
"""

import struct
from dataclasses import dataclass
from typing import BinaryIO, Literal

from tagger.errors import TagError
from tagger.tags.items import Rest
from tagger.tags.regions import digest, read_at, size_of, splice

HEAD = 8
FORM_HEAD = 12
SIZE_LIMIT = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk: its name, where it starts in the file and the size of its content in bytes."""

    name: bytes
    start: int
    size: int

    @property
    def content(self) -> int:
        return self.start + HEAD

    @property
    def stop(self) -> int:
        return self.content + self.size + self.size % 2


@dataclass(frozen=True, slots=True)
class Form:
    """The chunks of a file, where the last of them ends, and the byte order of sizes."""

    chunks: tuple[Chunk, ...]
    stop: int
    order: Literal["little", "big"]

    def find(self, *names: bytes) -> Chunk | None:
        return next((chunk for chunk in self.chunks if chunk.name in names), None)


def read_form(file: BinaryIO) -> Form:
    """Return the chunks of a WAV or AIFF file. Raises TagError for one that cannot be edited."""
    head = read_at(file, 0, FORM_HEAD)
    if head[:4] == b"FORM" and head[8:] in (b"AIFF", b"AIFC"):
        order: Literal["little", "big"] = "big"
    elif head[:4] == b"RIFF" and head[8:] == b"WAVE":
        order = "little"
    else:
        raise TagError("it is no plain WAV or AIFF file (RF64 and other kinds cannot be tagged)")
    end = size_of(file)
    declared = HEAD + int.from_bytes(head[4:8], order)
    chunks = _walk(file, declared, order) if FORM_HEAD < declared <= end else None
    if chunks is None:  # some writers never come back to set the size of the whole
        chunks = _walk(file, end, order)
    if chunks is None:
        raise TagError("a chunk of it is larger than the file: it was cut off, or never finished")
    return Form(chunks, min(max(c.stop for c in chunks), end) if chunks else FORM_HEAD, order)


def _walk(file: BinaryIO, stop: int, order: Literal["little", "big"]) -> tuple[Chunk, ...] | None:
    """Return the chunks up to this place, None where one goes beyond it."""
    chunks, position = [], FORM_HEAD
    while position + HEAD <= stop:
        head = read_at(file, position, HEAD)
        chunk = Chunk(head[:4], position, int.from_bytes(head[4:], order))
        if chunk.content + chunk.size > stop:
            return None
        chunks.append(chunk)
        position = chunk.stop
    return tuple(chunks)


def replace_chunk(file: BinaryIO, old: Chunk | None, name: bytes, content: bytes) -> None:
    """Put a chunk in the place of an old one, or behind all others; none if it has no content."""
    form = read_form(file)
    new = chunk_bytes(name, content, form.order) if content else b""
    start, stop = (old.start, min(old.stop, size_of(file))) if old else (form.stop, form.stop)
    if not old and new and start % 2:  # the last chunk lacks its byte of padding
        new = b"\0" + new
    splice(file, start, stop, new)
    size = form.stop + start + len(new) - stop - HEAD
    if size > SIZE_LIMIT:
        raise TagError("the file would be larger than the 4 GiB that its format can be")
    file.seek(4)
    file.write(size.to_bytes(4, form.order))


def chunk_bytes(name: bytes, content: bytes, order: Literal["little", "big"]) -> bytes:
    layout = "<4sI" if order == "little" else ">4sI"
    return struct.pack(layout, name, len(content)) + content + b"\0" * (len(content) % 2)


def other_chunks(file: BinaryIO, *ours: Chunk | None) -> Rest:
    """Tell a digest of each chunk but ours, by its place, and of what is no chunk."""
    form = read_form(file)
    for number, chunk in enumerate(chunk for chunk in form.chunks if chunk not in ours):
        name = f"chunk {number} ({chunk.name.decode('latin-1')})"
        yield name, digest(file, chunk.content, chunk.content + chunk.size)
    yield "what stands behind the chunks", digest(file, form.stop, size_of(file))
