"""The frozen records that cross the borders between modules."""

import os
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Track:
    """An audio file as the crawl found it; two equal Tracks are the same untouched file."""

    path: Path
    size: int
    mtime_ns: int
    inode: int
    links: int = 1

    @classmethod
    def from_stat(cls, path: Path, status: os.stat_result) -> "Track":
        return cls(path, status.st_size, status.st_mtime_ns, status.st_ino, status.st_nlink)


@dataclass(frozen=True, slots=True)
class Score:
    """One label of a model and its probability, 0 to 1."""

    genre: str
    probability: float


@dataclass(frozen=True, slots=True)
class RawField:
    """One tag field as the file stores it, by the name that its container gives it."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tags:
    """What a file says about its genre.

    genres: the genre field. written: what tagger wrote there last, as the file remembers it.
    raw: the same fields exactly as stored, for the journal; no part of the comparison.
    """

    genres: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    scores: str = ""
    model: str = ""
    raw: tuple[RawField, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model heard in a track: all its labels, best first."""

    track: Track
    scores: tuple[Score, ...]
    model: str
    duration_s: float


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a track has no genre; `lasting` ones are not tried again until the file changes."""

    track: Track
    reason: str
    lasting: bool = True


class Action(StrEnum):
    """What became of a track, in the words of the report."""

    WRITTEN = "written"
    WOULD_WRITE = "would-write"
    KEPT = "kept"
    UNCHANGED = "unchanged"
    LOW_SCORE = "low-score"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run did with one track: a row of the report.

    genres: what stands in the file because of tagger, or would; scores: the top k, best first.
    new: for a failure, whether no earlier run had reported it.
    """

    track: Track
    action: Action
    genres: tuple[str, ...] = ()
    existing: tuple[str, ...] = ()
    scores: tuple[Score, ...] = ()
    duration_s: float | None = None
    model: str = ""
    error: str = ""
    new: bool = False
