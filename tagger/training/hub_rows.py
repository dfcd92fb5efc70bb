"""Rows of a data set, as the library datasets holds them, turned into clips: files with labels.

Nothing is decoded here. Sound that lies in the rows is written out once, as the files that it was.
"""

import errno
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tagger.errors import DiskFullError, LibraryError
from tagger.paths import displayed
from tagger.records import Failure, Track
from tagger.tags import EXTENSIONS
from tagger.training.clips import PARTS, Clip

LABELS = ("genre", "label", "genres", "labels")
"""The columns that say what a clip is, the most telling first."""

SNIFFED = {
    b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3", b"\xff\xfb": ".mp3",
    b".snd": ".au", b"FORM": ".aiff",
}  # fmt: skip
"""What files begin with, and how their names should end."""


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where a table keeps what; kind: how its labels are coded."""

    sound: str
    label: str
    kind: Any
    more: tuple[str, ...]


def clips_of(name: str, loaded: Any, folder: Path) -> Iterator[Clip | Failure]:
    """Yield the clips of a Dataset or a DatasetDict, writing their sound into a folder.

    They come in the order of the rows, which a split by a seed counts on. Raises LibraryError where
    no column says what a clip is or how it sounds, DiskFullError where no space is left.
    """
    from datasets import Audio, DatasetDict

    splits = loaded if isinstance(loaded, DatasetDict) else {"": loaded}
    for split, table in splits.items():
        columns = _columns(name, table.features)
        wanted = table.select_columns([columns.sound, columns.label, *columns.more])
        rows = wanted.cast_column(columns.sound, Audio(decode=False))
        part = PARTS.get(split.casefold(), "") if len(splits) > 1 else ""
        for number, row in enumerate(rows):
            yield _clip(row, columns, folder / plain_name(split) / f"{number:06}", part)


def _columns(name: str, features: Mapping[str, Any]) -> _Columns:
    from datasets import Audio, ClassLabel, Value

    # of a list, what it is a list of
    kinds = {name: getattr(feature, "feature", feature) for name, feature in features.items()}
    classes = [name for name, kind in kinds.items() if isinstance(kind, ClassLabel)]
    strings = (Value("string"), Value("large_string"))
    texts = [name for name, kind in kinds.items() if kind in strings]
    here = f"the data set {name} has the columns {', '.join(features)}"
    sounds = [column for column, feature in features.items() if isinstance(feature, Audio)]
    sounds = sounds if len(sounds) == 1 else [each for each in ["audio"] if each in features]
    if not sounds:
        raise LibraryError(f"{here}: which of them is the sound cannot be told (audio)")
    fitting = [each for each in LABELS if each in (*classes, *texts)]
    if not fitting and len(classes) != 1:
        raise LibraryError(f"{here}: which of them is the genre cannot be told (genre, label)")
    label = (*fitting, *classes)[0]
    more = tuple(each for each in ("artist", "album") if each != label and each in texts)
    return _Columns(sounds[0], label, kinds[label], more)


def _clip(row: Mapping[str, Any], columns: _Columns, place: Path, part: str) -> Clip | Failure:
    """Return the clip of a row; `place` is where its sound goes, without the rest of the name."""
    sound = row[columns.sound] or {}
    data, named = sound.get("bytes"), str(sound.get("path") or "")
    called = Path(named or place.name)
    labels = tuple(_labels(row[columns.label], columns.kind))
    if not labels:
        return Failure.unseen(called, "it has no label")
    path = _written(data, PurePosixPath(labels[0], named), place) if data else Path(named)
    try:
        if not path.is_file():
            return Failure.unseen(called, "its sound is neither in the row nor on this disk")
        track = Track.from_stat(path, path.stat())  # Hugging Face's cache is made of links
    except (OSError, ValueError) as error:
        return Failure.unseen(called, f"cannot be looked at: {error}")
    more = {each: str(row[each] or "").strip() for each in columns.more}
    return Clip(track, labels, **more, part=part)


def _labels(value: Any, kind: Any) -> Iterator[str]:
    names = getattr(kind, "names", None)
    for each in value if isinstance(value, list) else [value]:
        if names is None:
            text = str("" if each is None else each).strip()
        else:  # test sets that keep their labels secret have -1
            text = names[each] if each is not None and 0 <= each < len(names) else ""
        if text:
            yield text


def _written(data: bytes, named: PurePosixPath, place: Path) -> Path:
    """Write the sound of a row as a file, unless it stands there.

    Its name ends as that of the row in a folder of its genre, for lists that go by such names.
    """
    suffix = named.suffix.lower()
    if suffix not in EXTENSIONS:
        suffix = next((end for start, end in SNIFFED.items() if data.startswith(start)), ".bin")
    digest = hashlib.sha256(data).hexdigest()[:12]
    folder = place.with_name(f"{place.name}-{digest}") / (plain_name(named.parts[0]) or "genre")
    path = folder / f"{plain_name(named.stem) or 'sound'}{suffix}"
    try:
        if path.exists() and path.stat().st_size == len(data):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        kind = DiskFullError if error.errno == errno.ENOSPC else LibraryError
        raise kind(f"cannot keep {displayed(path)}: {error.strerror}") from error
    return path


def plain_name(text: str) -> str:
    """Return text as a part of a file name that is safe everywhere."""
    return re.sub(r"[^\w.-]+", "-", text, flags=re.ASCII).strip(".-")[:60]
