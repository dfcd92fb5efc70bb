"""Rows of the report that come out the same as long as nothing changes, and so need no thinking."""

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tagger.paths import FILE_NAMES
from tagger.records import Action, Track


class Row(NamedTuple):
    """What became of a file, and its whole row as it stands in the report."""

    action: str
    text: str


File = tuple[str, int, int, int, int]
"""The name, size, mtime in nanoseconds, inode and number of links of a file."""


class Rows:
    """The table of rows. Triggers empty it of a file as soon as anything else is learned of it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def holding(self, folder: str, files: Sequence[File], settings: bytes) -> Sequence[Row | None]:
        """Return the row of each of these files of one folder, None where none holds any more.

        files: sorted by name as bytes. Rows of other settings do not count.
        """
        first, last = os.fsencode(files[0][0]), os.fsencode(files[-1][0])
        found = self._db.execute(
            "SELECT name, size, mtime_ns, inode, links, action, text FROM rows"
            " WHERE folder = ? AND name BETWEEN ? AND ? AND settings = ?",
            (os.fsencode(folder), first, last, settings),
        )
        rows = {row[0].decode(*FILE_NAMES): row for row in found}
        return [_holding(rows.get(file[0]), file) for file in files]

    def text_of(self, path: Path) -> str | None:
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


def _holding(row: Any, file: File) -> Row | None:
    return Row(row[5], row[6]) if row and row[1:5] == file[1:] else None
