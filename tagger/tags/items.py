"""A tag as the items that it is made of, each the very bytes that stand in the file.

Whatever is not ours goes back as those bytes, whether or not anybody can parse it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

Values = tuple[str, ...]
Rest = Iterator[tuple[str, str]]
"""Named parts of a file, as text to compare."""


def _as_they_are(values: Values) -> Values:
    return values


@dataclass(frozen=True, slots=True)
class Codec:
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
    genre_names: Callable[[Values], Values] = _as_they_are
    artists: Values = field(kw_only=True)
    album: str = field(kw_only=True)
    compilation: str = field(kw_only=True)

    @property
    def fields(self) -> Values:
        return (self.genre, self.scores, self.model, self.written)


def _nothing(_: BinaryIO) -> Values:
    return ()


def _no_fields(_: BinaryIO) -> Mapping[str, str]:
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

    codec: Codec
    items: tuple[bytes, ...]
    save: Callable[[BinaryIO, Sequence[bytes]], None]
    rest: Callable[[BinaryIO], Rest]
    elsewhere: Callable[[BinaryIO], Values] = _nothing
    fields_elsewhere: Callable[[BinaryIO], Mapping[str, str]] = _no_fields
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
