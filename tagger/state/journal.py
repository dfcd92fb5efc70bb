"""The runs, and the journal of the tags that each run replaced."""

import json
import os
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from tagger.paths import AnyPath, parse_path
from tagger.records import TagChange, Tags, Track
from tagger.state.schema import parse_json, tags_from_json, tags_to_json


class RunKind(StrEnum):
    """The kinds of runs that write into files.

    A redo undoes an undo. An apply writes the genres of an edited report. A normalize renames
    genres by a vocabulary.
    """

    SCAN = "scan"
    UNDO = "undo"
    REDO = "redo"
    APPLY = "apply"
    NORMALIZE = "normalize"


@dataclass(frozen=True, slots=True)
class Run:
    """One run. Times are ISO 8601 in UTC; `finished_at` is empty if the run was killed.

    replaced: the number of files that it wrote into. undone: how many of these were undone since.
    """

    id: str
    kind: RunKind
    started_at: str
    finished_at: str
    model: str
    dry_run: bool
    report: Path | None
    result: Mapping[str, Any]
    replaced: int
    undone: int


class Runs:
    """The table of runs."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def start(
        self,
        run_id: str,
        kind: RunKind,
        *,
        dry_run: bool,
        model: str = "",
        report: Path | None = None,
    ) -> None:
        self._db.execute(
            "INSERT INTO runs (id, kind, started_at, model, dry_run, report)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (run_id, kind, _utc_now(), model, dry_run, os.fsencode(report) if report else b""),
        )
        self._db.commit()

    def finish(self, run_id: str, result: Mapping[str, object]) -> None:
        self._db.execute(
            "UPDATE runs SET finished_at = ?, result = ? WHERE id = ?",
            (_utc_now(), json.dumps(result), run_id),
        )
        self._db.commit()

    def get_kind(self, run_id: str) -> RunKind | None:
        """Return the kind of a run, or None if there is no such run."""
        row = self._db.execute("SELECT kind FROM runs WHERE id = ?", (run_id,)).fetchone()
        return RunKind(row[0]) if row else None

    def list_all(self) -> list[Run]:
        """Return every run, the oldest first."""
        rows = self._db.execute(
            "SELECT runs.id, kind, started_at, finished_at, model, dry_run, report, result,"
            " count(journal.size), count(undone_by) FROM runs"
            " LEFT JOIN journal ON run_id = runs.id GROUP BY runs.id ORDER BY runs.rowid"
        )
        return [_make_run(row) for row in rows]


def new_run_id() -> str:
    """Return an id for a run that starts now. The ids sort in the order of the starts."""
    return f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"


def _make_run(row: Any) -> Run:
    run_id, kind, started_at, finished_at, model, dry_run, report, result, *counts = row
    return Run(
        run_id,
        RunKind(kind),
        started_at,
        finished_at or "",
        model,
        bool(dry_run),
        Path(os.fsdecode(report)) if report else None,
        parse_json(result or "{}"),
        *counts,
    )


def _utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


SELECT_ENTRIES = """
SELECT id, run_id, path, copy, before, after, old_size, old_mtime_ns, old_inode,
       size, mtime_ns, inode
FROM journal
"""


SELECT_ACTIVE_ENTRIES = SELECT_ENTRIES.replace("journal", "active_entries")


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One replacement of the tags of a file.

    copy_name: that of the copy, beside the original, that was edited. old: the file before the
    change. new: the file after it; None if the run was killed before it recorded that. Entries of
    layout version 1 have an empty copy_name and no old.
    """

    id: int
    run_id: str
    path: AnyPath
    copy_name: str
    before: Tags
    after: Tags
    old: Track | None
    new: Track | None


@dataclass(frozen=True, slots=True)
class PastWrite:
    """One write into a file, with the kind and the start of its run.

    undone_by: the run that undid it, or an empty text. is_finished: False if the run was killed
    before it recorded the end of the write.
    """

    run_id: str
    kind: RunKind
    started_at: str
    before: Tags
    after: Tags
    undone_by: str
    is_finished: bool


class Journal:
    """The entries of all runs. Only entries whose file was never changed are deleted."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def open_entry(self, run_id: str, change: TagChange) -> int:
        """Record a change before it happens, safe from a power cut. Return the id of the entry."""
        track = change.track
        cursor = self._db.execute(
            "INSERT INTO journal"
            " (run_id, path, copy, before, after, old_size, old_mtime_ns, old_inode)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                run_id, os.fsencode(track.path), os.fsencode(change.copy_name),
                tags_to_json(change.before), tags_to_json(change.after),
                track.size, track.mtime_ns, track.inode,
            ),
        )  # fmt: skip
        self.mark_undone(change.undone_entries, run_id)
        self._db.commit()
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def mark_undone(self, entries: Sequence[int], run_id: str) -> None:
        """Record that a run undid these entries."""
        self._db.executemany(
            "UPDATE journal SET undone_by = ? WHERE id = ?", [(run_id, entry) for entry in entries]
        )

    def close_entry(self, entry: int, new: Track) -> bool | None:
        """Record that the file was replaced by `new`.

        Return whether the file has tagger's tags now: False after an undo; None where the change,
        or what it took back, was only another name for a genre, left the genre alone, or gave the
        file a genre of the person.
        """
        self._set_new_track(entry, new)
        kind, after = self._db.execute(
            "SELECT kind, after FROM journal JOIN runs ON runs.id = run_id WHERE journal.id = ?",
            (entry,),
        ).fetchone()
        if kind == RunKind.UNDO:
            for active in self.list_active_entries(new.path)[:1]:
                self._set_new_track(active.id, new)  # the file has the tags of that entry again
            return None if self._adds_no_genre(entry) else False
        has_ours = bool(tags_from_json(after).written)
        return True if has_ours and not self._adds_no_genre(entry) else None

    def _adds_no_genre(self, entry: int) -> bool:
        """Tell whether a change added no genre of a model, and took none away.

        The change of an undo is what it took back, and that of a redo what it brought back.
        """
        kind, run_id, path, before, after = self._db.execute(
            "SELECT kind, run_id, path, before, after FROM journal JOIN runs ON runs.id = run_id"
            " WHERE journal.id = ?",
            (entry,),
        ).fetchone()
        if kind in (RunKind.UNDO, RunKind.REDO):
            undone = self._db.execute(
                "SELECT id FROM journal WHERE undone_by = ? AND path = ?", (run_id, path)
            ).fetchall()
            return bool(undone) and all(self._adds_no_genre(number) for (number,) in undone)
        had_ours, has_ours = (bool(tags_from_json(tags).written) for tags in (before, after))
        is_renaming = kind == RunKind.NORMALIZE and (had_ours or not has_ours)
        return is_renaming or _keeps_genre(before, after)

    def _set_new_track(self, entry: int, new: Track) -> None:
        self._db.execute(
            "UPDATE journal SET size = ?, mtime_ns = ?, inode = ? WHERE id = ?",
            (new.size, new.mtime_ns, new.inode, entry),
        )

    def cancel_entry(self, entry: int) -> None:
        """Delete the entry of a file that was not changed after all."""
        self._db.execute(
            "UPDATE journal SET undone_by = NULL WHERE (undone_by, path) ="
            " (SELECT run_id, path FROM journal WHERE id = ?)",
            (entry,),
        )
        self._db.execute("DELETE FROM journal WHERE id = ?", (entry,))

    def list_unfinished(self) -> list[JournalEntry]:
        """Return the entries that a killed run left open, the oldest first."""
        return self._select(f"{SELECT_ENTRIES} WHERE size IS NULL ORDER BY id")

    def has_unfinished_entry(self, path: bytes) -> bool:
        found = self._db.execute("SELECT 1 FROM journal WHERE path = ? AND size IS NULL", (path,))
        return found.fetchone() is not None

    def list_active_paths(self, run_id: str | None = None) -> list[AnyPath]:
        """Return, sorted, the files with an active entry: of one run, or of all but the undos."""
        rows = self._db.execute(
            "SELECT DISTINCT path FROM active_entries"
            " WHERE run_id = :run OR :run IS NULL AND kind != 'undo' ORDER BY path",
            {"run": run_id},
        )
        return [parse_path(os.fsdecode(path)) for (path,) in rows]

    def list_active_entries(self, path: AnyPath, run_id: str | None = None) -> list[JournalEntry]:
        """Return the active entries of a file, the newest first.

        If `run_id` is an undo, return the entries of undos, else the entries of all other runs.
        """
        return self._select(
            f"{SELECT_ACTIVE_ENTRIES} WHERE path = ?"
            " AND (kind = 'undo') = (coalesce(?, '') IN undo_runs) ORDER BY id DESC",
            os.fsencode(path), run_id,
        )  # fmt: skip

    def list_history(self, path: AnyPath) -> list[PastWrite]:
        """Return every write into a file, the oldest first, also those that were undone."""
        rows = self._db.execute(
            "SELECT run_id, kind, started_at, before, after, undone_by, journal.size FROM journal"
            " JOIN runs ON runs.id = run_id WHERE path = ? ORDER BY journal.id",
            (os.fsencode(path),),
        )
        return [
            PastWrite(
                run_id,
                RunKind(kind),
                started_at,
                tags_from_json(before),
                tags_from_json(after),
                undone_by or "",
                is_finished=size is not None,
            )
            for run_id, kind, started_at, before, after, undone_by, size in rows
        ]

    def has_written(self, track: Track) -> bool:
        """Tell whether the last change of a file was a write of tagger."""
        row = self._db.execute(
            "SELECT 1 FROM journal WHERE path = ? AND size = ? AND mtime_ns = ?",
            (os.fsencode(track.path), track.size, track.mtime_ns),
        ).fetchone()
        return row is not None

    def find_last_run(self) -> str | None:
        """Return the newest run, but an undo, that has an active entry."""
        row = self._db.execute(
            "SELECT run_id FROM active_entries WHERE kind != 'undo' ORDER BY id DESC LIMIT 1"
        ).fetchone()
        return row[0] if row else None

    def _select(self, query: str, *values: object) -> list[JournalEntry]:
        return [_make_entry(row) for row in self._db.execute(query, values)]


def _keeps_genre(before: str, after: str) -> bool:
    """Tell whether a change, given as JSON, left the genre and its origin alone."""
    old, new = tags_from_json(before), tags_from_json(after)
    return (old.genres, old.written) == (new.genres, new.written)


def _make_entry(row: Any) -> JournalEntry:
    number, run_id, stored_path, copy, before, after, *stat = row
    path = parse_path(os.fsdecode(stored_path))
    old, new = (
        Track(path, *numbers) if numbers[0] is not None else None
        for numbers in (stat[:3], stat[3:])
    )
    return JournalEntry(
        number, run_id, path, os.fsdecode(copy or b""), tags_from_json(before),
        tags_from_json(after), old, new,
    )  # fmt: skip
