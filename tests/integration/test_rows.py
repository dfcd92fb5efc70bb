"""Each option of a scan affects the rows of the report as settings.py says.

A scan repeats the rows that an earlier scan kept. If an option changes a row but does not say so,
the next scan repeats a wrong row without a warning.
"""

import shutil
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tagger.cli import summary
from tagger.models.musicnn import CHECKPOINT
from tagger.models.sources import read_config
from tagger.options import Affects
from tagger.settings import OPTIONS
from tests.builders import build_audio, build_speech
from tests.checkpoints import save
from tests.front_door import ANY, Command, Scan, set_album, set_genre

Capsys = pytest.CaptureFixture[str]
Rows = dict[str, dict[str, str]]

pytestmark = pytest.mark.xdist_group("rows")  # one library, in one worker

QUICK = {"existing", "min-score", "not-music", "jobs"}
"""Options that a plain pytest tries; `.ci/run` tries all of them."""

MARK = "-repeated"
"""Stands in the path of each row that a test's state file keeps, and so in a repeated row."""

UNTRIED = {
    "alert": "needs the library of an extra (test_notify.py)",
    "dry-run": "a kept row says whether a dry run made it (test_scan.py)",
    "engine": "needs a cluster (test_ray.py)",
    "revision": "needs the Hub; the model's identity has the commit (test_hub.py)",
    "styles": "needs a style that the model is sure of (test_extra_fields.py)",
    "state": "another state file has no rows",
}

LATER = f"{datetime.now().astimezone() + timedelta(hours=6):%H:%M}"

FLAGS: dict[str, tuple[str, ...]] = {
    "model": ("-m", "hubert"),
    "labels": ("-m", "clap", "--labels", "techno,birdsong"),
    "report": ("--report", "report.csv"),
    "html": ("--html", "page.html"),
    "existing": ("--existing", "replace"),
    "by-album": ("--by-album",),
    "context": ("--context", "album"),
    "not-music": ("--not-music", "tag"),
    "min-score": ("--min-score", "1"),
    "write": ("--write", "genre,mood,voice"),
    "mood-numbers": ("--mood-numbers",),
    "top-k": ("--top-k", "2"),
    "genres": ("--genres", "3"),
    "profile": ("--profile", "itunes"),
    "genre-map": ("--genre-map", "genres.toml"),
    "junk-genres": ("--junk-genres", "Jungle"),
    "vocabulary": ("--vocabulary", "vocabulary.toml"),
    "windows": ("--windows", "1"),
    "window-seconds": ("-m", "hubert", "--window-seconds", "2"),
    "device": ("--device", "cpu"),
    "precision": ("--precision", "fp32"),
    "compile": ("--compile",),
    "batch-size": ("--batch-size", "3"),
    "allow-pickle": ("--allow-pickle",),
    "trust-remote-code": ("--trust-remote-code",),
    "jobs": ("--jobs", "1"),
    "max-seconds": ("--max-seconds", "60"),
    "max-memory": ("--max-memory", "1024"),
    "metrics": ("--metrics", "tagger.prom"),
    "notify-cmd": ("--notify-cmd", "true"),
    "notify": ("--notify", "kodi=http://127.0.0.1:9"),
    "ping-url": ("--ping-url", "http://127.0.0.1:9"),
    "wait": ("--wait",),
    "gentle": ("--gentle",),
    "until": ("--until", LATER),
    "force": ("--force",),
    "exclude": ("--exclude", "1.flac"),
    "include-ignored": ("--include-ignored",),
    "follow-symlinks": ("--follow-symlinks",),
    "shard": ("--shard", "1/2"),
    "ray-address": ("--ray-address", "local"),
    "ray-predictors": ("--ray-predictors", "2"),
    "ray-predictor-cpus": ("--ray-predictor-cpus", "2"),
    "ray-predictor-gpus": ("--ray-predictor-gpus", "0.5"),
    "hardlinks": ("--hardlinks", "in-place"),
    "owner": ("--owner", "keep"),
    "preserve-mtime": ("--preserve-mtime",),
    "audit": ("--audit",),
    "json": ("--json",),
    "quiet": ("--quiet",),
    "verbose": ("--verbose",),
}
"""Another value for each option, by which a row of `folder` changes if the option affects rows."""


def test_each_option_says_what_it_affects_and_is_tried_here() -> None:
    assert [name for name, option in OPTIONS.items() if not option.affects] == []
    assert {*FLAGS, *UNTRIED} == set(OPTIONS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a library of which each option with ROWS changes a row, and what the flags name."""
    root = tmp_path_factory.mktemp("rows")
    (root / "library").mkdir()
    for number, name in enumerate(["1.flac", "2.flac", "undone.mp3", "linked.ogg", "mine.flac"]):
        path = root / "library" / name
        build_audio(path, seconds=8, frequency_hz=110 * (number + 1), seed=number)
    for name in ("1.flac", "2.flac"):
        set_album(root / "library" / name, "Album")
    build_speech(root / "library" / "speech.wav", seconds=8)
    set_genre(root / "library" / "mine.flac", "Jungle")
    (root / "linked.ogg").hardlink_to(root / "library" / "linked.ogg")
    names = read_config(CHECKPOINT)["id2label"].values()
    (root / "genres.toml").write_text("".join(f'"{name}" = "My {name}"\n' for name in names))
    (root / "vocabulary.toml").write_text('[[rules]]\nfolder = "library"\ngenre = "Mine"')
    for kind in ("hubert", "clap"):
        save(root / kind, kind)
    return root


def dry_run(capsys: Capsys, state: Path, *flags: str) -> Rows:
    scan = Scan(capsys, "library", "-n", *ANY, "--genres", "2", "--state", state, *flags)
    assert scan.code == 0, scan.err
    return {row["path"]: row for row in scan.rows}


def run_sql(state: Path, *statements: str) -> None:
    with closing(sqlite3.connect(state)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


@pytest.fixture
def first(folder: Path, tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch) -> Rows:
    """Return the rows of a dry run. `fresh` gets a copy of its state without the rows."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(summary, "lower_priority", lambda: None)  # of the tests, for good
    state = folder / "state.sqlite"
    if not state.exists():
        Scan(capsys, "library/undone.mp3", *ANY, "--state", state)
        assert Command(capsys, "undo", "--state", state).summary["restored"] == 1
        dry_run(capsys, state)
    rows = dry_run(capsys, state)
    assert {row["action"] for row in rows.values()} == {"would-write", "kept"}
    shutil.copy(state, tmp_path / "fresh")
    run_sql(tmp_path / "fresh", "DELETE FROM rows")
    return rows


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in FLAGS],
)
def test_a_row_is_repeated_where_no_option_changed_it(
    folder: Path, first: Rows, name: str, tmp_path: Path, capsys: Capsys
) -> None:
    with_rows, without_rows = tmp_path / "repeating", tmp_path / "fresh"
    fresh = dry_run(capsys, without_rows, *FLAGS[name])
    shutil.copy(without_rows, with_rows)
    run_sql(
        with_rows,
        f"ATTACH '{folder / 'state.sqlite'}' AS first",
        "DELETE FROM rows",
        "INSERT INTO rows SELECT * FROM first.rows",
        f"UPDATE rows SET text = replace(text, '/', '{MARK}/')",
    )
    marked = dry_run(capsys, with_rows, *FLAGS[name])
    repeated = {path.replace(MARK, ""): MARK in path for path in marked}
    rows = {path.replace(MARK, ""): row for path, row in marked.items()}
    for row in rows.values():
        row["path"] = row["path"].replace(MARK, "")
    assert rows == fresh  # whatever the option says of itself, this must hold
    changes_rows = any(row != first[path] for path, row in fresh.items())
    assert changes_rows == (Affects.ROWS in OPTIONS[name].affects)
    assert set(repeated.values()) == {not changes_rows and name != "verbose"}
    run_sql(with_rows, f"UPDATE rows SET text = replace(text, '{MARK}', '')")
    run_sql(without_rows, "DELETE FROM rows")
    assert dry_run(capsys, with_rows) == dry_run(capsys, without_rows)  # and back again
