"""The tag of an open file as a list of items, and the reading and writing of bytes in a file."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import BinaryIO

from tagger.errors import FailureKind, TagError
from tagger.records import MOOD_NUMBERS, ExtraField

Values = tuple[str, ...]
"""The texts of one field."""
NamedParts = Iterator[tuple[str, str]]
"""Parts of a file: the name of each, and a text that changes when the part changes."""


def _keep_values(values: Values) -> Values:
    return values


@dataclass(frozen=True, slots=True)
class ExtraNames:
    """The names of an extra field in a format of tags.

    written: the field that says what tagger wrote there; empty for fields of tagger's own.
    """

    values: str
    written: str = ""


def name_extra_fields(
    names: Mapping[ExtraField, str], own_name: str
) -> Mapping[ExtraField, ExtraNames]:
    """Return the names of all extra fields. own_name: a pattern for fields of tagger's own."""
    extras = {each: ExtraNames(name, own_name.format(each.name)) for each, name in names.items()}
    numbers = {each: ExtraNames(own_name.format(each.name)) for each in MOOD_NUMBERS.values()}
    return {**extras, **numbers}


@dataclass(frozen=True, slots=True)
class TagFormat:
    """A format of tags, such as APEv2: the names of tagger's fields, and how items are coded.

    An item is the bytes of one frame, comment, atom or attribute, as they stand in the file.

    genre, scores, model, written: the names of the fields that tagger writes.
    extras: the names of the fields that it writes if the user wants them.
    get_name: returns the name of an item's field. For tagger's fields it returns exactly the name
    given here, also for other cases of letters where the format takes them for the same name. In
    MP4 and ID3 this holds for the extra fields, whose names other programs write in other cases.
    decode_item: returns the texts of an item.
    encode_field: returns the items of a field with these texts.
    resolve_genres: turns genre numbers into names.
    artists, album, compilation: fields that tagger only reads. The artist of the album stands
        before the artist of the track.
    """

    genre: str
    scores: str
    model: str
    written: str
    get_name: Callable[[bytes], str]
    decode_item: Callable[[bytes], Values]
    encode_field: Callable[[str, Values], list[bytes]]
    resolve_genres: Callable[[Values], Values] = _keep_values
    extras: Mapping[ExtraField, ExtraNames] = field(kw_only=True)
    artists: Values = field(kw_only=True)
    album: str = field(kw_only=True)
    compilation: str = field(kw_only=True)

    def list_fields(self, extras: Iterable[ExtraField]) -> Values:
        """Return the names of the genre field, of tagger's own fields, and of these extra fields.

        The first four are those of genre, scores, model and written.
        """
        names = [self.genre, self.scores, self.model, self.written]
        for each in extras:
            names += filter(None, (self.extras[each].values, self.extras[each].written))
        return tuple(names)


def _read_no_genres(_: BinaryIO) -> Values:
    return ()


def _read_no_fields(_: BinaryIO) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class Tag:
    """The tag of an open file.

    save_items: replaces all items of the tag.
    list_other_parts: lists everything in the file but the items, to find unwanted changes.
    read_fallback_genres: reads genres in other places of the container, where some readers find
        them. They count if this tag has none.
    read_fallback_fields: reads artist and album from elsewhere, under the names of the format.
    has_info_chunk: whether the file is a WAV, which has its genre in the INFO chunk too.
    refusal: why the tag cannot be written; None if it can.
    """

    format: TagFormat
    items: tuple[bytes, ...]
    save_items: Callable[[BinaryIO, Sequence[bytes]], None]
    list_other_parts: Callable[[BinaryIO], NamedParts]
    read_fallback_genres: Callable[[BinaryIO], Values] = _read_no_genres
    read_fallback_fields: Callable[[BinaryIO], Mapping[str, str]] = _read_no_fields
    has_info_chunk: bool = False
    refusal: TagError | None = None

    def get_items(self, names: Iterable[str]) -> dict[str, list[bytes]]:
        """Return the items of these fields by field, without fields that the file lacks."""
        found: dict[str, list[bytes]] = {name: [] for name in names}
        for item in self.items:
            found.get(self.format.get_name(item), []).append(item)
        return {name: items for name, items in found.items() if items}

    def replace_items(self, new: Mapping[str, list[bytes]]) -> list[bytes]:
        """Return all items with new ones for the fields in `new`; a field stays where it was."""
        unplaced, result = dict(new), []
        for item in self.items:
            name = self.format.get_name(item)
            result += unplaced.pop(name, []) if name in new else [item]
        return result + [item for items in unplaced.values() for item in items]


def make_content_error(content: str) -> TagError:
    """Return the error for a file that is not what its suffix says."""
    return TagError(f"it holds no {content}, whatever its name says", FailureKind.WRONG_CONTENT)


COPY_BLOCK_BYTES = 1 << 20
ID3V1_BYTES = 128
NO_ID3V1_GENRE = 255
ID3_HEADER_BYTES = 10
MAX_SYNCSAFE = (1 << 28) - 1
"""The largest number in four bytes of seven bits; no ID3v2 tag is larger."""


def get_size(file: BinaryIO) -> int:
    return file.seek(0, 2)


def read_at(file: BinaryIO, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(size)


def hash_range(file: BinaryIO, start: int, stop: int) -> str:
    """Return the SHA-256 of the bytes from start to stop, or to the end of a shorter file."""
    file.seek(start)
    digest = sha256()
    remaining = stop - start
    while remaining > 0 and (block := file.read(min(COPY_BLOCK_BYTES, remaining))):
        digest.update(block)
        remaining -= len(block)
    return digest.hexdigest()


def splice(file: BinaryIO, start: int, stop: int, new: bytes) -> None:
    """Replace the bytes from start to stop; the bytes behind them are moved in blocks."""
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
    """Return the ID3v1 tag at the end of a file, or no bytes if there is none."""
    trailer = read_at(file, max(get_size(file) - ID3V1_BYTES, 0), ID3V1_BYTES)
    return trailer if trailer.startswith(b"TAG") and len(trailer) == ID3V1_BYTES else b""


@dataclass(frozen=True, slots=True)
class Id3v1:
    """The fields of an ID3v1 tag. Nobody knows the encoding of the texts.

    track: 0 if it has no number. genre: a number in the list of ID3v1, None if it has none.
    """

    title: bytes
    artist: bytes
    album: bytes
    year: bytes
    comment: bytes
    track: int
    genre: int | None


def parse_id3v1(trailer: bytes) -> Id3v1:
    """Parse the bytes of an ID3v1 tag, by id3.org/ID3v1."""
    comment, track = trailer[97:127], 0
    if not comment[-2]:  # ID3v1.1: a zero byte, and the number of the track
        track, comment = comment[-1], comment[:-2]
    parts = (trailer[3:33], trailer[33:63], trailer[63:93], trailer[93:97], comment)
    title, artist, album, year, comment = (part.split(b"\0")[0].strip() for part in parts)
    genre = None if trailer[127] == NO_ID3V1_GENRE else trailer[127]
    return Id3v1(title, artist, album, year, comment, track, genre)


def remove_copied_items(
    items: Sequence[bytes], copied: Sequence[bytes], is_shown: Callable[[bytes], bool]
) -> list[bytes]:
    """Return the items of a tag without those copied from an ID3v1 tag, if they add nothing to it.

    They add nothing if the tag has all of them and no other item that players show.
    """
    others = [item for item in items if item not in copied]
    is_needed = any(map(is_shown, others)) or not set(copied) <= set(items)
    return list(items) if is_needed else others


def decode_syncsafe(data: bytes) -> int:
    """Decode a size as ID3v2 stores it: seven bits a byte, the highest first."""
    size = 0
    for byte in data:
        size = size << 7 | byte & 0x7F
    return size


def encode_syncsafe(size: int) -> bytes:
    """Encode a size as four bytes of seven bits. Raises TagError if it is too large."""
    if size > MAX_SYNCSAFE:
        raise TagError("its ID3v2 tag would be larger than the 256 MB that such a tag can be")
    return bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
