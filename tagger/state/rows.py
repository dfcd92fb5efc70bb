"""Rows of the report that come out the same as long as nothing changes, and so need no thinking."""

import os
import sqlite3
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tagger.records import Action, Track


class Row(NamedTuple):
    """The row of one file and what it holds for: the file as it was, with so many names.

    text: the whole row as it stands in the report.
    """

    size: int
    mtime_ns: int
    inode: int
    links: int
    action: str
    text: str


class Rows:
    """The table of rows. Triggers empty it of a file as soon as anything else is learned of it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def recall(self, folder: str, names: Sequence[str], settings: bytes) -> Mapping[str, Row]:
        """Return the rows of files of one folder by name; `names` are sorted as bytes.

        Those of other settings do not count.
        """
        first, last = os.fsencode(names[0]), os.fsencode(names[-1])
        found = self._db.execute(
            "SELECT name, size, mtime_ns, inode, links, action, text FROM rows"
            " WHERE folder = ? AND name BETWEEN ? AND ? AND settings = ?",
            (os.fsencode(folder), first, last, settings),
        )
        return {os.fsdecode(name): Row._make(row) for name, *row in found}

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
