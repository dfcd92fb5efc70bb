"""`tagger show`."""

import json
from pathlib import Path
from typing import Any

import click

from tagger.cli.options import LibraryPath, add_settings_options, merge_settings
from tagger.cli.terminal import format_unknown_genres, format_unknown_labels, print_line
from tagger.labels import (
    find_unknown_genres,
    find_unknown_labels,
    list_genre_names,
    list_label_names,
)
from tagger.models import ModelSource, find_model
from tagger.paths import AnyPath
from tagger.records import Failure
from tagger.settings import Settings


@click.command()
@click.argument("files", nargs=-1, required=True, type=LibraryPath(), metavar="FILE...")
@add_settings_options(
    state="",
    model="",
    revision="",
    labels="",
    existing="",
    junk_genres="",
    vocabulary="",
    write="",
    styles="",
    mood_numbers="",
    by_album="",
    context="",
    min_score="",
    not_music="",
    top_k="The number of scores to show.",
    genres="",
    profile="",
    genre_map="",
    windows="",
    window_seconds="",
    hardlinks="",
    audit="",
    force="",
    exclude="",
    max_seconds="",
    max_memory="",
    json="Print the views as JSON.",
)
def show(files: tuple[AnyPath, ...], config: Path | None, **flags: Any) -> int:
    """Show what is known of a track, and what a scan would do.

    For each FILE, this shows the genre in its tags and who wrote it, the scores in the state file,
    earlier writes into the file, and the rule by which a scan decides. Give it the options of your
    scan. Nothing is listened to, and nothing is written.
    """
    from tagger.cli.views import format_view, view_as_json
    from tagger.scanning.show import show_tracks

    settings = merge_settings(config, flags)
    source = find_model(settings)
    _warn_of_names(source, settings)
    views = list(show_tracks(files, source, settings))
    if settings.json:
        print_line(json.dumps([view_as_json(view) for view in views]))
    else:
        print_line("\n\n".join("\n".join(format_view(view, settings)) for view in views))
    return 1 if any(isinstance(view, Failure) for view in views) else 0


def _warn_of_names(source: ModelSource, settings: Settings) -> None:
    if unknown := find_unknown_labels(settings, source.labels):
        print_line(f"tagger: {format_unknown_labels(unknown, source.labels)}", err=True)
    genres = list_genre_names(settings, source.labels, source.not_music)
    names = list_label_names(settings, source.labels, source.not_music)
    if unknown := find_unknown_genres(settings.min_score, names):
        print_line(f"tagger: {format_unknown_genres(unknown, genres)}", err=True)
