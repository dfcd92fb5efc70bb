"""APEv2 tags: of Monkey's Audio, WavPack and Musepack files, and of MP3s that have one too.

By the "APEv2 specification" of the Hydrogenaudio knowledge base. mutagen finds the tag, which may
stand at either end, broken in several known ways. It is written here, for mutagen cuts off an
ID3v1 tag behind it and forgets which items are read-only.
"""

import errno
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from mutagen.apev2 import APENoHeaderError, _APEv2Data

from tagger.errors import TagError
from tagger.tags.items import Codec, Rest, Tag, Values
from tagger.tags.regions import digest, read_at, size_of, splice, v1_trailer

MAGIC = b"APETAGEX"
MAGICS = (b"MAC ", b"wvpk", b"MPCK", b"MP+", b"ID3", MAGIC[:4])
HEAD = 32
VERSION = 2000
HAS_HEADER, IS_HEADER = 1 << 31, 1 << 29
ITEM = struct.Struct("<II")
KIND, TEXT = 0b110, 0


@dataclass(frozen=True, slots=True)
class Found:
    """Where an APE tag stands in a file, and its items."""

    start: int
    stop: int
    version: int
    items: tuple[bytes, ...]


def open_ape(file: BinaryIO) -> Tag:
    """Open a file with an APEv2 tag; its sound is none of our business here.

    mutagen's reader of Musepack streams does not come back from some broken ones (1.48).
    """
    if not read_at(file, 0, 4).startswith(MAGICS):
        raise TagError("it holds no Monkey's Audio, WavPack or Musepack, whatever its name says")
    found = _find(file)
    end = size_of(file)
    new_start = end - len(v1_trailer(file))  # an ID3v1 tag is looked for at the very end
    start, stop = (found.start, found.stop) if found else (new_start, new_start)

    def rest(file: BinaryIO) -> Rest:
        yield "the sound", digest(file, 0, start)
        yield "what stands behind the APE tag", digest(file, stop, end)

    def save(file: BinaryIO, items: Sequence[bytes]) -> None:
        splice(file, start, stop, _build(items) if items else b"")

    old = found is not None and found.version < VERSION
    refusal = "its tag is APEv1, which holds no Unicode; a tag editor can make it APEv2"
    items = found.items if found else ()
    return Tag(CODEC, items, save, rest, refusal=refusal if old else "")


def read_genres(file: BinaryIO) -> Values:
    """Return the genres of the APE tag of a file of another kind."""
    found = _find(file)
    items = found.items if found else ()
    return tuple(
        text for item in items if _name_of(item) == CODEC.genre for text in _texts_of(item)
    )


class _Remembering:
    """A file that remembers a refusal of the system, for mutagen goes on over it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.refusal: OSError | None = None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            try:
                return getattr(self.file, name)(*args)
            except OSError as error:
                if error.errno != errno.EINVAL:  # a place before the start of the file
                    self.refusal = error
                raise

        return call


def _find(file: BinaryIO) -> Found | None:
    file.seek(0)
    remembering: Any = _Remembering(file)
    try:
        data: Any = _APEv2Data(remembering)
    except APENoHeaderError:
        return None
    finally:
        if remembering.refusal:
            raise remembering.refusal
    if data.start is None or data.tag is None:
        return None
    start, stop = min(data.start, data.header), data.end
    head = read_at(file, data.header, len(MAGIC)) if data.header != data.data else MAGIC
    if start < 0 or head != MAGIC:
        raise TagError("its APE tag is broken: it does not begin where its end says")
    version = int.from_bytes(data.version, "little")
    return Found(start, stop, version, tuple(_split(data.tag)))


def _split(content: bytes) -> list[bytes]:
    items, position = [], 0
    while position + ITEM.size < len(content):
        size, _ = ITEM.unpack_from(content, position)
        stop = content.index(b"\0", position + ITEM.size) + 1 + size
        if stop > len(content):
            raise TagError("its APE tag is broken: an item is longer than the tag")
        items.append(content[position:stop])
        position = stop
    if content[position:].strip(b"\0"):
        raise TagError("its APE tag is broken: there is more in it than items")
    return items


def _build(items: Sequence[bytes]) -> bytes:
    body = b"".join(items)
    head = MAGIC + struct.pack("<III", VERSION, len(body) + HEAD, len(items))
    flags = (HAS_HEADER | IS_HEADER, HAS_HEADER)
    first, last = (head + struct.pack("<I8x", each) for each in flags)
    return first + body + last


def _name_of(item: bytes) -> str:
    key = item[ITEM.size : item.index(b"\0", ITEM.size)].decode("latin-1")
    return OURS.get(key.lower(), key.lower())


def _texts_of(item: bytes) -> Values:
    _, flags = ITEM.unpack_from(item)
    content = item[item.index(b"\0", ITEM.size) + 1 :]
    text = content.decode("utf-8", "replace") if flags & KIND == TEXT else ""
    return tuple(text.split("\0")) if text else ()


def _items_for(name: str, values: Values) -> list[bytes]:
    content = "\0".join(values).encode()
    return [ITEM.pack(len(content), TEXT) + name.encode() + b"\0" + content] if values else []


CODEC = Codec(
    "Genre",
    "TAGGER_SCORES",
    "TAGGER_MODEL",
    "TAGGER_GENRE",
    _name_of,
    _texts_of,
    _items_for,
    artists=("album artist", "albumartist", "artist"),
    album="album",
    compilation="compilation",
)
OURS = {name.lower(): name for name in CODEC.fields}
