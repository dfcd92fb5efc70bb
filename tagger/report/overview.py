"""The numbers of a whole report: actions, genres, scores, failures, albums with outliers."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tagger.decide import format_junk_remark
from tagger.errors import FAILURE_HELP, FailureKind, SettingsError, WriteReason
from tagger.evidence import AlbumTrack, find_outliers
from tagger.paths import parse_displayed_path
from tagger.records import Action, AlbumWithOutliers, PassedOver, normalize_label
from tagger.report.csv import ReportRow, read_report
from tagger.state import Run, read_albums, read_runs
from tagger.vocabulary import list_broader, list_spellings, load_default_vocabulary

HISTOGRAM_BINS = 20
"""The number of bars for scores from 0 to 1."""

TAGGER_ACTIONS = {Action.WRITTEN, Action.WOULD_WRITE, Action.UNCHANGED}
"""The actions of files that have the genre of tagger, or would have it without --dry-run."""

MAX_FAILURE_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class GenreTracks:
    """How many tracks have a genre from tagger (ours), and how many kept it (kept).

    A genre that only got another name is kept.
    """

    genre: str
    ours: int
    kept: int


@dataclass(frozen=True, slots=True)
class Disagreement:
    """How many tracks had one genre while tagger heard the other one."""

    existing: str
    heard: str
    tracks: int


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """The tracks with failures of one kind. examples: the first rows."""

    kind: FailureKind
    title: str
    cure: str
    tracks: int
    examples: tuple[ReportRow, ...]


@dataclass(frozen=True, slots=True)
class ReportOverview:
    """A report in numbers.

    written_scores, low_scores: histograms of the scores, in HISTOGRAM_BINS bins from 0 to 1;
    low_scores has those below --min-score. compared: the number of tracks with a genre in which
    tagger heard one too. agreed: those with the same genre, or one below it. pairs: the others, the
    commonest first.
    """

    counts: Mapping[Action, int]
    genres: tuple[GenreTracks, ...]
    written_scores: tuple[int, ...]
    low_scores: tuple[int, ...]
    compared: int
    agreed: int
    pairs: tuple[Disagreement, ...]
    failures: tuple[FailureGroup, ...]
    outlier_albums: tuple[AlbumWithOutliers, ...] = ()

    @property
    def tracks(self) -> int:
        return sum(self.counts.values())

    def as_json(self) -> dict[str, object]:
        """Return the numbers for JSON. Programs read the keys, so `odd` keeps its old name."""
        values = asdict(self)
        del values["counts"]
        albums = values.pop("outlier_albums")
        for album in albums:
            album["odd"] = album.pop("outliers")
        counts = {action.replace("-", "_"): self.counts[action] for action in Action}
        return {"tracks": self.tracks, **counts, **values, "odd": albums}


@dataclass(slots=True)
class ReportCounts:
    """The counts of a report, added row by row. Memory does not grow with the report."""

    counts: Counter[Action] = field(default_factory=Counter)
    ours: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    written_scores: list[int] = field(default_factory=lambda: [0] * HISTOGRAM_BINS)
    low_scores: list[int] = field(default_factory=lambda: [0] * HISTOGRAM_BINS)
    agreed: int = 0
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    failed: Counter[FailureKind] = field(default_factory=Counter)
    examples: dict[FailureKind, list[ReportRow]] = field(default_factory=lambda: defaultdict(list))

    def add(self, row: ReportRow) -> None:
        self.counts[row.action] += 1
        if row.action is Action.FAILED:
            self._add_failure(row)
        elif row.kind is WriteReason.RENAMED:
            self.kept.update(row.genres)
        elif row.action in TAGGER_ACTIONS:
            self.ours.update(row.genres)
        else:
            self.kept.update(row.existing)
        if row.score is not None and row.action is not Action.FAILED:
            scores = self.low_scores if row.action is Action.LOW_SCORE else self.written_scores
            scores[min(int(row.score * HISTOGRAM_BINS), HISTOGRAM_BINS - 1)] += 1
        if is_disagreement(row):
            self.pairs[row.existing[0], row.genres[0]] += 1
        elif has_both_genres(row):
            self.agreed += 1

    def _add_failure(self, row: ReportRow) -> None:
        kind = get_failure_kind(row)
        self.failed[kind] += 1
        if len(self.examples[kind]) < MAX_FAILURE_EXAMPLES:
            self.examples[kind].append(row)

    def make_overview(self, outlier_albums: Iterable[AlbumWithOutliers]) -> ReportOverview:
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
                FailureGroup(
                    kind,
                    FAILURE_HELP[kind].title,
                    FAILURE_HELP[kind].cure,
                    count,
                    tuple(self.examples[kind]),
                )
                for kind, count in self.failed.most_common()
            ),
            outlier_albums=tuple(outlier_albums),
        )


def get_failure_kind(row: ReportRow) -> FailureKind:
    """Return the kind of a failed row. Reports of version 0.1.0 have none."""
    return row.kind if isinstance(row.kind, FailureKind) else FailureKind.OTHER


def has_both_genres(row: ReportRow) -> bool:
    """Tell whether a track had a genre that is not tagger's, and tagger heard one in it."""
    is_heard = row.score is not None  # else a vocabulary or a rule gave the genre
    is_junk = format_junk_remark(row.existing) in row.error
    has_both = bool(row.existing and row.genres) and not is_junk
    return is_heard and has_both and row.action is not Action.UNCHANGED


def is_disagreement(row: ReportRow) -> bool:
    """Tell whether tagger says another genre than a track has, in any spelling.

    A genre above that of the track is no other one, such as Electronic above Tech House.
    """
    if not has_both_genres(row):
        return False
    vocabulary = load_default_vocabulary()
    found = {name for genre in row.existing for name in list_spellings(genre, vocabulary)}
    found |= {name for genre in row.existing for name in list_broader(genre, vocabulary)}
    heard = (name for genre in row.genres for name in list_spellings(genre, vocabulary))
    return {*map(normalize_label, found)}.isdisjoint(map(normalize_label, heard))


@dataclass(frozen=True, slots=True)
class RunReview:
    """A run, or one run of each state file, with their reports and the numbers of all."""

    runs: tuple[Run, ...]
    reports: tuple[Path, ...]
    overview: ReportOverview

    @property
    def names(self) -> str:
        return ", ".join(run.id for run in self.runs)

    @property
    def passed_over(self) -> PassedOver:
        found = [PassedOver(**run.result.get("passed_over", {})) for run in self.runs]
        suffixes: Counter[str] = Counter()
        for each in found:
            suffixes.update(each.suffixes)
        folders, files = (sum(each.folders for each in found), sum(each.files for each in found))
        return PassedOver(folders, files, suffixes)

    @property
    def models(self) -> str:
        return ", ".join(dict.fromkeys(run.model for run in self.runs if run.model))


def review_run(states: Sequence[Path], run_id: str | None) -> RunReview:
    """Review a run by its report; without an id, the newest run with a report.

    With several state files, count the run of each together. Raises SettingsError for an unknown
    run or one without a report, ReportError, StateError.
    """
    found = [find_run(state, run_id) for state in states]
    counts, tracks = ReportCounts(), []
    for state, (_, report) in zip(states, found, strict=True):
        scored = []
        for row in read_report(report):
            counts.add(row)
            if row.scores and row.action is not Action.NOT_MUSIC:
                scored.append((row.path, row.scores))
        albums = read_albums(state, [parse_displayed_path(name) for name, _ in scored])
        for name, scores in scored:
            if album := albums.get(parse_displayed_path(name)):
                tracks.append(AlbumTrack(name, name.rpartition("/")[0], album, scores))
    runs, reports = zip(*found, strict=True)
    return RunReview(runs, reports, counts.make_overview(find_outliers(tracks)))


def describe_passed_over(passed_over: PassedOver) -> Iterator[str]:
    """Yield what a person should know of what a crawl passed over, the commonest suffix first."""
    if passed_over.suffixes:
        items = sorted(passed_over.suffixes.items(), key=lambda item: (-item[1], item[0]))
        counts = ", ".join(f"{count} {suffix}" for suffix, count in items)
        yield f"Passed over, because tagger does not know these formats: {counts}"
    if passed_over.folders or passed_over.files:
        yield (
            "Passed over (names of trash, snapshots and programs; files such as .nomedia):"
            f" folders {passed_over.folders}, audio files {passed_over.files}"
        )


def find_run(state: Path, run_id: str | None) -> tuple[Run, Path]:
    """Return a run and the path of its report. Errors as of `review_run`."""
    runs = read_runs(state)
    if run_id is None:
        runs = [run for run in runs if run.report]
    chosen = next((run for run in reversed(runs) if run_id in (None, run.id)), None)
    if chosen is None:
        problem = f"there is no run {run_id}" if run_id else "no run has written a report yet"
        raise SettingsError(f"{problem} in {state} (tagger runs --state FILE lists them)")
    if chosen.report is None:
        raise SettingsError(f"run {chosen.id} has no report: it was no scan")
    return chosen, chosen.report
