"""The layout of the database, and the migrations from each older layout.

The statements of a released migration never change.
"""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from tagger.errors import StateError
from tagger.records import Album, Attributes, ExtraField, ExtraTag, RawField, Score, Tags

SCHEMA = """
CREATE TABLE tracks (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL UNIQUE,      -- raw bytes: not every name is UTF-8
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    duration_s REAL,
    tags TEXT,                      -- records.Tags as JSON
    failure TEXT,                   -- the reason of the last failure, for people
    lasting INTEGER NOT NULL DEFAULT 0 -- 1: no other try until the file changes
);
CREATE INDEX tracks_by_inode ON tracks (inode);
CREATE TABLE scores (
    track_id INTEGER NOT NULL REFERENCES tracks (id) ON DELETE CASCADE,
    model TEXT NOT NULL,
    windows INTEGER NOT NULL,
    scores TEXT NOT NULL,           -- [[label, probability], ...] of all labels, best first
    PRIMARY KEY (track_id, model)
) WITHOUT ROWID;
CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    started_at TEXT NOT NULL,
    finished_at TEXT,
    model TEXT NOT NULL,
    dry_run INTEGER NOT NULL,
    report BLOB NOT NULL,
    result TEXT                     -- the summary as JSON; NULL while it runs or if it was killed
);
CREATE TABLE journal (
    id INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL REFERENCES runs (id),
    path BLOB NOT NULL,
    before TEXT NOT NULL,           -- records.Tags as JSON: the replaced tags
    after TEXT NOT NULL,            -- the new tags
    size INTEGER,                   -- of the new file; NULL until the file is replaced
    mtime_ns INTEGER,
    inode INTEGER
);
"""

APPLICATION_ID = 0x54414747
"""`TAGG`. It tells our database from that of another program, from layout version 2 on."""

UNDO_MIGRATION = f"""
ALTER TABLE tracks ADD COLUMN undone INTEGER NOT NULL DEFAULT 0; -- 1: do not write it again
ALTER TABLE runs ADD COLUMN kind TEXT NOT NULL DEFAULT 'scan';   -- a RunKind
ALTER TABLE journal ADD COLUMN copy BLOB;        -- the name of the copy that was edited
ALTER TABLE journal ADD COLUMN old_size INTEGER; -- the file before the change
ALTER TABLE journal ADD COLUMN old_mtime_ns INTEGER;
ALTER TABLE journal ADD COLUMN old_inode INTEGER;
ALTER TABLE journal ADD COLUMN undone_by TEXT REFERENCES runs (id);
CREATE INDEX journal_by_path ON journal (path);
CREATE INDEX journal_by_run ON journal (run_id);
CREATE INDEX journal_unfinished ON journal (id) WHERE size IS NULL;
PRAGMA application_id = {APPLICATION_ID};
"""

MODEL_FAILURES_MIGRATION = """
CREATE TABLE unheard (              -- failures of one model; another one may succeed
    track_id INTEGER NOT NULL REFERENCES tracks (id) ON DELETE CASCADE,
    model TEXT NOT NULL,
    windows INTEGER NOT NULL,
    failure TEXT NOT NULL,
    lasting INTEGER NOT NULL,
    PRIMARY KEY (track_id, model)
) WITHOUT ROWID;
UPDATE scores SET windows = 0 WHERE windows = 8 AND model LIKE 'musicnn@%';
-- 0 stands for --windows auto. Until then 8 was the default, which is auto for the bundled model.
"""

REPORT_ROWS_MIGRATION = """
CREATE TABLE rows (                 -- rows of the report, until the file or its track changes
    folder BLOB NOT NULL,
    name BLOB NOT NULL,
    track_id INTEGER NOT NULL UNIQUE REFERENCES tracks (id) ON DELETE CASCADE,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    links INTEGER NOT NULL,
    settings BLOB NOT NULL,         -- a digest of all else that the row depends on
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

OLD_FAILURE_KIND = """CASE
    WHEN failure LIKE '%too short%' THEN 'too-short'
    WHEN failure LIKE '%silent%' THEN 'silent'
    WHEN failure LIKE '%half-written%' OR failure LIKE '%an earlier run%'
        OR failure LIKE '%could not be removed%' THEN 'unfinished'
    WHEN failure LIKE '%truncated%' OR failure LIKE '%cut off%' OR failure LIKE '%never finished%'
        OR failure LIKE '%is empty%' THEN 'truncated'
    WHEN failure LIKE '%crashes the decoder%' OR failure LIKE '%the process that%' THEN 'crashed'
    WHEN failure LIKE '%damaged%' OR failure LIKE '%is broken%' OR failure LIKE '%are broken%'
        OR failure LIKE '%do not fit into one another%' OR failure LIKE '%cannot be taken apart%'
        THEN 'damaged'
    WHEN failure LIKE '%what its name says%' OR failure LIKE '%whatever its name says%'
        OR failure LIKE '%no such sound%' THEN 'wrong-content'
    WHEN failure LIKE '%cannot be decoded%' OR failure LIKE '%no decoder%' THEN 'cannot-decode'
    WHEN failure LIKE '%changed%' OR failure LIKE '%was edited%' THEN 'changed'
    WHEN failure LIKE '%cannot be read%' OR failure LIKE '%the store %'
        OR failure LIKE '%its server %' OR failure LIKE '%nobody can tell whether%' THEN 'server'
    WHEN failure LIKE '%cannot open%' OR failure LIKE '%cannot read%'
        OR failure LIKE '%cannot list%' OR failure LIKE '%cannot be looked at%'
        OR failure LIKE '%owner and group%' OR failure LIKE '%permission%' THEN 'no-access'
    WHEN failure LIKE '%--max-%' THEN 'over-limit'
    WHEN failure LIKE '%cannot be tagged%' OR failure LIKE '%can be tagged%'
        OR failure LIKE '%cannot be kept%' OR failure LIKE '%would be larger%'
        OR failure LIKE '%no tag can%' OR failure LIKE '%not written%' THEN 'cannot-tag'
    ELSE 'other'
END"""
"""The kind of a failure by its sentence, for failures of layouts 1 to 4, which had no kind."""

FAILURE_KINDS_MIGRATION = f"""
ALTER TABLE tracks ADD COLUMN kind TEXT;  -- an errors.FailureKind, where there is a failure
ALTER TABLE unheard ADD COLUMN kind TEXT;
UPDATE tracks SET kind = {OLD_FAILURE_KIND} WHERE failure IS NOT NULL;
UPDATE unheard SET kind = {OLD_FAILURE_KIND};
"""  # noqa: S608 - both parts are constants

CONTENT_SAMPLES_MIGRATION = """
ALTER TABLE tracks ADD COLUMN volume INTEGER; -- of a records.ContentSample
ALTER TABLE tracks ADD COLUMN sample BLOB;    -- its digest; NULL: older than this column
"""

ATTRIBUTES_MIGRATION = """
ALTER TABLE scores ADD COLUMN attributes TEXT; -- [styles, moods, voices], each as in scores
"""

MIGRATIONS = (
    SCHEMA,
    UNDO_MIGRATION,
    MODEL_FAILURES_MIGRATION,
    REPORT_ROWS_MIGRATION,
    FAILURE_KINDS_MIGRATION,
    CONTENT_SAMPLES_MIGRATION,
    ATTRIBUTES_MIGRATION,
)
"""Each script turns one version of the layout into the next. Version 0 is an empty file."""

DAMAGE_CURE = (
    "tagger did not touch it; if you move it away yourself, the next run makes a new one, without"
    " what earlier runs learned and without their undo"
)

MOVED_AWAY = b"moved away "
"""So begins the path of a row whose file another file replaced. Its journal has that path too."""

TEMPORARY_TABLES = f"""
CREATE TEMP TABLE queue (
    id INTEGER PRIMARY KEY, path BLOB, size INTEGER, mtime_ns INTEGER, inode INTEGER, links INTEGER,
    folder BLOB,
    is_scored INTEGER               -- its scores are known; it waits for the rest of its folder
);
CREATE INDEX temp.queue_by_folder ON queue (folder, is_scored);
CREATE INDEX temp.queue_by_path ON queue (path);
CREATE TEMP TABLE context (         -- each track as a member of its album and its artist
    track_id INTEGER PRIMARY KEY, album BLOB, artist BLOB,
    labels TEXT                     -- the genres that a person gave it, as labels of the model
);
CREATE INDEX temp.context_by_album ON context (album);
CREATE INDEX temp.context_by_artist ON context (artist);
CREATE TEMP TABLE found (path BLOB PRIMARY KEY) WITHOUT ROWID; -- the files of this run's crawl
CREATE TEMP VIEW active_entries AS -- the entries of known files that were not undone
    SELECT journal.*, kind FROM journal JOIN runs ON runs.id = run_id
    WHERE size IS NOT NULL AND undone_by IS NULL
    AND substr(path, 1, {len(MOVED_AWAY)}) != X'{MOVED_AWAY.hex()}';
CREATE TEMP VIEW undo_runs AS SELECT id FROM runs WHERE kind = 'undo';
"""  # noqa: S608 - of constants


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the database to the newest layout. Call `check_is_ours` before."""
    version = _read_version(connection)
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        connection.executescript(f"BEGIN; {script} PRAGMA user_version = {number}; COMMIT;")
    connection.executescript(TEMPORARY_TABLES)


def check_is_ours(connection: sqlite3.Connection) -> None:
    """Raise StateError for a database of another program or of a newer tagger. Change nothing.

    The messages of this module go on with the name of the file in front: the state file X …
    """
    version = _read_version(connection)
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    is_first = version == 1 and {"tracks", "journal"} <= tables
    if tables and application != APPLICATION_ID and not is_first:
        raise StateError("is the database of another program (--state names another file)")
    if version > len(MIGRATIONS):
        raise StateError(
            f"is of a newer tagger (version {version} of its layout): use that tagger, or name"
            " another file with --state"
        )


def is_current(connection: sqlite3.Connection) -> bool:
    return _read_version(connection) == len(MIGRATIONS)


def _read_version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def tags_to_json(tags: Tags) -> str:
    """Return tags as JSON. It is written by hand because `asdict` copies each value."""
    album = tags.album
    return json.dumps(
        {
            "genres": tags.genres,
            "written": tags.written,
            "scores": tags.scores,
            "model": tags.model,
            "extras": [
                {"field": each.field, "values": each.values, "written": each.written}
                for each in tags.extras
            ],
            "raw": [{"name": each.name, "values": each.values} for each in tags.raw],
            "album": {"artist": album.artist, "title": album.title, "various": album.various}
            if album
            else None,
        }
    )


def parse_json(text: str) -> Any:
    """Parse a column that holds JSON. Raises StateError if it is damaged."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise StateError(f"is damaged: {error} ({DAMAGE_CURE})") from error


def scores_to_json(scores: Sequence[Score]) -> str:
    return json.dumps(_to_pairs(scores))


def scores_from_json(text: str) -> tuple[Score, ...]:
    return _from_pairs(parse_json(text))


def _to_pairs(scores: Sequence[Score]) -> list[tuple[str, float]]:
    return [(score.genre, score.probability) for score in scores]


def _from_pairs(pairs: Sequence[Sequence[Any]]) -> tuple[Score, ...]:
    return tuple(Score(*pair) for pair in pairs)


def attributes_to_json(attributes: Attributes) -> str:
    groups = (attributes.styles, attributes.moods, attributes.voices)
    return json.dumps([_to_pairs(group) for group in groups])


def attributes_from_json(text: str | None) -> Attributes:
    """Parse the output of `attributes_to_json`; NULL is of a version before attributes."""
    if text is None:
        return Attributes()
    return Attributes(*map(_from_pairs, parse_json(text)))


def tags_from_json(text: str) -> Tags:
    """Parse the output of `tags_to_json`. Raises StateError for anything else."""
    stored = parse_json(text)
    try:
        return Tags(
            genres=tuple(stored["genres"]),
            written=tuple(stored["written"]),
            scores=stored["scores"],
            model=stored["model"],
            extras=tuple(
                ExtraTag(ExtraField(each["field"]), tuple(each["values"]), tuple(each["written"]))
                for each in stored.get("extras", ())
            ),
            raw=tuple(RawField(field["name"], tuple(field["values"])) for field in stored["raw"]),
            album=Album(**stored["album"]) if stored.get("album") else None,
        )
    except (LookupError, TypeError, ValueError) as error:
        raise StateError(f"is damaged: {error!r} in the tags of a file ({DAMAGE_CURE})") from error
