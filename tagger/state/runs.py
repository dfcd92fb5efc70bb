"""What each run was asked to do and what came of it."""

import json
import os
import secrets
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from tagger.state.schema import from_json


class RunKind(StrEnum):
    """The kinds of runs that write into files.

    A redo takes an undo back; an apply writes what an edited report says.
    """

    SCAN = "scan"
    UNDO = "undo"
    REDO = "redo"
    APPLY = "apply"


@dataclass(frozen=True, slots=True)
class Run:
    """One run. Times are ISO 8601 in UTC; `finished_at` is empty where it was killed.

    replaced: how many files it wrote into; undone: how many of those a later undo put back.
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
            (run_id, kind, _now(), model, dry_run, os.fsencode(report) if report else b""),
        )
        self._db.commit()

    def finish(self, run_id: str, result: Mapping[str, object]) -> None:
        self._db.execute(
            "UPDATE runs SET finished_at = ?, result = ? WHERE id = ?",
            (_now(), json.dumps(result), run_id),
        )
        self._db.commit()

    def kind_of(self, run_id: str) -> RunKind | None:
        """Return what kind of run that was, None if there was none of that name."""
        found = self._db.execute("SELECT kind FROM runs WHERE id = ?", (run_id,)).fetchone()
        return RunKind(found[0]) if found else None

    def all(self) -> list[Run]:
        """Return every run, the oldest first."""
        rows = self._db.execute(
            "SELECT runs.id, kind, started_at, finished_at, model, dry_run, report, result,"
            " count(journal.size), count(undone_by) FROM runs"
            " LEFT JOIN journal ON run_id = runs.id GROUP BY runs.id ORDER BY runs.rowid"
        )
        return [_run(row) for row in rows]


def new_run_id() -> str:
    """Return a name for a run that starts now; names sort as the runs began."""
    return f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"


def _run(row: Any) -> Run:
    run_id, kind, started_at, finished_at, model, dry_run, report, result, *counts = row
    return Run(
        run_id,
        RunKind(kind),
        started_at,
        finished_at or "",
        model,
        bool(dry_run),
        Path(os.fsdecode(report)) if report else None,
        from_json(result or "{}"),
        *counts,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
