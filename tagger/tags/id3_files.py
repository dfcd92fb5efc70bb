"""Files with an ID3v2 tag: in front of MP3, AAC and TTA, behind DSF, in a chunk of WAV and AIFF."""

import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import BinaryIO

from mutagen.mp3 import MPEGInfo

from tagger.errors import FailureKind, TagError
from tagger.tags import riff
from tagger.tags.id3 import (
    ID3_ALBUM,
    ID3_ARTIST,
    NEW_VERSION,
    V2_2,
    Id3Tag,
    build_id3_tag,
    decode_id3_genres,
    get_id3_format,
    is_shown_frame,
    make_frames_from_id3v1,
    read_id3_tag,
    read_leading_id3_tags,
    skip_id3_tags,
)
from tagger.tags.riff import ChunkFile, hash_other_chunks, read_chunk_file, replace_chunk
from tagger.tags.tag import (
    NamedParts,
    Tag,
    Values,
    get_size,
    hash_range,
    make_content_error,
    read_at,
    read_id3v1,
    remove_copied_items,
    splice,
)

DSF_HEADER_BYTES, DSF_SIZES_OFFSET = 28, 12
ADTS_SYNC_MASK, ADTS_SYNC = 0xFFF6, 0xFFF0
"""The first 16 bits of a frame without its version and its protection bit. Layer 0 is no MPEG."""
MPEG_SYNC_MASK = MPEG_SYNC = 0xFFE00000
MPEG_LAYER_MASK, BIT_RATE_MASK = 0x00060000, 0x0000F000
"""Parts of the first 32 bits of an MPEG frame."""
FREE_FORMAT_REFUSAL = (
    "it is a free-format MP3, whose frames tell no bit rate: neither FFmpeg nor most players decode"
    " it; `lame --decode` makes a WAV of it"
)
ID3_CHUNK_NAMES = (b"id3 ", b"ID3 ")
ID3_2_2_REFUSAL = "its ID3v2.2 tag cannot be kept; a tag editor can bring it to 2.3 or 2.4"
HashOtherChunks = Callable[..., NamedParts]


def open_mp3(file: BinaryIO) -> Tag:
    old = read_id3_tag(file, 0)
    head = int.from_bytes(read_at(file, old.size if old else 0, 4))
    if head & MPEG_SYNC_MASK == MPEG_SYNC and head & MPEG_LAYER_MASK and not head & BIT_RATE_MASK:
        raise TagError(FREE_FORMAT_REFUSAL, FailureKind.CANNOT_DECODE)
    file.seek(0)
    if MPEGInfo(file, old.size if old else 0).sketchy:
        raise make_content_error("MPEG sound")
    return _open_leading_id3(file, old)


def open_aac(file: BinaryIO) -> Tag:
    """Open AAC in ADTS frames (ISO 13818-7), which may have ID3v2 tags in front."""
    head = int.from_bytes(read_at(file, skip_id3_tags(file), 2))
    if head & ADTS_SYNC_MASK != ADTS_SYNC:
        raise make_content_error("AAC sound")
    return _open_leading_id3(file, read_id3_tag(file, 0))


def open_tta(file: BinaryIO) -> Tag:
    if not read_at(file, skip_id3_tags(file), 4).startswith(b"TTA"):
        raise make_content_error("True Audio")
    return _open_leading_id3(file, read_id3_tag(file, 0))


def _open_leading_id3(file: BinaryIO, old: Id3Tag | None) -> Tag:
    """Open a file whose ID3v2 tag stands at its start."""
    stop = old.size if old else 0

    def list_other_parts(file: BinaryIO) -> NamedParts:
        yield from _list_id3_parts(old)
        yield "the sound", hash_range(file, stop, get_size(file))

    def put(file: BinaryIO, new: bytes) -> None:
        splice(file, 0, stop, new)

    # Players ignore ID3v1 if an ID3v2 tag has any text, so a new one has to say the same.
    later_frames = [frame for tag in [*read_leading_id3_tags(file)][1:] for frame in tag.frames]
    id3v1 = b"" if any(map(is_shown_frame, later_frames)) else read_id3v1(file)
    return _make_id3_tag(old, put, list_other_parts, following=get_size(file), id3v1=id3v1)


def _list_id3_parts(old: Id3Tag | None) -> NamedParts:
    yield "ID3 version", str(old.version if old else NEW_VERSION)
    yield "the bytes behind the ID3 frames", (old.tail if old else b"").hex()


def _make_id3_tag(
    old: Id3Tag | None,
    put: Callable[[BinaryIO, bytes], None],
    list_other_parts: Callable[[BinaryIO], NamedParts],
    *,
    following: int,
    id3v1: bytes = b"",
) -> Tag:
    """Return an ID3 tag. One without texts takes over the fields of an ID3v1 tag.

    put: puts the bytes of a new tag into the file, in place of the old ones.
    """
    version, frames = (old.version, old.frames) if old else (NEW_VERSION, ())
    copied = make_frames_from_id3v1(id3v1, version) if id3v1 and version != V2_2 else []
    has_texts = any(map(is_shown_frame, frames))

    def save_items(file: BinaryIO, items: Sequence[bytes]) -> None:
        needed = remove_copied_items(items, copied, is_shown_frame)
        put(file, build_id3_tag(old, needed, following=following))

    return Tag(
        get_id3_format(version),
        frames if has_texts else (*frames, *copied),
        save_items,
        list_other_parts,
        refusal=TagError(ID3_2_2_REFUSAL) if version == V2_2 else None,
    )


def open_dsf(file: BinaryIO) -> Tag:
    """Open a DSF file, whose head points at the ID3 tag at its end (DSF File Format 1.01)."""
    head = read_at(file, 0, DSF_HEADER_BYTES)
    is_dsf = len(head) == DSF_HEADER_BYTES and head.startswith(b"DSD ")
    if not is_dsf or read_at(file, DSF_HEADER_BYTES, 4) != b"fmt ":
        raise make_content_error("DSF sound")
    end = get_size(file)
    _, pointer = struct.unpack_from("<QQ", head, DSF_SIZES_OFFSET)
    old = read_id3_tag(file, pointer) if pointer else None
    if pointer and not old:
        raise TagError("its head points at an ID3 tag that is not there", FailureKind.DAMAGED)
    start = pointer or end
    stop = start + old.size if old else end

    def put(file: BinaryIO, new: bytes) -> None:
        splice(file, start, stop, new)
        sizes = struct.pack("<QQ", get_size(file), start if new else 0)
        file.seek(DSF_SIZES_OFFSET)
        file.write(sizes)

    def list_other_parts(file: BinaryIO) -> NamedParts:
        yield from _list_id3_parts(old)
        yield "the sound", hash_range(file, DSF_HEADER_BYTES, start)
        yield "the bytes behind the ID3 tag", hash_range(file, stop, end)

    return _make_id3_tag(old, put, list_other_parts, following=end - start)


def open_wav(file: BinaryIO) -> Tag:
    form = _read_chunks_with(file, b"fmt ", "little")
    tag = _open_id3_chunk(file, form, b"id3 ", riff.hash_other_wav_chunks)

    def read_genres_of_all_chunks(file: BinaryIO) -> Values:
        return (*tag.read_fallback_genres(file), *riff.read_all_info_genres(file))

    return replace(
        tag,
        has_info_chunk=True,
        read_fallback_genres=read_genres_of_all_chunks,
        read_fallback_fields=_read_info_fields,
    )


def _read_info_fields(file: BinaryIO) -> dict[str, str]:
    return {
        ID3_ARTIST: riff.read_info_field(file, "IART"),
        ID3_ALBUM: riff.read_info_field(file, "IPRD"),
    }


def open_aiff(file: BinaryIO) -> Tag:
    form = _read_chunks_with(file, b"COMM", "big")
    return _open_id3_chunk(file, form, b"ID3 ", hash_other_chunks)


def _read_chunks_with(file: BinaryIO, name: bytes, order: str) -> ChunkFile:
    """Return the chunks of a file. Raises TagError if it lacks this chunk or is of another kind."""
    form = read_chunk_file(file)
    if form.order != order or not form.find(name):
        raise TagError("it holds no such sound as its name says", FailureKind.WRONG_CONTENT)
    return form


def _open_id3_chunk(
    file: BinaryIO, form: ChunkFile, new_name: bytes, hash_others: HashOtherChunks
) -> Tag:
    chunk = form.find(*ID3_CHUNK_NAMES)
    content = read_at(file, chunk.content, chunk.size) if chunk else b""
    old = read_id3_tag(io.BytesIO(content), 0)
    if content.strip(b"\0") and not old:
        raise TagError("its ID3 chunk holds no ID3 tag", FailureKind.DAMAGED)
    tail = content[old.size :].rstrip(b"\0") if old else b""

    def put(file: BinaryIO, new: bytes) -> None:
        replace_chunk(file, chunk, chunk.name if chunk else new_name, new + tail)

    def list_other_parts(file: BinaryIO) -> NamedParts:
        yield from _list_id3_parts(old)
        yield "the bytes behind the ID3 tag", tail.hex()
        yield from hash_others(file, chunk)

    def read_genres_of_chunks(file: BinaryIO) -> Values:
        chunks = (each for each in form.chunks if each.name in ID3_CHUNK_NAMES)
        contents = (io.BytesIO(read_at(file, each.content, each.size)) for each in chunks)
        tags = (read_id3_tag(content, 0) for content in contents)
        return tuple(genre for tag in tags if tag for genre in decode_id3_genres(tag))

    following = get_size(file) - (chunk.content if chunk else form.stop)
    tag = _make_id3_tag(old, put, list_other_parts, following=following)
    return replace(tag, read_fallback_genres=read_genres_of_chunks)
