"""Open the database for one process alone, with clear words where that fails."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from tagger.errors import DiskFullError, LockedError, StateError
from tagger.records import Album
from tagger.state.runs import Run, Runs
from tagger.state.schema import check_ours, is_current, migrate
from tagger.state.tracks import State, albums_of

T = TypeVar("T")


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
    return _read(path, lambda connection: Runs(connection).all()) if path.exists() else []


def read_albums(path: Path) -> Mapping[Path, Album]:
    """Return which album each known file says that it is from; else as `read_runs`."""
    return _read(path, albums_of) if path.exists() else {}


def _read(path: Path, ask: Callable[[sqlite3.Connection], T]) -> T:
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            if is_current(connection):
                return ask(connection)
    except sqlite3.Error as error:
        raise StateError(f"the state file {path} cannot be read: {error}") from error
    with open_state(path):  # brings it up to date
        return _read(path, ask)


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
