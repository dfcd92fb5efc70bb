"""Files with an ID3v2 tag: MP3, True Audio, DSF, and in a chunk WAV and AIFF."""

import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import BinaryIO

from mutagen.mp3 import MPEGInfo

from tagger.errors import TagError
from tagger.tags import ape, id3, riff
from tagger.tags.id3 import ID3_ALBUM, ID3_ARTIST, get_id3_codec
from tagger.tags.riff import Chunk, ChunkFile, hash_other_chunks, read_chunk_file, replace_chunk
from tagger.tags.tag import NamedParts, Tag, get_size, hash_range, read_at, read_id3v1, splice

DSF_HEADER_BYTES, DSF_SIZES_OFFSET = 28, 12
ID3_2_2_REFUSAL = "its ID3v2.2 tag cannot be kept; a tag editor can bring it to 2.3 or 2.4"


def open_mp3(file: BinaryIO) -> Tag:
    found = id3.read_id3_tag(file, 0)
    file.seek(0)
    if MPEGInfo(file, found.size if found else 0).sketchy:
        raise TagError("it holds no MPEG sound, whatever its name says")
    return replace(_open_id3_in_front(file, found), elsewhere=ape.read_ape_genres)


def open_tta(file: BinaryIO) -> Tag:
    found = id3.read_id3_tag(file, 0)
    if not read_at(file, found.size if found else 0, 4).startswith(b"TTA"):
        raise TagError("it holds no True Audio, whatever its name says")
    return _open_id3_in_front(file, found)


def _open_id3_in_front(file: BinaryIO, found: id3.Id3Tag | None) -> Tag:
    stop = found.size if found else 0

    def rest(file: BinaryIO) -> NamedParts:
        yield from name_id3_parts(found)
        yield "the sound", hash_range(file, stop, get_size(file))

    def put(file: BinaryIO, new: bytes) -> None:
        splice(file, 0, stop, new)

    # Once there is an ID3v2 tag, players no longer look at ID3v1: it has to say the same.
    return make_id3_tag(found, put=put, rest=rest, following=get_size(file), v1=read_id3v1(file))


def name_id3_parts(found: id3.Id3Tag | None) -> NamedParts:
    yield "ID3 version", str(found.version if found else id3.NEW_VERSION)
    yield "what stands behind the ID3 frames", (found.tail if found else b"").hex()


def make_id3_tag(
    found: id3.Id3Tag | None,
    *,
    put: Callable[[BinaryIO, bytes], None],
    rest: Callable[[BinaryIO], NamedParts],
    following: int,
    v1: bytes = b"",
) -> Tag:
    """Return an ID3 tag; with the frames that a new tag takes from an ID3v1 tag."""
    from_v1 = id3.make_frames_from_id3v1(v1) if v1 else []

    def save(file: BinaryIO, items: Sequence[bytes]) -> None:
        is_new = (found.version if found else id3.NEW_VERSION) == id3.NEW_VERSION
        frames = () if is_new and sorted(items) == sorted(from_v1) else items
        put(file, id3.build_id3_tag(found, frames, following=following))

    version = found.version if found else id3.NEW_VERSION
    frames = found.frames if found else tuple(from_v1)
    refusal = ID3_2_2_REFUSAL if version == id3.V2_2 else ""
    return Tag(get_id3_codec(version), frames, save, rest, refusal=refusal)


def open_dsf(file: BinaryIO) -> Tag:
    """Open a DSF file, whose head points at the ID3 tag at its end (DSF File Format 1.01)."""
    head = read_at(file, 0, DSF_HEADER_BYTES)
    if (
        len(head) < DSF_HEADER_BYTES
        or head[:4] != b"DSD "
        or read_at(file, DSF_HEADER_BYTES, 4) != b"fmt "
    ):
        raise TagError("it holds no DSF sound, whatever its name says")
    end = get_size(file)
    _, pointer = struct.unpack_from("<QQ", head, DSF_SIZES_OFFSET)
    found = id3.read_id3_tag(file, pointer) if pointer else None
    if pointer and not found:
        raise TagError("its head points at an ID3 tag that is not there")
    start = pointer or end
    stop = start + found.size if found else end

    def put(file: BinaryIO, new: bytes) -> None:
        splice(file, start, stop, new)
        sizes = struct.pack("<QQ", get_size(file), start if new else 0)
        file.seek(DSF_SIZES_OFFSET)
        file.write(sizes)

    def rest(file: BinaryIO) -> NamedParts:
        yield from name_id3_parts(found)
        yield "the sound", hash_range(file, DSF_HEADER_BYTES, start)
        yield "what stands behind the ID3 tag", hash_range(file, stop, end)

    return make_id3_tag(found, put=put, rest=rest, following=end - start)


ID3_CHUNK_NAMES = (b"id3 ", b"ID3 ")
HashOtherChunks = Callable[..., NamedParts]


def open_wav(file: BinaryIO) -> Tag:
    form = _read_checked_chunks(file, b"fmt ", "little")
    tag = _open_id3_chunk(file, form, new_name=b"id3 ", others=riff.hash_other_wav_chunks)
    return replace(tag, has_info=True, fields_elsewhere=_read_info_fields)


def _read_info_fields(file: BinaryIO) -> dict[str, str]:
    return {
        ID3_ARTIST: riff.read_info_field(file, "IART"),
        ID3_ALBUM: riff.read_info_field(file, "IPRD"),
    }


def open_aiff(file: BinaryIO) -> Tag:
    form = _read_checked_chunks(file, b"COMM", "big")
    return _open_id3_chunk(file, form, new_name=b"ID3 ", others=hash_other_chunks)


def _read_checked_chunks(file: BinaryIO, name: bytes, order: str) -> ChunkFile:
    form = read_chunk_file(file)
    if form.order != order or not form.find(name):
        raise TagError("it holds no such sound as its name says")
    return form


def _open_id3_chunk(
    file: BinaryIO, form: ChunkFile, *, new_name: bytes, others: HashOtherChunks
) -> Tag:
    chunk = form.find(*ID3_CHUNK_NAMES)
    content = read_at(file, chunk.content, chunk.size) if chunk else b""
    found = id3.read_id3_tag(io.BytesIO(content), 0)
    if content.strip(b"\0") and not found:
        raise TagError("its ID3 chunk holds no ID3 tag")
    behind = content[found.size :].rstrip(b"\0") if found else b""

    def rest(file: BinaryIO) -> NamedParts:
        yield from name_id3_parts(found)
        yield "what stands behind the ID3 tag", behind.hex()
        yield from others(file, chunk)

    put = partial(
        _put_id3_chunk, chunk=chunk, name=chunk.name if chunk else new_name, behind=behind
    )
    following = get_size(file) - (chunk.content if chunk else form.stop)
    return make_id3_tag(found, put=put, rest=rest, following=following)


def _put_id3_chunk(
    file: BinaryIO, new: bytes, *, chunk: Chunk | None, name: bytes, behind: bytes
) -> None:
    replace_chunk(file, chunk, name, new + behind)
