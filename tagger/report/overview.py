"""A whole report in numbers: what became of the tracks, their genres, scores and failures."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

from tagger.records import Action, OddAlbum, plain
from tagger.report.cures import Kind, kind_of
from tagger.report.reading import ReportRow

BINS = 20
"""So many bars show the scores from 0 to 1."""

OURS = {Action.WRITTEN, Action.WOULD_WRITE, Action.UNCHANGED}
"""The actions after which a file has the genre that tagger chose, or would have it."""

EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class GenreTracks:
    """How many tracks have a genre because of tagger, and how many had and kept it."""

    genre: str
    ours: int
    kept: int


@dataclass(frozen=True, slots=True)
class Pair:
    """How many tracks had one genre where tagger heard the other."""

    existing: str
    heard: str
    tracks: int


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Tracks that failed for one kind of reason, the first ones by name."""

    title: str
    cure: str
    tracks: int
    examples: tuple[ReportRow, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """A report in numbers.

    written_scores, low_scores: how many tracks have a score in each of BINS steps from 0 to 1,
    apart for those below --min-score. compared: tracks that had a genre and got one from tagger;
    agreed: those of them where it is the same. pairs: the others, the commonest first.
    """

    counts: Mapping[Action, int]
    genres: tuple[GenreTracks, ...]
    written_scores: tuple[int, ...]
    low_scores: tuple[int, ...]
    compared: int
    agreed: int
    pairs: tuple[Pair, ...]
    failures: tuple[FailureGroup, ...]
    odd: tuple[OddAlbum, ...] = ()

    @property
    def tracks(self) -> int:
        return sum(self.counts.values())

    def as_json(self) -> dict[str, object]:
        counts = {action.replace("-", "_"): self.counts[action] for action in Action}
        named = {name: value for name, value in asdict(self).items() if name != "counts"}
        return {"tracks": self.tracks, **counts, **named}


@dataclass(slots=True)
class Tally:
    """What is counted of a report, row by row; memory does not grow with its length."""

    counts: Counter[Action] = field(default_factory=Counter)
    ours: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    written_scores: list[int] = field(default_factory=lambda: [0] * BINS)
    low_scores: list[int] = field(default_factory=lambda: [0] * BINS)
    agreed: int = 0
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    failed: Counter[Kind] = field(default_factory=Counter)
    examples: dict[Kind, list[ReportRow]] = field(default_factory=lambda: defaultdict(list))

    def add(self, row: ReportRow) -> None:
        self.counts[row.action] += 1
        if row.action is Action.FAILED:
            self._add_failure(row)
        elif row.action in OURS:
            self.ours.update(row.genres)
        else:
            self.kept.update(row.existing)
        if row.score is not None:
            scores = self.low_scores if row.action is Action.LOW_SCORE else self.written_scores
            scores[min(int(row.score * BINS), BINS - 1)] += 1
        if is_apart(row):
            self.pairs[row.existing[0], row.genres[0]] += 1
        elif is_compared(row):
            self.agreed += 1

    def _add_failure(self, row: ReportRow) -> None:
        kind = kind_of(row.error)
        self.failed[kind] += 1
        if len(self.examples[kind]) < EXAMPLES:
            self.examples[kind].append(row)

    def overview(self, odd: Iterable[OddAlbum]) -> Overview:
        """Return it all; `odd` are the albums with tracks that stand apart."""
        names = sorted({*self.ours, *self.kept}, key=lambda n: (-self.ours[n] - self.kept[n], n))
        return Overview(
            counts={action: self.counts[action] for action in Action},
            genres=tuple(GenreTracks(name, self.ours[name], self.kept[name]) for name in names),
            written_scores=tuple(self.written_scores),
            low_scores=tuple(self.low_scores),
            compared=self.agreed + sum(self.pairs.values()),
            agreed=self.agreed,
            pairs=tuple(Pair(*names, count) for names, count in self.pairs.most_common()),
            failures=tuple(
                FailureGroup(*kind, count, tuple(self.examples[kind]))
                for kind, count in self.failed.most_common()
            ),
            odd=tuple(odd),
        )


def is_compared(row: ReportRow) -> bool:
    """Tell whether a track had a genre of somebody else's and tagger heard one in it."""
    return bool(row.existing and row.genres) and row.action is not Action.UNCHANGED


def is_apart(row: ReportRow) -> bool:
    """Tell whether these have nothing in common, however it is spelt."""
    return is_compared(row) and {*map(plain, row.existing)}.isdisjoint(map(plain, row.genres))
