"""Settle what a killed run left open: its journal entries, its copies, a half-written file."""

import os
from pathlib import Path

from tagger.crawl import look_at
from tagger.errors import TrackError
from tagger.isolation import Guard
from tagger.paths import RemotePath
from tagger.records import Track
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
            mend(entry, state, guard)
        except TrackError as error:
            unmended[entry.path] = str(error)
        state.commit()
    return unmended


def _is_within_reach(path: Path) -> bool:
    if isinstance(path, RemotePath):
        return is_reachable(path)
    return os.path.isdir(path.parent)  # noqa: PTH112 - Path's raises where it may not look


def mend(entry: Entry, state: State, guard: Guard) -> None:
    """Clear away what is left of a replacement, and settle its entry by what the file is now.

    The entry is closed if that is the new one, cancelled if it is the old one. The tags decide, for
    size and time may be what they were. An entry whose file is gone waits.
    Raises TrackError where only a person can judge, or the system refuses.
    """
    if clear_leftovers(entry.path, entry.copy, entry.old):
        state.journal.cancel(entry.id)  # the copy was there: it never took a place
        return
    now = look_at(entry.path)
    if now is None:
        return
    tags = guard.call(read_tags, entry.path)
    if tags == entry.after:
        state.finish_replacement(entry.id, entry.old or now, now, tags)
    elif tags == entry.before:
        state.journal.cancel(entry.id)
    else:  # somebody edited it: on record, but not for us to undo
        state.journal.close(entry.id, Track(entry.path, *NEVER))
