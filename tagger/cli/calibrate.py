"""`tagger calibrate`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tagger.cli.options import (
    LibraryPath,
    UserPath,
    add_settings_options,
    drop_unset,
    format_command,
    format_options,
    merge_settings,
    name_files,
)
from tagger.cli.terminal import print_line
from tagger.errors import LibraryError
from tagger.models import find_model
from tagger.paths import AnyPath

LISTENING_OPTIONS = {
    "model", "revision", "labels", "windows", "window-seconds", "exclude", "include-ignored",
    "follow-symlinks", "max-seconds", "max-memory",
}  # fmt: skip
"""The options that say to which tracks a scan listens, and how."""


@click.command()
@click.argument("paths", nargs=-1, required=True, type=LibraryPath(), metavar="PATH...")
@click.option(
    "--precision",
    "wanted",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.9,
    metavar="X",
    help="The share of the written genres that should be right.  [default: 0.9]",
)
@click.option(
    "--output",
    type=UserPath(),
    metavar="FILE.toml",
    help="Also write the proposed lines to this file.",
)
@add_settings_options(
    state="",
    model="",
    revision="",
    labels="",
    min_score="The minimum score of today. It stays if there are too few tracks in all.",
    not_music="",
    junk_genres="",
    genre_map="",
    vocabulary="The names of genres, as in the scan.",
    windows="",
    window_seconds="",
    exclude="",
    include_ignored="",
    follow_symlinks="",
    max_seconds="",
    max_memory="",
    json="Print the measures as JSON.",
)
def calibrate(
    paths: tuple[AnyPath, ...],
    wanted: float,
    output: Path | None,
    config: Path | None,
    **flags: Any,
) -> int:
    """Propose a --min-score for each genre.

    This compares the genres that people gave to the tracks below PATH with the scores of the model.
    For each genre it proposes the lowest minimum score at which enough of the written genres are
    right. The scores come from the state file: first run `tagger scan --audit --dry-run PATH`. No
    music file is changed.
    """
    from tagger.cli.bounds import (
        describe_missing_scores,
        format_bounds,
        print_calibration,
        write_bounds,
    )
    from tagger.training.calibrate import calibrate_library, make_calibration_json

    settings = merge_settings(config, flags)
    listening = _format_listening(list(map(str, paths)), name_files(settings, config), flags)
    calibration = calibrate_library(paths, find_model(settings), settings, wanted)
    if not calibration.tracks:
        raise LibraryError(describe_missing_scores(calibration, listening))
    if settings.json:
        print_line(json.dumps(make_calibration_json(calibration)))
    else:
        print_calibration(calibration, listening)
    if output:
        write_bounds(output, format_bounds(calibration))
    return 0


def _format_listening(
    paths: Sequence[str], files: Sequence[str], flags: Mapping[str, object]
) -> str:
    """Return the command that listens to the same tracks in the same way."""
    given = {name: value for name, value in drop_unset(flags).items() if name in LISTENING_OPTIONS}
    return format_command(
        ["scan", "--audit", "--dry-run", *files, *format_options(given), "--", *paths]
    )
