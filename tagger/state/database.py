"""The open database of one run: what is known of each track."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from filelock import BaseFileLock, FileLock, Timeout

from tagger.errors import (
    DISK_FULL_ERRNOS,
    DiskFullError,
    FailureKind,
    LockedError,
    StateError,
)
from tagger.paths import AnyPath, parse_path
from tagger.records import (
    Attributes,
    ContentSample,
    Failure,
    FileReading,
    Prediction,
    Score,
    Tags,
    Track,
)
from tagger.state.context import ContextTable
from tagger.state.journal import Journal, Runs
from tagger.state.rows import RowCache, TrackQueue
from tagger.state.schema import (
    DAMAGE_CURE,
    MOVED_AWAY,
    attributes_from_json,
    attributes_to_json,
    check_is_ours,
    migrate,
    scores_from_json,
    scores_to_json,
    tags_from_json,
    tags_to_json,
)
from tagger.storage import find_volume, sample_content, was_moved_from

AUTO_WINDOWS = 0
"""The number of windows that stands for `--windows auto`."""


COMMIT_INTERVAL_S = 1.0

LOCK_CHECK_INTERVAL_S = 0.5


@dataclass(frozen=True, slots=True)
class KnownTrack:
    """What earlier runs learned of a file that did not change since; None: not yet read.

    undone: a person undid tagger's tags or does not want them, even after the file changes.
    is_model_failure: the failure is that of a model; the tags can be read.
    is_new: no earlier run found a file at this path, nor one with this inode.
    """

    tags: Tags | None = None
    scores: tuple[Score, ...] | None = None
    duration_s: float | None = None
    failure: Failure | None = None
    undone: bool = False
    attributes: Attributes = field(default_factory=Attributes)
    is_model_failure: bool = False
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class ModelResult:
    """What one model said of a file over this number of windows: scores, or why it failed."""

    model: str
    windows: int
    scores: tuple[Score, ...] = ()
    attributes: Attributes = field(default_factory=Attributes)
    failure: Failure | None = None


class TrackRow(NamedTuple):
    """A row of the table `tracks`."""

    id: int
    path: bytes
    duration_s: float | None
    tags: str | None
    failure: str | None
    lasting: int
    kind: str | None
    undone: int
    inode: int
    volume: int | None
    sample: bytes | None

    def has_moved_to(self, track: Track, sample: ContentSample) -> bool:
        """Tell whether a file with the same size, mtime and inode is the file of this row, moved.

        Inodes are used again. So content and file system must be the same too, except for rows that
        tagger 0.1.0 made.
        """
        is_alike = self.sample in (None, sample.digest) and self.volume in (None, sample.volume)
        return is_alike and was_moved_from(parse_path(os.fsdecode(self.path)), track.inode)

    def is_on_volume_of(self, track: Track) -> bool:
        """Tell whether the file system is still the same, as far as that is known."""
        return self.volume is None or find_volume(track.path) in (None, self.volume)


class State:
    """The open database of one run. What `commit` wrote survives even a power cut."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self.journal = Journal(connection)
        self.runs = Runs(connection)
        self.rows = RowCache(connection)
        self.queue = TrackQueue(connection)
        self.context = ContextTable(connection)
        self._committed_at_s = time.monotonic()

    def load_tracks(self, tracks: Sequence[Track], *, model: str, windows: int) -> list[KnownTrack]:
        """Return what `load_track` returns for each track. All new tracks take one statement."""
        names = [os.fsencode(track.path) for track in tracks]
        inodes = [track.inode for track in tracks if track.inode]
        found = self._db.execute(
            f"SELECT path, inode FROM tracks WHERE path IN ({_make_marks(names)})"  # noqa: S608
            f" OR inode IN ({_make_marks(inodes)})",
            (*names, *inodes),
        )
        known = {value for row in found for value in row}
        return [
            self.load_track(track, model=model, windows=windows)
            if name in known or (track.inode and track.inode in known)
            else KnownTrack(is_new=True)
            for name, track in zip(names, tracks, strict=True)
        ]

    def load_track(self, track: Track, *, model: str, windows: int) -> KnownTrack:
        """Return what is known of exactly this file. A moved file is found by its inode.

        The scores are those of `model` over this number of windows. A failure of another model or
        number of windows does not count: a model that gets other windows may find sound there.
        """
        row = self._find_row(track)
        if row is None:
            return KnownTrack(undone=self._is_undone(track.path))
        found = self._db.execute(
            "SELECT scores, attributes FROM scores"
            " WHERE track_id = ? AND model = ? AND windows = ?",
            (row.id, model, windows),
        ).fetchone()
        scores = scores_from_json(found[0]) if found else None
        attributes = attributes_from_json(found[1]) if found else Attributes()
        tags = tags_from_json(row.tags) if row.tags else None
        failure, is_of_model = None, False
        if row.failure is not None:
            failure = restore_failure(track, row.failure, row.lasting, row.kind)
        elif found := self._db.execute(
            "SELECT failure, lasting, kind FROM unheard"
            " WHERE track_id = ? AND model = ? AND windows = ?",
            (row.id, model, windows),
        ).fetchone():
            failure, is_of_model = restore_failure(track, *found), True
        undone = bool(row.undone)
        return KnownTrack(tags, scores, row.duration_s, failure, undone, attributes, is_of_model)

    def list_model_results(self, track: Track) -> list[ModelResult]:
        """Return what each model said of exactly this file, by model."""
        row = self._find_row(track)
        if row is None:
            return []
        found = self._db.execute(
            "SELECT model, windows, scores, attributes FROM scores WHERE track_id = ?", (row.id,)
        )
        results = [
            ModelResult(model, windows, scores_from_json(scores), attributes_from_json(attributes))
            for model, windows, scores, attributes in found
        ]
        failed = self._db.execute(
            "SELECT model, windows, failure, lasting, kind FROM unheard WHERE track_id = ?",
            (row.id,),
        )
        results += [
            ModelResult(model, windows, failure=restore_failure(track, *failure))
            for model, windows, *failure in failed
        ]
        return sorted(results, key=lambda result: (result.model, result.windows))

    def has_path(self, path: AnyPath) -> bool:
        """Tell whether a run found a file at this path, whatever became of it since."""
        found = self._db.execute("SELECT 1 FROM tracks WHERE path = ?", (os.fsencode(path),))
        return found.fetchone() is not None

    def save_reading(self, track: Track, reading: FileReading, *, is_new: bool) -> None:
        """Save what a look into a file found. is_new: of a KnownTrack."""
        tags, failure, sample = reading.tags, None, reading.sample
        if reading.error:
            failure = Failure.from_error(track, reading.error)
        if is_new:
            self._db.execute(
                "INSERT OR IGNORE INTO tracks (path, size, mtime_ns, inode, tags, failure, lasting,"
                " kind, volume, sample) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    os.fsencode(track.path), track.size, track.mtime_ns, track.inode,
                    tags_to_json(tags) if tags else None,
                    *((failure.reason, failure.permanent, failure.kind) if failure else NO_FAILURE),
                    sample.volume, sample.digest,
                ),
            )  # fmt: skip
        elif failure:
            self.save_failure(failure)
        elif tags:
            self._db.execute(  # a failure to read the tags, such as a file in use, is over now
                "UPDATE tracks SET failure = NULL WHERE path = ? AND tags IS NULL",
                (os.fsencode(track.path),),
            )
            self.save_tags(track, tags)

    def save_tags(self, track: Track, tags: Tags) -> None:
        """Save the tags of a file; forget all about an older version of it."""
        self._db.execute(
            "UPDATE tracks SET tags = ? WHERE id = ?", (tags_to_json(tags), self._add_track(track))
        )

    def save_prediction(self, prediction: Prediction, *, windows: int) -> None:
        track_id = self._add_track(prediction.track)
        self._db.execute(
            "INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?, ?)",
            (
                track_id, prediction.model, windows,
                scores_to_json(prediction.scores), attributes_to_json(prediction.attributes),
            ),
        )  # fmt: skip
        self._db.execute(
            "UPDATE tracks SET duration_s = ? WHERE id = ?", (prediction.duration_s, track_id)
        )
        self._db.execute(
            "DELETE FROM unheard WHERE track_id = ? AND model = ?", (track_id, prediction.model)
        )

    def save_failure(self, failure: Failure) -> None:
        """Save a failure that does not depend on the model."""
        self._db.execute(
            "UPDATE tracks SET failure = ?, lasting = ?, kind = ? WHERE id = ?",
            (failure.reason, failure.permanent, failure.kind, self._add_track(failure.track)),
        )

    def save_model_failure(self, failure: Failure, *, model: str, windows: int) -> None:
        """Save a failure of `model` over this number of windows; delete any other failure."""
        self.delete_failure(failure.track)
        track_id = self._add_track(failure.track)
        self._db.execute(
            "INSERT OR REPLACE INTO unheard VALUES (?, ?, ?, ?, ?, ?)",
            (track_id, model, windows, failure.reason, failure.permanent, failure.kind),
        )

    def delete_failure(self, track: Track) -> None:
        """Delete the failure that does not depend on the model."""
        self._db.execute(
            "UPDATE tracks SET failure = NULL WHERE path = ?", (os.fsencode(track.path),)
        )

    def forget_other_content(self, track: Track) -> bool:
        """Forget a recording if another one stands in its file, with the same size, time and inode.

        Return whether it does.
        """
        row, sample = self._find_row(track), sample_content(track.path).digest
        if row is None or not row.sample or row.sample == sample:
            return False
        self._insert_track(track)
        return True

    def mark_not_wanted(self, track: Track) -> None:
        """Record that a person does not want tagger's genre in this file."""
        self._db.execute("UPDATE tracks SET undone = 1 WHERE id = ?", (self._add_track(track),))

    def finish_replacement(self, entry: int, old: Track, new: Track, tags: Tags) -> None:
        """Record, also in the journal, that a file was replaced and has these tags now."""
        has_ours = self.journal.close_entry(entry, new)
        undone = None if has_ours is None else not has_ours  # None: as it was
        self._db.execute(  # for all hard links: an undo in place changes each of them
            "UPDATE tracks SET undone = coalesce(?, undone)"
            " WHERE size = ? AND mtime_ns = ? AND inode = ?"
            " AND (volume, sample) IS (SELECT volume, sample FROM tracks WHERE path = ?)",
            (undone, old.size, old.mtime_ns, old.inode, os.fsencode(old.path)),
        )
        self.update_track(old, new, tags)
        self._db.execute(
            "UPDATE tracks SET undone = coalesce(?, undone), tags = ? WHERE id = ?",
            (undone, tags_to_json(tags), self._add_track(new)),
        )
        self.commit_if_due()  # if it is lost, recovery learns the same from the tags of the file

    def update_track(self, old: Track, new: Track, tags: Tags) -> None:
        """Let `new` take over all that is known of `old`, but not its failure."""
        sample = sample_content(new.path)
        self._db.execute(
            "UPDATE tracks SET size = ?, mtime_ns = ?, inode = ?, tags = ?, failure = NULL,"
            " volume = ?, sample = ? WHERE path = ? AND size = ? AND mtime_ns = ? AND inode = ?",
            (
                new.size, new.mtime_ns, new.inode, tags_to_json(tags),
                sample.volume, sample.digest,
                os.fsencode(old.path), old.size, old.mtime_ns, old.inode,
            ),
        )  # fmt: skip

    def commit(self) -> None:
        self._db.commit()
        self._committed_at_s = time.monotonic()

    def commit_if_due(self) -> None:
        """Commit if the last commit was a second ago: for facts that a run can learn again."""
        if time.monotonic() - self._committed_at_s >= COMMIT_INTERVAL_S:
            self.commit()

    def _find_row(self, track: Track) -> TrackRow | None:
        """Find the row of exactly this file. If the file was moved here, move its row too.

        If a file has the path, size and time of its row but another inode or file system, its
        content decides: some mounts give new inodes each time.
        """
        path = os.fsencode(track.path)
        found = self._db.execute(
            "SELECT id, path, duration_s, tags, failure, lasting, kind, undone, inode, volume,"
            " sample FROM tracks WHERE (inode = ? OR path = ?) AND size = ? AND mtime_ns = ?",
            (track.inode, path, track.size, track.mtime_ns),
        )
        rows = [TrackRow(*row) for row in found]
        for row in rows:
            if row.path == path and row.inode == track.inode and row.is_on_volume_of(track):
                if row.sample is None:
                    self._save_sample(row.id, track)
                return row
        if not rows or not (sample := sample_content(track.path)).digest:
            return None
        for row in rows:
            is_same_file = row.inode == track.inode and track.inode
            if is_same_file and row.has_moved_to(track, sample) and not self._is_open(row.path):
                self._make_room(path)
                self._rename(row.path, path)
                if Path(os.fsdecode(row.path)).suffix.lower() != track.path.suffix.lower():
                    return self._forget_reading(row)
                return row
        for row in rows:
            if row.path == path and row.sample == sample.digest:
                self._db.execute(
                    "UPDATE tracks SET inode = ?, volume = ? WHERE id = ?",
                    (track.inode, sample.volume, row.id),
                )
                return row
        return None

    def _forget_reading(self, row: TrackRow) -> TrackRow:
        """Forget tags and failures of a file with a new suffix: the suffix says how it is read."""
        self._db.execute("UPDATE tracks SET tags = NULL, failure = NULL WHERE id = ?", (row.id,))
        self._db.execute("DELETE FROM unheard WHERE track_id = ?", (row.id,))
        return row._replace(tags=None, failure=None)

    def _save_sample(self, track_id: int, track: Track) -> None:
        sample = sample_content(track.path)
        self._db.execute(
            "UPDATE tracks SET volume = ?, sample = ? WHERE id = ?",
            (sample.volume, sample.digest, track_id),
        )

    def _is_open(self, path: bytes) -> bool:
        """Tell whether a file is there, and tagger is replacing it or was killed meanwhile.

        A hard link may then have the old inode, and its old content.
        """
        return self.journal.has_unfinished_entry(path) and os.path.lexists(path)

    def _make_room(self, path: bytes) -> None:
        """Give the row of a file that another file replaced, and its journal, a name of no file."""
        found = self._db.execute("SELECT id FROM tracks WHERE path = ?", (path,)).fetchone()
        if found:
            suffix = os.path.splitext(path)[1]  # noqa: PTH122 - of bytes
            self._rename(path, MOVED_AWAY + b"row %d%s" % (found[0], suffix))

    def _rename(self, old: bytes, new: bytes) -> None:
        self._db.execute("UPDATE tracks SET path = ? WHERE path = ?", (new, old))
        self._db.execute("UPDATE journal SET path = ? WHERE path = ?", (new, old))

    def _add_track(self, track: Track) -> int:
        """Return the id of this version of the file; delete the row of an older version."""
        row = self._find_row(track)
        return self._insert_track(track) if row is None else row.id

    def _insert_track(self, track: Track) -> int:
        path, undone = os.fsencode(track.path), self._is_undone(track.path)
        self._db.execute("DELETE FROM tracks WHERE path = ?", (path,))
        cursor = self._db.execute(
            "INSERT INTO tracks (path, size, mtime_ns, inode, undone) VALUES (?, ?, ?, ?, ?)",
            (path, track.size, track.mtime_ns, track.inode, undone),
        )
        assert cursor.lastrowid is not None
        self._save_sample(cursor.lastrowid, track)
        return cursor.lastrowid

    def _is_undone(self, path: AnyPath) -> bool:
        row = self._db.execute(
            "SELECT undone FROM tracks WHERE path = ?", (os.fsencode(path),)
        ).fetchone()
        return bool(row and row[0])


NO_FAILURE = (None, 0, None)


def _make_marks(values: Sequence[object]) -> str:
    """Return the question marks for a list of values in a statement."""
    return ",".join("?" * len(values))


def restore_failure(track: Track, reason: str, lasting: int, kind: str | None) -> Failure:
    failure_kind = FailureKind.OTHER
    with suppress(ValueError):  # a kind of a newer version
        failure_kind = FailureKind(kind or "")
    return Failure(track, reason, permanent=bool(lasting), kind=failure_kind)


USER_CURE = "the user that runs tagger must be able to write into it and its folder"
CURES = {
    sqlite3.SQLITE_NOTADB: DAMAGE_CURE,
    sqlite3.SQLITE_CORRUPT: DAMAGE_CURE,
    sqlite3.SQLITE_CANTOPEN: USER_CURE,
    sqlite3.SQLITE_READONLY: USER_CURE,
    sqlite3.SQLITE_PERM: USER_CURE,
    sqlite3.SQLITE_IOERR: "its disk is full, fails, or is a network share that locks no files",
}
"""What helps, by SQLite's primary result codes."""

PRIMARY_CODE_MASK = 0xFF


@contextmanager
def open_state(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[State]:
    """Open or create the database, for this process alone.

    on_wait: called again and again while another run uses the database; it may raise an error. If
    there is none, this raises LockedError. Raises StateError if it is unusable, DiskFullError.
    """
    path = path.resolve()  # all names of the file share one lock
    with translate_database_errors(path), _lock(path, on_wait), _connect(path) as connection:
        yield State(connection)


@contextmanager
def translate_database_errors(path: Path, name: str = "state file") -> Iterator[None]:
    """Translate the errors of a database. Say which file it is, and what helps."""
    try:
        yield
    except StateError as error:
        raise StateError(f"the {name} {path} {error}") from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & PRIMARY_CODE_MASK
        if code == sqlite3.SQLITE_FULL:
            raise DiskFullError(f"no space left for the {name} {path}") from error
        cure = f" ({CURES[code]})" if code in CURES else ""
        raise StateError(f"the {name} {path} cannot be used: {error}{cure}") from error


@contextmanager
def _lock(path: Path, on_wait: Callable[[], None] | None) -> Iterator[None]:
    """Hold the lock of the state file, and make its folder. Errors as of `open_state`."""
    lock = FileLock(f"{path}.lock")  # flock: the system frees the lock of a process that died
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_regular(path)
        if path.exists() and path.stat().st_nlink > 1:
            raise StateError("has several hard links, and so several locks: remove all but one")
        _acquire(lock, on_wait)
    except Timeout as error:
        raise LockedError(f"another run is using {path}") from error
    except (FileExistsError, NotADirectoryError) as error:
        raise StateError(f"cannot be made: {error.filename} is no folder") from error
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise DiskFullError(f"no space left for the state file {path}") from error
        reason = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
        raise StateError(f"cannot be used: {reason} (--state names another file)") from error
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: BaseFileLock, on_wait: Callable[[], None] | None) -> None:
    """Acquire the lock. Raises Timeout if another process holds it and nobody wants to wait."""
    while True:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            if on_wait is None:
                raise
            on_wait()
            time.sleep(LOCK_CHECK_INTERVAL_S)
        else:
            return


def check_regular(path: Path) -> None:
    """Raise StateError for a folder or a device."""
    if path.is_dir():
        raise StateError("is a folder: --state must name a file")
    if path.exists() and not path.is_file():
        raise StateError("is no regular file: --state must name another one")


@contextmanager
def _connect(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path)
    try:
        check_is_ours(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # the journal must survive a power cut
        connection.execute("PRAGMA foreign_keys = ON")
        migrate(connection)
        yield connection
        connection.commit()
    finally:
        connection.close()
