"""Settle what a killed run left open: its journal entries, its copies, a half-written file."""

from tagger.errors import TrackError
from tagger.isolation import Guard
from tagger.records import Failure, Track
from tagger.state import Entry, State
from tagger.tags import clear_leftovers, read_tags

NEVER = (0, 0, 0)
"""Size, time and inode of a file that no undo will ever find unchanged."""


def recover(state: State, guard: Guard) -> None:
    """Bring files and journal together again, whatever moment the last run was killed at.

    A file in a folder that is not there (an unmounted disk) waits for a later run. One that cannot
    be mended is remembered as a failure, which the report repeats until it changes.
    """
    for entry in state.journal.unfinished():
        if not entry.path.parent.is_dir():
            continue
        try:
            if entry.copy:
                clear_leftovers(entry.path, entry.copy, entry.old)
            _settle(entry, state, guard)
        except TrackError as error:
            track = _look_at(entry)
            if track is not None:
                state.remember_failure(Failure(track, str(error)))
        state.commit()


def _settle(entry: Entry, state: State, guard: Guard) -> None:
    """Close the entry if the file is the new one, cancel it if it is the old one."""
    now = _look_at(entry)
    if now is None or now == entry.old:
        state.journal.cancel(entry.id)
        return
    tags = guard.call(read_tags, entry.path)
    if tags == entry.after:
        state.finish_replacement(entry.id, entry.old or now, now, tags)
    elif tags == entry.before:
        state.journal.cancel(entry.id)
    else:  # somebody's edit: what stood there stays on record, but is not for us to put back
        state.journal.close(entry.id, Track(entry.path, *NEVER))


def _look_at(entry: Entry) -> Track | None:
    try:
        return Track.from_stat(entry.path, entry.path.lstat())
    except OSError:
        return None
