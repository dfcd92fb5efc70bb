"""Settle what a killed run left open: its journal entries, its copies, a half-written file."""

import os
from pathlib import Path

from tagger.crawl import look_at
from tagger.errors import TrackError
from tagger.isolation import Guard
from tagger.records import RemotePath, Track
from tagger.state import Entry, State
from tagger.storage import is_reachable
from tagger.tags import clear_leftovers, read_tags

NEVER = (0, 0, 0)
"""Size, time and inode of a file that no undo will ever find unchanged."""


def recover(state: State, guard: Guard) -> dict[Path, str]:
    """Bring files and journal together again, whatever moment the last run was killed at.

    Return the files that cannot be mended, each with the reason: their entries stay open. So do
    those in a folder that is not there (an unmounted disk, a server that does not answer).
    """
    unmended: dict[Path, str] = {}
    for entry in state.journal.unfinished():
        if not _is_within_reach(entry.path):
            continue
        try:
            if clear_leftovers(entry.path, entry.copy, entry.old):
                state.journal.cancel(entry.id)  # the copy was there: it never took a place
            else:
                _settle(entry, state, guard)
        except TrackError as error:
            unmended[entry.path] = str(error)
        state.commit()
    return unmended


def _is_within_reach(path: Path) -> bool:
    if isinstance(path, RemotePath):
        return is_reachable(path)
    return os.path.isdir(path.parent)  # noqa: PTH112 - Path's raises where it may not look


def _settle(entry: Entry, state: State, guard: Guard) -> None:
    """Close the entry if the file is the new one, cancel it if it is the old one.

    The tags decide, for size and time may be what they were. Of a file that is not there nothing
    can be told: the entry waits.
    """
    now = look_at(entry.path)
    if now is None:
        return
    tags = guard.call(read_tags, entry.path)
    if tags == entry.after:
        state.finish_replacement(entry.id, entry.old or now, now, tags)
    elif tags == entry.before:
        state.journal.cancel(entry.id)
    else:  # somebody's edit: what stood there stays on record, but is not for us to put back
        state.journal.close(entry.id, Track(entry.path, *NEVER))
