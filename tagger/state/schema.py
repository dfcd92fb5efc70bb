"""The layout of the database, and the way from an older one to it."""

import json
import sqlite3
from dataclasses import asdict
from typing import Any

from tagger.errors import StateError
from tagger.records import Album, RawField, Tags

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

APPLICATION_ID = 0x54414747
"""`TAGG`: what tells our database from any other, from the second version on."""

UNDO_MIGRATION = f"""
ALTER TABLE tracks ADD COLUMN undone INTEGER NOT NULL DEFAULT 0; -- and so not to be written again
ALTER TABLE runs ADD COLUMN kind TEXT NOT NULL DEFAULT 'scan';   -- or undo
ALTER TABLE journal ADD COLUMN copy BLOB;        -- the name of the copy that is worked on
ALTER TABLE journal ADD COLUMN old_size INTEGER; -- the file as it was before
ALTER TABLE journal ADD COLUMN old_mtime_ns INTEGER;
ALTER TABLE journal ADD COLUMN old_inode INTEGER;
ALTER TABLE journal ADD COLUMN undone_by TEXT REFERENCES runs (id);
CREATE INDEX journal_by_path ON journal (path);
CREATE INDEX journal_by_run ON journal (run_id);
CREATE INDEX journal_unfinished ON journal (id) WHERE size IS NULL;
PRAGMA application_id = {APPLICATION_ID};
"""

MODEL_FAILURES_MIGRATION = """
CREATE TABLE unheard (              -- why a model heard nothing; others may, where they listen
    track_id INTEGER NOT NULL REFERENCES tracks (id) ON DELETE CASCADE,
    model TEXT NOT NULL,
    windows INTEGER NOT NULL,
    failure TEXT NOT NULL,
    lasting INTEGER NOT NULL,
    PRIMARY KEY (track_id, model)
) WITHOUT ROWID;
UPDATE scores SET windows = 0 WHERE windows = 8 AND model LIKE 'musicnn@%';
-- 0: as many as suit the model. Before, eight was the default, which suits the bundled one.
"""

REPORT_ROWS_MIGRATION = """
CREATE TABLE rows (                 -- of the report; what they say holds as long as the file does
    folder BLOB NOT NULL,
    name BLOB NOT NULL,
    track_id INTEGER NOT NULL UNIQUE REFERENCES tracks (id) ON DELETE CASCADE,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    links INTEGER NOT NULL,
    settings BLOB NOT NULL,         -- what they depend on beside, as a digest
    action TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (folder, name)
) WITHOUT ROWID;
CREATE TRIGGER tracks_update AFTER UPDATE ON tracks
BEGIN DELETE FROM rows WHERE track_id = old.id; END;
CREATE TRIGGER scores_insert AFTER INSERT ON scores
BEGIN DELETE FROM rows WHERE track_id = new.track_id; END;
CREATE TRIGGER scores_delete AFTER DELETE ON scores
BEGIN DELETE FROM rows WHERE track_id = old.track_id; END;
CREATE TRIGGER unheard_insert AFTER INSERT ON unheard
BEGIN DELETE FROM rows WHERE track_id = new.track_id; END;
CREATE TRIGGER unheard_delete AFTER DELETE ON unheard
BEGIN DELETE FROM rows WHERE track_id = old.track_id; END;
"""

MIGRATIONS = (SCHEMA, UNDO_MIGRATION, MODEL_FAILURES_MIGRATION, REPORT_ROWS_MIGRATION)
"""What turns each version of the layout into the next; version 0 is an empty file."""

TEMPORARY_TABLES = """
CREATE TEMP TABLE queue (
    id INTEGER PRIMARY KEY, path BLOB, size INTEGER, mtime_ns INTEGER, inode INTEGER, links INTEGER,
    folder BLOB,
    heard INTEGER                   -- its scores are known, but not yet those of all its album
);
CREATE INDEX temp.queue_by_folder ON queue (folder, heard);
CREATE INDEX temp.queue_by_path ON queue (path);
CREATE TEMP VIEW standing AS -- the entries of the journal that were not undone
    SELECT journal.*, kind FROM journal JOIN runs ON runs.id = run_id
    WHERE size IS NOT NULL AND undone_by IS NULL;
CREATE TEMP VIEW undos AS SELECT id FROM runs WHERE kind = 'undo';
"""


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the database to the newest layout, as the checks of `check_ours` allow."""
    version = _read_version(connection)
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        connection.executescript(f"BEGIN; {script} PRAGMA user_version = {number}; COMMIT;")
    connection.executescript(TEMPORARY_TABLES)


def check_is_ours(connection: sqlite3.Connection) -> None:
    """Raise StateError for a database of another program or a newer tagger; it changes nothing."""
    version = _read_version(connection)
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    is_first = version == 1 and {"tracks", "journal"} <= tables
    if tables and application != APPLICATION_ID and not is_first:
        raise StateError("the state file is the database of another program")
    if version > len(MIGRATIONS):
        raise StateError(f"the state file is of a newer tagger (version {version} of its layout)")


def is_current(connection: sqlite3.Connection) -> bool:
    return _read_version(connection) == len(MIGRATIONS)


def _read_version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def tags_to_json(tags: Tags) -> str:
    return json.dumps(asdict(tags))


def parse_json(text: str) -> Any:
    """Return what a column holds as JSON. Raises StateError where that is damaged."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise StateError(f"the state file is damaged ({error})") from error


def tags_from_json(text: str) -> Tags:
    """Return what `tags_to_json` made. Raises StateError for what it did not."""
    stored = parse_json(text)
    try:
        return Tags(
            genres=tuple(stored["genres"]),
            written=tuple(stored["written"]),
            scores=stored["scores"],
            model=stored["model"],
            raw=tuple(RawField(field["name"], tuple(field["values"])) for field in stored["raw"]),
            album=Album(**stored["album"]) if stored.get("album") else None,
        )
    except (LookupError, TypeError) as error:
        raise StateError(f"the state file is damaged: {error!r} in the tags of a file") from error
