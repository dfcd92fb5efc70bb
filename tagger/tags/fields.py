"""Read and change the genre of a file, and what tagger says about it, in any container."""

import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal

from mutagen import MutagenError
from mutagen.apev2 import APENoHeaderError, APEv2
from mutagen.flac import FLAC, Padding, VCFLACDict
from mutagen.id3 import TCON, BitPaddedInt
from mutagen.mp3 import MP3
from mutagen.wave import WAVE

from tagger.errors import TagError
from tagger.records import RawField, Tags
from tagger.tags import riff
from tagger.tags.containers import APE, FAMILIES, ID3, VORBIS, Family, OurTXXX, Values, kind_of
from tagger.tags.system import os_error

FOREIGN_ERRORS = (
    MutagenError, ValueError, LookupError, ArithmeticError, EOFError, TypeError,
    struct.error, zlib.error, RecursionError, MemoryError,
)  # fmt: skip
"""What mutagen raises on broken files: its own error, or whatever a wrong size or offset leads to.
Not OSError, which is about the disk, nor AttributeError, which would be about our own code."""

OUR_FRAMES = {"TCON": TCON, "TXXX": OurTXXX}
"""The ID3 frames that mutagen parses here. It keeps all others as the bytes that they are, and
writes them back so, even those that it could not parse."""

FRAME = "ID3 frame"
FRAME_HEAD = 10
V1_SIZE = 128

NEW_ID3_VERSION = 4
"""ID3v2.4 for a file that has no tag: the version in which several genres are standard."""

OtherFields = dict[str, str]
"""Everything but our fields, as text to compare: tag fields, pictures, versions, other blocks."""


@contextmanager
def _opened(path: Path, mode: Literal["rb", "r+b"], doing: str) -> Iterator[tuple[BinaryIO, Any]]:
    """Give the open file and what mutagen made of it; foreign errors stop here."""
    try:
        with path.open(mode) as file:
            if not file.read(1):
                raise TagError("the file is empty")
            yield file, _load(path.suffix, file)
    except OSError as error:
        raise os_error(error, doing) from error
    except FOREIGN_ERRORS as error:
        refusal = _refusal_behind(error)
        if refusal:
            raise os_error(refusal, doing) from error
        raise TagError(
            f"{doing}: broken, or not what its name says ({error or type(error).__name__})"
        ) from error


def _refusal_behind(error: BaseException) -> OSError | None:
    """Return the refusal of the system that mutagen turned into an error of its own, if any."""
    cause = error.__context__
    return cause if cause is None or isinstance(cause, OSError) else _refusal_behind(cause)


def _load(suffix: str, file: BinaryIO) -> Any:
    kind: Any = kind_of(suffix, file)
    file.seek(0)
    if FAMILIES[kind] is not ID3:
        return kind(file)
    audio = kind(file, known_frames=OUR_FRAMES, translate=False, load_v1=False)
    if getattr(audio.info, "sketchy", False):
        raise TagError("it holds no MPEG sound, whatever its name says")
    # Once there is an ID3v2 tag, players no longer look at ID3v1: it has to say the same.
    v1_alone = audio.tags is None and _v1_trailer(file)
    if v1_alone or (audio.tags is not None and _needs_parsing(audio.tags)):
        file.seek(0)
        audio = kind(file, translate=False)
    return audio


def _needs_parsing(tags: Any) -> bool:
    """Tell whether frames kept as bytes would mean something else in the tag that is written."""
    unsynchronised = tags.version[:2] == (2, 4) and tags.f_unsynch
    return unsynchronised or tags.version[:2] == (2, 2) or _has_plain_sizes(tags)


def _has_plain_sizes(tags: Any) -> bool:
    """Tell whether frames of an ID3v2.4 tag have sizes that are not syncsafe, as old iTunes wrote.

    mutagen understands them, but they must not be kept as bytes beside frames that are right.
    """
    return tags.version[:2] == (2, 4) and any(
        BitPaddedInt(bytes(frame[4:8])) != len(frame) - FRAME_HEAD for frame in tags.unknown_frames
    )


def read_tags(path: Path) -> Tags:
    """Return what a file says about its genre.

    Raises TagError for what is no such audio file or has broken tags, AccessError.
    """
    with _opened(path, "rb", "cannot read the tags") as (file, audio):
        stored = _stored(file, audio)
        family = FAMILIES[type(audio)]
        genres, scores, model, written = (stored.get(name, ()) for name in family.fields)
        genres = _names(family, genres)
        return Tags(
            genres + _unsaid(stored.get(riff.GENRE) or _ape_genres(file, audio, genres), genres),
            written=written,
            scores="".join(scores[:1]),
            model="".join(model[:1]),
            raw=tuple(RawField(name, values) for name, values in stored.items()),
        )


def _names(family: Family, genres: Values) -> Values:
    """Return genres as names: ID3 also knows them by number, such as `17` or `(17)`."""
    named = TCON(text=list(genres)).genres if family is ID3 and genres else genres
    return tuple(genre for genre in named if genre.strip())


def _stored(file: BinaryIO, audio: Any) -> dict[str, Values]:
    """Return our fields as the file has them, without those that it lacks."""
    family = FAMILIES[type(audio)]
    names = family.fields if audio.tags is not None else ()
    found = {name: family.get(audio.tags, name) for name in names}
    if isinstance(audio, WAVE):
        found[riff.GENRE] = riff.read_genres(file)
    return {name: values for name, values in found.items() if values}


def _ape_genres(file: BinaryIO, audio: Any, genres: Values) -> Values:
    """Return the genres of the APEv2 tag of an MP3 whose ID3 tag names none."""
    if isinstance(audio, MP3) and not genres:
        file.seek(0)
        with suppress(APENoHeaderError):
            return APE.get(APEv2(file), APE.genre)
    return ()


def _unsaid(more: Values, genres: Values) -> Values:
    """Return the genres of the file's other tag (INFO in WAV, APEv2 in MP3) that are not these."""
    known = {genre.casefold() for genre in riff.split(riff.join(genres))}
    return tuple(genre for genre in more if genre.casefold() not in known)


def write_tags(path: Path, tags: Tags) -> None:
    """Change this very file so that it says `tags`; what is empty is taken out.

    Raises TagError where that would lose something, AccessError, DiskFullError.
    """
    with _opened(path, "r+b", "cannot write the tags") as (file, audio):
        family = FAMILIES[type(audio)]
        if _names(family, tags.genres) != tags.genres:
            raise TagError(f"read back from its tags, {tags.genres} would not be the same")
        wanted = {
            family.genre: tags.genres,
            family.scores: (tags.scores,) if tags.scores else (),
            family.model: (tags.model,) if tags.model else (),
            family.written: tags.written,
            riff.GENRE: tags.genres,
        }
        _store(file, audio, wanted)


def write_raw(path: Path, raw: Iterable[RawField]) -> None:
    """Put back into this very file the fields that `read_tags` found in `raw`, and no others.

    Raises TagError where that would lose something, AccessError, DiskFullError.
    """
    with _opened(path, "r+b", "cannot write the tags") as (file, audio):
        _store(file, audio, {field.name: field.values for field in raw})


def _store(file: BinaryIO, audio: Any, wanted: Mapping[str, Values]) -> None:
    """Set our fields to the wanted values, and remove those for which there are none."""
    _refuse_lossy(audio)
    family = FAMILIES[type(audio)]
    if audio.tags is None:
        audio.add_tags()
    for name in family.fields:
        family.put(audio.tags, name, tuple(map(_storable, wanted.get(name, ()))))
    _save(audio, file)
    if isinstance(audio, WAVE):
        riff.write_genres(file, wanted.get(riff.GENRE, ()))


def _storable(value: str) -> str:
    """Refuse text that some kind of tag cannot hold as it is."""
    if not value or "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise TagError(f"no tag can store the text {value!r}")
    return value


def _save(audio: Any, file: BinaryIO) -> None:
    file.seek(0)
    if FAMILIES[type(audio)] is not ID3:
        audio.save(file)
        return
    trailer = _v1_trailer(file)
    file.seek(0)
    # v23_sep=None: several values stay several in 2.3 too, divided by null as in 2.4
    audio.tags.save(file, v2_version=_id3_version(audio), v23_sep=None)
    if trailer:  # mutagen keeps an ID3v1 tag, but would write our genre into it
        file.seek(-V1_SIZE, 2)
        file.write(trailer)


def _id3_version(audio: Any) -> int:
    """Return the version to save in: the one that the file has."""
    major, minor, *_ = audio.tags.version
    return minor if major == 2 else NEW_ID3_VERSION  # noqa: PLR2004 - 1.1 for ID3v1


def _v1_trailer(file: BinaryIO) -> bytes:
    file.seek(max(file.seek(0, 2) - V1_SIZE, 0))
    trailer = file.read(V1_SIZE)
    return trailer if trailer.startswith(b"TAG") and len(trailer) == V1_SIZE else b""


def _refuse_lossy(audio: Any) -> None:
    """Refuse the files that mutagen cannot write back as they are."""
    family, tags = FAMILIES[type(audio)], audio.tags
    if tags is None:
        return
    if family is ID3 and tags.version[:2] == (2, 2):
        raise TagError("its ID3v2.2 tag cannot be kept; a tag editor can bring it to 2.3 or 2.4")
    if family is VORBIS and any("\ufffd" in value for _, value in tags):
        raise TagError("its comments hold text that is no UTF-8 and would be lost")


def other_fields(path: Path) -> OtherFields:
    """Return all that the file's tags hold beside our fields; compare two to find a difference.

    Raises TagError, AccessError.
    """
    with _opened(path, "rb", "cannot read the tags") as (file, audio):
        family = FAMILIES[type(audio)]
        ours = {name.casefold() for name in family.fields}
        fields = _items(_all_tags(file, audio), family)
        found = {name: repr(value) for name, value in fields if name.casefold() not in ours}
        if isinstance(audio, FLAC):
            kept = [b for b in audio.metadata_blocks if not isinstance(b, Padding | VCFLACDict)]
            found |= {f"block {number}": repr(block.write()) for number, block in enumerate(kept)}
        if isinstance(audio, WAVE):
            found |= riff.other_chunks(file)
        if family is ID3:
            found["ID3v1"] = _v1_trailer(file).hex()
            raw = audio.tags.unknown_frames if audio.tags is not None else ()
            frames = Counter(map(bytes, raw))
            found |= {f"{FRAME} {data[:4]!r} {data!r}": str(n) for data, n in frames.items()}
        return found


def lost_fields(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Name the fields that differ. ID3 frames may be new as bytes, when the tag itself is."""
    names = sorted(before.keys() | after.keys())
    differing = [name for name in names if before.get(name, "") != after.get(name, "")]
    lost = [name for name in differing if name in before or not name.startswith(FRAME)]
    return [name.split(" b", 1)[0] if name.startswith(FRAME) else name for name in lost]


def _all_tags(file: BinaryIO, audio: Any) -> Any:
    """Return the tags parsed to the last field, ID3v1 where there is no other; None for no tags."""
    if FAMILIES[type(audio)] is not ID3:
        return audio.tags
    file.seek(0)
    return type(audio)(file, translate=False).tags


def _items(tags: Any, family: Family) -> Iterator[tuple[str, object]]:
    """Yield the fields by name; those that share one name together, in their order."""
    if tags is None:
        return
    yield from (tags.as_dict() if hasattr(tags, "as_dict") else dict(tags)).items()
    if family is VORBIS:
        yield "vendor", tags.vendor
