"""What other programs ask of `tagger watch`: to queue files, and to say how it is.

It is a module of its own because other programs start it for each album, and the watch loads far
more libraries.
"""

import os
import time
from collections.abc import Iterable
from pathlib import Path

from tagger.errors import WatchError
from tagger.paths import AnyPath
from tagger.state import open_arrivals, read_watch_status
from tagger.tags import EXTENSIONS

STATUS_INTERVAL_S = 60.0
"""How often a watch says that it is alive."""

MAX_STATUS_AGE_S = 3 * STATUS_INTERVAL_S


def add_arrivals(paths: Iterable[AnyPath], state: Path) -> tuple[int, list[AnyPath]]:
    """Put files and folders into the queue.

    Return how many were added, and those that are not there. Files that are no audio are ignored.
    Raises the errors of a queue that is unusable.
    """
    found: list[AnyPath] = []
    missing: list[AnyPath] = []
    for path in paths:
        if not isinstance(path, Path):
            found.append(path)
            continue
        full = Path(os.path.realpath(path))  # the methods of Path raise without permission
        if not os.path.exists(full):  # noqa: PTH110
            missing.append(path)
        elif may_be_music(full):
            found.append(full)
    with open_arrivals(state) as queue:
        queue.add(found, is_named=True)
    return len(found), missing


def check_watch(state: Path) -> None:
    """Raise WatchError if no watch of a state file is running, or if its scans fail."""
    status = read_watch_status(state)
    if status is None or abs(time.time() - status.at) > MAX_STATUS_AGE_S:
        raise WatchError(f"no `tagger watch` is running with {state}")
    if status.error:
        raise WatchError(f"`tagger watch` cannot scan: {status.error}")


def may_be_music(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS or os.path.isdir(path)  # noqa: PTH112 - never raises
