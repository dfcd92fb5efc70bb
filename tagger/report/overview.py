"""A whole report in numbers: actions, genres, scores, failures, outliers of albums."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from tagger.decide import AlbumTrack, find_outliers
from tagger.errors import SettingsError
from tagger.paths import display_path
from tagger.records import Action, AlbumWithOutliers, normalize_label
from tagger.report.csv import ReportRow, read_report
from tagger.state import Run, read_albums, read_runs


class FailureTitle(NamedTuple):
    """A kind of failure. cure: what to do about it."""

    title: str
    cure: str


OTHER_FAILURE = FailureTitle(
    "Something else", "The reason says what; `tagger scan --force` tries again."
)

FAILURE_TITLES = {
    r"too short": FailureTitle(
        "Too short", "Nothing to do: a second of sound is needed to tell a genre."
    ),
    r"silent": FailureTitle(
        "Silent where it was listened to",
        "Play it. If there is music later in it, more --windows find it; else nothing to do.",
    ),
    r"truncated|cut off|never finished|is empty": FailureTitle(
        "Cut off or empty", "Fetch or rip the file again: a part of it is missing."
    ),
    r"damaged|is broken|do not fit into one another|cannot be taken apart|hangs|crash": FailureTitle(
        "Damaged",
        "Play it to the end. If that works, `ffmpeg -i OLD -c copy NEW` makes a sound container.",
    ),
    r"whatever its name says|not what its name says|no such sound": FailureTitle(
        "Not what its name says", "Rename it to what it is (`ffprobe` tells), or take it out."
    ),
    r"cannot be decoded|no decoder": FailureTitle(
        "Cannot be decoded", "Convert it to a common format, or leave it out with --exclude."
    ),
    r"changed|was edited|no regular file any more": FailureTitle(
        "Changed while tagger was at work", "Nothing to do: the next run looks again."
    ),
    r"cannot be read|the store |its server |nobody can tell whether": FailureTitle(
        "A server stood in the way", "Nothing to do once it answers: the next run tries again."
    ),
    r"cannot open|cannot read|cannot be looked at|owner and group|ermission": FailureTitle(
        "Out of reach", "Let the user that runs tagger read the file and write its folder."
    ),
    r"--max-": FailureTitle(
        "Took too much time or memory", "Raise the limit that the reason names."
    ),
    r"cannot be tagged|can be tagged|cannot be kept|would be larger|no tag can|not written": FailureTitle(
        "Heard, but its tags cannot be written", "The reason says what stands in the way."
    ),
}
"""By what the reason says; the first that fits counts."""


def find_failure_title(reason: str) -> FailureTitle:
    return next(
        (kind for said, kind in FAILURE_TITLES.items() if re.search(said, reason)), OTHER_FAILURE
    )


HISTOGRAM_BINS = 20
"""So many bars show the scores from 0 to 1."""

TAGGER_ACTIONS = {Action.WRITTEN, Action.WOULD_WRITE, Action.UNCHANGED}
"""The actions after which a file has the genre that tagger chose, or would have it."""

MAX_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class GenreTracks:
    """How many tracks have a genre because of tagger, and how many had and kept it."""

    genre: str
    ours: int
    kept: int


@dataclass(frozen=True, slots=True)
class Disagreement:
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
class ReportOverview:
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
    pairs: tuple[Disagreement, ...]
    failures: tuple[FailureGroup, ...]
    odd: tuple[AlbumWithOutliers, ...] = ()

    @property
    def tracks(self) -> int:
        return sum(self.counts.values())

    def as_json(self) -> dict[str, object]:
        counts = {action.replace("-", "_"): self.counts[action] for action in Action}
        named = {name: value for name, value in asdict(self).items() if name != "counts"}
        return {"tracks": self.tracks, **counts, **named}


@dataclass(slots=True)
class ReportCounts:
    """What is counted of a report, row by row; memory does not grow with its length."""

    counts: Counter[Action] = field(default_factory=Counter)
    ours: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    written_scores: list[int] = field(default_factory=lambda: [0] * HISTOGRAM_BINS)
    low_scores: list[int] = field(default_factory=lambda: [0] * HISTOGRAM_BINS)
    agreed: int = 0
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    failed: Counter[FailureTitle] = field(default_factory=Counter)
    examples: dict[FailureTitle, list[ReportRow]] = field(default_factory=lambda: defaultdict(list))

    def add(self, row: ReportRow) -> None:
        self.counts[row.action] += 1
        if row.action is Action.FAILED:
            self._add_failure(row)
        elif row.action in TAGGER_ACTIONS:
            self.ours.update(row.genres)
        else:
            self.kept.update(row.existing)
        if row.score is not None:
            scores = self.low_scores if row.action is Action.LOW_SCORE else self.written_scores
            scores[min(int(row.score * HISTOGRAM_BINS), HISTOGRAM_BINS - 1)] += 1
        if is_disagreement(row):
            self.pairs[row.existing[0], row.genres[0]] += 1
        elif has_both_genres(row):
            self.agreed += 1

    def _add_failure(self, row: ReportRow) -> None:
        kind = find_failure_title(row.error)
        self.failed[kind] += 1
        if len(self.examples[kind]) < MAX_EXAMPLES:
            self.examples[kind].append(row)

    def overview(self, odd: Iterable[AlbumWithOutliers]) -> ReportOverview:
        """Return it all; `odd` are the albums with tracks that stand apart."""
        names = sorted({*self.ours, *self.kept}, key=lambda n: (-self.ours[n] - self.kept[n], n))
        return ReportOverview(
            counts={action: self.counts[action] for action in Action},
            genres=tuple(GenreTracks(name, self.ours[name], self.kept[name]) for name in names),
            written_scores=tuple(self.written_scores),
            low_scores=tuple(self.low_scores),
            compared=self.agreed + sum(self.pairs.values()),
            agreed=self.agreed,
            pairs=tuple(Disagreement(*names, count) for names, count in self.pairs.most_common()),
            failures=tuple(
                FailureGroup(*kind, count, tuple(self.examples[kind]))
                for kind, count in self.failed.most_common()
            ),
            odd=tuple(odd),
        )


def has_both_genres(row: ReportRow) -> bool:
    """Tell whether a track had a genre of somebody else's and tagger heard one in it."""
    return bool(row.existing and row.genres) and row.action is not Action.UNCHANGED


def is_disagreement(row: ReportRow) -> bool:
    """Tell whether these have nothing in common, however it is spelt."""
    return has_both_genres(row) and {*map(normalize_label, row.existing)}.isdisjoint(
        map(normalize_label, row.genres)
    )


@dataclass(frozen=True, slots=True)
class RunReview:
    """A run, or one of each of several state files; where their reports lie; all in numbers."""

    runs: tuple[Run, ...]
    reports: tuple[Path, ...]
    overview: ReportOverview

    @property
    def names(self) -> str:
        return ", ".join(run.id for run in self.runs)

    @property
    def models(self) -> str:
        return ", ".join(dict.fromkeys(run.model for run in self.runs if run.model))


def review_run(states: Sequence[Path], run_id: str | None) -> RunReview:
    """Return what a run did, by its report; without an id the newest run that wrote one.

    Of several state files, that of each counts, together. Raises SettingsError for a run that never
    was or has no report, ReportError, StateError.
    """
    found = [find_run(state, run_id) for state in states]
    tally, members = ReportCounts(), []
    for state, (_, report) in zip(states, found, strict=True):
        albums = {display_path(path): album for path, album in read_albums(state).items()}
        for row in read_report(report):
            tally.add(row)
            if row.scores and row.path in albums:
                folder = row.path.rpartition("/")[0]
                members.append(AlbumTrack(row.path, folder, albums[row.path], row.scores))
    runs, reports = (tuple(each) for each in zip(*found, strict=True))
    return RunReview(runs, reports, tally.overview(find_outliers(members)))


def find_run(state: Path, run_id: str | None) -> tuple[Run, Path]:
    """Return a run and where its report lies. Errors as of `review_run`."""
    runs = read_runs(state)
    if run_id is None:
        runs = [run for run in runs if run.report]
    found = next((run for run in reversed(runs) if run_id in (None, run.id)), None)
    if found is None:
        what = f"there is no run {run_id}" if run_id else "no run has written a report yet"
        raise SettingsError(f"{what} in {state} (tagger runs lists them)")
    if found.report is None:
        raise SettingsError(f"run {found.id} has no report: it was no scan")
    return found, found.report
