"""The files that an ID3v2 tag stands in front of, or is pointed at: MP3, True Audio, DSF."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import BinaryIO

from mutagen.mp3 import MPEGInfo

from tagger.errors import TagError
from tagger.tags.formats import ape, id3
from tagger.tags.formats.id3_text import codec
from tagger.tags.items import Rest, Tag
from tagger.tags.regions import digest, read_at, size_of, splice, v1_trailer

DSF_HEAD, SIZES_AT = 28, 12
NO_V2_2 = "its ID3v2.2 tag cannot be kept; a tag editor can bring it to 2.3 or 2.4"


def open_mp3(file: BinaryIO) -> Tag:
    found = id3.read_frames(file, 0)
    file.seek(0)
    if MPEGInfo(file, found.size if found else 0).sketchy:
        raise TagError("it holds no MPEG sound, whatever its name says")
    return replace(_open_front(file, found), elsewhere=ape.read_genres)


def open_tta(file: BinaryIO) -> Tag:
    found = id3.read_frames(file, 0)
    if not read_at(file, found.size if found else 0, 4).startswith(b"TTA"):
        raise TagError("it holds no True Audio, whatever its name says")
    return _open_front(file, found)


def _open_front(file: BinaryIO, found: id3.Frames | None) -> Tag:
    stop = found.size if found else 0

    def rest(file: BinaryIO) -> Rest:
        yield from rest_of_tag(found)
        yield "the sound", digest(file, stop, size_of(file))

    def put(file: BinaryIO, new: bytes) -> None:
        splice(file, 0, stop, new)

    # Once there is an ID3v2 tag, players no longer look at ID3v1: it has to say the same.
    return frames_tag(found, put=put, rest=rest, following=size_of(file), v1=v1_trailer(file))


def rest_of_tag(found: id3.Frames | None) -> Rest:
    yield "ID3 version", str(found.version if found else id3.NEW_VERSION)
    yield "what stands behind the ID3 frames", (found.tail if found else b"").hex()


def frames_tag(
    found: id3.Frames | None,
    *,
    put: Callable[[BinaryIO, bytes], None],
    rest: Callable[[BinaryIO], Rest],
    following: int,
    v1: bytes = b"",
) -> Tag:
    """Return an ID3 tag; with the frames that a new tag takes from an ID3v1 tag."""
    from_v1 = id3.frames_of_v1(v1) if v1 else []

    def save(file: BinaryIO, items: Sequence[bytes]) -> None:
        is_new = (found.version if found else id3.NEW_VERSION) == id3.NEW_VERSION
        frames = () if is_new and sorted(items) == sorted(from_v1) else items
        put(file, id3.build_tag(found, frames, following=following))

    version = found.version if found else id3.NEW_VERSION
    frames = found.frames if found else tuple(from_v1)
    refusal = NO_V2_2 if version == id3.V2_2 else ""
    return Tag(codec(version), frames, save, rest, refusal=refusal)


def open_dsf(file: BinaryIO) -> Tag:
    """Open a DSF file, whose head points at the ID3 tag at its end (DSF File Format 1.01)."""
    head = read_at(file, 0, DSF_HEAD)
    if len(head) < DSF_HEAD or head[:4] != b"DSD " or read_at(file, DSF_HEAD, 4) != b"fmt ":
        raise TagError("it holds no DSF sound, whatever its name says")
    end = size_of(file)
    _, pointer = struct.unpack_from("<QQ", head, SIZES_AT)
    found = id3.read_frames(file, pointer) if pointer else None
    if pointer and not found:
        raise TagError("its head points at an ID3 tag that is not there")
    start = pointer or end
    stop = start + found.size if found else end

    def put(file: BinaryIO, new: bytes) -> None:
        splice(file, start, stop, new)
        sizes = struct.pack("<QQ", size_of(file), start if new else 0)
        file.seek(SIZES_AT)
        file.write(sizes)

    def rest(file: BinaryIO) -> Rest:
        yield from rest_of_tag(found)
        yield "the sound", digest(file, DSF_HEAD, start)
        yield "what stands behind the ID3 tag", digest(file, stop, end)

    return frames_tag(found, put=put, rest=rest, following=end - start)
