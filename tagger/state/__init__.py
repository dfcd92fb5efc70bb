"""The SQLite file that lets a run skip what earlier runs learned; owns sqlite3.

It knows each file by path, size, mtime and inode; if a path or an inode is another, by some of its
content. It keeps the scores of every model for each file, the journal of replaced tags, and the
runs.
"""

from tagger.state.arrivals import (
    Arrival,
    ArrivalQueue,
    lock_watch,
    open_arrivals,
    read_watch_status,
    save_watch_status,
)
from tagger.state.context import ContextMember, ScoredMember, make_album_key
from tagger.state.database import (
    AUTO_WINDOWS,
    KnownTrack,
    ModelResult,
    State,
    open_state,
)
from tagger.state.journal import Journal, JournalEntry, PastWrite, Run, RunKind, new_run_id
from tagger.state.reading import (
    find_settled,
    open_snapshot,
    read_albums,
    read_runs,
    read_scores,
)
from tagger.state.rows import CachedRow

__all__ = [
    "AUTO_WINDOWS",
    "Arrival",
    "ArrivalQueue",
    "CachedRow",
    "ContextMember",
    "Journal",
    "JournalEntry",
    "KnownTrack",
    "ModelResult",
    "PastWrite",
    "Run",
    "RunKind",
    "ScoredMember",
    "State",
    "find_settled",
    "lock_watch",
    "make_album_key",
    "new_run_id",
    "open_arrivals",
    "open_snapshot",
    "open_state",
    "read_albums",
    "read_runs",
    "read_scores",
    "read_watch_status",
    "save_watch_status",
]
