"""What `tagger calibrate` prints. Import this late: it imports rich."""

import json
import re
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from rich.table import Table
from rich.text import Text

from tagger.cli.progress import PipeSafeConsole
from tagger.cli.tables import make_number_table
from tagger.cli.terminal import escape_unprintable, format_track_count
from tagger.errors import SettingsError
from tagger.paths import check_replacement, write_file_whole
from tagger.training.calibrate import Calibration, GenreBound, Verdict, Written

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
"""A key of TOML that needs no quotes."""

TOML_START = "# Proposed by tagger calibrate"

MAX_SHOWN_LABELS = 5

ALL_GENRES = "all genres"

NOTES = {
    Verdict.REACHED: "own minimum",
    Verdict.NOT_REACHED: "not shown",
    Verdict.TOO_FEW: "too few",
}
COMMON_NOTES = {
    Verdict.REACHED: "",
    Verdict.NOT_REACHED: "not shown: nearest",
    Verdict.TOO_FEW: "too few: as now",
}
"""What the last column says of a genre, and of all genres together."""

LEGEND = """\
own minimum: the tracks of the genre show that enough are right; the genre gets a line of its own
too few, not shown: they do not; the genre gets the minimum of all genres"""


def print_calibration(calibration: Calibration, listening: str) -> None:
    """Print what each bound does, the bound of each genre, and the lines for the config file.

    listening: the command that listens to tracks without scores.
    """
    console = PipeSafeConsole()
    for line in _list_counts(calibration, listening):
        console.print(Text(escape_unprintable(line)), soft_wrap=True)
    console.print(Text("\nWith the same min-score for all genres (95 % sure of at least):"))
    console.print(_make_curve_table(calibration))
    wanted = f"{calibration.precision:.0%} of the written genres right"
    console.print(Text(f"\nProposed, for {wanted}:"), soft_wrap=True)
    console.print(_make_genre_table(calibration))
    console.print(Text(LEGEND), soft_wrap=True)
    for line in chain(_list_check_lines(calibration), _list_context_lines(calibration)):
        console.print(Text(line), soft_wrap=True)
    console.print(Text("\nFor the end of config.toml:\n"))
    console.print(Text(format_bounds(calibration)), soft_wrap=True, end="")


def _list_counts(calibration: Calibration, listening: str) -> Iterator[str]:
    tracks = format_track_count(calibration.tracks)
    yield f"{calibration.model} on {tracks} with a genre by a person"
    if calibration.without_scores:
        yield f"Not counted: {describe_missing_scores(calibration, listening)}"
    if calibration.unknown_labels:
        shown = islice(calibration.unknown_labels.items(), MAX_SHOWN_LABELS)
        names = ", ".join(f"{label} {tracks}" for label, tracks in shown)
        more = ", …" if len(calibration.unknown_labels) > MAX_SHOWN_LABELS else ""
        count = format_track_count(sum(calibration.unknown_labels.values()))
        yield (
            f"Not counted: {count} of genres that the model does not give: {names}{more}"
            " (--genre-map and --vocabulary give other names)"
        )


def describe_missing_scores(calibration: Calibration, listening: str) -> str:
    """Return how many tracks have no scores, and the command that listens to them."""
    count = format_track_count(calibration.without_scores)
    return f"{count} without scores in the state file. To listen and write no tags: {listening}"


def _format_result(result: Written) -> tuple[str, str, str]:
    """Return the share that is written, how much of it is right, and at least."""
    right = f"{result.precision:.0%} of {result.written}" if result.written else "-"
    least = f"{result.least_precision:.0%}" if result.written else "-"
    return f"{result.share:.0%}", right, least


def _make_curve_table(calibration: Calibration) -> Table:
    """Return what the same bound for all genres would do."""
    table = make_number_table("min-score", "written", "right", "at least")
    for point in calibration.choice.common.curve[::2]:
        table.add_row(f"{point.bound:.1f}", *_format_result(point.result))
    return table


def _make_genre_table(calibration: Calibration) -> Table:
    table = make_number_table("genre", "tracks", "min-score", "written", "right", "at least")
    table.add_column("", no_wrap=True)
    common = calibration.choice.common
    for each in (common, *calibration.choice.genres):
        name = Text(escape_unprintable(each.genre or ALL_GENRES))
        note = COMMON_NOTES[each.verdict] if each is common else NOTES[each.verdict]
        cells = (str(each.tracks), f"{each.bound:g}", *_format_result(each.chosen))
        table.add_row(name, *cells, note)
    return table


def _list_check_lines(calibration: Calibration) -> Iterator[str]:
    check = calibration.cross_check
    if check is None:
        yield "\nAll tracks are of one album: nobody can tell what this does on others."
        return
    yield (
        f"\nOn albums that had no part in the choice ({calibration.groups} albums in"
        f" {check.parts} parts, each part left out once):"
    )
    for name, result in (
        ("by genre", check.by_genre),
        ("one for all genres", check.common),
        (f"as now, {calibration.usual:g}", check.usual),
    ):
        share, right, least = _format_result(result)
        yield f"  {name:<18} {share:>4} written, {right} right (at least {least})"


def _list_context_lines(calibration: Calibration) -> Iterator[str]:
    check = calibration.context_check
    if check is None:
        return
    yield (
        f"\nWhat --context artist would do with today's min-score, as if no track of the same album"
        f" had a genre ({format_track_count(check.helped)} have others of their artist or album):"
    )
    for name, result in (("alone", check.alone), ("--context artist", check.artist)):
        share, right, least = _format_result(result)
        yield f"  {name:<18} {share:>4} written, {right} right (at least {least})"


def format_bounds(calibration: Calibration) -> str:
    """Return the lines for the config file."""
    return "\n".join([*_list_toml_lines(calibration), ""])


def _list_toml_lines(calibration: Calibration) -> Iterator[str]:
    yield (
        f"{TOML_START} for {calibration.model} from {format_track_count(calibration.tracks)};"
        f" wanted: {calibration.precision:.0%} right."
    )
    yield "# Put this at the end of config.toml, and remove any other line with min-score."
    yield "[min-score]"
    yield _format_toml_line("default", calibration.choice.common)
    for each in calibration.choice.genres:
        if each.verdict is Verdict.REACHED:
            yield _format_toml_line(_quote_key(each.genre), each)


def _format_toml_line(key: str, bound: GenreBound) -> str:
    _, right, least = _format_result(bound.chosen)
    return f"{f'{key} = {bound.bound:g}':<20} # {right} right, at least {least}"


def _quote_key(name: str) -> str:
    return name if BARE_KEY.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def write_bounds(path: Path, text: str) -> None:
    """Write the lines to a file. Raises SettingsError if another file stands there."""
    try:
        check_replacement(path, TOML_START.encode(), "--output")
        write_file_whole(path, text.encode())
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}") from error
