"""Splits that were published as lists of files, such as the fault-filtered one of GTZAN.

Three text files with a path on each line, train_filtered.txt, valid_filtered.txt and
test_filtered.txt, leave out the repetitions, wrong labels and distortions that B. L. Sturm found
("The GTZAN dataset: its contents, its faults, their effects on evaluation, and its future use",
2013), and keep each artist in one half (C. Kereliuk, B. L. Sturm and J. Larsen, "Deep learning and
music adversaries", IEEE Transactions on Multimedia, 2015).
"""

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath

from tagger.errors import LibraryError
from tagger.paths import displayed
from tagger.training.clips import PARTS, Dataset
from tagger.training.reading import SUFFIXES
from tagger.training.splits import Split, split_by_parts

IN_NAMES = {"train": "train", "val": "validation", "test": "test"}
"""What the name of a list says about it."""

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a list: the half, and the name of a file there."""

    half: str
    name: str

    @property
    def key(self) -> Key:
        return _key(self.name)


def read_split_files(paths: Sequence[Path], dataset: Dataset) -> Split:
    """Divide a data set as lists of files say: text files, or CSV with the columns path and part.

    Which half a text file lists is told by its name. A clip is meant by the end of its path, in
    any case and without the suffix; clips that no list names are left out. Raises LibraryError for
    lists that cannot be read or do not fit the data set, and as `split_by_parts`.
    """
    entries = [entry for path in paths for entry in _read(path)]
    names = ", ".join(displayed(Path(path.name)) for path in paths)
    _check_halves({entry.half for entry in entries}, names)
    exact = {str(clip.track.path): number for number, clip in enumerate(dataset.clips)}
    clips = _by_ending(dataset, max(len(entry.key) for entry in entries))
    drop = _common(entries)
    halves: dict[int, str] = {}
    unmatched = []
    for entry in entries:
        number = exact.get(entry.name)
        if number is None:
            number = _find(dataset, clips, entry, drop)
        if number is None:
            unmatched.append(entry.name)
        elif halves.setdefault(number, entry.half) != entry.half:
            path = displayed(dataset.clips[number].track.path)
            raise LibraryError(f"{path} is in two lists: {halves[number]} and {entry.half}")
    if not halves:
        raise LibraryError(
            f"none of the {len(entries)} names in {names} is that of a clip in {dataset.name},"
            f" such as {entries[0].name}"
        )
    parts = [halves.get(number, "") for number in range(len(dataset.clips))]
    return split_by_parts(dataset, parts, f"by the published lists {names}", unmatched)


def _check_halves(halves: set[str], names: str) -> None:
    if "train" not in halves:
        raise LibraryError(f"there is no list of what to learn from (train) in {names}")
    if len(halves) == 1:
        raise LibraryError(f"there is no list of what to hold back (val, test) in {names}")


def _read(path: Path) -> Iterator[Entry]:
    read = _rows if path.suffix.lower() == ".csv" else _lines
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield from read(path, file)
    except OSError as error:
        raise LibraryError(f"cannot read {displayed(path)}: {error.strerror}") from error
    except csv.Error as error:
        raise LibraryError(f"{displayed(path)} is no list: {error}") from error


def _lines(path: Path, lines: Iterable[str]) -> Iterator[Entry]:
    halves = [half for word, half in IN_NAMES.items() if word in path.stem.lower()]
    if len(halves) != 1:
        raise LibraryError(f"the name of {displayed(path)} has to say train, val or test")
    yield from (Entry(halves[0], line.strip()) for line in lines if line.strip())


def _rows(path: Path, lines: Iterable[str]) -> Iterator[Entry]:
    rows = csv.DictReader(lines)
    columns = [name for name in ("part", "split") if name in (rows.fieldnames or ())]
    if not columns or "path" not in (rows.fieldnames or ()):
        raise LibraryError(f"{displayed(path)} has not the columns path and part")
    for row in rows:
        half = PARTS.get((row[columns[0]] or "").strip().casefold())
        if half and row["path"]:
            yield Entry(half, row["path"])


def _key(name: str) -> Key:
    """Return the parts of a path, case-folded and without the suffix of an audio file.

    Only such a suffix: `blues.00029` has none, for all its dot.
    """
    *folders, last = PurePosixPath(name.replace("\\", "/").casefold()).parts or ("",)
    suffix = PurePosixPath(last).suffix
    return (*folders, last.removesuffix(suffix) if suffix in SUFFIXES else last)


def _by_ending(dataset: Dataset, longest: int) -> Mapping[Key, Sequence[int]]:
    found: dict[Key, list[int]] = defaultdict(list)
    for number, clip in enumerate(dataset.clips):
        key = _key(str(clip.track.path))
        for length in range(1, min(longest, len(key)) + 1):
            found[key[-length:]].append(number)
    return found


def _common(entries: Sequence[Entry]) -> int:
    """Return how many folders all names begin with: where the lists were made, not here.

    The folder that a file lies in is never one of them: it may be the genre.
    """
    keys = [entry.key for entry in entries]
    shared = takewhile(lambda parts: len(set(parts)) == 1, zip(*keys, strict=False))
    return max(0, min(len(list(shared)), min(map(len, keys)) - 2))


def _find(
    dataset: Dataset, clips: Mapping[Key, Sequence[int]], entry: Entry, drop: int
) -> int | None:
    found = clips.get(entry.key) or clips.get(entry.key[drop:]) or ()
    if len(found) > 1:
        paths = [displayed(dataset.clips[number].track.path) for number in found[:2]]
        raise LibraryError(f"{entry.name} may be {paths[0]} or {paths[1]}")
    return found[0] if found else None
