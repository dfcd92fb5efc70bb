"""The journal: what stood in each file before tagger replaced it, kept for good."""

import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagger.paths import path_of
from tagger.records import Change, Tags, Track
from tagger.state.runs import RunKind
from tagger.state.schema import tags_from_json, tags_to_json

ENTRIES = """
SELECT id, run_id, path, copy, before, after, old_size, old_mtime_ns, old_inode,
       size, mtime_ns, inode
FROM journal
"""


STANDING = ENTRIES.replace("journal", "standing")


@dataclass(frozen=True, slots=True)
class Entry:
    """One replacement.

    copy: the name of the file that was worked on, beside the original. old: the file as it was
    before. new: as it was left; None where the run was killed before it could tell. The first
    version of the state file knew no copy, which is empty then, and no old.
    """

    id: int
    run_id: str
    path: Path
    copy: str
    before: Tags
    after: Tags
    old: Track | None
    new: Track | None


class Journal:
    """The entries of all runs. Nothing here is deleted but what never touched a file."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def open(self, run_id: str, change: Change) -> int:
        """Note what is about to be replaced, safe from a power cut; return the entry's number."""
        track = change.track
        cursor = self._db.execute(
            "INSERT INTO journal"
            " (run_id, path, copy, before, after, old_size, old_mtime_ns, old_inode)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                run_id, os.fsencode(track.path), os.fsencode(change.copy),
                tags_to_json(change.before), tags_to_json(change.after),
                track.size, track.mtime_ns, track.inode,
            ),
        )  # fmt: skip
        self.mark_undone(change.undoes, run_id)
        self._db.commit()
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def mark_undone(self, entries: Sequence[int], run_id: str) -> None:
        """Note which run took these entries back."""
        self._db.executemany(
            "UPDATE journal SET undone_by = ? WHERE id = ?", [(run_id, each) for each in entries]
        )

    def close(self, entry: int, new: Track) -> bool:
        """Note that the file was replaced, and what it is since.

        Return whether tagger's tags stand in it now: they do unless this was an undo.
        """
        (kind,) = self._db.execute(
            "SELECT kind FROM journal JOIN runs ON runs.id = run_id WHERE journal.id = ?", (entry,)
        ).fetchone()
        self._note(entry, new)
        if kind != RunKind.UNDO:
            return True
        for standing in self.standing(new.path)[:1]:
            self._note(standing.id, new)  # the file says again what that one wrote
        return False

    def _note(self, entry: int, new: Track) -> None:
        self._db.execute(
            "UPDATE journal SET size = ?, mtime_ns = ?, inode = ? WHERE id = ?",
            (new.size, new.mtime_ns, new.inode, entry),
        )

    def cancel(self, entry: int) -> None:
        """Note that the file was left as it was."""
        self._db.execute(
            "UPDATE journal SET undone_by = NULL WHERE (undone_by, path) ="
            " (SELECT run_id, path FROM journal WHERE id = ?)",
            (entry,),
        )
        self._db.execute("DELETE FROM journal WHERE id = ?", (entry,))

    def unfinished(self) -> list[Entry]:
        """Return the entries that a killed run left open, the oldest first."""
        return self._entries(f"{ENTRIES} WHERE size IS NULL ORDER BY id")

    def standing_paths(self, run_id: str | None = None) -> list[Path]:
        """Return, in order, the files with an entry that was not undone.

        Of one run, or of all that were no undo.
        """
        found = self._db.execute(
            "SELECT DISTINCT path FROM standing"
            " WHERE run_id = :run OR :run IS NULL AND kind != 'undo' ORDER BY path",
            {"run": run_id},
        )
        return [path_of(os.fsdecode(path)) for (path,) in found]

    def standing(self, path: Path, run_id: str | None = None) -> list[Entry]:
        """Return the entries of a file that were not undone, the newest first.

        Of undos where the run given is one, else of all that were none.
        """
        return self._entries(
            f"{STANDING} WHERE path = ? AND (kind = 'undo') = (coalesce(?, '') IN undos)"
            " ORDER BY id DESC",
            os.fsencode(path), run_id,
        )  # fmt: skip

    def last_run(self) -> str | None:
        """Return the newest run that was no undo and has an entry that was not undone."""
        found = self._db.execute(
            "SELECT run_id FROM standing WHERE kind != 'undo' ORDER BY id DESC LIMIT 1"
        ).fetchone()
        return found[0] if found else None

    def _entries(self, query: str, *values: object) -> list[Entry]:
        return [_entry(row) for row in self._db.execute(query, values)]


def _entry(row: Any) -> Entry:
    number, run_id, stored_path, copy, before, after, *stat = row
    path = path_of(os.fsdecode(stored_path))
    old, new = (
        Track(path, *numbers) if numbers[0] is not None else None
        for numbers in (stat[:3], stat[3:])
    )
    return Entry(
        number, run_id, path, os.fsdecode(copy or b""), tags_from_json(before),
        tags_from_json(after), old, new,
    )  # fmt: skip
