"""Open the database for one process alone, with clear words where that fails."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tagger.errors import DiskFullError, LockedError, StateError
from tagger.state.runs import Run, Runs
from tagger.state.schema import check_ours, is_current, migrate
from tagger.state.tracks import State


@contextmanager
def open_state(path: Path) -> Iterator[State]:
    """Open or make the database, for this process alone.

    Raises LockedError while another run has it, StateError where it is unusable, DiskFullError.
    """
    path = path.resolve()  # one lock, by whatever name
    lock = FileLock(f"{path}.lock")  # flock: the lock of a process that died is no lock
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_nlink > 1:
            raise StateError(f"the state file {path} has several hard links: a lock for each")
        lock.acquire(blocking=False)
    except Timeout as error:
        raise LockedError(f"another run is using {path}") from error
    except OSError as error:
        raise StateError(f"the state file {path} cannot be used: {error.strerror}") from error
    try:
        with _connected(path) as connection:
            yield State(connection)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            raise DiskFullError(f"no space left for the state file {path}") from error
        raise StateError(
            f"the state file {path} cannot be used: {error} (moved away, a new one is made, without"
            " what earlier runs learned and replaced)"
        ) from error
    finally:
        lock.release()


def read_runs(path: Path) -> list[Run]:
    """Return every run, the oldest first; works while another run holds the file.

    Raises StateError where it is unusable.
    """
    if not path.exists():
        return []
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        try:
            if is_current(connection):
                return Runs(connection).all()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StateError(f"the state file {path} cannot be read: {error}") from error
    with open_state(path) as state:
        return state.runs.all()


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path)
    try:
        check_ours(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # the journal must outlive a power cut
        connection.execute("PRAGMA foreign_keys = ON")
        migrate(connection)
        yield connection
        connection.commit()
    finally:
        connection.close()
