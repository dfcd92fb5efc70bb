"""Tables on a terminal: the scores of tracks, and the overview of a run."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from rich.bar import Bar
from rich.table import Table
from rich.text import Text

from tagger.cli.progress import LoadingStatus, PipeSafeConsole
from tagger.cli.terminal import escape_unprintable, format_track_count
from tagger.paths import AnyPath, display_path
from tagger.records import AlbumWithOutliers, Failure, Prediction, Score
from tagger.report.overview import ReportOverview, RunReview, describe_passed_over

SCORE_BAR_WIDTH = 32
MAX_GENRE_WIDTH = 24
"""Columns for a genre. A longer name is cut off, to keep the numbers in sight."""


def make_number_table(*columns: str) -> Table:
    """Return an empty table of genres or the like, each with numbers behind it."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    first, *others = columns
    table.add_column(first, no_wrap=True, max_width=MAX_GENRE_WIDTH)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


class ScoreTables:
    """Prints results on stdout unless it is `quiet`."""

    def __init__(self, loading: LoadingStatus, *, quiet: bool) -> None:
        self.out = PipeSafeConsole(quiet=quiet)
        self.status = loading.status

    def show(self, path: AnyPath, result: Prediction | Failure, model: str) -> None:
        name = escape_unprintable(display_path(path))
        self.status.stop()  # a live status would redirect stdout to its own stream
        if isinstance(result, Failure):
            reason = (escape_unprintable(result.reason), "red")
            self.out.print(Text.assemble((name, "bold"), ": ", reason), soft_wrap=True)
        else:
            length = f"{format_time(result.duration_s)}  {escape_unprintable(model)}"
            self.out.print(Text.assemble((name, "bold"), f"  {length}"), soft_wrap=True)
            if result.timeline:
                self.out.print(make_timeline_table(result))
            self.out.print(make_scores_table(result.scores))
            for name, scores in (
                ("Style", result.attributes.styles),
                ("Mood", result.attributes.moods),
                ("Voice", result.attributes.voices),
            ):
                if scores:
                    self.out.print(Text(f" {name}"))
                    self.out.print(make_scores_table(scores))
        self.status.update("Listening")
        self.status.start()


def make_scores_table(scores: Sequence[Score]) -> Table:
    table = _make_score_table("label")
    for score in scores:
        table.add_row(*_make_score_cells(score))
    return table


def make_timeline_table(result: Prediction) -> Table:
    """Return a row for each window, with its best label."""
    table = _make_score_table("from", "label")
    for window in result.timeline:
        for score in window.scores[:1]:  # no score if the genre map drops all labels
            table.add_row(format_time(window.start_s), *_make_score_cells(score))
    return table


def format_time(seconds: float) -> str:
    """Return a time as `3:45`, or `1:02:03`."""
    return str(timedelta(seconds=round(seconds))).removeprefix("0:").removeprefix("0")


def _make_score_table(*columns: str) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 1))
    for name in columns:
        table.add_column(name, no_wrap=True)
    table.add_column("bar", width=SCORE_BAR_WIDTH)
    table.add_column("score", justify="right")
    return table


def _make_score_cells(score: Score) -> tuple[Text, Bar, str]:
    bar = Bar(1.0, 0.0, score.probability, width=SCORE_BAR_WIDTH, color="cyan")
    return Text(escape_unprintable(score.genre)), bar, f"{score.probability:.3f}"


MAX_SHOWN_GENRES = 12
MAX_SHOWN_PAIRS = 5
MAX_SHOWN_ALBUMS = 5
BAR_WIDTH_CELLS = 30
SPARKLINE_LEVELS = " ▁▂▃▄▅▆▇█"


def print_overview(review: RunReview) -> None:
    """Print the overview of a run; control characters in names from files are escaped."""
    console = PipeSafeConsole()
    for part in _make_overview_parts(review):
        if isinstance(part, Table):
            console.print(part)
        else:
            console.print(Text(escape_unprintable(part)), soft_wrap=True)


def _make_overview_parts(review: RunReview) -> Iterator[str | Table]:
    run, overview = review.runs[-1], review.overview
    started = datetime.fromisoformat(run.started_at).astimezone()
    dry = ", dry run" if run.dry_run else ""
    model = f", model {review.models}" if review.models else ""
    yield f"Run {review.names}, {started:%Y-%m-%d %H:%M}{dry}{model}"
    counts = (f"{count} {action}" for action, count in overview.counts.items() if count)
    yield (
        f"{format_track_count(overview.tracks)}: {', '.join(counts)}"
        if overview.tracks
        else "No tracks."
    )
    yield from describe_passed_over(review.passed_over)
    if overview.genres:
        yield ""
        yield _make_genre_table(overview)
    if any(overview.written_scores):
        yield ""
        yield f"Scores    0 {_draw_sparkline(overview.written_scores)} 1"
    yield from _list_disagreements(overview)
    yield from _list_outlier_albums(overview.outlier_albums)
    yield from _list_failures(overview)
    yield ""
    for report in review.reports:
        yield f"Report: {display_path(report)}"
    yield "Add --html FILE for a page with charts."


def _make_genre_table(overview: ReportOverview) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    table.add_column("Genre")
    for name in ("from tagger", "kept"):
        table.add_column(name, justify="right")
    table.add_column("")
    shown = overview.genres[:MAX_SHOWN_GENRES]
    most = max(row.ours + row.kept for row in shown)
    for row in shown:
        ours, kept = (round(BAR_WIDTH_CELLS * count / most) for count in (row.ours, row.kept))
        bar = "█" * ours + "░" * kept
        table.add_row(Text(escape_unprintable(row.genre)), str(row.ours), str(row.kept), bar)
    if more := len(overview.genres) - len(shown):
        table.add_row(f"and {more} more", "", "", "")
    return table


def _draw_sparkline(counts: Sequence[int]) -> str:
    """Draw a histogram in one line; a bin with few tracks still gets the lowest bar."""
    most = max(counts)
    return "".join(
        SPARKLINE_LEVELS[-(-count * (len(SPARKLINE_LEVELS) - 1) // most)] for count in counts
    )


def _list_disagreements(overview: ReportOverview) -> Iterator[str]:
    if overview.compared:
        yield ""
        of = f"{overview.agreed} of {overview.compared}"
        yield f"{of} tracks with a genre get the same from tagger, or one above it"
        for pair in overview.pairs[:MAX_SHOWN_PAIRS]:
            yield f"  {pair.tracks:>5}  had {pair.existing}, tagger says {pair.heard}"


def _list_outlier_albums(albums: Sequence[AlbumWithOutliers]) -> Iterator[str]:
    if albums:
        yield ""
        yield f"Albums with a track of another genre: {len(albums)}"
    for album in albums[:MAX_SHOWN_ALBUMS]:
        tracks = ", ".join(
            f"{_get_file_name(track.path)} ({track.best.genre})" for track in album.outliers
        )
        yield f"  {album.title} ({album.genre}): {tracks}"
    if len(albums) > MAX_SHOWN_ALBUMS:
        yield "  …"


def _list_failures(overview: ReportOverview) -> Iterator[str]:
    if overview.failures:
        yield ""
        yield "Failures"
    for group in overview.failures:
        yield f"  {group.tracks:>5}  {group.title}. {group.cure}"


def _get_file_name(path: str) -> str:
    return path.rpartition("/")[2]
