"""Replace the tags of one object: fetched, edited, checked, put if nobody changed it since."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfile, rmtree
from tempfile import gettempdir

from tagger.errors import AccessError
from tagger.records import Change, Track
from tagger.storage import NO_TIME, hold
from tagger.tags.editing import Inspect, edit


def replace_object(change: Change, inspect: Inspect, *, preserve_mtime: bool) -> Track:
    """Write tags into an object, whole or not at all; return the Track it is afterwards.

    The work is done on copies in the folder for temporary files. The errors are those of
    `replace_tags`; UnfinishedError where nobody can tell whether the store took the new object.
    """
    if preserve_mtime:
        raise AccessError(NO_TIME)
    holding = hold(change.track)
    suffix = change.track.path.suffix
    with _scratch(change.copy) as folder:
        original, copy = folder / f"original{suffix}", folder / f"copy{suffix}"
        with original.open("xb") as file:
            holding.download(file)
        copyfile(original, copy)
        with copy.open("r+b") as file:
            edit(change, file, original, copy, inspect)
            return holding.put(file)


def scratch_folder(copy: str) -> Path:
    """Return where the work on an object is done; a killed run leaves it, and knows it by name."""
    return Path(gettempdir(), copy)


@contextmanager
def _scratch(copy: str) -> Iterator[Path]:
    folder = scratch_folder(copy)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        rmtree(folder, ignore_errors=True)
