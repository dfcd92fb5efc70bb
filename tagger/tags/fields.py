"""Read and write the genre of a file and tagger's other fields, in any container."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from tagger.errors import TagError, TrackError
from tagger.paths import AnyPath
from tagger.records import Album, ExtraField, ExtraTag, FileReading, RawField, Tags
from tagger.storage import check_no_writer, sample_content
from tagger.tags import riff
from tagger.tags.ape import APE_FORMAT
from tagger.tags.asf import ASF_FORMAT
from tagger.tags.containers import open_tagged_file
from tagger.tags.id3 import NEW_VERSION, get_id3_format
from tagger.tags.mp4 import MP4_FORMAT
from tagger.tags.other_tags import (
    ID3V1_NAME,
    list_other_genres,
    read_genres_beside,
    read_other_genres,
)
from tagger.tags.tag import Tag, TagFormat, Values
from tagger.tags.vorbis import VORBIS_FORMAT

VARIOUS_ARTISTS = {"various artists", "various", "va", "v.a.", "v/a"}
"""What programs write as the artist of an album by several artists."""

NO_ARTIST = VARIOUS_ARTISTS | {"unknown artist", "unknown"}

UNSET_FLAGS = {"", "0", "\0", "no", "false"}
"""The texts of a flag that is not set, in all formats of tags."""

RAW_BYTES_SUFFIX = " as stored"
"""Marks a raw field whose values are the bytes of a field's items, as hex.

It is there if the texts alone would not bring back the field as another program wrote it: its case,
encoding, type or number of items.
"""
OtherFields = dict[str, str]
"""All parts of a file but tagger's fields by name, each with a text that changes with the part."""


def read_files(
    paths: Iterable[AnyPath], *, extras: Collection[ExtraField] = ()
) -> list[FileReading]:
    return [read_file(path, extras=extras) for path in paths]


def read_file(path: AnyPath, *, extras: Collection[ExtraField] = ()) -> FileReading:
    """Return tags and a sample of a file, also if it has no tags or another program writes it."""
    tags, error = None, None
    try:
        check_no_writer(path, is_settled=True)
        tags = read_tags(path, extras=extras)
    except TrackError as reason:
        error = reason
    return FileReading(tags, error, sample_content(path))


def read_tags(
    path: AnyPath, *, for_writing: bool = False, extras: Collection[ExtraField] = ()
) -> Tags:
    """Return the genres of a file, tagger's other fields, and what says which album it is on.

    extras: the extra fields to read. for_writing: the tags are to be written; TagError says why if
    they cannot be.
    Raises TagError if the file is no such audio file or its tags are broken; AccessError.
    """
    with open_tagged_file(path, "rb", "cannot read the tags") as (file, tag):
        if for_writing and tag.refusal:
            raise tag.refusal
        names = tag.format.list_fields(extras)
        texts = {name: _decode_items(tag, items) for name, items in tag.get_items(names).items()}
        genres, scores, model, written = (texts.get(name, ()) for name in names[:4])
        genres = _to_genre_names(tag, genres)
        second = riff.read_info_genres(file) if tag.has_info_chunk else ()
        second = second or (() if genres else read_other_genres(file, tag))
        return Tags(
            genres + _find_new_genres(second, genres),
            written=written,
            scores="".join(scores[:1]),
            model="".join(model[:1]),
            extras=tuple(_read_extra(tag, each, texts) for each in ExtraField if each in extras),
            raw=_read_raw_fields(file, tag, names),
            album=_read_album(file, tag),
        )


def _read_extra(tag: Tag, extra: ExtraField, texts: Mapping[str, Values]) -> ExtraTag:
    names = tag.format.extras[extra]
    values = tuple(text for text in texts.get(names.values, ()) if text.strip())
    return ExtraTag(extra, values, texts.get(names.written, ()))


def read_genres_elsewhere(path: AnyPath) -> tuple[RawField, ...]:
    """Return the genres outside the fields of `Tags.raw`, by the place where they stand.

    Other programs may show them. Places that repeat the genre field are left out, except ID3v1.
    Raises as `read_tags`.
    """
    with open_tagged_file(path, "rb", "cannot read the tags") as (file, tag):
        items = tag.get_items([tag.format.genre]).get(tag.format.genre, ())
        genres = _to_genre_names(tag, _decode_items(tag, items))
        return tuple(
            RawField(name, others)
            for name, others in list_other_genres(file, tag)
            if name == ID3V1_NAME or others != genres
        )


def read_hidden_genres(path: AnyPath) -> Values:
    """Return the genres that readers would show if tagger's genre field were removed.

    They stand in a tag of another kind, such as ID3v1. The errors are those of `read_tags`.
    """
    with open_tagged_file(path, "rb", "cannot read the tags") as (file, tag):
        return read_genres_beside(file, tag)


def _read_album(file: BinaryIO, tag: Tag) -> Album:
    fields = {**tag.read_fallback_fields(file), **_read_album_fields(tag)}
    artists = [fields.get(name, "") for name in tag.format.artists]
    named = (artist for artist in artists if artist and artist.casefold() not in NO_ARTIST)
    is_compilation = fields.get(tag.format.compilation, "").casefold() not in UNSET_FLAGS
    is_various = any(artist.casefold() in VARIOUS_ARTISTS for artist in artists)
    title = fields.get(tag.format.album, "")
    return Album(next(named, ""), title, is_compilation or is_various)


def _read_album_fields(tag: Tag) -> dict[str, str]:
    """Return artists, album and compilation flag by field; of several values, the first one."""
    fields: dict[str, str] = {}
    wanted = {*tag.format.artists, tag.format.album, tag.format.compilation}
    for item in tag.items:
        name = tag.format.get_name(item)
        texts = tag.format.decode_item(item) if name in wanted else ()
        for text in filter(None, map(str.strip, texts)):
            fields.setdefault(name, text)
    return fields


def _decode_items(tag: Tag, items: Iterable[bytes]) -> Values:
    return tuple(text for item in items for text in tag.format.decode_item(item))


def _to_genre_names(tag: Tag, genres: Values) -> Values:
    return tuple(genre for genre in tag.format.resolve_genres(genres) if genre.strip())


def _find_new_genres(second: Values, genres: Values) -> Values:
    """Return the genres of the second tag (INFO in WAV, APEv2 in MP3) that are not in the first."""
    if not second:
        return ()
    known = {genre.casefold() for genre in riff.split_genres(riff.join_genres(genres))}
    return tuple(genre for genre in second if genre.casefold() not in known)


def _read_raw_fields(file: BinaryIO, tag: Tag, names: Values) -> tuple[RawField, ...]:
    """Return these fields as the file has them, without fields that it lacks."""
    raw = []
    for name, items in tag.get_items(names).items():
        texts = _decode_items(tag, items)
        raw.append(RawField(name, texts))
        if tag.format.encode_field(name, texts) != items:
            raw.append(RawField(name + RAW_BYTES_SUFFIX, tuple(item.hex() for item in items)))
    info = riff.read_raw_info_genre(file) if tag.has_info_chunk else None
    if info is not None:
        genres = riff.read_info_genres(file)
        raw.append(RawField(riff.INFO_GENRE, genres))
        if riff.encode_info_genre(genres) != info:
            raw.append(RawField(riff.INFO_GENRE + RAW_BYTES_SUFFIX, (info.hex(),)))
    return tuple(raw)


def write_tags(path: Path, tags: Tags, open_file: BinaryIO | None = None) -> None:
    """Write tagger's fields into this very file, not into a copy; empty fields are removed.

    Of the extra fields, only those in `tags` are touched; one that has its values already stays as
    it is stored.
    open_file: the file, open for reading and writing. The path then says only its kind.
    Raises TagError if the tags cannot hold these fields; AccessError, DiskFullError.
    """
    with open_tagged_file(path, "r+b", "cannot write the tags", open_file) as (file, tag):
        genres = tags.genres
        if _to_genre_names(tag, genres) != genres:
            raise TagError(f"its tags cannot hold the genres {genres}: others would be read back")
        scores, model = ((text,) if text else () for text in (tags.scores, tags.model))
        names = tag.format.list_fields(tags.extra_fields)
        texts = dict(zip(names[:4], (genres, scores, model, tags.written), strict=True))
        texts |= _get_new_extras(tag, tags)
        for text in (text for values in texts.values() for text in values):
            _check_storable(text)
        needs_info = bool(genres) and _needs_info_genre(file, tag, tags)
        info = riff.encode_info_genre(genres) if needs_info else None
        items = {name: tag.format.encode_field(name, values) for name, values in texts.items()}
        _write_items(file, tag, items, info)


def _get_new_extras(tag: Tag, tags: Tags) -> dict[str, Values]:
    """Return the texts of the extra fields that differ from those in the tag, by field."""
    new: dict[str, Values] = {}
    for extra in tags.extras:
        names = tag.format.extras[extra.field]
        new |= {names.values: extra.values} | (
            {names.written: extra.written} if names.written else {}
        )
    old = tag.get_items(new)
    return {
        name: values
        for name, values in new.items()
        if _decode_items(tag, old.get(name, ())) != values
    }


def _needs_info_genre(file: BinaryIO, tag: Tag, tags: Tags) -> bool:
    """Tell whether a genre has to be written into the INFO chunk too.

    FFmpeg reads the ID3 tag of a WAV only if there is no INFO chunk: a new INFO chunk for the genre
    would hide the title in the ID3 tag.
    """
    if not tag.has_info_chunk:
        return False
    ours = {extra.field for extra in tags.extras if extra.values == extra.written}
    names = {
        each.values if not each.written or field in ours else each.written
        for field, each in tag.format.extras.items()
    }
    own = tag.get_items({*tag.format.list_fields(ours), *names})
    has_others = len(tag.items) > sum(map(len, own.values()))
    return riff.find_info(file) is not None or not has_others


def _check_storable(text: str) -> None:
    """Raise TagError for a text that some format of tags cannot hold."""
    if not text or "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise TagError(f"no tag can store the text {text!r}")


def write_raw(path: Path, tags: Tags, open_file: BinaryIO | None = None) -> None:
    """Put the raw fields of tags that `read_tags` returned back into this very file.

    Fields that `read_tags` was asked for and did not find are removed.
    open_file and the errors are those of `write_tags`.
    """
    with open_tagged_file(path, "r+b", "cannot write the tags", open_file) as (file, tag):
        fields = {field.name: field.values for field in tags.raw}
        names = tag.format.list_fields(tags.extra_fields)
        items = {name: _restore_items(tag, name, fields) for name in names}
        info = riff.encode_info_genre(fields.get(riff.INFO_GENRE, ()))
        for value in fields.get(riff.INFO_GENRE + RAW_BYTES_SUFFIX, ()):
            info = bytes.fromhex(value)
        _write_items(file, tag, items, info if riff.INFO_GENRE in fields else None)


def _restore_items(tag: Tag, name: str, fields: Mapping[str, Values]) -> list[bytes]:
    """Return the items of a raw field: the stored bytes, if in this tag they mean its texts."""
    stored = [bytes.fromhex(value) for value in fields.get(name + RAW_BYTES_SUFFIX, ())]
    texts = fields.get(name, ())
    if stored and _decode_items(tag, stored) == texts:
        return stored
    return tag.format.encode_field(name, texts)


def _write_items(
    file: BinaryIO, tag: Tag, items: Mapping[str, list[bytes]], info: bytes | None
) -> None:
    """Replace the items of tagger's fields and the genre of the INFO chunk."""
    if tag.refusal:
        raise tag.refusal
    tag.save_items(file, tag.replace_items(items))
    if tag.has_info_chunk:
        riff.write_info_genre(file, info)


def read_other_fields(path: Path, extras: Collection[ExtraField] = ()) -> OtherFields:
    """Return all parts of a file but tagger's fields: items, pictures, chapters, chunks, the sound.

    extras: the extra fields that are left out too.
    Every byte counts but those that have to change: sizes and places of parts, and padding.
    Raises TagError, AccessError.
    """
    with open_tagged_file(path, "rb", "cannot read the tags") as (file, tag):
        fields: OtherFields = {}
        seen: Counter[str] = Counter()
        own = tag.format.list_fields(extras)
        for item in tag.items:
            name = tag.format.get_name(item)
            if name not in own:
                seen[name] += 1
                key = f"{name} ({seen[name]})" if seen[name] > 1 else name
                fields[key] = sha256(item).hexdigest()
        fields.update(tag.list_other_parts(file))
        return fields


@cache
def _list_formats() -> tuple[TagFormat, ...]:
    return get_id3_format(NEW_VERSION), VORBIS_FORMAT, MP4_FORMAT, ASF_FORMAT, APE_FORMAT


def list_extra_names(extras: Collection[ExtraField]) -> frozenset[str]:
    """Return the names of the raw fields of these extra fields, in all formats of tags."""
    names = {
        name
        for tag_format in _list_formats()
        for each in extras
        for name in (tag_format.extras[each].values, tag_format.extras[each].written)
    }
    return frozenset(names | {name + RAW_BYTES_SUFFIX for name in names})


def list_shown_names(extras: Collection[ExtraField]) -> frozenset[str]:
    """Return the names, in lower case, that FFmpeg may give to these extra fields."""
    names = {name.rpartition(":")[2].casefold() for name in list_extra_names(extras)}
    return frozenset(names | {each.value for each in extras}) - {""}
