"""A state file, a config file and a report of version 0.1.0 keep working.

tests/data/version_0_1/README.txt says how these files were made. The tests use the command line
only, so that they hold however the modules behind it change.
"""

import json
import os
import shutil
import sqlite3
import tomllib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import mutagen
import pytest

from tagger.cli import main
from tagger.report.csv import HEADER, OLD_COLUMNS
from tests.front_door import Command, Scan, read_report, run_without_torch

DATA = Path(__file__).parents[1] / "data" / "version_0_1"
OLD_ROOT = "/srv/version_0_1"
"""Where the library, the reports and the state file stood when version 0.1.0 used them."""

MODEL = ("-m", "musicnn")
"""The bundled model of version 0.1.0. The state file has its scores."""

COLUMNS = (
    "path", "action", "genre", "score", "existing_genre", "scores", "duration_s", "model", "error",
)  # fmt: skip
"""The columns that a report of version 0.1.0 has."""

OWN_WORDS = ("kept",)
"""Actions whose `error` is a sentence of the running version; that of a failure is remembered."""

Row = dict[str, str]


class OldLibrary:
    """A copy of the old library, its state file and its reports, as if they had been made here."""

    def __init__(self, root: Path) -> None:
        self.root, self.state = root, root / "state.sqlite"
        shutil.copytree(DATA, root)
        for report in (root / "reports").iterdir():
            moved = report.read_bytes().replace(OLD_ROOT.encode(), os.fsencode(root))
            report.write_bytes(moved)
        with closing(sqlite3.connect(self.state)) as database, database:
            move_state(database, str(root))

    def music(self, name: str = "") -> Path:
        return self.root / "library" / "Music" / name

    def inbox(self, name: str = "") -> Path:
        return self.root / "library" / "Inbox" / name

    def report(self, name: str) -> Path:
        return self.root / "reports" / name

    def rows(self, name: str) -> list[Row]:
        return read_report(self.report(name))

    def run_id(self, report: str) -> str:
        """Return the run that wrote a report."""
        (found,) = [run["run_id"] for run in old_runs(self) if report in (run["report"] or "")]
        return str(found)

    @property
    def singles(self) -> tuple[str | Path, ...]:
        """The arguments of the scans 1, 2, 9 and 10."""
        music = self.music()
        return (music, "--exclude", "Album", "--min-score", "0.57", "--state", self.state, *MODEL)

    @property
    def album(self) -> tuple[str | Path, ...]:
        """The arguments of the scans 5 and 11."""
        music = self.music("Album")
        return (music, "--by-album", "--min-score", "0.4", "--state", self.state, *MODEL)


def move_state(database: sqlite3.Connection, root: str) -> None:
    """Have the state file know the copies of the files: their paths, times and inodes."""
    rows = database.execute("SELECT * FROM rows").fetchall()  # triggers empty the table below
    names = [column[1] for column in database.execute("PRAGMA table_info(rows)")]
    tracks = database.execute("SELECT id, path, size, mtime_ns, inode FROM tracks").fetchall()
    stats = {}
    for number, path, size, mtime_ns, inode in tracks:
        copy = Path(os.fsdecode(path).replace(OLD_ROOT, root))
        stats[number] = stat = set_mtime(copy, mtime_ns) if copy.exists() else (mtime_ns, inode)
        database.execute(
            "UPDATE journal SET mtime_ns = ?, inode = ?"
            " WHERE path = ? AND size = ? AND mtime_ns = ? AND inode = ?",
            (*stat, path, size, mtime_ns, inode),
        )
        database.execute(
            "UPDATE tracks SET path = ?, mtime_ns = ?, inode = ? WHERE id = ?",
            (os.fsencode(copy), *stat, number),
        )
    for table, column in (("journal", "path"), ("runs", "report")):
        database.execute(
            f"UPDATE {table} SET {column} = CAST(replace(CAST({column} AS TEXT), ?, ?) AS BLOB)",
            (OLD_ROOT, root),
        )
    database.execute("UPDATE runs SET result = replace(result, ?, ?)", (OLD_ROOT, root))
    for row in rows:
        cells = dict(zip(names, row, strict=True))
        cells["mtime_ns"], cells["inode"] = stats[cells["track_id"]]
        cells["folder"] = cells["folder"].replace(OLD_ROOT.encode(), os.fsencode(root))
        cells["text"] = cells["text"].replace(OLD_ROOT, root)
        database.execute(
            f"INSERT INTO rows ({', '.join(cells)}) VALUES ({', '.join('?' * len(cells))})",
            tuple(cells.values()),
        )


def set_mtime(path: Path, mtime_ns: int) -> tuple[int, int]:
    """Set the modification time; return it, as the file system keeps it, and the inode."""
    os.utime(path, ns=(mtime_ns, mtime_ns))
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_ino


@pytest.fixture
def old(tmp_path: Path) -> OldLibrary:
    return OldLibrary(tmp_path / "old")


def old_runs(old: OldLibrary) -> list[dict[str, Any]]:
    """Return what version 0.1.0 printed of its runs, the paths moved."""
    text = (DATA / "runs.json").read_text("utf-8").replace(OLD_ROOT, str(old.root))
    runs: list[dict[str, Any]] = json.loads(text)
    return runs


def old_cells(rows: Sequence[Row]) -> list[Row]:
    """Return the nine old columns of a report by path, but for sentences that may be worded anew.

    The new column has to say something of every failure.
    """
    assert all(row.get("kind", "old") for row in rows if row["action"] == "failed")
    lines = [
        {name: row[name] for name in COLUMNS if name != "error" or row["action"] not in OWN_WORDS}
        for row in rows
    ]
    return sorted(lines, key=lambda row: row["path"])


def genres(path: Path) -> list[str]:
    """Return the genres in a file, as mutagen and not tagger reads them."""
    tags = mutagen.File(path, easy=True).tags or {}
    if hasattr(tags, "getall"):  # ID3 in a WAV, of which mutagen makes no easy tags
        return [genre for frame in tags.getall("TCON") for genre in frame.genres]
    return list(tags.get("genre", []))


def our_fields(path: Path) -> list[str]:
    """Return the names of the fields that only tagger writes."""
    return [name for name in mutagen.File(path).tags or {} if "TAGGER" in name]


def scan_without_torch(*args: str | Path) -> tuple[int, dict[str, Any], list[Row]]:
    """Scan, and fail if a network was loaded; return exit code, summary and report."""
    done = run_without_torch("scan", "--json", *args)
    assert done.stdout, done.stderr
    summary = json.loads(done.stdout)
    return done.returncode, summary, read_report(summary["report"])


@pytest.mark.parametrize(
    ("kind", "report"), [("singles", "9-scan.csv"), ("album", "11-by-album.csv")]
)
def test_a_scan_goes_on_from_an_old_state_file(old: OldLibrary, kind: str, report: str) -> None:
    for _ in range(2):  # the second time from rows that this version put into the state file
        code, summary, rows = scan_without_torch(*getattr(old, kind))
        assert (code, summary["failed_new"]) == (0, 0)
        assert old_cells(rows) == old_cells(old.rows(report))


def test_the_audio_of_an_old_state_file_is_not_listened_to_again_for_other_options(
    old: OldLibrary,
) -> None:
    code, summary, rows = scan_without_torch(*old.singles, "--min-score", "0.3", "--top-k", "2")
    assert (code, summary["failed"]) == (0, 5)
    written = [Path(row["path"]).name for row in rows if row["action"] == "written"]
    assert {"seven.opus", "two.mp3"} <= set(written)  # their scores were too low before
    assert genres(old.music("Artist/seven.opus")) == ["Ambient"]


def test_a_moved_file_is_known_by_an_old_state_file(old: OldLibrary) -> None:
    old.music("Artist").rename(old.music("Artiste"))
    code, summary, rows = scan_without_torch(*old.singles)
    assert (code, summary["failed_new"]) == (0, 0)
    was = old.rows("9-scan.csv")
    moved = [row | {"path": row["path"].replace("/Artist/", "/Artiste/")} for row in was]
    assert old_cells(rows) == old_cells(moved)


def test_the_old_runs_are_listed(old: OldLibrary, capsys: pytest.CaptureFixture[str]) -> None:
    done = Command(capsys, "runs", "--state", old.state)
    assert done.code == 0
    for new, was in zip(done.summary, old_runs(old), strict=True):
        assert new.items() >= was.items()
    assert main(["runs", "--state", str(old.state)]) == 0
    table = capsys.readouterr().out
    assert all(str(run["run_id"]) in table for run in old_runs(old))


@pytest.mark.parametrize("name", ["1-dry-run", "2-scan"])
def test_an_old_run_is_shown(
    old: OldLibrary, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    args = ("--run", old.run_id(f"{name}.csv"), "--state", old.state)
    done = Command(capsys, "report", *args)
    was = json.loads(old.report(f"{name}.json").read_text("utf-8"))
    failures = was.pop("failures")
    assert done.code == 0
    assert {key: done.summary[key] for key in was} == was
    (group,) = done.summary["failures"]  # the old reports do not tell the kinds apart
    assert group["kind"] == "other"
    assert group["tracks"] == sum(old_group["tracks"] for old_group in failures)
    assert {row["error"] for row in group["examples"]} <= {
        row["error"] for old_group in failures for row in old_group["examples"]
    }
    page, copy = tmp_path / "page.html", tmp_path / "copy.csv"
    assert main(["report", *map(str, args), "--html", str(page), "--csv", str(copy)]) == 0
    assert "too short: 0.40 s of sound" in page.read_text("utf-8")
    assert old_cells(read_report(copy)) == old_cells(old.rows(f"{name}.csv"))
    capsys.readouterr()
    assert main(["report", *map(str, args)]) == 0
    assert old.run_id(f"{name}.csv") in capsys.readouterr().out


def test_the_failures_of_an_old_state_file_have_a_kind(old: OldLibrary) -> None:
    for _ in range(2):
        _, _, rows = scan_without_torch(*old.singles)
        kinds = {Path(row["path"]).name: row["kind"] for row in rows if row["action"] == "failed"}
        assert kinds == {
            "empty.opus": "truncated",
            "short.flac": "too-short",
            "silent.flac": "silent",
            "truncated.wav": "truncated",
            "words.mp3": "wrong-content",
        }
        reasons = {row["action"]: row["kind"] for row in rows if row["action"] != "failed"}
        assert reasons == {"kept": "has-genre", "low-score": "", "unchanged": ""}


def test_an_old_and_a_new_report_are_merged(
    old: OldLibrary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new, merged = tmp_path / "new.sqlite", tmp_path / "merged.csv"
    scan = Scan(capsys, old.music("Broken"), "--state", new, *MODEL)
    args = ("report", "--state", old.state, "--merge", new)
    assert Command(capsys, *args, "--csv", merged).code == 0
    rows = read_report(merged)
    last = old.rows("11-by-album.csv")
    assert [row | dict.fromkeys(HEADER[len(OLD_COLUMNS) :], "") for row in last] == rows[
        : len(last)
    ]
    assert rows[len(last) :] == scan.rows
    assert all(row["kind"] for row in scan.rows)
    assert main([*map(str, args), "--csv", str(merged)]) == 0  # our own report is written over


def test_an_old_report_is_written_over(old: OldLibrary, tmp_path: Path) -> None:
    report = Path(shutil.copy(old.report("9-scan.csv"), tmp_path))
    assert scan_without_torch(*old.singles, "--report", report)[0] == 0
    assert "kind" in read_report(report)[0]


@pytest.mark.parametrize(
    ("report", "restored"),
    [
        ("2-scan.csv", {"Rain, live.flac": [], "drei Träume.opus": [], "six.wav": []}),
        ("4-append.csv", {"four.m4a": ["Fado"]}),
        ("5-by-album.csv", {"01.flac": [], "02.mp3": [], "03.opus": []}),
        ("7-apply.csv", {"d.flac": [], "e.opus": []}),
    ],
)
def test_an_old_run_is_undone(
    old: OldLibrary,
    capsys: pytest.CaptureFixture[str],
    report: str,
    restored: dict[str, list[str]],
) -> None:
    paths = {Path(row["path"]).name: Path(row["path"]) for row in old.rows(report)}
    assert all(genres(paths[name]) != before for name, before in restored.items())
    run = ("--run", old.run_id(report), "--state", old.state)
    done = Command(capsys, "undo", *run)
    refused = report == "2-scan.csv"  # a person edited the genre of nine.flac since
    assert (done.code, done.summary["restored"]) == (int(refused), len(restored))
    assert (done.summary["refused"], done.summary["failed"]) == (int(refused), 0)
    for name, before in restored.items():
        assert genres(paths[name]) == before
        assert not our_fields(paths[name])
    assert genres(old.music("Artist/nine.flac")) == ["Drone"]


def test_the_undo_of_an_old_undo_writes_the_genre_again(
    old: OldLibrary, capsys: pytest.CaptureFixture[str]
) -> None:
    song = old.music("Artist/eight.flac")
    (undo,) = [str(run["run_id"]) for run in old_runs(old) if run["kind"] == "undo"]
    assert genres(song) == []
    done = Command(capsys, "undo", "--run", undo, "--state", old.state)
    assert (done.code, done.summary["restored"]) == (0, 1)
    assert genres(song) == ["Ambient"]


def test_an_old_run_that_was_killed_is_settled(
    old: OldLibrary, capsys: pytest.CaptureFixture[str]
) -> None:
    """As if it had died after it renamed the new file and before it noted that."""
    song = old.music("Artist/Rain, live.flac")
    with closing(sqlite3.connect(old.state)) as database, database:
        changed = database.execute(
            "UPDATE journal SET size = NULL, mtime_ns = NULL, inode = NULL WHERE path = ?",
            (os.fsencode(song),),
        )
        assert changed.rowcount == 1
        database.execute(
            "UPDATE tracks SET (size, mtime_ns, inode, tags) ="
            " (SELECT old_size, old_mtime_ns, old_inode, before FROM journal"
            " WHERE journal.path = tracks.path) WHERE path = ?",
            (os.fsencode(song),),
        )
    code, _, rows = scan_without_torch(*old.singles)
    assert code == 0
    assert old_cells(rows) == old_cells(old.rows("9-scan.csv"))
    done = Command(capsys, "undo", str(song), "--state", old.state)
    assert (done.code, done.summary["restored"], genres(song)) == (0, 1, [])


def test_an_old_report_that_was_edited_is_applied(
    old: OldLibrary, capsys: pytest.CaptureFixture[str]
) -> None:
    report = old.report("8-inbox-edited.csv")
    done = Command(capsys, "apply", report, "--state", old.state)
    assert done.code == 0
    rows = read_report(done.summary["report"])
    assert sorted((Path(row["path"]).name, row["action"]) for row in rows) == [
        ("a.flac", "written"), ("b.mp3", "written"), ("c.opus", "written")
    ]  # fmt: skip
    assert genres(old.inbox("a.flac")) == ["Jazz"]
    assert genres(old.inbox("b.mp3")) == ["Blues", "Folk"]
    assert genres(old.inbox("c.opus")) == ["Ambient"]
    assert genres(old.inbox("d.flac")) == ["Techno", "House"]  # it had its genre before
    assert genres(old.inbox("f.mp3")) == ["Polka"]
    edited = Scan(capsys, old.inbox(), "--min-score", "0", "--state", old.state, *MODEL)
    assert edited.row("a.flac")["action"] == "kept"  # what a person chose is the person's
    assert edited.row("c.opus")["action"] == "unchanged"


@pytest.fixture
def genre_map(home: Path) -> Path:
    """Put the genre map where both config files look for it."""
    home.mkdir(exist_ok=True)
    return Path(shutil.copy(DATA / "config" / "genres.toml", home))


@pytest.mark.usefixtures("genre_map")
@pytest.mark.parametrize("name", ["every-option.toml", "user.toml"])
def test_an_old_config_file_is_read(capsys: pytest.CaptureFixture[str], name: str) -> None:
    path = DATA / "config" / name
    assert main(["config", "--show", "--config", str(path)]) == 0
    shown = capsys.readouterr().out.splitlines()
    for option, value in tomllib.loads(path.read_text("utf-8")).items():
        (line,) = [line for line in shown if line.startswith(f"{option} =")]
        assert line.startswith(f"{option} = {json.dumps(value, default=str)} ")
        assert "from the file" in line


def test_every_option_of_the_old_version_is_in_the_config_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = tomllib.loads((DATA / "config" / "every-option.toml").read_text("utf-8"))
    assert len(config) == 44
    assert main(["scan", "--help"]) == 0
    text = capsys.readouterr().out
    assert [name for name in config if f"--{name}" not in text] == []


@pytest.mark.usefixtures("genre_map")
def test_an_old_config_file_does_what_it_did(
    old: OldLibrary, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(old.state, home / "state.sqlite")
    song = old.music("Artist/Rain, live.flac")
    before = song.stat().st_mtime_ns
    done = Scan(capsys, old.music(), "--config", DATA / "config" / "user.toml", *MODEL)
    assert done.code == 0
    assert done.summary["report"] == str(home / "tagger.csv")
    names = [Path(row["path"]).name for row in done.rows]
    assert "01.flac" not in names  # exclude
    assert "six.wav" not in names
    row = done.row(song.name)
    assert (row["action"], row["genre"]) == ("written", "Atmosphere")  # genre-map
    assert row["scores"].count("=") == 3  # top-k
    assert done.row("seven.opus")["action"] == "low-score"  # min-score
    assert genres(song) == ["Atmosphere"]
    assert song.stat().st_mtime_ns == before  # preserve-mtime
    assert done.actions == {"written": 2, "kept": 4, "low-score": 2, "failed": 4}
