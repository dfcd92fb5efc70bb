"""`tagger demo`."""

from pathlib import Path
from typing import Any

import click

from tagger.cli.options import MODEL_OPTIONS, settings_from, settings_options
from tagger.cli.terminal import print_line
from tagger.errors import MissingExtraError, SettingsError
from tagger.pacing import lower_priority


@click.command()
@click.option("--host", default="127.0.0.1", help="Whom to listen to.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(1, 65535), metavar="N", help="[default: from 7860 on]")
@click.option(
    "--dataset",
    type=click.Path(path_type=Path),
    metavar="DATASET",
    help="Labelled music to listen to samples of, as for evaluate.",
)
@click.option(
    "--max-size", type=click.IntRange(min=1), default=100, metavar="MB", help="[default: 100]"
)
@click.option(
    "--max-minutes", type=click.FloatRange(min=0.1), default=60, metavar="N", help="[default: 60]"
)
@settings_options(**MODEL_OPTIONS, top_k="How many scores to show.")
def demo(dataset: Path | None, config: Path | None, **flags: Any) -> int:
    """Show a page on which to drop or record a song and see what a model hears.

    It is for you alone, on this machine, unless --host says otherwise: whoever reaches it can have
    any model of the Hub loaded. --max-size and --max-minutes limit what can be dropped there.
    """
    host, port, size_mb, minutes = map(flags.pop, ("host", "port", "max_size", "max_minutes"))
    settings = settings_from(config, flags)
    if settings.gentle:
        lower_priority()
    try:
        from tagger.decide import get_label_names
        from tagger.demo import DemoClassifier, UploadLimits, build_page, serve_page
        from tagger.training.datasets import read_dataset

        samples = read_dataset(dataset, settings, get_label_names(settings)) if dataset else None
    except ModuleNotFoundError as error:
        extra = {"gradio": "demo", "pandas": "demo", "datasets": "demo,train"}.get(error.name or "")
        if extra is None:
            raise
        raise MissingExtraError(f"this needs: pip install 'tagger[{extra}]'") from error
    limits = UploadLimits(size_mb, minutes)
    page = build_page(DemoClassifier(settings, limits), samples)
    try:
        serve_page(page, limits, print_address, host=host, port=port)
    except OSError as error:
        raise SettingsError(f"cannot listen at {host}, port {port}: {error}") from error
    return 0


def print_address(address: str) -> None:
    print_line(f"Open {address} in a browser. Ctrl-C ends it.")
