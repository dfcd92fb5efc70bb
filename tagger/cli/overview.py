"""A run in short, on a terminal: what became of the tracks, genres, scores, failures."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from rich.table import Table
from rich.text import Text

from tagger.cli.console import PatientConsole
from tagger.cli.text import count_of, printable
from tagger.paths import displayed
from tagger.records import OddAlbum
from tagger.report.overview import Overview
from tagger.review import Review

MOST_GENRES = 12
MOST_PAIRS = 5
MOST_ALBUMS = 5
BAR_CELLS = 30
LEVELS = " ▁▂▃▄▅▆▇█"


def print_overview(review: Review) -> None:
    """Print a run in short; names from files come out as text that no terminal obeys."""
    console = PatientConsole()
    for part in _parts(review):
        if isinstance(part, Table):
            console.print(part)
        else:
            console.print(Text(printable(part)), soft_wrap=True)


def _parts(review: Review) -> Iterator[str | Table]:
    run, overview = review.runs[-1], review.overview
    began = datetime.fromisoformat(run.started_at).astimezone()
    dry = ", dry run" if run.dry_run else ""
    model = f", model {review.models}" if review.models else ""
    yield f"Run {review.names}, {began:%Y-%m-%d %H:%M}{dry}{model}"
    counts = (f"{count} {action}" for action, count in overview.counts.items() if count)
    yield f"{count_of(overview.tracks)}: {', '.join(counts)}" if overview.tracks else "No tracks."
    if overview.genres:
        yield ""
        yield _genres(overview)
    if any(overview.written_scores):
        yield ""
        yield f"Scores    0 {_spark(overview.written_scores)} 1"
    yield from _disagreements(overview)
    yield from _albums(overview.odd)
    yield from _failures(overview)
    yield ""
    for report in review.reports:
        yield f"Report: {displayed(report)}"
    yield "--html FILE makes a page of it."


def _genres(overview: Overview) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    table.add_column("Genre")
    for name in ("from tagger", "kept"):
        table.add_column(name, justify="right")
    table.add_column("")
    shown = overview.genres[:MOST_GENRES]
    most = max(each.ours + each.kept for each in shown)
    for each in shown:
        ours, kept = (round(BAR_CELLS * count / most) for count in (each.ours, each.kept))
        bar = "█" * ours + "░" * kept
        table.add_row(Text(printable(each.genre)), str(each.ours), str(each.kept), bar)
    if more := len(overview.genres) - len(shown):
        table.add_row(f"and {more} more", "", "", "")
    return table


def _spark(counts: Sequence[int]) -> str:
    """Draw a histogram in one line; what is not empty does not look so."""
    most = max(counts)
    return "".join(LEVELS[-(-count * (len(LEVELS) - 1) // most)] for count in counts)


def _disagreements(overview: Overview) -> Iterator[str]:
    if overview.compared:
        yield ""
        yield f"{overview.agreed} of {overview.compared} that had a genre have the same from tagger"
        for pair in overview.pairs[:MOST_PAIRS]:
            yield f"  {pair.tracks:>5}  had {pair.existing}, heard {pair.heard}"


def _albums(odd: Sequence[OddAlbum]) -> Iterator[str]:
    if odd:
        yield ""
        yield f"Albums with a track that sounds like something else: {len(odd)}"
    for album in odd[:MOST_ALBUMS]:
        tracks = ", ".join(f"{_name(each.path)} ({each.best.genre})" for each in album.odd)
        yield f"  {album.title} ({album.genre}): {tracks}"
    if len(odd) > MOST_ALBUMS:
        yield "  …"


def _failures(overview: Overview) -> Iterator[str]:
    if overview.failures:
        yield ""
        yield "Failures"
    for group in overview.failures:
        yield f"  {group.tracks:>5}  {group.title}. {group.cure}"


def _name(path: str) -> str:
    return path.rpartition("/")[2]
