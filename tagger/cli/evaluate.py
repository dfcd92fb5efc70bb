"""`tagger evaluate`."""

import json
from pathlib import Path
from typing import Any

import click

from tagger.cli.options import LISTENING, settings_from, settings_options
from tagger.cli.signals import stopping_on_signals
from tagger.cli.text import show
from tagger.errors import MissingExtraError
from tagger.priority import give_way

EXTRA = {"sklearn", "scipy", "matplotlib", "datasets"}


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path), metavar="DATASET")
@click.option(
    "--from-tags", is_flag=True, help="DATASET is a library: go by the genres that people gave."
)
@click.option(
    "--min-tracks",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="Leave out genres with fewer tracks than this.",
)
@click.option(
    "--picture",
    type=click.Path(path_type=Path),
    metavar="FILE.png",
    help="Draw the confusion matrix and the calibration.",
)
@settings_options(
    **LISTENING,
    min_score="An answer as likely as this counts as sure.",
    exclude="",
    follow_symlinks="",
    json="Print the measures as JSON.",
)
def evaluate(dataset: Path, config: Path | None, **flags: Any) -> int:
    """Measure a model on labelled music.

    DATASET is a folder with a folder for each genre, a CSV file with the columns path and label, a
    data set on the Hub (marsyas/gtzan) or a folder that save_to_disk made of one, or with
    --from-tags any music library. No file of it is changed.
    """
    from_tags, min_tracks, picture = map(flags.pop, ("from_tags", "min_tracks", "picture"))
    settings = settings_from(config, flags)
    if settings.gentle:
        give_way()
    try:
        from tagger.cli.measures import measure_on, print_tables
        from tagger.training.evaluate import as_json
        from tagger.training.pictures import check_picture, draw_measures

        if picture:
            check_picture(picture)
        with stopping_on_signals("stopped", at_once=True) as stopper:
            found = measure_on(
                dataset, settings, stopper, from_tags=from_tags, min_tracks=min_tracks
            )
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        raise MissingExtraError("this needs: pip install 'tagger[train]'") from error
    if picture:
        draw_measures(found.measures, f"{found.model} on {found.dataset.name}", picture)
    if settings.json:
        show(json.dumps(as_json(found)))
    else:
        print_tables(found, settings.min_score)
    return 1 if found.failed else 0
