"""`tagger normalize`."""

from pathlib import Path
from typing import Any

import click

from tagger.cli.options import LibraryPath, UserPath, add_settings_options, merge_settings
from tagger.paths import AnyPath

FILL_HELP = "Fill tracks without a genre from the scores of an earlier scan, without listening."


@click.command()
@click.argument("paths", nargs=-1, required=True, type=LibraryPath(), metavar="PATH...")
@click.option("--fill", is_flag=True, help=FILL_HELP)
@click.option(
    "--init-vocabulary",
    "starter",
    metavar="FILE.toml",
    type=UserPath(),
    help="Write a vocabulary to start from, with all genres found; change no tags.",
)
@add_settings_options(
    dry_run="",
    vocabulary="The names of genres; without it: those that come with tagger.",
    junk_genres="Names that are no genre: they are removed.",
    report="",
    html="",
    state="",
    profile="",
    exclude="",
    include_ignored="",
    follow_symlinks="",
    until="",
    force="Read all tags again, and retry files that failed.",
    hardlinks="",
    owner="",
    preserve_mtime="",
    max_seconds="",
    max_memory="",
    metrics="",
    notify_cmd="",
    notify="",
    ping_url="",
    alert="",
    wait="",
    gentle="",
    model="With --fill: the model whose scores count.",
    revision="",
    windows="With --fill: the number of windows of these scores.",
    min_score="",
    genres="",
    top_k="",
    genre_map="",
    not_music="",
    json="",
    quiet="",
    verbose="",
)
def normalize(
    paths: tuple[AnyPath, ...],
    config: Path | None,
    *,
    fill: bool,
    starter: Path | None,
    **flags: Any,
) -> int:
    """Give the genres in the tags one spelling each.

    Nothing is listened to. The names are those of a vocabulary. Numbers become names, "Rock;Pop"
    becomes two genres, and what is no genre goes. Genres that the vocabulary does not know stay as
    they are, and the summary lists them.

    Try a dry run first (-n). `tagger undo` takes a run back.
    """
    from tagger.cli.summary import run_and_report
    from tagger.scanning import run_normalize
    from tagger.scanning.normalize import NormalizeRequest
    from tagger.storage import check_writable

    settings = merge_settings(config, flags)
    if not settings.dry_run and not starter:
        check_writable(paths, preserve_mtime=settings.preserve_mtime)
    request = NormalizeRequest(fill, starter)
    return run_and_report(
        settings, lambda progress: run_normalize(paths, settings, request, progress), config
    )
