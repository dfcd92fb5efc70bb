"""Cached rows of the report, and the queue of tracks that a run cannot settle yet."""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tagger.paths import FILENAME_CODEC, AnyPath, parse_path
from tagger.records import Action, Track
from tagger.storage import find_volume


class CachedRow(NamedTuple):
    """The action of a file, and its whole row as the CSV report has it."""

    action: str
    text: str


FileStat = tuple[str, int, int, int, int]
"""The name, size, mtime in nanoseconds, inode and number of links of a file."""


class RowCache:
    """The table `rows`. Triggers delete the row of a file when its track or its scores change."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def find_valid(
        self, folder: str, files: Sequence[FileStat], digest: bytes
    ) -> Sequence[CachedRow | None]:
        """Return the row of each of these files of one folder, or None where it is not valid.

        files: sorted by name as bytes. digest: of all that a row depends on, but its file. Rows
        with another one are not valid. If another file system is mounted there now,
        `State.load_track` looks at each file.
        """
        first, last = os.fsencode(files[0][0]), os.fsencode(files[-1][0])
        found = self._db.execute(
            "SELECT name, rows.size, rows.mtime_ns, rows.inode, links, action, text"
            " FROM rows JOIN tracks ON tracks.id = track_id"
            " WHERE folder = ? AND name BETWEEN ? AND ? AND settings = ?"
            " AND (volume = ? OR volume IS NULL)",
            (os.fsencode(folder), first, last, digest, find_volume(parse_path(folder))),
        )
        rows: dict[FileStat, CachedRow] = {
            (name.decode(*FILENAME_CODEC), size, mtime_ns, inode, links): CachedRow(action, text)
            for name, size, mtime_ns, inode, links, action, text in found
        }
        return [rows.get(file) for file in files]

    def find_text(self, path: AnyPath, *, digest_prefix: bytes = b"") -> str | None:
        """Return the row of a file, whether or not it is still valid.

        digest_prefix: how the digest of the row begins.
        """
        folder, name = os.path.split(os.fsencode(path))
        row = self._db.execute(
            "SELECT text FROM rows WHERE folder = ? AND name = ?"
            " AND substr(settings, 1, length(?)) = ?",
            (folder, name, digest_prefix, digest_prefix),
        ).fetchone()
        return row[0] if row else None

    def save(self, track: Track, digest: bytes, action: Action, text: str) -> None:
        """Save the row of a track that is known; do nothing for other tracks."""
        path = os.fsencode(track.path)
        folder, name = os.path.split(path)
        self._db.execute(
            "INSERT OR REPLACE INTO rows"
            " SELECT ?, ?, id, size, mtime_ns, inode, ?, ?, ?, ? FROM tracks"
            " WHERE path = ? AND size = ? AND mtime_ns = ? AND inode = ?",
            (
                folder, name, track.links, digest, action, text,
                path, track.size, track.mtime_ns, track.inode,
            ),
        )  # fmt: skip


class TrackQueue:
    """The tracks that cannot be settled yet. It lies on disk and ends with the run.

    A track waits for its prediction or, once its scores are known, for the rest of its folder.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def add(self, track: Track, *, is_scored: bool = False) -> None:
        path = os.fsencode(track.path)
        self._db.execute(
            "INSERT INTO temp.queue (path, size, mtime_ns, inode, links, folder, is_scored)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                path, track.size, track.mtime_ns, track.inode, track.links,
                os.path.dirname(path), is_scored,  # noqa: PTH120 - of bytes
            ),
        )  # fmt: skip

    def count(self, *, with_scored: bool = False) -> int:
        """Return the number of tracks that wait for a prediction, or of all."""
        count: int = self._db.execute(
            "SELECT count(*) FROM temp.queue WHERE NOT is_scored OR ?", (with_scored,)
        ).fetchone()[0]
        return count

    def list_tracks(self, *, with_scored: bool = False) -> Iterator[Track]:
        """Yield the tracks that wait for a prediction, or all, in the order they were added.

        A page at a time is read, so that memory does not grow with the queue.
        """
        last = 0
        while rows := self._db.execute(
            "SELECT id, path, size, mtime_ns, inode, links FROM temp.queue"
            " WHERE id > ? AND (NOT is_scored OR ?) ORDER BY id LIMIT 1000",
            (last, with_scored),
        ).fetchall():
            for last, path, *stat in rows:  # noqa: B007 - the next page begins there
                yield Track(parse_path(os.fsdecode(path)), *stat)

    def mark_scored(self, track: Track) -> None:
        """Let a track whose scores are known now wait for the rest of its folder."""
        path = os.fsencode(track.path)
        self._db.execute("UPDATE temp.queue SET is_scored = 1 WHERE path = ?", (path,))

    def remove(self, track: Track) -> None:
        self._db.execute("DELETE FROM temp.queue WHERE path = ?", (os.fsencode(track.path),))

    def remove_scored_folder(self, folder: AnyPath) -> Sequence[Track]:
        """Remove and return the tracks of a folder, if no one of them waits for a prediction."""
        name = (os.fsencode(folder),)
        unscored = "SELECT 1 FROM temp.queue WHERE folder = ? AND is_scored = 0 LIMIT 1"
        if self._db.execute(unscored, name).fetchone():
            return []
        rows = self._db.execute(
            "SELECT path, size, mtime_ns, inode, links FROM temp.queue WHERE folder = ?"
            " ORDER BY id",
            name,
        ).fetchall()
        self._db.execute("DELETE FROM temp.queue WHERE folder = ?", name)
        return [Track(parse_path(os.fsdecode(path)), *stat) for path, *stat in rows]
