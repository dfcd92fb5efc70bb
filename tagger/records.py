"""The frozen records that modules pass to each other."""

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import time
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from zlib import crc32

from tagger.errors import FailureKind, KeepReason, TrackError, WriteReason
from tagger.paths import AnyPath, display_path


@dataclass(frozen=True, slots=True)
class Track:
    """An audio file as the crawl found it. Equal Tracks are the same file, not changed since.

    links: how many hard links the file has. The comparison ignores it.
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

    def is_same_version(self, other: "Track") -> bool:
        """Tell whether path, size and mtime are alike. Some mounts give new inodes each time."""
        return replace(self, inode=other.inode) == other


@dataclass(frozen=True, slots=True)
class ContentSample:
    """Something of the content of a file, by which two files can be told apart.

    volume: the file system that has the file; None if that is not known. digest: of some blocks of
    the content; empty if nobody could read them.
    """

    volume: int | None = None
    digest: bytes = b""


def to_signed_64(number: int) -> int:
    """Convert an unsigned 64-bit number to a signed one, as a database column holds it.

    Some file systems use the highest bit of inodes.
    """
    return number if number < 1 << 63 else number - (1 << 64)


@dataclass(frozen=True, slots=True)
class Score:
    """One label of a model and its probability, 0 to 1."""

    genre: str
    probability: float


MAX_NOT_MUSIC = 0.5
"""A window or a track is no music if the labels for that are more likely than this, together."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a model says about a track beside its genre, best first.

    styles: each probability is that of the style in music of its genre. moods, voices: their
    probabilities add up to 1.
    """

    styles: tuple[Score, ...] = ()
    moods: tuple[Score, ...] = ()
    voices: tuple[Score, ...] = ()


@dataclass(frozen=True, slots=True)
class AttributeLabels:
    """The labels of a model for `Attributes`. styles: style -> its genre, a label of the model."""

    styles: Mapping[str, str] = field(default_factory=dict)
    moods: tuple[str, ...] = ()
    voices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `total` equal parts of a library; `number` counts from 1."""

    number: int
    total: int

    def has(self, name: bytes) -> bool:
        """Tell whether a name belongs to this shard, by its CRC-32: the same on all machines."""
        return crc32(name) % self.total == self.number - 1


@lru_cache(maxsize=4096)
def normalize_label(label: str) -> str:
    """Return a key that is equal for all spellings of a genre, as Hip-Hop, hip hop and hiphop."""
    return "".join(char for char in label.casefold() if char.isalnum()) or label


@dataclass(frozen=True, slots=True)
class Label:
    """One of the user's labels, and the sentence that describes it to a zero-shot model."""

    name: str
    prompt: str


def format_scores(scores: Sequence[Score]) -> str:
    """Return scores as tags and the report hold them: `Hip-Hop=0.832;Electronic=0.051`."""
    return ";".join(f"{score.genre}={score.probability:.3f}" for score in scores)


def scores_as_json(scores: Sequence[Score]) -> list[dict[str, object]]:
    """Return scores as elements of the JSON that `--json` prints."""
    return [{"label": score.genre, "score": score.probability} for score in scores]


def split_genres(text: str) -> tuple[str, ...]:
    """Return the genres of a text, in which semicolons stand between them.

    The report has them so, and the user may name a label so. No genre of tagger has a semicolon.
    """
    return tuple(dict.fromkeys(filter(None, map(str.strip, text.split(";")))))


@dataclass(frozen=True, slots=True)
class MinScore:
    """The minimum score with which a genre is written. by_genre: genres with a bound of their own.

    The names in `by_genre` are as the user spells them. They count in any spelling.
    """

    default: float = 0.4
    by_genre: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_zero(self) -> bool:
        """Whether every track gets its best genre, however low its score."""
        return not self.default and not self.by_genre

    def get(self, genre: str) -> float:
        """Return the bound of a genre.

        A name for several genres, such as `House; Electronic`, may have a bound as a whole. Else
        the highest bound of these genres counts.
        """
        if not self.by_genre:
            return self.default
        bounds = {normalize_label(name): bound for name, bound in self.by_genre.items()}
        if (whole := bounds.get(normalize_label(genre))) is not None:
            return whole
        keys = map(normalize_label, split_genres(genre))
        return max((bounds.get(key, self.default) for key in keys), default=self.default)

    def __str__(self) -> str:
        """Return the bounds for people: `0.4`, or `0.4 (Reggae 0.6, Rock 0.5)`."""
        own = ", ".join(f"{name} {bound:g}" for name, bound in self.by_genre.items())
        return f"{self.default:g} ({own})" if own else f"{self.default:g}"


@dataclass(frozen=True, slots=True)
class Hours:
    """A time of each day, also over midnight."""

    start: time
    end: time

    def contain(self, time_of_day: time) -> bool:
        if self.start <= self.end:
            return self.start <= time_of_day < self.end
        return time_of_day >= self.start or time_of_day < self.end

    def __str__(self) -> str:
        return f"{self.start:%H:%M}-{self.end:%H:%M}"


@dataclass(frozen=True, slots=True)
class RawField:
    """One tag field as the file stores it, under the name that its container uses."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Album:
    """The album of a file by its tags. Artist and title are empty where the tags lack them.

    various: the tags call it a compilation; `artist` is then the artist of the track.
    """

    artist: str = ""
    title: str = ""
    various: bool = False


class ExtraField(StrEnum):
    """A tag field beside the genre that tagger writes if the user wants it."""

    STYLE = "style"
    GROUPING = "grouping"
    MOOD = "mood"
    VOICE = "voice"
    MOOD_HAPPY = "mood-happy"
    MOOD_TENSE = "mood-tense"
    MOOD_SAD = "mood-sad"
    MOOD_CALM = "mood-calm"


MOOD_NUMBERS: Mapping[str, ExtraField] = MappingProxyType(
    {
        "Happy": ExtraField.MOOD_HAPPY,
        "Tense": ExtraField.MOOD_TENSE,
        "Sad": ExtraField.MOOD_SAD,
        "Calm": ExtraField.MOOD_CALM,
    }
)
"""The field with the probability of each mood."""


@dataclass(frozen=True, slots=True)
class ExtraTag:
    """One extra field of a file. written: the values that tagger wrote last."""

    field: ExtraField
    values: tuple[str, ...] = ()
    written: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tags:
    """The tags of a file that concern its genre.

    genres: the genre field. written: the genres that tagger wrote last, by a field of its own.
    extras: the extra fields that were asked for, in the order of ExtraField. A change of the tags
    concerns these extra fields and no others.
    raw: all these fields exactly as stored, for the journal. album: None where nobody has read it.
    The comparison ignores raw and album.
    """

    genres: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    scores: str = ""
    model: str = ""
    extras: tuple[ExtraTag, ...] = ()
    raw: tuple[RawField, ...] = field(default=(), compare=False)
    album: Album | None = field(default=None, compare=False)

    @property
    def extra_fields(self) -> tuple[ExtraField, ...]:
        """The extra fields that were asked for."""
        return tuple(extra.field for extra in self.extras)

    def select_extras(self, fields: Collection[ExtraField]) -> "Tags":
        """Return the tags with these extra fields only."""
        return replace(self, extras=tuple(extra for extra in self.extras if extra.field in fields))


@dataclass(frozen=True, slots=True)
class FileReading:
    """What a look into a file found: its tags, or the error if there are none; and a sample."""

    tags: Tags | None
    error: TrackError | None
    sample: ContentSample


@dataclass(frozen=True, slots=True)
class TagChange:
    """The change of the tags of one file.

    copy_name: that of the copy, beside the file, that is edited. restores_raw: write `after.raw`
    exactly as it is stored there, instead of new fields. undone_entries: the ids of the journal
    entries that this change undoes.
    """

    track: Track
    before: Tags
    after: Tags
    copy_name: str
    restores_raw: bool = False
    undone_entries: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class WindowScores:
    """The scores of a single window of a track."""

    start_s: float
    end_s: float
    scores: tuple[Score, ...]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The scores of a track for all labels of a model, best first.

    timeline: the scores of each window, if the caller asked for them.
    """

    track: Track
    scores: tuple[Score, ...]
    model: str
    duration_s: float
    timeline: tuple[WindowScores, ...] = ()
    attributes: Attributes = field(default_factory=Attributes)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a track failed. A run tries a `permanent` failure again only if the file changes."""

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
        """Return the failure of a path that has no size and time; the next run tries it again."""
        return cls(Track(path, size=0, mtime_ns=0, inode=0), reason, permanent=False, kind=kind)


class Action(StrEnum):
    """What a run did with a track, in the words of the report."""

    WRITTEN = "written"
    WOULD_WRITE = "would-write"
    KEPT = "kept"
    UNCHANGED = "unchanged"
    LOW_SCORE = "low-score"
    NOT_MUSIC = "not-music"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run did with one track: a row of the report.

    genres: the genres that tagger wrote, would write, or could not write. existing: the genres that
    the file had. scores: the top k of the track, best first. score: the probability of the first
    genre, for the whole album with --by-album, and with other tracks counted in (--context).
    error: a sentence for people. kind: the same for programs. styles: those of the genres, best
    first. moods, voices: the likely ones. min_score: what the score had to reach.
    new: the exit code reports it: a failure that no earlier run reported, or a refused undo.
    permanent: false for a failure that the next run tries again.
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
    kind: FailureKind | KeepReason | WriteReason | None = None
    styles: tuple[str, ...] = ()
    moods: tuple[str, ...] = ()
    voices: tuple[str, ...] = ()
    min_score: float | None = None
    new: bool = False
    permanent: bool = True

    @classmethod
    def from_failure(cls, failure: Failure, tags: Tags | None, *, reported: bool) -> "Outcome":
        """Return the row of a failure. reported: an earlier run reported a failure of the track."""
        outcome = cls(failure.track, Action.FAILED, existing=tags.genres if tags else ())
        return outcome.fail(failure, reported=reported)

    def fail(self, failure: Failure, *, reported: bool) -> "Outcome":
        """Return the row of a failure that keeps what tagger would have written."""
        return replace(
            self,
            action=Action.FAILED,
            error=failure.reason,
            kind=failure.kind,
            new=not reported,
            permanent=failure.permanent,
        )


@dataclass(frozen=True, slots=True)
class OutlierTrack:
    """A track that sounds unlike its album, and its best score."""

    path: str
    best: Score


@dataclass(frozen=True, slots=True)
class AlbumWithOutliers:
    """An album, its genre, the number of its tracks, and those that sound unlike it."""

    folder: str
    title: str
    genre: str
    tracks: int
    outliers: tuple[OutlierTrack, ...]


@dataclass(frozen=True, slots=True)
class RepeatedRows:
    """Rows of consecutive tracks that an earlier run made and that still hold.

    actions: the action of each row. text: the rows as the CSV report has them.
    would_rewrite: the size in bytes of the files with the action WOULD_WRITE.
    """

    actions: Sequence[Action]
    text: str
    would_rewrite: int = 0


@dataclass(slots=True)
class PassedOver:
    """What a crawl passed over. It counts along while the crawl goes on.

    folders, files: folders, and audio files, with the names of trash, snapshots and programs, and
    those that ignore files hide. suffixes: files of sound that tagger does not know, by suffix.
    """

    folders: int = 0
    files: int = 0
    suffixes: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class GenreNames:
    """The names of genres in a library, counted along while a run gives them other names.

    before, after: name -> tracks. renamed: the old name and the new ones, with semicolons between
    them -> tracks. unknown: names that the vocabulary does not know -> tracks. filled: how many
    tracks get the genre of known scores. without: how many have no genre after the run. starter:
    the vocabulary to start from that the run wrote.
    """

    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)
    renamed: Counter[tuple[str, str]] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    filled: int = 0
    without: int = 0
    starter: Path | None = None

    def as_json(self) -> dict[str, object]:
        renamed = [
            {"from": old, "to": new, "tracks": tracks}
            for (old, new), tracks in self.renamed.most_common()
        ]
        return {
            "genres_before": len(self.before),
            "genres_after": len(self.after),
            "filled": self.filled,
            "without_genre": self.without,
            "renamed": renamed,
            "unknown_genres": dict(self.unknown.most_common()),
            **({"vocabulary": display_path(self.starter)} if self.starter else {}),
        }


@dataclass(frozen=True, slots=True)
class ScanResult:
    """What a whole run did. `counts` has every Action.

    would_rewrite: the size in bytes of the files that a dry run would write; else None.
    waiting: how many of the KEPT tracks wait for the next run; None unless --until ended the run.
    names: of a run that names genres by a vocabulary; None of other runs.
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
    passed_over: PassedOver = field(default_factory=PassedOver)
    names: GenreNames | None = None

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
            **(
                {"passed_over": asdict(self.passed_over)}
                if self.passed_over != PassedOver()
                else {}
            ),
            **(self.names.as_json() if self.names else {}),
            "seconds": round(self.seconds, 3),
            "report": display_path(self.report),
        }


@dataclass(frozen=True, slots=True)
class UndoResult:
    """How many files an undo restored, would restore, refused, and failed to restore.

    refused: files that it left alone, mostly because somebody changed them since.
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
