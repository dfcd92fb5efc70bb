"""Read the state file and change nothing in it, also while a run uses it."""

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from tagger.paths import AnyPath
from tagger.records import Album, Score, Track
from tagger.state.database import State, check_regular, open_state, translate_database_errors
from tagger.state.journal import Run, Runs
from tagger.state.schema import (
    check_is_ours,
    is_current,
    migrate,
    scores_from_json,
    tags_from_json,
)

T = TypeVar("T")


def read_runs(path: Path) -> list[Run]:
    """Return every run, the oldest first; works while another run uses the file.

    Raises StateError if it is unusable.
    """
    if not path.exists():
        return []
    return _read_database(path, lambda connection: Runs(connection).list_all())


def read_albums(path: Path, tracks: Sequence[AnyPath]) -> Mapping[AnyPath, Album]:
    """Return the album of each of these files whose tags were read for it.

    Errors as of `read_runs`.
    """
    if not path.exists():
        return {}

    def select(connection: sqlite3.Connection) -> Mapping[AnyPath, Album]:
        statement = "SELECT tags FROM tracks WHERE path = ? AND tags IS NOT NULL"
        rows = ((track, connection.execute(statement, (os.fsencode(track),))) for track in tracks)
        albums = ((track, tags_from_json(tags).album) for track, found in rows for (tags,) in found)
        return {track: album for track, album in albums if album is not None}

    return _read_database(path, select)


def read_scores(
    path: Path, tracks: Iterable[Track], *, model: str, windows: int
) -> Mapping[AnyPath, tuple[Score, ...]]:
    """Return the scores of a model for each of these files that it listened to.

    Errors as of `read_runs`.
    """
    if not path.exists():
        return {}

    def select(connection: sqlite3.Connection) -> Mapping[AnyPath, tuple[Score, ...]]:
        found = {}
        for track in tracks:
            row = connection.execute(
                "SELECT scores FROM scores JOIN tracks ON id = track_id"
                " WHERE path = ? AND size = ? AND mtime_ns = ? AND model = ? AND windows = ?",
                (os.fsencode(track.path), track.size, track.mtime_ns, model, windows),
            ).fetchone()
            if row:
                found[track.path] = scores_from_json(row[0])
        return found

    return _read_database(path, select)


def find_settled(path: Path, tracks: Iterable[Track]) -> set[AnyPath]:
    """Return those of these files that some run is done with, and that did not change since.

    A run is done with a file if it wrote into the file or kept the file's row of the report. Errors
    as of `read_runs`.
    """
    if not path.exists():
        return set()

    def select(connection: sqlite3.Connection) -> set[AnyPath]:
        stats = (
            (track, (os.fsencode(track.path), track.size, track.mtime_ns, track.inode))
            for track in tracks
        )
        return {
            track.path for track, stat in stats if connection.execute(FIND_SETTLED, stat).fetchone()
        }

    return _read_database(path, select)


FIND_SETTLED = """
SELECT 1 FROM tracks WHERE path = ? AND size = ? AND mtime_ns = ? AND inode = ? AND (
    EXISTS (SELECT 1 FROM rows WHERE track_id = tracks.id)
    OR EXISTS (
        SELECT 1 FROM journal WHERE path = tracks.path
        AND (size, mtime_ns, inode) = (tracks.size, tracks.mtime_ns, tracks.inode)
    )
)
"""


def _read_database(path: Path, read: Callable[[sqlite3.Connection], T]) -> T:
    uri = f"{path.resolve().as_uri()}?mode=ro"
    with translate_database_errors(path):
        check_regular(path)
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            if is_current(connection):
                return read(connection)
    with open_state(path):
        pass  # it is migrated to the newest layout now
    return _read_database(path, read)


@contextmanager
def open_snapshot(path: Path, tracks: Iterable[Track]) -> Iterator[State]:
    """Yield a copy in memory of what the state file knows of these files.

    Whatever is saved in the copy is lost. The state file stays as it is, whatever its version. A
    missing one is as good as an empty one. Errors as of `read_runs`.
    """
    path = path.resolve()
    with translate_database_errors(path), closing(sqlite3.connect(":memory:", uri=True)) as memory:
        has_newest_layout = path.exists() and _copy_old_layout(path, memory)
        migrate(memory)
        if has_newest_layout:
            _copy_tracks(path, memory, tracks)
        yield State(memory)


def _copy_old_layout(path: Path, memory: sqlite3.Connection) -> bool:
    """Copy the whole database if it has an old layout. Return whether it has the newest one."""
    check_regular(path)
    with closing(sqlite3.connect(_make_read_only_uri(path), uri=True)) as disk:
        check_is_ours(disk)
        if is_current(disk):
            return True
        disk.backup(memory)
        return False


def _make_read_only_uri(path: Path) -> str:
    """Return the URI to open a database with, for reading only.

    Even then SQLite makes files beside it, which say that it is open; with `immutable` it does not.
    If the files are there, a run uses the database, or was killed.
    """
    is_open = Path(f"{path}-wal").exists()
    return f"{path.as_uri()}?mode=ro{'' if is_open else '&immutable=1'}"


COPY_TRACK = """
INSERT OR IGNORE INTO tracks SELECT * FROM disk.tracks
WHERE path = :path OR (inode = :inode AND size = :size AND mtime_ns = :mtime_ns);
"""
"""A file with another path and the same inode may be this one, before somebody moved it."""

COPY_REST = """
INSERT INTO runs SELECT * FROM disk.runs;
INSERT INTO scores SELECT * FROM disk.scores WHERE track_id IN (SELECT id FROM tracks);
INSERT INTO unheard SELECT * FROM disk.unheard WHERE track_id IN (SELECT id FROM tracks);
INSERT INTO rows SELECT * FROM disk.rows WHERE track_id IN (SELECT id FROM tracks);
INSERT INTO journal SELECT * FROM disk.journal
WHERE path IN (SELECT path FROM tracks UNION SELECT path FROM temp.wanted);
DROP TABLE temp.wanted;
COMMIT;
DETACH disk;
"""
"""Rows come last: triggers delete the row of a file when its scores are inserted."""


def _copy_tracks(path: Path, memory: sqlite3.Connection, tracks: Iterable[Track]) -> None:
    memory.execute("ATTACH ? AS disk", (_make_read_only_uri(path),))
    memory.execute("CREATE TEMP TABLE wanted (path BLOB)")
    for track in tracks:
        name = os.fsencode(track.path)
        memory.execute("INSERT INTO temp.wanted VALUES (?)", (name,))
        memory.execute(
            COPY_TRACK,
            {
                "path": name,
                "inode": track.inode,
                "size": track.size,
                "mtime_ns": track.mtime_ns,
            },
        )
    memory.commit()
    memory.executescript(f"BEGIN; {COPY_REST}")
