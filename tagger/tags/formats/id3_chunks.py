"""The files that have their ID3v2 tag in a chunk: WAV and AIFF."""

import io
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import BinaryIO

from tagger.errors import TagError
from tagger.tags.formats import id3, riff
from tagger.tags.formats.chunks import Chunk, Form, other_chunks, read_form, replace_chunk
from tagger.tags.formats.id3_files import frames_tag, rest_of_tag
from tagger.tags.formats.id3_text import ALBUM, ARTIST
from tagger.tags.items import Rest, Tag
from tagger.tags.regions import read_at, size_of

NAMES = (b"id3 ", b"ID3 ")
Others = Callable[..., Rest]


def open_wav(file: BinaryIO) -> Tag:
    form = _form_with(file, b"fmt ", "little")
    tag = _open(file, form, new_name=b"id3 ", others=riff.other_chunks)
    return replace(tag, has_info=True, fields_elsewhere=_info_fields)


def _info_fields(file: BinaryIO) -> dict[str, str]:
    return {ARTIST: riff.read_field(file, "IART"), ALBUM: riff.read_field(file, "IPRD")}


def open_aiff(file: BinaryIO) -> Tag:
    form = _form_with(file, b"COMM", "big")
    return _open(file, form, new_name=b"ID3 ", others=other_chunks)


def _form_with(file: BinaryIO, name: bytes, order: str) -> Form:
    form = read_form(file)
    if form.order != order or not form.find(name):
        raise TagError("it holds no such sound as its name says")
    return form


def _open(file: BinaryIO, form: Form, *, new_name: bytes, others: Others) -> Tag:
    chunk = form.find(*NAMES)
    content = read_at(file, chunk.content, chunk.size) if chunk else b""
    found = id3.read_frames(io.BytesIO(content), 0)
    if content.strip(b"\0") and not found:
        raise TagError("its ID3 chunk holds no ID3 tag")
    behind = content[found.size :].rstrip(b"\0") if found else b""

    def rest(file: BinaryIO) -> Rest:
        yield from rest_of_tag(found)
        yield "what stands behind the ID3 tag", behind.hex()
        yield from others(file, chunk)

    put = partial(_put, chunk=chunk, name=chunk.name if chunk else new_name, behind=behind)
    following = size_of(file) - (chunk.content if chunk else form.stop)
    return frames_tag(found, put=put, rest=rest, following=following)


def _put(file: BinaryIO, new: bytes, *, chunk: Chunk | None, name: bytes, behind: bytes) -> None:
    replace_chunk(file, chunk, name, new + behind)
