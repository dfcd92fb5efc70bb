"""The SQLite file that lets a run skip what earlier runs learned; owns sqlite3.

It knows each file by path, size, mtime and inode; if a path or an inode is another, by some of its
content. It keeps the scores of every model for each file, the journal of replaced tags, and the
runs.
"""

from tagger.state.context import ContextMember, ScoredMember, make_album_key
from tagger.state.database import CachedRow, KnownTrack, State, open_state, read_albums, read_runs
from tagger.state.journal import Journal, JournalEntry, Run, RunKind, new_run_id

__all__ = [
    "CachedRow",
    "ContextMember",
    "Journal",
    "JournalEntry",
    "KnownTrack",
    "Run",
    "RunKind",
    "ScoredMember",
    "State",
    "make_album_key",
    "new_run_id",
    "open_state",
    "read_albums",
    "read_runs",
]
