"""Genres in other tags of a file than the one that tagger writes.

Readers look in several places: FFmpeg, exiftool, mediainfo and TagLib show the genre of an ID3 or
APE tag around the sound, whatever the container.
"""

import re
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from html import unescape
from io import BytesIO
from itertools import islice
from typing import BinaryIO

from tagger.errors import TagError
from tagger.tags.ape import APE_HEADER_BYTES, APE_MAGIC, read_ape_genres
from tagger.tags.id3 import (
    decode_id3_genres,
    read_id3_tag,
    read_id3v1_genres,
    read_leading_id3_tags,
    read_trailing_id3_tag,
)
from tagger.tags.tag import Tag, Values, get_size, read_at

XMP_GENRE = re.compile(rb"""xmpDM:genre(?:>([^<]+)<|=["']([^"'<]+))""")
STRAY_TAG = re.compile(rb"ID3[\x02-\x04]\0|" + APE_MAGIC)
"""How an ID3v2 tag begins, and the header and the footer of an APE tag."""
MAX_STRAY_TAGS = 32
EDGE_BYTES = 1 << 18
BROKEN_TAG_ERRORS = (TagError, ValueError, LookupError, struct.error)


ID3V1_NAME = "ID3v1"


def read_other_genres(file: BinaryIO, tag: Tag) -> Values:
    """Return the genres of the first other tag that has any. A broken other tag has none."""
    return next((genres for _, genres in list_other_genres(file, tag)), ())


def list_other_genres(file: BinaryIO, tag: Tag) -> Iterator[tuple[str, Values]]:
    """Yield the name and the genres of each other tag that has any.

    The tag that tagger writes may come too, under the name of the place where it stands.
    """
    readers: Mapping[str, Callable[[BinaryIO], Values]] = {
        "another place of the container": tag.read_fallback_genres,
        "ID3v2 at the start": _read_leading_genres,
        "ID3v2 at the end": _read_trailing_genres,
        "APE tag": read_ape_genres,
        ID3V1_NAME: read_id3v1_genres,
        "a tag in an odd place": _read_stray_genres,
        "XMP": _read_xmp_genres,
    }
    for name, read_genres in readers.items():
        with suppress(*BROKEN_TAG_ERRORS):
            if genres := tuple(genre for genre in read_genres(file) if genre.strip()):
                yield name, genres


def read_genres_beside(file: BinaryIO, tag: Tag) -> Values:
    """Return the genres in tags of another kind than the file's own, whatever stands in its own."""
    readers = [read_id3v1_genres, _read_xmp_genres]
    if tag.format.genre != "TCON":
        readers += [_read_leading_genres, _read_trailing_genres]
    if tag.format.genre != "Genre":
        readers.append(read_ape_genres)
    genres: list[str] = []
    for read_genres in readers:
        with suppress(*BROKEN_TAG_ERRORS):
            genres += (genre for genre in read_genres(file) if genre.strip())
    return tuple(dict.fromkeys(genres))


def _read_leading_genres(file: BinaryIO) -> Values:
    return tuple(genre for tag in read_leading_id3_tags(file) for genre in decode_id3_genres(tag))


def _read_trailing_genres(file: BinaryIO) -> Values:
    tag = read_trailing_id3_tag(file)
    return decode_id3_genres(tag) if tag else ()


def _read_stray_genres(file: BinaryIO) -> Values:
    """Return the genres of a tag that stands near the start or the end, but nowhere in particular.

    Programs write tags behind zeros, behind other tags, and at the end without a footer.
    """
    edges = _read_edges(file)
    for found in islice(STRAY_TAG.finditer(edges), MAX_STRAY_TAGS):
        with suppress(*BROKEN_TAG_ERRORS):
            if found[0] == APE_MAGIC:
                genres = read_ape_genres(BytesIO(edges[: found.start() + APE_HEADER_BYTES]))
            else:
                tag = read_id3_tag(BytesIO(edges), found.start())
                genres = decode_id3_genres(tag) if tag else ()
            if genres:
                return genres
    return ()


def _read_xmp_genres(file: BinaryIO) -> Values:
    """Return the genre of XMP, which may stand in any container, near its start or its end."""
    found = XMP_GENRE.search(_read_edges(file))
    return (unescape((found[1] or found[2]).decode("utf-8", "replace")),) if found else ()


def _read_edges(file: BinaryIO) -> bytes:
    start = read_at(file, 0, EDGE_BYTES)
    return start + read_at(file, max(get_size(file) - EDGE_BYTES, len(start)), EDGE_BYTES)
