"""`tagger train`."""

from pathlib import Path
from typing import Any

import click

from tagger.cli.options import flags_for, given, settings_from, settings_options
from tagger.errors import MissingExtraError
from tagger.training.recipe import OPTIONS, Recipe, make_recipe

EXTRA = {"sklearn", "scipy", "matplotlib", "accelerate", "datasets", "tensorboard"}

SETTINGS = {
    "dry_run": "Show the halves and the memory that it takes, and train nothing.",
    "revision": "Which version of a base model on the Hub.",
    "genre_map": "Your names for the data set's labels.",
    "device": "",
    "precision": "The number format; auto is mixed precision on a GPU.",
    "allow_pickle": "",
    "trust_remote_code": "",
    "jobs": "",
    "max_seconds": "",
    "max_memory": "",
    "exclude": "",
    "follow_symlinks": "",
    "json": "Print what came of it as JSON.",
}
"""What a training takes of the settings of a scan, with its own help where that differs."""

MACHINE = {
    "device", "precision", "allow-pickle", "trust-remote-code", "jobs", "max-seconds", "max-memory",
    "exclude", "follow-symlinks",
}  # fmt: skip
"""What also holds for trainings where it stands in the config file: the rest is about scans."""


@click.command()
@click.argument("dataset", metavar="DATASET")
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    required=True,
    help="Where the model goes: a new folder, or with --resume one that is not finished.",
)
@flags_for(OPTIONS, Recipe())
@click.option(
    "--from-tags", is_flag=True, help="DATASET is a library: learn the genres that people gave."
)
@click.option(
    "--min-tracks",
    type=click.IntRange(min=1),
    metavar="N",
    help="Leave out genres with fewer tracks.  [default: 2; with --from-tags 10]",
)
@click.option(
    "--split-file",
    "split_files",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Lists of paths, named train, valid and test, or a CSV file with path and part.",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Keep decoded sound here for the next training, too.",
)
@click.option("--resume", is_flag=True, help="Go on with a training that was interrupted.")
@click.option("--tensorboard", is_flag=True, help="Write logs for TensorBoard into DIR/runs.")
@click.option("--push-to-hub", "repo", metavar="REPO", help="Publish the result there.")
@click.option("--private", is_flag=True, help="With --push-to-hub: for your eyes only.")
@settings_options(**SETTINGS)
def train(dataset: str, output_dir: Path, config: Path | None, **flags: Any) -> int:
    """Fine-tune a model on labelled music.

    DATASET is a folder with a folder for each genre, a CSV file with the columns path and label, a
    data set on the Hub (its id) or saved by `datasets`, or with --from-tags any music library. No
    file of it is changed.
    """
    recipe = make_recipe(given({name: flags.pop(name.replace("-", "_")) for name in OPTIONS}))
    chosen = {name: flags.pop(name) for name in SETTINGS}
    settings = settings_from(config, chosen, taking=MACHINE)
    try:
        from tagger.cli.training import Order, run

        return run(Order(dataset, output_dir, recipe, settings, **flags))
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        raise MissingExtraError("this needs: pip install 'tagger[train]'") from error
