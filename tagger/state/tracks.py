"""The SQLite file that lets a run skip what earlier runs learned; owns sqlite3.

It knows each file by path, size, mtime and inode, keeps the scores of every model that listened
to it, the journal of replaced tags, and the runs.
"""

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from tagger.errors import DiskFullError, LockedError, StateError
from tagger.records import Failure, Prediction, RawField, Score, Tags, Track

SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE tracks (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL UNIQUE,      -- as the system has it; not every name is UTF-8
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    duration_s REAL,
    tags TEXT,                      -- records.Tags as JSON
    failure TEXT,                   -- why an earlier run could do nothing with it
    lasting INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX tracks_by_inode ON tracks (inode);
CREATE TABLE scores (
    track_id INTEGER NOT NULL REFERENCES tracks (id) ON DELETE CASCADE,
    model TEXT NOT NULL,
    windows INTEGER NOT NULL,
    scores TEXT NOT NULL,           -- [[label, probability], ...], all of them, best first
    PRIMARY KEY (track_id, model)
) WITHOUT ROWID;
CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    started_at TEXT NOT NULL,
    finished_at TEXT,
    model TEXT NOT NULL,
    dry_run INTEGER NOT NULL,
    report BLOB NOT NULL,
    result TEXT                     -- the summary as JSON, once the run is over
);
CREATE TABLE journal (
    id INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL REFERENCES runs (id),
    path BLOB NOT NULL,
    before TEXT NOT NULL,           -- records.Tags as JSON: what stood there
    after TEXT NOT NULL,
    size INTEGER,                   -- the file as it was left, once it was replaced
    mtime_ns INTEGER,
    inode INTEGER
);
"""

QUEUE = """
CREATE TEMP TABLE queue (
    id INTEGER PRIMARY KEY, path BLOB, size INTEGER, mtime_ns INTEGER, inode INTEGER, links INTEGER
);
"""


@dataclass(frozen=True, slots=True)
class Known:
    """What earlier runs learned of an untouched file; None where they did not look."""

    tags: Tags | None = None
    scores: tuple[Score, ...] | None = None
    duration_s: float | None = None
    failure: str | None = None
    lasting: bool = False


class Row(NamedTuple):
    """A row of the table of tracks."""

    id: int
    path: bytes
    duration_s: float | None
    tags: str | None
    failure: str | None
    lasting: int


class State:
    """The open database of one run. Nothing is lost that `commit` has seen, even without power."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def recall(self, track: Track, *, model: str, windows: int) -> Known:
        """Return what is known of exactly this file; a moved file is recognised by its inode.

        The scores are those of `model` over this number of windows.
        """
        row = self._row_of(track)
        if row is None:
            return Known()
        found = self._db.execute(
            "SELECT scores FROM scores WHERE track_id = ? AND model = ? AND windows = ?",
            (row.id, model, windows),
        ).fetchone()
        scores = tuple(Score(*pair) for pair in json.loads(found[0])) if found else None
        tags = _tags_from_json(row.tags) if row.tags else None
        return Known(tags, scores, row.duration_s, row.failure, bool(row.lasting))

    def remember_tags(self, track: Track, tags: Tags) -> None:
        """Note what the file says; what was known of an older version of it is forgotten."""
        self._db.execute(
            "UPDATE tracks SET tags = ? WHERE id = ?", (_tags_to_json(tags), self._settle(track))
        )

    def remember_prediction(self, prediction: Prediction, *, windows: int) -> None:
        track_id = self._settle(prediction.track)
        scores = json.dumps([[s.genre, s.probability] for s in prediction.scores])
        self._db.execute(
            "INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?)",
            (track_id, prediction.model, windows, scores),
        )
        self._db.execute(
            "UPDATE tracks SET duration_s = ? WHERE id = ?", (prediction.duration_s, track_id)
        )

    def remember_failure(self, failure: Failure) -> None:
        self._db.execute(
            "UPDATE tracks SET failure = ?, lasting = ? WHERE id = ?",
            (failure.reason, failure.lasting, self._settle(failure.track)),
        )

    def forget_failure(self, track: Track) -> None:
        self._db.execute(
            "UPDATE tracks SET failure = NULL WHERE path = ?", (os.fsencode(track.path),)
        )

    def open_journal(self, run_id: str, track: Track, *, before: Tags, after: Tags) -> int:
        """Note what is about to be replaced, for good, and return the number of the entry."""
        cursor = self._db.execute(
            "INSERT INTO journal (run_id, path, before, after) VALUES (?, ?, ?, ?)",
            (run_id, os.fsencode(track.path), _tags_to_json(before), _tags_to_json(after)),
        )
        self.commit()
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def close_journal(self, entry: int, old: Track, new: Track, tags: Tags) -> None:
        """Note that the file was replaced: what was learned of `old` holds for `new`."""
        self._db.execute(
            "UPDATE journal SET size = ?, mtime_ns = ?, inode = ? WHERE id = ?",
            (new.size, new.mtime_ns, new.inode, entry),
        )
        self.renew(old, new, tags)

    def renew(self, old: Track, new: Track, tags: Tags) -> None:
        """Let all that was learned of `old` hold for `new`, and forget its failure."""
        self._db.execute(
            "UPDATE tracks SET size = ?, mtime_ns = ?, inode = ?, tags = ?, failure = NULL"
            " WHERE path = ?",
            (new.size, new.mtime_ns, new.inode, _tags_to_json(tags), os.fsencode(old.path)),
        )
        self.commit()

    def cancel_journal(self, entry: int) -> None:
        """Note that the file was left as it was."""
        self._db.execute("DELETE FROM journal WHERE id = ?", (entry,))

    def enqueue(self, track: Track) -> None:
        """Put a track aside to be listened to; the queue lies on disk and ends with the run."""
        row = (
            os.fsencode(track.path), track.size, track.mtime_ns, track.inode, track.links,
        )  # fmt: skip
        self._db.execute(
            "INSERT INTO temp.queue (path, size, mtime_ns, inode, links) VALUES (?, ?, ?, ?, ?)",
            row,
        )

    def queue_length(self) -> int:
        length: int = self._db.execute("SELECT count(*) FROM temp.queue").fetchone()[0]
        return length

    def queued(self) -> Iterator[Track]:
        """Yield the tracks of the queue in the order they came, a page at a time."""
        last = 0
        while rows := self._db.execute(
            "SELECT * FROM temp.queue WHERE id > ? ORDER BY id LIMIT 1000", (last,)
        ).fetchall():
            for last, path, *stat in rows:  # noqa: B007 - read by the next page
                yield Track(Path(os.fsdecode(path)), *stat)

    def start_run(self, run_id: str, *, model: str, dry_run: bool, report: Path) -> None:
        self._db.execute(
            "INSERT INTO runs (id, started_at, model, dry_run, report) VALUES (?, ?, ?, ?, ?)",
            (run_id, _now(), model, dry_run, os.fsencode(report)),
        )
        self.commit()

    def finish_run(self, run_id: str, result: Mapping[str, object]) -> None:
        self._db.execute(
            "UPDATE runs SET finished_at = ?, result = ? WHERE id = ?",
            (_now(), json.dumps(result), run_id),
        )
        self.commit()

    def commit(self) -> None:
        self._db.commit()

    def _row_of(self, track: Track) -> Row | None:
        """Find the row of exactly this file; under a path that is no more, it moves to the new."""
        path = os.fsencode(track.path)
        rows = self._db.execute(
            "SELECT id, path, duration_s, tags, failure, lasting FROM tracks"
            " WHERE inode = ? AND size = ? AND mtime_ns = ?",
            (track.inode, track.size, track.mtime_ns),
        )
        found = [Row(*row) for row in rows]
        for row in found:
            if row.path == path:
                return row
        for row in found:
            if track.inode and _is_gone(row.path):
                self._db.execute("DELETE FROM tracks WHERE path = ?", (path,))
                self._db.execute("UPDATE tracks SET path = ? WHERE id = ?", (path, row.id))
                return row
        return None

    def _settle(self, track: Track) -> int:
        """Return the id of this version of the file, dropping what belongs to an older one."""
        row = self._row_of(track)
        if row is not None:
            return row.id
        path = os.fsencode(track.path)
        self._db.execute("DELETE FROM tracks WHERE path = ?", (path,))
        cursor = self._db.execute(
            "INSERT INTO tracks (path, size, mtime_ns, inode) VALUES (?, ?, ?, ?)",
            (path, track.size, track.mtime_ns, track.inode),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid


@contextmanager
def open_state(path: Path) -> Iterator[State]:
    """Open or make the database, for this process alone.

    Raises LockedError while another run has it, StateError where it is unusable, DiskFullError.
    """
    path = path.resolve()  # one lock, by whatever name
    lock = FileLock(f"{path}.lock")  # flock: the lock of a process that died is no lock
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # the journal must outlive a power cut
        connection.execute("PRAGMA foreign_keys = ON")
        _migrate(connection)
        connection.executescript(QUEUE)
        yield connection
        connection.commit()
    finally:
        connection.close()


def _migrate(connection: sqlite3.Connection) -> None:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise StateError(f"the state file is of a newer tagger (version {version} of its layout)")
    if version == 0:
        connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")


def _is_gone(path: bytes) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False  # it may well be there, where we may not look
    return False


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _tags_to_json(tags: Tags) -> str:
    return json.dumps(asdict(tags))


def _tags_from_json(text: str) -> Tags:
    stored = json.loads(text)
    return Tags(
        genres=tuple(stored["genres"]),
        written=tuple(stored["written"]),
        scores=stored["scores"],
        model=stored["model"],
        raw=tuple(RawField(field["name"], tuple(field["values"])) for field in stored["raw"]),
    )
