"""Read and change the genre of a file, and what tagger says about it, in any container."""

from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from tagger.errors import TagError
from tagger.paths import AnyPath
from tagger.records import Album, RawField, Tags
from tagger.tags import riff
from tagger.tags.containers import open_tagged_file
from tagger.tags.tag import Tag, Values

VARIOUS_ARTISTS = {"various artists", "various", "va", "v.a.", "v/a"}
"""What programs write where an album has no one artist."""

NO_ARTIST = VARIOUS_ARTISTS | {"unknown artist", "unknown"}

UNSET_FLAGS = {"", "0", "\0", "no", "false"}
"""What a flag says that is not set, in whatever kind of tag."""

RAW_BYTES_SUFFIX = " as stored"
"""Marks a raw field whose values are the bytes of a field, as hex: where the text alone would not
bring back its case, encoding, type, number of items or whatever else another program chose."""


def read_tags(path: AnyPath) -> Tags:
    """Return what a file says about its genre.

    Raises TagError for what is no such audio file or has broken tags, AccessError.
    """
    with open_tagged_file(path, "rb", "cannot read the tags") as (file, tag):
        texts = {name: _decode_items(tag, items) for name, items in tag.ours().items()}
        genres, scores, model, written = (texts.get(name, ()) for name in tag.codec.fields)
        genres = _to_genre_names(tag, genres)
        info = riff.read_info_genres(file) if tag.has_info else ()
        more = info or (() if genres else tag.elsewhere(file))
        return Tags(
            genres + _find_new_genres(more, genres),
            written=written,
            scores="".join(scores[:1]),
            model="".join(model[:1]),
            raw=_read_raw_fields(file, tag),
            album=_read_album(file, tag),
        )


def _read_album(file: BinaryIO, tag: Tag) -> Album:
    found = {**tag.fields_elsewhere(file), **_read_credits(tag)}
    artists = [found.get(name, "") for name in tag.codec.artists]
    known = (artist for artist in artists if artist and artist.casefold() not in NO_ARTIST)
    various = found.get(tag.codec.compilation, "").casefold() not in UNSET_FLAGS or any(
        artist.casefold() in VARIOUS_ARTISTS for artist in artists
    )
    return Album(next(known, ""), found.get(tag.codec.album, ""), various)


def _read_credits(tag: Tag) -> dict[str, str]:
    """Return the artists, the album and its flag by field; of several values, the first one."""
    found: dict[str, str] = {}
    wanted = {*tag.codec.artists, tag.codec.album, tag.codec.compilation}
    for item in tag.items:
        name = tag.codec.name_of(item)
        texts = tag.codec.texts_of(item) if name in wanted else ()
        for text in filter(None, map(str.strip, texts)):
            found.setdefault(name, text)
    return found


def _decode_items(tag: Tag, items: Iterable[bytes]) -> Values:
    return tuple(text for item in items for text in tag.codec.texts_of(item))


def _to_genre_names(tag: Tag, genres: Values) -> Values:
    return tuple(genre for genre in tag.codec.genre_names(genres) if genre.strip())


def _find_new_genres(more: Values, genres: Values) -> Values:
    """Return the genres of the file's other tag (INFO in WAV, APEv2 in MP3) that are not these."""
    known = {genre.casefold() for genre in riff.split_genres(riff.join_genres(genres))}
    return tuple(genre for genre in more if genre.casefold() not in known)


def _read_raw_fields(file: BinaryIO, tag: Tag) -> tuple[RawField, ...]:
    """Return our fields as the file has them, without those that it lacks."""
    found = []
    for name, items in tag.ours().items():
        texts = _decode_items(tag, items)
        found.append(RawField(name, texts))
        if tag.codec.items_for(name, texts) != items:
            found.append(RawField(name + RAW_BYTES_SUFFIX, tuple(item.hex() for item in items)))
    info = riff.read_raw_info_genre(file) if tag.has_info else None
    if info is not None:
        genres = riff.read_info_genres(file)
        found.append(RawField(riff.INFO_GENRE, genres))
        if riff.encode_info_genre(genres) != info:
            found.append(RawField(riff.INFO_GENRE + RAW_BYTES_SUFFIX, (info.hex(),)))
    return tuple(found)


def write_tags(path: Path, tags: Tags, already: BinaryIO | None = None) -> None:
    """Change this very file so that it says `tags`; what is empty is taken out.

    `already`: the file, open for reading and writing; the path only tells its kind then.
    Raises TagError where that would lose something, AccessError, DiskFullError.
    """
    with open_tagged_file(path, "r+b", "cannot write the tags", already) as (file, tag):
        if _to_genre_names(tag, tags.genres) != tags.genres:
            raise TagError(f"read back from its tags, {tags.genres} would not be the same")
        scores, model = ((text,) if text else () for text in (tags.scores, tags.model))
        values = dict(
            zip(tag.codec.fields, (tags.genres, scores, model, tags.written), strict=True)
        )
        for text in (text for texts in values.values() for text in texts):
            _check_storable(text)
        info = (
            riff.encode_info_genre(tags.genres)
            if tags.genres and _needs_info_genre(file, tag)
            else None
        )
        _write_items(
            file, tag, {n: tag.codec.items_for(n, texts) for n, texts in values.items()}, info
        )


def _needs_info_genre(file: BinaryIO, tag: Tag) -> bool:
    """Tell whether a genre belongs into INFO: where there is no such chunk, FFmpeg reads ID3.

    From a WAV with both it shows INFO alone: a new chunk for the genre would hide the title.
    """
    ours = sum(map(len, tag.ours().values()))
    return tag.has_info and (riff.find_info(file) is not None or len(tag.items) == ours)


def _check_storable(value: str) -> None:
    """Refuse text that some kind of tag cannot hold as it is."""
    if not value or "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise TagError(f"no tag can store the text {value!r}")


def write_raw(path: Path, raw: Iterable[RawField], already: BinaryIO | None = None) -> None:
    """Put back into this very file the fields that `read_tags` found in `raw`, and no others.

    `already` is as for `write_tags`, and so are the errors.
    """
    with open_tagged_file(path, "r+b", "cannot write the tags", already) as (file, tag):
        fields = {field.name: field.values for field in raw}
        items = {name: _make_items(tag, name, fields) for name in tag.codec.fields}
        info = riff.encode_info_genre(fields.get(riff.INFO_GENRE, ()))
        for value in fields.get(riff.INFO_GENRE + RAW_BYTES_SUFFIX, ()):
            info = bytes.fromhex(value)
        _write_items(file, tag, items, info if riff.INFO_GENRE in fields else None)


def _make_items(tag: Tag, name: str, fields: Mapping[str, Values]) -> list[bytes]:
    """Return the items of a raw field: its bytes, if in this tag they still mean its texts."""
    stored = [bytes.fromhex(value) for value in fields.get(name + RAW_BYTES_SUFFIX, ())]
    texts = fields.get(name, ())
    return (
        stored
        if stored and _decode_items(tag, stored) == texts
        else tag.codec.items_for(name, texts)
    )


def _write_items(
    file: BinaryIO, tag: Tag, items: Mapping[str, list[bytes]], info: bytes | None
) -> None:
    """Set our fields to these items, and remove those for which there are none."""
    if tag.refusal:
        raise TagError(tag.refusal)
    tag.save(file, tag.with_ours(items))
    if tag.has_info:
        riff.write_info_genre(file, info)


OtherFields = dict[str, str]
"""Everything but our fields by name: items of the tag, pictures, chapters, chunks, the sound."""


def read_other_fields(path: Path) -> OtherFields:
    """Return all that a file holds beside our fields; compare two to find a difference.

    Every byte counts but those that have to change: the sizes and places of things, padding.
    Raises TagError, AccessError.
    """
    with open_tagged_file(path, "rb", "cannot read the tags") as (file, tag):
        found: OtherFields = {}
        seen: Counter[str] = Counter()
        for item in tag.items:
            name = tag.codec.name_of(item)
            if name not in tag.codec.fields:
                seen[name] += 1
                key = f"{name} ({seen[name]})" if seen[name] > 1 else name
                found[key] = sha256(item).hexdigest()
        for name, content in tag.rest(file):
            found[name] = content
        return found


def find_changed_fields(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Name the fields that differ."""
    names = sorted(before.keys() | after.keys())
    return [name for name in names if before.get(name) != after.get(name)]
