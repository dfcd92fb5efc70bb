"""Options of `tagger train` and `tagger evaluate`. cli.training and cli.evaluation do the work."""

import json
from pathlib import Path
from typing import Any

import click

from tagger.cli.options import (
    MODEL_OPTIONS,
    UserPath,
    add_options,
    add_settings_options,
    drop_unset,
    merge_settings,
)
from tagger.cli.terminal import catch_stop_signals, print_line
from tagger.errors import make_missing_extra_error
from tagger.pacing import lower_priority
from tagger.training.recipe import RECIPE_OPTIONS, Recipe, make_recipe

EVALUATE_MODULES = {"sklearn", "scipy", "matplotlib", "datasets"}
TRAIN_MODULES = EVALUATE_MODULES | {"accelerate", "tensorboard"}
"""The modules of the extra `train`."""


@click.command()
@click.argument("dataset", type=UserPath(), metavar="DATASET")
@click.option(
    "--from-tags",
    is_flag=True,
    help="DATASET is a music library: its labels are the genres that people gave.",
)
@click.option(
    "--min-tracks",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="Leave out genres with fewer than N tracks.",
)
@click.option(
    "--picture",
    type=UserPath(),
    metavar="FILE.png",
    help="Draw the confusion matrix and the calibration.",
)
@add_settings_options(
    **MODEL_OPTIONS,
    min_score="Also measure the tracks whose best score is this or more.",
    exclude="",
    include_ignored="",
    follow_symlinks="",
    json="Print the measures as JSON.",
)
def evaluate(dataset: Path, config: Path | None, **flags: Any) -> int:
    """Measure a model on labelled music.

    DATASET is a folder with a folder for each genre, a CSV file with the columns path and label, a
    data set on the Hub (marsyas/gtzan) or a folder that save_to_disk made of one, or with
    --from-tags any music library. No file in it is changed.
    """
    from_tags, min_tracks, picture = map(flags.pop, ("from_tags", "min_tracks", "picture"))
    settings = merge_settings(config, flags)
    if settings.gentle:
        lower_priority()
    try:
        from tagger.cli.evaluation import print_evaluation, run_evaluation
        from tagger.training.evaluate import make_evaluation_json
        from tagger.training.pictures import check_picture, draw_measures

        if picture:
            check_picture(picture)
        with catch_stop_signals("stopped", at_once=True) as stop_signal:
            evaluation = run_evaluation(
                dataset, settings, stop_signal, from_tags=from_tags, min_tracks=min_tracks
            )
    except ModuleNotFoundError as error:
        if error.name not in EVALUATE_MODULES:
            raise
        raise make_missing_extra_error("tagger evaluate", "train") from error
    if picture:
        title = f"{evaluation.model} on {evaluation.dataset.name}"
        draw_measures(evaluation.measures, title, picture)
    if settings.json:
        print_line(json.dumps(make_evaluation_json(evaluation)))
    else:
        print_evaluation(evaluation, settings.min_score)
    return 1 if evaluation.failures else 0


TRAIN_SETTINGS = {
    "dry_run": "Show the split and the memory for a step, and do not train.",
    "revision": "The version of a base model on the Hub.",
    "genre_map": "Your names for the labels of the data set.",
    "device": "",
    "precision": "The number format; auto is mixed precision on a GPU.",
    "allow_pickle": "",
    "trust_remote_code": "",
    "jobs": "",
    "max_seconds": "",
    "max_memory": "",
    "exclude": "",
    "include_ignored": "",
    "follow_symlinks": "",
    "json": "Print the result as JSON.",
}
"""The settings that a training uses, with its own help if it differs from that of a scan."""

TRAIN_CONFIG_OPTIONS = {
    "device", "precision", "allow-pickle", "trust-remote-code", "jobs", "max-seconds", "max-memory",
    "exclude", "include-ignored", "follow-symlinks",
}  # fmt: skip
"""The settings that a training reads from the config file. The others are for scans."""


@click.command()
@click.argument("dataset", metavar="DATASET")
@click.option(
    "--output-dir",
    type=UserPath(),
    metavar="DIR",
    required=True,
    help="The folder of the model: a new one, or with --resume an unfinished training.",
)
@add_options(RECIPE_OPTIONS, Recipe())
@click.option(
    "--from-tags",
    is_flag=True,
    help="DATASET is a music library: learn the genres that people gave.",
)
@click.option(
    "--min-tracks",
    type=click.IntRange(min=1),
    metavar="N",
    help="Leave out genres with fewer than N tracks.  [default: 2; with --from-tags 10]",
)
@click.option(
    "--split-file",
    "split_files",
    type=UserPath(),
    multiple=True,
    metavar="FILE",
    help="A list of paths named train, valid or test, or a CSV file with path and part.",
)
@click.option(
    "--cache",
    type=UserPath(),
    metavar="DIR",
    help="Keep decoded sound in this folder, also for the next training.",
)
@click.option("--resume", is_flag=True, help="Continue a training that was interrupted.")
@click.option("--tensorboard", is_flag=True, help="Write logs for TensorBoard into DIR/runs.")
@click.option(
    "--push-to-hub", "repo", metavar="REPO", help="Publish the model in this repository of the Hub."
)
@click.option(
    "--private", is_flag=True, help="With --push-to-hub: make the new repository private."
)
@add_settings_options(**TRAIN_SETTINGS)
def train(dataset: str, output_dir: Path, config: Path | None, **flags: Any) -> int:
    """Fine-tune a model on labelled music.

    DATASET is a folder with a folder for each genre, a CSV file with the columns path and label, a
    data set on the Hub (marsyas/gtzan) or a folder that save_to_disk made of one, or with
    --from-tags any music library. No file in it is changed.
    """
    recipe = make_recipe(
        drop_unset({name: flags.pop(name.replace("-", "_")) for name in RECIPE_OPTIONS})
    )
    chosen = {name: flags.pop(name) for name in TRAIN_SETTINGS}
    settings = merge_settings(config, chosen, TRAIN_CONFIG_OPTIONS)
    try:
        from tagger.cli.training import TrainCommand, run_train_command

        return run_train_command(TrainCommand(dataset, output_dir, recipe, settings, **flags))
    except ModuleNotFoundError as error:
        if error.name not in TRAIN_MODULES:
            raise
        raise make_missing_extra_error("tagger train", "train") from error
