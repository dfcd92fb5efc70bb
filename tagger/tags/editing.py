"""The tags of a copy, changed and checked against the original, wherever the two lie."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from tagger.errors import TagError
from tagger.records import Change
from tagger.tags.fields import read_tags, write_raw, write_tags
from tagger.tags.others import lost_fields

Inspect = Callable[[Path], Mapping[str, str]]
"""Tells all that is in a file beside our fields: other tags, pictures, sound."""


def edit(change: Change, file: BinaryIO, original: Path, copy: Path, inspect: Inspect) -> None:
    """Change the copy, and refuse it if anything but the wanted fields differs then.

    It is written through `file`, open already: whatever is put in the place of its name stays as it
    is. Raises TagError, AccessError, DiskFullError.
    """
    if change.undoes:
        write_raw(copy, change.after.raw, file)
    else:
        write_tags(copy, change.after, file)
    file.flush()
    found = read_tags(copy)
    if found != change.after or (change.undoes and set(found.raw) != set(change.after.raw)):
        raise TagError("not written, for the new tags could not be read back")
    changed = lost_fields(inspect(original), inspect(copy))
    if changed:
        raise TagError(f"not written, for it would change {', '.join(changed)}")
