"""The queue of `tagger watch`: files and folders that arrived. It outlives every process.

It lies beside the state file and not in it: a run writes into the state file for seconds at a time,
and whoever adds a file must not wait for it.
"""

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from tagger.errors import DISK_FULL_ERRNOS, DiskFullError, LockedError, StateError
from tagger.paths import AnyPath, parse_path, write_file_whole
from tagger.state.database import translate_database_errors

ARRIVALS_SCHEMA = """
CREATE TABLE IF NOT EXISTS arrivals (
    path BLOB PRIMARY KEY,
    folder BLOB NOT NULL,
    ready_at REAL NOT NULL,          -- seconds since the epoch
    is_named INTEGER NOT NULL        -- somebody asked for it: it is scanned whatever is known of it
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS arrivals_by_folder ON arrivals (folder, ready_at);
CREATE INDEX IF NOT EXISTS arrivals_by_time ON arrivals (ready_at);
"""

ADD_ARRIVAL = """
INSERT INTO arrivals VALUES (?, ?, ?, ?) ON CONFLICT (path) DO UPDATE
SET ready_at = max(ready_at, excluded.ready_at), is_named = max(is_named, excluded.is_named)
"""

LIST_READY = """
SELECT path, ready_at, is_named FROM arrivals WHERE ready_at <= :now AND NOT (:whole AND EXISTS (
    SELECT 1 FROM arrivals AS other
    WHERE other.folder = arrivals.folder AND other.ready_at > :now
)) ORDER BY path
"""

LOCK_TIMEOUT_S = 30
"""Other processes hold the queue for milliseconds. Only a slow disk takes longer."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A file or folder that waits for a scan.

    ready_at: the time from which on it may be scanned, in seconds since the epoch. is_named:
    somebody named it; otherwise it was seen to change.
    """

    path: AnyPath
    ready_at: float
    is_named: bool


class ArrivalQueue:
    """The open queue. What a method wrote survives a power cut.

    The methods raise StateError if the queue is unusable, and DiskFullError.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Give the database, and commit at the end."""
        with translate_database_errors(self._path, "queue"), self._connection as database:
            yield database

    def create(self) -> None:
        """Make the table if there is none."""
        with self._open() as database:
            database.executescript(ARRIVALS_SCHEMA)

    def add(self, paths: Iterable[AnyPath], *, delay_s: float = 0, is_named: bool = False) -> None:
        """Add paths that may be scanned after a delay. The longest delay of a path counts."""
        ready_at = time.time() + delay_s
        names = map(os.fsencode, paths)
        with self._open() as database:
            database.executemany(
                ADD_ARRIVAL,
                ((name, os.path.dirname(name), ready_at, is_named) for name in names),  # noqa: PTH120 - of bytes
            )

    def list_ready(self, *, whole_folders: bool = False) -> list[Arrival]:
        """Return what may be scanned now.

        whole_folders: files wait until no other file of their folder has to wait.
        """
        with self._open() as database:
            found = database.execute(LIST_READY, {"now": time.time(), "whole": whole_folders})
            return [
                Arrival(parse_path(os.fsdecode(path)), ready_at, bool(is_named))
                for path, ready_at, is_named in found
            ]

    def has_ready(self) -> bool:
        select = "SELECT 1 FROM arrivals WHERE ready_at <= ? LIMIT 1"
        with self._open() as database:
            return database.execute(select, (time.time(),)).fetchone() is not None

    def remove(self, arrivals: Iterable[Arrival]) -> None:
        """Remove arrivals, but not those that were added again since they were listed."""
        with self._open() as database:
            database.executemany(
                "DELETE FROM arrivals WHERE path = ? AND ready_at = ?",
                ((os.fsencode(arrival.path), arrival.ready_at) for arrival in arrivals),
            )

    def count(self) -> int:
        with self._open() as database:
            count: int = database.execute("SELECT count(*) FROM arrivals").fetchone()[0]
            return count


@contextmanager
def open_arrivals(state: Path) -> Iterator[ArrivalQueue]:
    """Open or create the queue of a state file. Several processes may have it open.

    Raises StateError if it is unusable, DiskFullError.
    """
    path = Path(f"{state.resolve()}.queue")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise DiskFullError(f"no space left for the queue {path}") from error
        raise StateError(f"the queue {path} cannot be made: {error.strerror}") from error
    with translate_database_errors(path, "queue"):
        connection = sqlite3.connect(path, timeout=LOCK_TIMEOUT_S)
    with closing(connection):
        queue = ArrivalQueue(connection, path)
        queue.create()
        yield queue


@dataclass(frozen=True, slots=True)
class WatchStatus:
    """What a watch says about itself. at: when, in seconds since the epoch. error: what fails."""

    at: float
    error: str = ""


@contextmanager
def lock_watch(state: Path) -> Iterator[None]:
    """Be the only watch of a state file. Raises LockedError."""
    lock = FileLock(f"{state.resolve()}.watch.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise LockedError(f"another `tagger watch` is using {state}") from error
    except OSError as error:
        raise StateError(f"cannot lock {lock.lock_file}: {error.strerror}") from error
    try:
        yield
    finally:
        _find_status(state).unlink(missing_ok=True)
        lock.release()


def save_watch_status(state: Path, error: str) -> None:
    """Say that the watch of a state file is alive. Raises StateError."""
    text = json.dumps(asdict(WatchStatus(time.time(), error)))
    try:
        write_file_whole(_find_status(state), text.encode())
    except OSError as cause:
        raise StateError(f"cannot write {_find_status(state)}: {cause.strerror}") from cause


def read_watch_status(state: Path) -> WatchStatus | None:
    """Return what the watch of a state file said last, or None if none is running."""
    try:
        return WatchStatus(**json.loads(_find_status(state).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _find_status(state: Path) -> Path:
    return Path(f"{state.resolve()}.watch")
