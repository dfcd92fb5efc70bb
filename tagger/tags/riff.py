"""The chunks of RIFF (WAV) and IFF (AIFF) files, and the genre in the LIST/INFO chunk of WAV.

A chunk is a name, a size and content padded to an even length. By "Multimedia Programming Interface
and Data Specifications 1.0" and "Audio Interchange File Format 1.3". All chunks but the replaced
one keep their bytes and their order. FFmpeg and programs built on it read the genre of a WAV from
the INFO chunk. A field of INFO has one value; several genres are joined as FFmpeg shows them.
"""

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, Literal

from tagger.errors import FailureKind, TagError
from tagger.tags.tag import NamedParts, Values, get_size, hash_range, read_at, splice

CHUNK_HEADER_BYTES = 8
FORM_HEADER_BYTES = 12
CHUNK_NAME = re.compile(rb"[ -~]{4}")
MAX_FORM_SIZE = (1 << 32) - 1
ByteOrder = Literal["little", "big"]
INFO_GENRE = "IGNR"
OTHER_INFO_GENRE = b"GENR"
INFO_SEPARATOR = "; "
LIST_CHUNK = b"LIST"
SOUND_CHUNKS = (b"data", b"SSND")
MIN_STREAMED_SIZE = 0x7FFFF000
"""A program that streams into a pipe writes a size from here on, or 0."""
InfoEntries = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk: its name, where it starts in the file and the size of its content in bytes."""

    name: bytes
    start: int
    size: int

    @property
    def content(self) -> int:
        return self.start + CHUNK_HEADER_BYTES

    @property
    def stop(self) -> int:
        return self.content + self.size + self.size % 2


@dataclass(frozen=True, slots=True)
class ChunkFile:
    """The chunks of a file, where the last of them ends, and the byte order of the sizes."""

    chunks: tuple[Chunk, ...]
    stop: int
    order: ByteOrder

    def find(self, *names: bytes) -> Chunk | None:
        return next((chunk for chunk in self.chunks if chunk.name in names), None)


def read_chunk_file(file: BinaryIO) -> ChunkFile:
    """Return the chunks of a WAV or AIFF file. Raises TagError if it cannot be edited."""
    head = read_at(file, 0, FORM_HEADER_BYTES)
    if head[:4] == b"FORM" and head[8:] in (b"AIFF", b"AIFC"):
        order: ByteOrder = "big"
    elif head[:4] == b"RIFF" and head[8:] == b"WAVE":
        order = "little"
    else:
        raise TagError("it is no plain WAV or AIFF file (RF64 and other kinds cannot be tagged)")
    end = get_size(file)
    declared = CHUNK_HEADER_BYTES + int.from_bytes(head[4:8], order)
    chunks = _walk_chunks(file, declared, order) if FORM_HEADER_BYTES < declared <= end else None
    if chunks is None:  # some programs never set the size of the file
        chunks = _walk_chunks(file, end, order)
    if chunks is None:
        raise TagError(
            "a chunk of it is larger than the file: it was cut off, or never finished",
            FailureKind.TRUNCATED,
        )
    chunks += tuple(_walk_chunks_behind(file, chunks, end, order))
    stop = min(max(chunk.stop for chunk in chunks), end) if chunks else FORM_HEADER_BYTES
    return ChunkFile(chunks, stop, order)


def _walk_chunks(file: BinaryIO, stop: int, order: ByteOrder) -> tuple[Chunk, ...] | None:
    """Return the chunks up to this place, or None if one ends behind it."""
    chunks, position = [], FORM_HEADER_BYTES
    while position + CHUNK_HEADER_BYTES <= stop:
        head = read_at(file, position, CHUNK_HEADER_BYTES)
        chunk = Chunk(head[:4], position, int.from_bytes(head[4:], order))
        if chunk.name in SOUND_CHUNKS and _is_open_ended(file, chunk, order):
            chunk = replace(chunk, size=get_size(file) - chunk.content)
        if chunk.content + chunk.size > stop:
            return None
        chunks.append(chunk)
        position = chunk.stop
    return tuple(chunks)


def _is_open_ended(file: BinaryIO, chunk: Chunk, order: ByteOrder) -> bool:
    """Tell whether the program that wrote a chunk of sound never knew its size.

    All readers take the rest of the file for sound then.
    """
    end = get_size(file)
    if chunk.size:
        return chunk.size >= MIN_STREAMED_SIZE and chunk.content + chunk.size > end
    head = read_at(file, chunk.content, CHUNK_HEADER_BYTES)
    following = Chunk(head[:4], chunk.content, int.from_bytes(head[4:], order))
    has_name = following.name.isascii() and following.name.decode("ascii").isprintable()
    return not (has_name and following.content + following.size <= end)


def _walk_chunks_behind(
    file: BinaryIO, chunks: Sequence[Chunk], end: int, order: ByteOrder
) -> Iterator[Chunk]:
    """Yield the chunks behind the declared size of the whole, where readers look for them too."""
    position = chunks[-1].stop if chunks else end
    while position + CHUNK_HEADER_BYTES <= end:
        head = read_at(file, position, CHUNK_HEADER_BYTES)
        chunk = Chunk(head[:4], position, int.from_bytes(head[4:], order))
        if not CHUNK_NAME.fullmatch(chunk.name) or chunk.content + chunk.size > end:
            return
        yield chunk
        position = chunk.stop


def replace_chunk(file: BinaryIO, old: Chunk | None, name: bytes, content: bytes) -> None:
    """Put a chunk in place of an old one, or behind all others; without content, remove the old."""
    form = read_chunk_file(file)
    for chunk in form.chunks:
        if chunk.name in SOUND_CHUNKS:  # else an open-ended one would have the new chunk as well
            file.seek(chunk.start + len(chunk.name))
            file.write(min(chunk.size, MAX_FORM_SIZE).to_bytes(4, form.order))
    new = build_chunk(name, content, form.order) if content else b""
    start, stop = (old.start, min(old.stop, get_size(file))) if old else (form.stop, form.stop)
    if not old and new and start % 2:  # the last chunk lacks its padding byte
        new = b"\0" + new
    splice(file, start, stop, new)
    size = form.stop + start + len(new) - stop - CHUNK_HEADER_BYTES
    if size > MAX_FORM_SIZE:
        raise TagError("the file would be larger than the 4 GiB that its format can be")
    file.seek(4)
    file.write(size.to_bytes(4, form.order))


def build_chunk(name: bytes, content: bytes, order: ByteOrder) -> bytes:
    layout = "<4sI" if order == "little" else ">4sI"
    return struct.pack(layout, name, len(content)) + content + b"\0" * (len(content) % 2)


def hash_other_chunks(file: BinaryIO, *edited: Chunk | None) -> NamedParts:
    """Yield a digest of each chunk but the edited ones, and of the bytes behind the chunks."""
    form = read_chunk_file(file)
    for number, chunk in enumerate(chunk for chunk in form.chunks if chunk not in edited):
        name = f"chunk {number} ({chunk.name.decode('latin-1')})"
        yield name, hash_range(file, chunk.content, chunk.content + chunk.size)
    yield "the bytes behind the chunks", hash_range(file, form.stop, get_size(file))


def read_info_genres(file: BinaryIO) -> Values:
    """Return the genres of the INFO chunk, none if it has no such field."""
    return split_genres(_decode_info_text(read_raw_info_genre(file) or b""))


def read_all_info_genres(file: BinaryIO) -> Values:
    """Return the genres of all INFO chunks, also those under the name that other programs use."""
    names = (INFO_GENRE.encode(), OTHER_INFO_GENRE)
    return tuple(
        genre
        for info in _list_infos(file)
        for name, content in _read_info_entries(file, info)
        if name.upper() in names
        for genre in split_genres(_decode_info_text(content))
    )


def read_info_field(file: BinaryIO, name: str) -> str:
    """Return another field of the INFO chunk, empty if it has no such field."""
    info = find_info(file)
    entries = _read_info_entries(file, info) if info else []
    return _decode_info_text(dict(entries).get(name.encode(), b"")).strip()


def _decode_info_text(content: bytes) -> str:
    content = content.split(b"\0")[0]
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")  # as Windows writes it


def read_raw_info_genre(file: BinaryIO) -> bytes | None:
    """Return the bytes of the genre in the INFO chunk, None if it has no such field."""
    info = find_info(file)
    return dict(_read_info_entries(file, info)).get(INFO_GENRE.encode()) if info else None


def encode_info_genre(genres: Sequence[str]) -> bytes:
    """Return the bytes of a genre field with these genres."""
    return join_genres(genres).encode() + b"\0"


def join_genres(genres: Sequence[str]) -> str:
    return INFO_SEPARATOR.join(genres)


def split_genres(text: str) -> Values:
    """Undo `join_genres`; other programs may have written more spaces and empty parts."""
    parts = (part.strip() for part in text.split(INFO_SEPARATOR.strip()))
    return tuple(part for part in parts if part)


def write_info_genre(file: BinaryIO, content: bytes | None) -> None:
    """Set or remove the genre in the INFO chunk; all other entries and chunks stay.

    content: as `encode_info_genre` makes it; None removes the genre.
    """
    info = find_info(file)
    entries = _read_info_entries(file, info) if info else []
    names = [name for name, _ in entries]
    place = names.index(INFO_GENRE.encode()) if INFO_GENRE.encode() in names else len(names)
    kept = [entry for entry in entries if entry[0] != INFO_GENRE.encode()]
    if content is not None:
        kept.insert(place, (INFO_GENRE.encode(), content))
    if kept != entries:
        body = b"".join(build_chunk(*entry, "little") for entry in kept)
        replace_chunk(file, info, LIST_CHUNK, b"INFO" + body if kept else b"")


def hash_other_wav_chunks(file: BinaryIO, *edited: Chunk | None) -> NamedParts:
    """Yield all chunks but the edited ones, and all entries of the INFO chunk but the genre."""
    info = find_info(file)
    yield from hash_other_chunks(file, info, *edited)
    entries = _read_info_entries(file, info) if info else ()
    others = (entry for entry in entries if entry[0] != INFO_GENRE.encode())
    for number, (name, content) in enumerate(others):
        yield f"INFO {name.decode('latin-1')} ({number})", repr(content)


def find_info(file: BinaryIO) -> Chunk | None:
    """Return the INFO chunk with a genre, else the first INFO chunk, else None."""
    infos = _list_infos(file)
    with_genre = (
        info for info in infos if INFO_GENRE.encode() in dict(_read_info_entries(file, info))
    )
    return next(with_genre, infos[0] if infos else None)


def _list_infos(file: BinaryIO) -> list[Chunk]:
    return [
        chunk
        for chunk in read_chunk_file(file).chunks
        if chunk.name == LIST_CHUNK and read_at(file, chunk.content, 4) == b"INFO"
    ]


def _read_info_entries(file: BinaryIO, info: Chunk) -> InfoEntries:
    content = read_at(file, info.content + 4, info.size - 4)
    entries, position = [], 0
    while position + CHUNK_HEADER_BYTES <= len(content):
        name, size = struct.unpack_from("<4sI", content, position)
        position += CHUNK_HEADER_BYTES
        if position + size > len(content):
            raise TagError("its INFO chunk is broken", FailureKind.DAMAGED)
        entries.append((name, content[position : position + size]))
        position += size + size % 2
    return entries
