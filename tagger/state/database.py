"""The open database of one run: what is known of each file, cached report rows, and the queue."""

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from filelock import FileLock, Timeout

from tagger.errors import DiskFullError, LockedError, StateError
from tagger.paths import FILENAME_CODEC, AnyPath, parse_path
from tagger.records import Action, Album, Failure, Prediction, Score, Tags, Track
from tagger.state.journal import Journal, Run, Runs
from tagger.state.schema import (
    check_is_ours,
    is_current,
    migrate,
    parse_json,
    tags_from_json,
    tags_to_json,
)
from tagger.storage import was_moved_from


class CachedRow(NamedTuple):
    """What became of a file, and its whole row as it stands in the report."""

    action: str
    text: str


FileStat = tuple[str, int, int, int, int]
"""The name, size, mtime in nanoseconds, inode and number of links of a file."""


class RowCache:
    """The table of rows. Triggers empty it of a file as soon as anything else is learned of it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def holding(
        self, folder: str, files: Sequence[FileStat], settings: bytes
    ) -> Sequence[CachedRow | None]:
        """Return the row of each of these files of one folder, None where none holds any more.

        files: sorted by name as bytes. Rows of other settings do not count.
        """
        first, last = os.fsencode(files[0][0]), os.fsencode(files[-1][0])
        found = self._db.execute(
            "SELECT name, size, mtime_ns, inode, links, action, text FROM rows"
            " WHERE folder = ? AND name BETWEEN ? AND ? AND settings = ?",
            (os.fsencode(folder), first, last, settings),
        )
        rows = {row[0].decode(*FILENAME_CODEC): row for row in found}
        return [_match_row(rows.get(file[0]), file) for file in files]

    def text_of(self, path: AnyPath) -> str | None:
        """Return the row of a file, whether or not it still holds."""
        folder, name = os.path.split(os.fsencode(path))
        found = self._db.execute(
            "SELECT text FROM rows WHERE folder = ? AND name = ?", (folder, name)
        ).fetchone()
        return found[0] if found else None

    def remember(self, track: Track, settings: bytes, action: Action, text: str) -> None:
        """Keep the row of a track that is known; where it is not, this does nothing."""
        path = os.fsencode(track.path)
        folder, name = os.path.split(path)
        self._db.execute(
            "INSERT OR REPLACE INTO rows"
            " SELECT ?, ?, id, size, mtime_ns, inode, ?, ?, ?, ? FROM tracks"
            " WHERE path = ? AND size = ? AND mtime_ns = ? AND inode = ?",
            (
                folder, name, track.links, settings, action, text,
                path, track.size, track.mtime_ns, track.inode,
            ),
        )  # fmt: skip


def _match_row(row: Any, file: FileStat) -> CachedRow | None:
    return CachedRow(row[5], row[6]) if row and row[1:5] == file[1:] else None


COMMIT_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class KnownTrack:
    """What earlier runs learned of an untouched file; None where they did not look.

    undone: tagger's tags were taken out again on request. That outlives changes of the file.
    """

    tags: Tags | None = None
    scores: tuple[Score, ...] | None = None
    duration_s: float | None = None
    failure: str | None = None
    permanent: bool = False
    undone: bool = False


class TrackRow(NamedTuple):
    """A row of the table of tracks."""

    id: int
    path: bytes
    duration_s: float | None
    tags: str | None
    failure: str | None
    permanent: int
    undone: int


class State:
    """The open database of one run. Nothing is lost that `commit` has seen, even without power."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self.journal = Journal(connection)
        self.runs = Runs(connection)
        self.rows = RowCache(connection)
        self._committed = time.monotonic()

    def recall(self, track: Track, *, model: str, windows: int) -> KnownTrack:
        """Return what is known of exactly this file; a moved file is recognised by its inode.

        The scores are those of `model` over this number of windows. What failed for another model,
        as one that listens elsewhere finds only silence, is no lasting failure for this one.
        """
        row = self._row_of(track)
        if row is None:
            return KnownTrack(undone=self._is_undone(track.path))
        found = self._db.execute(
            "SELECT scores FROM scores WHERE track_id = ? AND model = ? AND windows = ?",
            (row.id, model, windows),
        ).fetchone()
        scores = tuple(Score(*pair) for pair in parse_json(found[0])) if found else None
        tags = tags_from_json(row.tags) if row.tags else None
        failure, lasting = row.failure, row.permanent
        if failure is None:
            unheard = self._db.execute(
                "SELECT failure, lasting FROM unheard"
                " WHERE track_id = ? AND model = ? AND windows = ?",
                (row.id, model, windows),
            ).fetchone()
            failure, lasting = unheard or (None, False)
        return KnownTrack(tags, scores, row.duration_s, failure, bool(lasting), bool(row.undone))

    def remember_tags(self, track: Track, tags: Tags) -> None:
        """Note what the file says; what was known of an older version of it is forgotten."""
        self._db.execute(
            "UPDATE tracks SET tags = ? WHERE id = ?", (tags_to_json(tags), self._settle(track))
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
        self._db.execute(
            "DELETE FROM unheard WHERE track_id = ? AND model = ?", (track_id, prediction.model)
        )

    def remember_failure(self, failure: Failure) -> None:
        """Note a failure that came before any model had its turn, or after."""
        self._db.execute(
            "UPDATE tracks SET failure = ?, lasting = ? WHERE id = ?",
            (failure.reason, failure.permanent, self._settle(failure.track)),
        )

    def remember_model_failure(self, failure: Failure, *, model: str, windows: int) -> None:
        """Note a failure of `model` over this number of windows, and that it is the only one."""
        self.forget_failure(failure.track)
        track_id = self._settle(failure.track)
        self._db.execute(
            "INSERT OR REPLACE INTO unheard VALUES (?, ?, ?, ?, ?)",
            (track_id, model, windows, failure.reason, failure.permanent),
        )

    def forget_failure(self, track: Track) -> None:
        self._db.execute(
            "UPDATE tracks SET failure = NULL WHERE path = ?", (os.fsencode(track.path),)
        )

    def decline(self, track: Track) -> None:
        """Note that somebody does not want tagger's genre in this file."""
        self._db.execute("UPDATE tracks SET undone = 1 WHERE id = ?", (self._settle(track),))

    def finish_replacement(self, entry: int, old: Track, new: Track, tags: Tags) -> None:
        """Note that a file was replaced and what it says now, in the journal too."""
        undone = not self.journal.close_entry(entry, new)
        self._db.execute(  # under all its names: an undo in place is one for each
            "UPDATE tracks SET undone = ? WHERE size = ? AND mtime_ns = ? AND inode = ?",
            (undone, old.size, old.mtime_ns, old.inode),
        )
        self.update_track(old, new, tags)
        self._db.execute(
            "UPDATE tracks SET undone = ?, tags = ? WHERE id = ?",
            (undone, tags_to_json(tags), self._settle(new)),
        )
        self.commit_if_due()  # without it, recovery finds the same by the tags of the file

    def update_track(self, old: Track, new: Track, tags: Tags) -> None:
        """Let all that was learned of `old` hold for `new`, and forget its failure."""
        self._db.execute(
            "UPDATE tracks SET size = ?, mtime_ns = ?, inode = ?, tags = ?, failure = NULL"
            " WHERE path = ? AND size = ? AND mtime_ns = ? AND inode = ?",
            (
                new.size, new.mtime_ns, new.inode, tags_to_json(tags),
                os.fsencode(old.path), old.size, old.mtime_ns, old.inode,
            ),
        )  # fmt: skip

    def enqueue(self, track: Track, *, heard: bool = False) -> None:
        """Put a track aside; the queue lies on disk and ends with the run.

        It waits to be listened to or, if that was done before, for the other tracks of its album.
        """
        path = os.fsencode(track.path)
        self._db.execute(
            "INSERT INTO temp.queue (path, size, mtime_ns, inode, links, folder, heard)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                path, track.size, track.mtime_ns, track.inode, track.links,
                os.path.dirname(path), heard,  # noqa: PTH120 - of bytes
            ),
        )  # fmt: skip

    def queue_length(self, *, heard: bool = False) -> int:
        """Return how many tracks wait to be listened to, or with `heard` for anything."""
        length: int = self._db.execute(
            "SELECT count(*) FROM temp.queue WHERE NOT heard OR ?", (heard,)
        ).fetchone()[0]
        return length

    def dequeue(self, track: Track, *, heard: bool = False) -> None:
        """Take a track off the queue or, if it was `heard`, let it wait for its album."""
        path = (os.fsencode(track.path),)
        if heard:
            self._db.execute("UPDATE temp.queue SET heard = 1 WHERE path = ?", path)
        else:
            self._db.execute("DELETE FROM temp.queue WHERE path = ?", path)

    def take_folder(self, folder: AnyPath) -> list[Track]:
        """Take the tracks of a folder off the queue once all were heard; else none of them."""
        name = (os.fsencode(folder),)
        waits = "SELECT 1 FROM temp.queue WHERE folder = ? AND heard = 0 LIMIT 1"
        if self._db.execute(waits, name).fetchone():
            return []
        rows = self._db.execute(
            "SELECT path, size, mtime_ns, inode, links FROM temp.queue WHERE folder = ?"
            " ORDER BY id",
            name,
        ).fetchall()
        self._db.execute("DELETE FROM temp.queue WHERE folder = ?", name)
        return [Track(parse_path(os.fsdecode(path)), *stat) for path, *stat in rows]

    def queued(self, *, heard: bool = False) -> Iterator[Track]:
        """Yield the tracks of the queue in the order they came, a page at a time.

        Only those that wait to be listened to, unless `heard` asks for all.
        """
        last = 0
        while rows := self._db.execute(
            "SELECT id, path, size, mtime_ns, inode, links FROM temp.queue"
            " WHERE id > ? AND (NOT heard OR ?) ORDER BY id LIMIT 1000",
            (last, heard),
        ).fetchall():
            for last, path, *stat in rows:  # noqa: B007 - read by the next page
                yield Track(parse_path(os.fsdecode(path)), *stat)

    def commit(self) -> None:
        self._db.commit()
        self._committed = time.monotonic()

    def commit_if_due(self) -> None:
        """Commit if that has not been done for a second: what can be learned again may wait."""
        if time.monotonic() - self._committed >= COMMIT_INTERVAL_S:
            self.commit()

    def _row_of(self, track: Track) -> TrackRow | None:
        """Find the row of exactly this file; one whose path leads elsewhere by now moves here."""
        path = os.fsencode(track.path)
        rows = self._db.execute(
            "SELECT id, path, duration_s, tags, failure, lasting, undone FROM tracks"
            " WHERE inode = ? AND size = ? AND mtime_ns = ?",
            (track.inode, track.size, track.mtime_ns),
        )
        found = [TrackRow(*row) for row in rows]
        for row in found:
            if row.path == path:
                return row
        for row in found:
            if track.inode and was_moved_from(parse_path(os.fsdecode(row.path)), track.inode):
                self._rename(path, b"moved away %d" % row.id)
                self._rename(row.path, path)
                return row
        return None

    def _rename(self, old: bytes, new: bytes) -> None:
        self._db.execute("UPDATE tracks SET path = ? WHERE path = ?", (new, old))
        self._db.execute("UPDATE journal SET path = ? WHERE path = ?", (new, old))

    def _settle(self, track: Track) -> int:
        """Return the id of this version of the file, dropping what belongs to an older one."""
        row = self._row_of(track)
        if row is not None:
            return row.id
        path, undone = os.fsencode(track.path), self._is_undone(track.path)
        self._db.execute("DELETE FROM tracks WHERE path = ?", (path,))
        cursor = self._db.execute(
            "INSERT INTO tracks (path, size, mtime_ns, inode, undone) VALUES (?, ?, ?, ?, ?)",
            (path, track.size, track.mtime_ns, track.inode, undone),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def _is_undone(self, path: AnyPath) -> bool:
        found = self._db.execute(
            "SELECT undone FROM tracks WHERE path = ?", (os.fsencode(path),)
        ).fetchone()
        return bool(found and found[0])


def select_albums(connection: sqlite3.Connection) -> Mapping[AnyPath, Album]:
    """Return which album each file says that it is from, of those that were asked."""
    found = connection.execute("SELECT path, tags FROM tracks WHERE tags IS NOT NULL")
    known = ((path, tags_from_json(tags).album) for path, tags in found)
    return {parse_path(os.fsdecode(path)): album for path, album in known if album is not None}


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
        with _connect(path) as connection:
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
    return _read_database(path, lambda connection: Runs(connection).all()) if path.exists() else []


def read_albums(path: Path) -> Mapping[AnyPath, Album]:
    """Return which album each known file says that it is from; else as `read_runs`."""
    return _read_database(path, select_albums) if path.exists() else {}


def _read_database(path: Path, ask: Callable[[sqlite3.Connection], T]) -> T:
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            if is_current(connection):
                return ask(connection)
    except sqlite3.Error as error:
        raise StateError(f"the state file {path} cannot be read: {error}") from error
    with open_state(path):  # brings it up to date
        return _read_database(path, ask)


@contextmanager
def _connect(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path)
    try:
        check_is_ours(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # the journal must outlive a power cut
        connection.execute("PRAGMA foreign_keys = ON")
        migrate(connection)
        yield connection
        connection.commit()
    finally:
        connection.close()
