"""A tag as a list of items, each the very bytes that stand in the file."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import BinaryIO

Values = tuple[str, ...]
NamedParts = Iterator[tuple[str, str]]
"""Named parts of a file, as text to compare."""


def _keep_values(values: Values) -> Values:
    return values


@dataclass(frozen=True, slots=True)
class TagCodec:
    """One kind of tag: the names of our four fields in it, and how an item is read and made.

    `name_of` spells our fields as the table does, in whatever case they stand in the file.
    artists, album, compilation: fields that we only read, the artist of the album before that of
    the track.
    """

    genre: str
    scores: str
    model: str
    written: str
    name_of: Callable[[bytes], str]
    texts_of: Callable[[bytes], Values]
    items_for: Callable[[str, Values], list[bytes]]
    genre_names: Callable[[Values], Values] = _keep_values
    artists: Values = field(kw_only=True)
    album: str = field(kw_only=True)
    compilation: str = field(kw_only=True)

    @property
    def fields(self) -> Values:
        return (self.genre, self.scores, self.model, self.written)


def _read_no_genres(_: BinaryIO) -> Values:
    return ()


def _read_no_fields(_: BinaryIO) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class Tag:
    """The tag of an open file.

    `save` puts items in the place of the present ones; `rest` tells all of the file but the items;
    `elsewhere` tells the genres of another tag, which count where this one names none, and
    `fields_elsewhere` the artists and the album, by the names that the codec has for them;
    `has_info` is true of WAV, which tells its genre in a second place too; `refusal` says why the
    tag cannot be written.
    """

    codec: TagCodec
    items: tuple[bytes, ...]
    save: Callable[[BinaryIO, Sequence[bytes]], None]
    rest: Callable[[BinaryIO], NamedParts]
    elsewhere: Callable[[BinaryIO], Values] = _read_no_genres
    fields_elsewhere: Callable[[BinaryIO], Mapping[str, str]] = _read_no_fields
    has_info: bool = False
    refusal: str = ""

    def ours(self) -> dict[str, list[bytes]]:
        """Return the items of our fields by name, in the order of the table."""
        found: dict[str, list[bytes]] = {name: [] for name in self.codec.fields}
        for item in self.items:
            found.get(self.codec.name_of(item), []).append(item)
        return {name: items for name, items in found.items() if items}

    def with_ours(self, wanted: Mapping[str, list[bytes]]) -> list[bytes]:
        """Return the items with these of ours alone; what was there before keeps its place."""
        left, result = dict(wanted), []
        for item in self.items:
            name = self.codec.name_of(item)
            result += left.pop(name, []) if name in self.codec.fields else [item]
        return result + [item for items in left.values() for item in items]


COPY_BLOCK_BYTES = 1 << 20
ID3V1_BYTES = 128


def get_size(file: BinaryIO) -> int:
    return file.seek(0, 2)


def read_at(file: BinaryIO, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(size)


def hash_range(file: BinaryIO, start: int, stop: int) -> str:
    """Return the SHA-256 of the bytes from start to stop, or to the end if that comes first."""
    file.seek(start)
    found = sha256()
    left = stop - start
    while left > 0 and (block := file.read(min(COPY_BLOCK_BYTES, left))):
        found.update(block)
        left -= len(block)
    return found.hexdigest()


def splice(file: BinaryIO, start: int, stop: int, new: bytes) -> None:
    """Put `new` in the place of the bytes from start to stop, moving what follows in blocks."""
    end = get_size(file)
    growth = start + len(new) - stop
    blocks = range(stop, end, COPY_BLOCK_BYTES) if growth else ()
    for position in reversed(blocks) if growth > 0 else blocks:
        block = read_at(file, position, min(COPY_BLOCK_BYTES, end - position))
        file.seek(position + growth)
        file.write(block)
    file.seek(start)
    file.write(new)
    file.truncate(end + growth)


def read_id3v1(file: BinaryIO) -> bytes:
    """Return the ID3v1 tag at the end of a file, if there is one."""
    trailer = read_at(file, max(get_size(file) - ID3V1_BYTES, 0), ID3V1_BYTES)
    return trailer if trailer.startswith(b"TAG") and len(trailer) == ID3V1_BYTES else b""
