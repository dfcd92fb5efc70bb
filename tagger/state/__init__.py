"""The SQLite file that lets a run skip what earlier runs learned; owns sqlite3.

It knows each file by path, size, mtime and inode, keeps the scores of every model that listened
to it, the journal of replaced tags, and the runs.
"""

from tagger.state.journal import Entry, Journal
from tagger.state.opening import open_state, read_albums, read_runs
from tagger.state.rows import Row
from tagger.state.runs import Run, RunKind, new_run_id
from tagger.state.tracks import Known, State

__all__ = [
    "Entry",
    "Journal",
    "Known",
    "Row",
    "Run",
    "RunKind",
    "State",
    "new_run_id",
    "open_state",
    "read_albums",
    "read_runs",
]
