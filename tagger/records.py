"""The frozen records that cross the borders between modules."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from zlib import crc32

from tagger.errors import FailureKind, TrackError
from tagger.paths import AnyPath, display_path


@dataclass(frozen=True, slots=True)
class Track:
    """An audio file as the crawl found it; two equal Tracks are the same untouched file.

    links: how many names the file has, which says nothing about its content.
    """

    path: AnyPath
    size: int
    mtime_ns: int
    inode: int
    links: int = field(default=1, compare=False)

    @classmethod
    def from_stat(cls, path: AnyPath, status: os.stat_result) -> "Track":
        mtime_ns, inode = to_signed_64(status.st_mtime_ns), to_signed_64(status.st_ino)
        return cls(path, status.st_size, mtime_ns, inode, status.st_nlink)


def to_signed_64(number: int) -> int:
    """Bring a number into the 64 bits of a database column; some systems use the highest one."""
    return number if number < 1 << 63 else number - (1 << 64)


@dataclass(frozen=True, slots=True)
class Score:
    """One label of a model and its probability, 0 to 1."""

    genre: str
    probability: float


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several equal parts of a library; `number` counts from 1."""

    number: int
    total: int

    def has(self, name: bytes) -> bool:
        """Tell whether a name belongs to this part: by its CRC-32, the same on all machines."""
        return crc32(name) % self.total == self.number - 1


def normalize_label(label: str) -> str:
    """Return what two spellings of a genre share: Hip-Hop, hip hop and hiphop are one."""
    return "".join(char for char in label.casefold() if char.isalnum()) or label


@dataclass(frozen=True, slots=True)
class Label:
    """One of the user's own labels, and the sentence that tells a zero-shot model how it sounds."""

    name: str
    prompt: str


def format_scores(scores: Sequence[Score]) -> str:
    """Return scores as in the tags and the report: `Hip-Hop=0.832;Electronic=0.051`."""
    return ";".join(f"{score.genre}={score.probability:.3f}" for score in scores)


@dataclass(frozen=True, slots=True)
class RawField:
    """One tag field as the file stores it, by the name that its container gives it."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Album:
    """Whose album a file says that it is from, and its title; empty where it does not say.

    various: it is a compilation; the artist is then that of the track.
    """

    artist: str = ""
    title: str = ""
    various: bool = False


@dataclass(frozen=True, slots=True)
class Tags:
    """What a file says about its genre.

    genres: the genre field. written: what tagger wrote there last, as the file remembers it.
    No part of the comparison are raw, the same fields exactly as stored, for the journal, and
    album, which is None where nobody has looked.
    """

    genres: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    scores: str = ""
    model: str = ""
    raw: tuple[RawField, ...] = field(default=(), compare=False)
    album: Album | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class TagChange:
    """What is to be replaced in one file.

    copy: the name of the copy, beside the file, that is worked on. undoes: the numbers of the
    journal entries that this takes back; `after.raw` is then put back to the letter.
    """

    track: Track
    before: Tags
    after: Tags
    copy: str
    undoes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class WindowScores:
    """What a model heard in a single window of a track."""

    start_s: float
    end_s: float
    scores: tuple[Score, ...]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model heard in a track: all its labels, best first.

    timeline: its windows one by one, for those who asked.
    """

    track: Track
    scores: tuple[Score, ...]
    model: str
    duration_s: float
    timeline: tuple[WindowScores, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a track has no genre; `permanent` ones are not tried again until the file changes."""

    track: Track
    reason: str
    permanent: bool = True
    kind: FailureKind = FailureKind.OTHER

    @classmethod
    def from_error(cls, track: Track, error: TrackError) -> "Failure":
        return cls(track, str(error), permanent=error.permanent, kind=error.kind)

    @classmethod
    def without_stat(
        cls, path: AnyPath, reason: str, kind: FailureKind = FailureKind.OTHER
    ) -> "Failure":
        """Return the failure of a file that could not even be looked up; another run may."""
        return cls(Track(path, size=0, mtime_ns=0, inode=0), reason, permanent=False, kind=kind)


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

    genres: what stands in the file because of tagger, or would; scores: the top k of the track,
    best first; score: how likely the first genre is, by the whole album where that was asked for.
    new: somebody has to be told: of a failure that no earlier run reported, of an undo refused.
    """

    track: Track
    action: Action
    genres: tuple[str, ...] = ()
    existing: tuple[str, ...] = ()
    scores: tuple[Score, ...] = ()
    score: float | None = None
    duration_s: float | None = None
    model: str = ""
    error: str = ""
    new: bool = False

    @classmethod
    def failed(cls, failure: Failure, tags: Tags | None, *, reported: bool) -> "Outcome":
        """Return the row of a failure; `reported`: by an earlier run already."""
        return cls(
            failure.track,
            Action.FAILED,
            existing=tags.genres if tags else (),
            error=failure.reason,
            new=not reported,
        )


@dataclass(frozen=True, slots=True)
class OutlierTrack:
    """A track that does not sound like its album, and what it sounds like."""

    path: str
    best: Score


@dataclass(frozen=True, slots=True)
class AlbumWithOutliers:
    """An album, its genre by all of its tracks, how many these are, and those that stand apart."""

    folder: str
    title: str
    genre: str
    tracks: int
    odd: tuple[OutlierTrack, ...]


@dataclass(frozen=True, slots=True)
class RepeatedRows:
    """Tracks that follow one another, of which nothing is to be said but what was said before.

    actions: what became of each. text: their rows, as they stood in the earlier report.
    would_rewrite: the bytes of those that would be written.
    """

    actions: Sequence[Action]
    text: str
    would_rewrite: int = 0


@dataclass(frozen=True, slots=True)
class ScanResult:
    """What a whole run did; `counts` has every Action.

    would_rewrite: the bytes of the files that a dry run would have written anew; None unless it was
    one. waiting: how many of the KEPT are left to the next run; None unless the user's time was up.
    """

    run_id: str
    model: str
    dry_run: bool
    counts: Mapping[Action, int]
    failed_new: int
    seconds: float
    report: Path
    would_rewrite: int | None = None
    waiting: int | None = None

    @property
    def tracks(self) -> int:
        return sum(self.counts.values())

    def summary(self) -> dict[str, object]:
        """Return the summary as `--json` prints it and the state file keeps it."""
        counts = {action.replace("-", "_"): self.counts[action] for action in Action}
        return {
            "run_id": self.run_id,
            "model": self.model,
            "dry_run": self.dry_run,
            "tracks": self.tracks,
            **counts,
            "failed_new": self.failed_new,
            **({} if self.would_rewrite is None else {"would_rewrite_bytes": self.would_rewrite}),
            **({} if self.waiting is None else {"waiting": self.waiting}),
            "seconds": round(self.seconds, 3),
            "report": display_path(self.report),
        }


@dataclass(frozen=True, slots=True)
class UndoResult:
    """What an undo did: of how many files the tags were put back, or would be, and the rest.

    refused: changed since, so that putting back would lose somebody's work.
    """

    run_id: str
    dry_run: bool
    restored: int
    would_restore: int
    refused: int
    failed: int
    seconds: float

    @property
    def tracks(self) -> int:
        return self.restored + self.would_restore + self.refused + self.failed

    def summary(self) -> dict[str, object]:
        """Return the summary as `--json` prints it and the state file keeps it."""
        return {
            "run_id": self.run_id,
            "dry_run": self.dry_run,
            "tracks": self.tracks,
            "restored": self.restored,
            "would_restore": self.would_restore,
            "refused": self.refused,
            "failed": self.failed,
            "seconds": round(self.seconds, 3),
        }
