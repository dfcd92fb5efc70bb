"""The genre in the LIST/INFO chunk of a WAV file, which is what FFmpeg and its friends read.

INFO knows one value a field; several genres are joined, as FFmpeg shows them.
"""

import struct
from collections.abc import Sequence
from typing import BinaryIO

from tagger.errors import TagError
from tagger.tags.formats.chunks import HEAD, Chunk, chunk_bytes, read_form, replace_chunk
from tagger.tags.formats.chunks import other_chunks as all_but
from tagger.tags.items import Rest, Values
from tagger.tags.regions import read_at

GENRE = "IGNR"
SEPARATOR = "; "
LIST = b"LIST"

Entries = list[tuple[bytes, bytes]]


def read_genres(file: BinaryIO) -> Values:
    """Return the genres of the INFO chunk, none where there is no such field."""
    return split(_text(stored_genre(file) or b""))


def read_field(file: BinaryIO, name: str) -> str:
    """Return another field of the INFO chunk, empty where there is no such field."""
    info = find_info(file)
    entries = _entries(file, info) if info else []
    return _text(dict(entries).get(name.encode(), b"")).strip()


def _text(content: bytes) -> str:
    content = content.split(b"\0")[0]
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")  # as Windows writes it


def stored_genre(file: BinaryIO) -> bytes | None:
    """Return the genre of the INFO chunk as the bytes that it is."""
    info = find_info(file)
    return dict(_entries(file, info)).get(GENRE.encode()) if info else None


def content_of(genres: Sequence[str]) -> bytes:
    """Return the bytes that genres are stored as."""
    return join(genres).encode() + b"\0"


def join(genres: Sequence[str]) -> str:
    return SEPARATOR.join(genres)


def split(text: str) -> Values:
    """Undo `join`; also what other programs write: any spaces, empty parts."""
    parts = (part.strip() for part in text.split(SEPARATOR.strip()))
    return tuple(part for part in parts if part)


def store_genre(file: BinaryIO, content: bytes | None) -> None:
    """Set the genre in the INFO chunk, or remove it; all other entries and chunks stay.

    content: as `content_of` makes it.
    """
    info = find_info(file)
    entries = _entries(file, info) if info else []
    names = [name for name, _ in entries]
    place = names.index(GENRE.encode()) if GENRE.encode() in names else len(names)
    kept = [entry for entry in entries if entry[0] != GENRE.encode()]
    if content is not None:
        kept.insert(place, (GENRE.encode(), content))
    if kept != entries:
        body = b"".join(chunk_bytes(*entry, "little") for entry in kept)
        replace_chunk(file, info, LIST, b"INFO" + body if kept else b"")


def other_chunks(file: BinaryIO, *ours: Chunk | None) -> Rest:
    """Tell all chunks but ours, and all entries of the INFO chunk but the genre."""
    info = find_info(file)
    yield from all_but(file, info, *ours)
    entries = _entries(file, info) if info else ()
    others = (entry for entry in entries if entry[0] != GENRE.encode())
    for number, (name, content) in enumerate(others):
        yield f"INFO {name.decode('latin-1')} ({number})", repr(content)


def find_info(file: BinaryIO) -> Chunk | None:
    """Return the INFO chunk with a genre, else the first INFO chunk, if there is any."""
    infos = [
        chunk
        for chunk in read_form(file).chunks
        if chunk.name == LIST and read_at(file, chunk.content, 4) == b"INFO"
    ]
    with_genre = (info for info in infos if GENRE.encode() in dict(_entries(file, info)))
    return next(with_genre, infos[0] if infos else None)


def _entries(file: BinaryIO, info: Chunk) -> Entries:
    content = read_at(file, info.content + 4, info.size - 4)
    entries, position = [], 0
    while position + HEAD <= len(content):
        name, size = struct.unpack_from("<4sI", content, position)
        position += HEAD
        if position + size > len(content):
            raise TagError("its INFO chunk is broken")
        entries.append((name, content[position : position + size]))
        position += size + size % 2
    return entries
