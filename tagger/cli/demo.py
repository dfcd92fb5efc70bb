"""`tagger demo`."""

from pathlib import Path
from typing import Any

import click

from tagger.cli.options import MODEL_OPTIONS, UserPath, add_settings_options, merge_settings
from tagger.cli.terminal import print_line
from tagger.errors import SettingsError, make_missing_extra_error
from tagger.pacing import lower_priority


@click.command()
@click.option(
    "--host",
    default="127.0.0.1",
    metavar="ADDRESS",
    help="Address that the page listens on (0.0.0.0: all interfaces).  [default: 127.0.0.1]",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="N",
    help="Port that the page listens on.  [default: the first free one from 7860 on]",
)
@click.option(
    "--dataset",
    type=UserPath(),
    metavar="DATASET",
    help="Show samples of this labelled music, in any form that `tagger evaluate` reads.",
)
@click.option(
    "--max-size",
    type=click.IntRange(min=1),
    default=100,
    metavar="MB",
    help="Accept no larger upload.  [default: 100]",
)
@click.option(
    "--max-minutes",
    type=click.FloatRange(min=0.1),
    default=60,
    metavar="N",
    help="Accept no longer song.  [default: 60]",
)
@add_settings_options(**MODEL_OPTIONS, top_k="The number of scores to show.")
def demo(dataset: Path | None, config: Path | None, **flags: Any) -> int:
    """Serve a web page that shows the genres of a song.

    You drop or record the song on the page.

    Only this machine can open the page, unless --host allows others. Everybody who can open the
    page can make tagger load any model of the Hub.
    """
    host, port, size_mb, minutes = map(flags.pop, ("host", "port", "max_size", "max_minutes"))
    settings = merge_settings(config, flags)
    if settings.gentle:
        lower_priority()
    try:
        from tagger.demo import DemoClassifier, UploadLimits, build_page, serve_page
        from tagger.labels import get_label_names
        from tagger.training.datasets import read_dataset

        samples = read_dataset(dataset, settings, get_label_names(settings)) if dataset else None
    except ModuleNotFoundError as error:
        extra = {"gradio": "demo", "pandas": "demo", "datasets": "demo,train"}.get(error.name or "")
        if extra is None:
            raise
        raise make_missing_extra_error("tagger demo", extra) from error
    limits = UploadLimits(size_mb, minutes)
    page = build_page(DemoClassifier(settings, limits), samples)
    try:
        serve_page(page, limits, print_address, host=host, port=port)
    except OSError as error:
        raise SettingsError(f"cannot listen at {host}, port {port}: {error}") from error
    return 0


def print_address(address: str) -> None:
    print_line(f"Open {address} in a browser. Ctrl-C ends the demo.")
