"""Whole scans through the front door, with the bundled model, on real files in every container."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import psutil
import pytest
import soundfile

from tagger import decide, pacing
from tagger.audio import hash_streams
from tagger.cli import main
from tagger.cli.progress import RunProgress
from tagger.errors import AccessError, DiskFullError, TagError
from tagger.isolation import IsolatedCaller, get_fork_server
from tagger.pacing import SystemClock
from tagger.records import TagChange, Track
from tagger.scanning import tracks
from tagger.tags import read_tags
from tagger.writing import writer
from tagger.writing.replace import replace_tags
from tests.builders import build_audio, build_speech, truncate, write_empty, write_text
from tests.front_door import (
    ANY,
    Command,
    Scan,
    as_anyone,
    read_report,
    run_without_torch,
    set_genre,
)
from tests.marks import others_slow
from tests.processes import capture_fork

DECODED = (
    ".mp3", ".mp2", ".aac", ".wav", ".wave", ".aiff", ".tta", ".dsf", ".flac", ".ogg", ".oga",
    ".opus", ".m4a", ".m4b", ".m4r", ".mp4", ".wma", ".wv",
)  # fmt: skip
"""The containers for which a test can make sound; for ape, mpc and spx there is no encoder."""


def test_every_container_is_tagged_and_the_sound_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m").mkdir()
    paths = [build_audio(tmp_path / "m" / f"x{suffix}", seconds=4) for suffix in DECODED]
    paths.append(build_audio(tmp_path / "m" / "alac.m4a", seconds=4, codec="alac"))
    before = {path: hash_streams(path) for path in paths}
    scan = Scan(capsys, tmp_path / "m", *ANY)
    assert (scan.code, scan.err) == (0, scan.err)
    assert scan.actions == {"written": len(paths)}
    for path in paths:
        tags, row = read_tags(path), scan.row(path.name)
        assert tags.genres == tags.written == (row["genre"],)
        assert tags.model == row["model"] == scan.summary["model"]
        assert tags.scores == row["scores"]
        genre, score = tags.scores.split(";")[0].split("=")
        assert genre == row["genre"]
        assert float(score) == pytest.approx(float(row["score"]), abs=6e-4)
        assert float(row["duration_s"]) == pytest.approx(4, abs=0.2)
        assert hash_streams(path) == before[path]
    again = Scan(capsys, tmp_path / "m", *ANY)
    assert again.actions == {"unchanged": len(paths)}
    assert [row["genre"] for row in again.rows] == [row["genre"] for row in scan.rows]


def test_the_summary_adds_up(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_genre(library / "a.flac", "Polka")
    write_empty(library / "z.mp3")
    scan = Scan(capsys, library, *ANY)
    assert list(scan.summary) == [
        "run_id", "model", "dry_run", "tracks", "written", "would_write", "kept", "unchanged",
        "low_score", "not_music", "failed", "failed_new", "seconds", "report",
    ]  # fmt: skip
    counts = ("written", "would_write", "kept", "unchanged", "low_score", "not_music", "failed")
    assert [scan.summary[name] for name in counts] == [2, 0, 1, 0, 0, 0, 1]
    assert scan.summary["tracks"] == len(scan.rows) == 4
    assert scan.code == 1


def test_a_bad_file_is_a_row_and_stops_nobody(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_bad_files(library)
    scan = Scan(capsys, library, *ANY)
    assert scan.code == 1
    assert scan.actions == {"written": 3, "failed": 6}
    reasons = {Path(row["path"]).name: row["error"] for row in scan.rows if row["error"]}
    assert "empty" in reasons["empty.mp3"]
    assert "not what its name says (can't sync to MPEG frame)" in reasons["text.mp3"]
    assert "truncated or damaged" in reasons["cut.flac"]
    assert "it is FLAC, whatever its name says: rename it to *.flac" in reasons["wrong-suffix.m4a"]
    assert "silent" in reasons["silent.wav"]
    assert "too short" in reasons["short.wav"]
    assert all(bool(row["kind"]) == (row["action"] == "failed") for row in scan.rows)

    again = run_without_torch("scan", library, *ANY)
    assert again.returncode == 0, again.stderr
    (library / "empty.mp3").unlink()
    build_audio(library / "empty.mp3", seconds=4)
    assert Scan(capsys, library, *ANY).row("empty.mp3")["action"] == "written"


def build_bad_files(folder: Path) -> None:
    """Build six files that no model can listen to, each for another reason."""
    write_empty(folder / "empty.mp3")
    write_text(folder / "text.mp3")
    truncate(build_audio(folder / "cut.flac", seconds=6))
    build_audio(folder / "other.flac", seconds=4).rename(folder / "wrong-suffix.m4a")
    soundfile.write(folder / "silent.wav", np.zeros(3 * 16_000), 16_000)
    build_audio(folder / "short.wav", seconds=0.6)


def test_a_folder_given_that_cannot_be_listed_ends_the_run(library: Path) -> None:
    library.chmod(0o300)
    command = as_anyone("scan", library)
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    library.chmod(0o700)
    assert result.returncode == 3
    assert "cannot read" in result.stderr
    assert "Permission denied" in result.stderr


@pytest.mark.slow
def test_a_file_without_read_permission_fails_until_it_has_it(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = as_anyone("scan", library, "-n", *ANY)
    for name in ("b.mp3", "c.ogg"):
        set_genre(library / name, "Polka")  # so that no process has to load the model
    (library / "a.flac").chmod(0)
    report = tmp_path / "report.csv"
    for code in (1, 0):
        result = subprocess.run([*command, "--report", str(report)], check=False)
        assert result.returncode == code
        (row,) = [row for row in read_report(report) if row["path"].endswith("a.flac")]
        assert (row["action"], "Permission denied" in row["error"]) == ("failed", True)
    (library / "a.flac").chmod(0o600)
    assert Scan(capsys, library, *ANY).row("a.flac")["action"] == "written"


def test_a_full_disk_ends_the_run_and_rows_tags_and_state_agree(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    source = build_audio(tmp_path / "source.flac", seconds=4)
    for index in range(8):
        shutil.copy(source, folder / f"{index}.flac")
    Scan(capsys, folder, "-n", *ANY)

    def full(change: TagChange, *args: Any, **kwargs: Any) -> Track:
        if change.track.path.name == "2.flac":
            raise DiskFullError("no space left")
        return replace_tags(change, *args, **kwargs)

    monkeypatch.setattr(writer, "replace_tags", full)
    report = tmp_path / "report.csv"
    scan = Scan(capsys, folder, "--report", report, *ANY)
    assert scan.code == 3
    assert "no space left" in scan.err
    actions = {Path(row["path"]).name: row["action"] for row in read_report(report)}
    assert actions.pop("2.flac") == "failed"
    assert set(actions.values()) == {"written"}
    tagged = {path.name for path in folder.iterdir() if read_tags(path).genres}
    assert tagged == set(actions)
    with sqlite3.connect(home / "tagger" / "state.sqlite") as database:
        entries = database.execute("SELECT path, size FROM journal").fetchall()
        (finished,) = database.execute(
            "SELECT finished_at FROM runs ORDER BY started_at DESC, rowid DESC"
        ).fetchone()
    assert {
        Path(os.fsdecode(path)).name: size is not None for path, size in entries
    } == dict.fromkeys(tagged, True)
    assert finished
    monkeypatch.undo()
    monkeypatch.setenv("XDG_STATE_HOME", str(home))
    assert Scan(capsys, folder, *ANY).actions == {
        "unchanged": len(tagged),
        "written": 8 - len(tagged),
    }


def test_a_failure_to_write_is_reported_once_even_with_force(
    library: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> Track:
        raise TagError("not written, for it would change the sound")

    monkeypatch.setattr(writer, "replace_tags", refuse)
    assert Scan(capsys, library / "a.flac", *ANY).code == 1
    assert Scan(capsys, library / "a.flac", *ANY).code == 0
    forced = Scan(capsys, library / "a.flac", "--force", *ANY)
    assert (forced.code, forced.summary["failed"], forced.summary["failed_new"]) == (0, 1, 0)


def test_an_edit_that_hides_its_time_is_noticed_and_kept(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = library / "a.flac"
    Scan(capsys, path, "-n", *ANY)
    track = Track.from_stat(path, path.stat())
    content = path.read_bytes()
    set_genre(path, "Polka")
    edited = path.read_bytes()
    path.write_bytes(content)  # the same inode, size and time, and another genre
    assert len(edited) == len(content)
    with path.open("r+b") as file:
        file.write(edited)
    os.utime(path, ns=(track.mtime_ns, track.mtime_ns))
    state = Track.from_stat(path, path.stat())
    assert (state.size, state.mtime_ns) == (track.size, track.mtime_ns)
    Scan(capsys, path, *ANY)
    assert read_tags(path).genres == ("Polka",)
    assert Scan(capsys, path, *ANY).row("a.flac")["action"] == "kept"


def test_two_names_of_one_file_in_the_library(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.link(library / "a.flac", library / "twin.flac")
    scan = Scan(capsys, library, "--hardlinks", "in-place", *ANY)
    assert scan.code == 0
    assert scan.row("a.flac")["action"] == "written"
    assert scan.row("twin.flac")["action"] == "unchanged"
    assert (library / "a.flac").samefile(library / "twin.flac")
    single = (library / "b.mp3").stat().st_ino
    Scan(capsys, library, "--hardlinks", "in-place", "--existing", "replace", "--top-k", "2", *ANY)
    assert (library / "b.mp3").stat().st_ino != single  # alone, it is replaced whole


def test_a_link_made_later_changes_nothing_about_a_tagged_file(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Scan(capsys, library, *ANY)
    os.link(library / "a.flac", tmp_path / "backup.flac")
    assert Scan(capsys, library, *ANY).actions == {"unchanged": 3}


@pytest.mark.parametrize("target", ["song.flac", "state.sqlite"])
def test_the_report_overwrites_nothing_but_a_report(
    library: Path, home: Path, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Scan(capsys, library, "-n", *ANY)
    victim = {"song.flac": library / "a.flac", "state.sqlite": home / "tagger" / "state.sqlite"}
    before = victim[target].read_bytes()
    scan = Scan(capsys, library, "-n", "--report", victim[target])
    assert scan.code == 2
    assert "would overwrite" in scan.err
    assert victim[target].read_bytes() == before


def test_a_bad_path_is_said_before_anything_is_written(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Scan(capsys, library, "-n", *ANY)
    assert Scan(capsys, library, library / "missing", *ANY).code == 3
    assert not any(read_tags(path).genres for path in library.iterdir())


def test_a_dry_run_writes_nothing_and_the_real_run_decodes_nothing(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in library.iterdir()}
    dry = Scan(capsys, library, "-n", *ANY)
    assert dry.actions == {"would-write": 3}
    assert {path: path.read_bytes() for path in library.iterdir()} == before
    real = run_without_torch("scan", library, "--json", *ANY)
    assert real.returncode == 0, real.stderr
    assert json.loads(real.stdout)["written"] == 3
    assert read_tags(library / "b.mp3").genres == (dry.row("b.mp3")["genre"],)


def test_help_and_a_run_with_nothing_to_do_import_nothing_heavy(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for args in (("--help",), ("scan", "--help"), ("--version",)):
        assert run_without_torch(*args).returncode == 0
    for path in library.iterdir():
        set_genre(path, "Polka")
    fully_tagged = run_without_torch("scan", library, "--json")
    assert json.loads(fully_tagged.stdout)["kept"] == 3
    set_genre(library / "a.flac")
    Scan(capsys, library, *ANY)
    nothing_new = run_without_torch("scan", library, "--json", *ANY)
    assert json.loads(nothing_new.stdout)["unchanged"] == 1, nothing_new.stderr


def test_rows_are_repeated_word_for_word_as_long_as_they_hold(
    library: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_genre(library / "a.flac", "Polka; =SUM(A1)")
    second = library / "sub" / 'caf\udce9, "b".flac'
    second.parent.mkdir()
    shutil.copy(library / "a.flac", second)
    dry = (*ANY, "-n")
    for options, ours in (dry, "would-write"), (ANY, "unchanged"), (dry, "unchanged"):
        Scan(capsys, library, *options)
        thought = Scan(capsys, library, *options)
        assert thought.actions[ours] == 2
        with monkeypatch.context() as patch:
            patch.setattr(decide, "decide", None)
            patch.setattr(decide, "decide_by_tags", None)
            repeated = Scan(capsys, library, *options)
        assert repeated.rows == thought.rows
        assert repeated.actions == thought.actions
        assert len(repeated.rows) == repeated.summary["tracks"] == 4


def test_rows_of_another_version_are_not_repeated(
    library: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        scan = Scan(capsys, library, *ANY)
    monkeypatch.setattr(tracks, "hash_code", lambda: "another version")
    monkeypatch.setattr(tracks.RowRepeater, "save", decisions := Mock())
    decisions.side_effect = lambda step: step
    assert Scan(capsys, library, *ANY).rows == scan.rows
    assert decisions.call_count == 3


def test_a_repeated_row_gives_way_to_whatever_changes(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(3):
        Scan(capsys, library, *ANY)
    assert Scan(capsys, library, "--min-score", "1").actions == {"low-score": 3}
    Scan(capsys, library, *ANY)
    os.link(library / "a.flac", library / "another-name.txt")
    linked = Scan(capsys, library, *ANY, "--top-k", "1").row("a.flac")
    assert linked["action"] == "kept"
    (library / "another-name.txt").unlink()
    set_genre(library / "a.flac", "Polka")
    assert Scan(capsys, library, *ANY).row("a.flac")["existing_genre"] == "Polka"
    (library / "a.flac").rename(library / "moved.flac")
    assert Scan(capsys, library, *ANY).row("moved.flac")["action"] == "kept"
    assert Command(capsys, "undo", library / "b.mp3").code == 0
    row = Scan(capsys, library, *ANY).row("b.mp3")
    assert (row["action"], row["existing_genre"]) == ("kept", "")
    assert "undone" in row["error"]
    assert Scan(capsys, library, *ANY).row("b.mp3") == row


def test_what_could_not_be_read_is_tried_again_each_time(
    library: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(IsolatedCaller, "call", refuse)
        for _ in range(3):
            assert Scan(capsys, library, *ANY).actions == {"failed": 3}
    assert Scan(capsys, library, *ANY).actions == {"written": 3}


def refuse(*_: object, **__: object) -> None:
    raise AccessError("cannot open: Permission denied")


def test_a_new_threshold_map_or_top_k_decodes_nothing(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = Scan(capsys, library, "-n", *ANY)
    names = tmp_path / "names.toml"
    genres = {row["genre"] for row in first.rows}
    names.write_text("".join(f'"{genre}" = "Noise"\n' for genre in genres))
    report = tmp_path / "report.csv"
    result = run_without_torch(
        "scan", library, "-n", *ANY, "--genre-map", names, "--top-k", "2", "--report", report
    )
    assert result.returncode == 0, result.stderr
    rows = read_report(report)
    assert {row["genre"] for row in rows} == {"Noise"}
    assert {row["scores"].count("=") for row in rows} == {2}
    result = run_without_torch("scan", library, "-n", "--min-score", "1", "--json")
    assert json.loads(result.stdout)["low_score"] == 3


def test_what_is_no_music_gets_no_genre_and_the_report_says_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 64_000)
    path = tmp_path / "rain.wav"
    soundfile.write(path, noise, 16_000)
    scan = Scan(capsys, path)
    assert scan.actions == {"not-music": 1}
    assert scan.summary["not_music"] == 1
    row = scan.row("rain.wav")
    assert re.fullmatch(r"no music: Other sound \d\.\d\d", row["error"])
    assert row["scores"].startswith("Other sound=")
    assert (row["genre"], row["score"]) == ("", "")
    assert Scan(capsys, path, "--not-music", "tag").actions == {"not-music": 1}  # no speech
    assert Scan(capsys, path, "-n", *ANY).actions == {"would-write": 1}
    names = tmp_path / "names.toml"
    names.write_text('"Other sound" = "Field Recording"\n')
    assert Scan(capsys, path, "--genre-map", names).actions == {"written": 1}
    assert read_tags(path).genres == ("Field Recording",)


def test_speech_is_tagged_only_where_the_user_wants_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = build_speech(tmp_path / "chapter.wav")
    scan = Scan(capsys, path)
    assert scan.actions == {"not-music": 1}
    assert re.fullmatch(r"no music: Speech \d\.\d\d", scan.row("chapter.wav")["error"])
    assert read_tags(path).genres == ()
    assert Scan(capsys, path, "--not-music", "tag", "--min-score", "1").actions == {"low-score": 1}
    assert Scan(capsys, path, "--not-music", "tag").actions == {"written": 1}
    assert read_tags(path).genres == ("Spoken Word",)


def test_existing_genres_are_kept_replaced_or_joined(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_genre(library / "b.mp3", "Polka", "Ländler")
    before = (library / "b.mp3").read_bytes()
    kept = Scan(capsys, library, *ANY).row("b.mp3")
    assert (kept["action"], kept["existing_genre"], kept["scores"]) == ("kept", "Polka;Ländler", "")
    assert (kept["error"], kept["kind"]) == ("", "has-genre")
    assert (library / "b.mp3").read_bytes() == before
    audited = Scan(capsys, library, "--audit", *ANY).row("b.mp3")
    assert audited["action"] == "kept"
    assert audited["genre"]
    appended = Scan(capsys, library, "--existing", "append", *ANY).row("b.mp3")
    assert appended["action"] == "written"
    assert read_tags(library / "b.mp3").genres == ("Polka", "Ländler", appended["genre"])
    assert Scan(capsys, library, "--existing", "append", *ANY).row("b.mp3")["action"] == "unchanged"
    Scan(capsys, library, "--existing", "replace", *ANY)
    assert read_tags(library / "b.mp3").genres == (appended["genre"],)


def test_what_a_person_changes_after_tagger_is_theirs(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Scan(capsys, library, *ANY)
    path = library / "c.ogg"
    set_genre(path, "Polka", keep=read_tags(path))
    row = Scan(capsys, library, *ANY, "--force").row("c.ogg")
    assert (row["action"], row["existing_genre"]) == ("kept", "Polka")
    assert read_tags(path).genres == ("Polka",)
    set_genre(path, keep=read_tags(path))
    row = Scan(capsys, library, *ANY, "--force").row("c.ogg")
    assert (row["action"], row["kind"]) == ("kept", "removed-by-hand")
    assert "removed by hand" in row["error"]


def test_a_moved_track_is_not_listened_to_again(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Scan(capsys, library, *ANY)
    (library / "album").mkdir()
    (library / "a.flac").rename(library / "album" / "renamed.flac")
    result = run_without_torch("scan", library, "--json", *ANY)
    assert json.loads(result.stdout)["unchanged"] == 3, result.stderr


def test_the_replaced_tags_are_in_the_journal(
    library: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_genre(library / "a.flac", "Polka")
    scan = Scan(capsys, library / "a.flac", "--existing", "replace", *ANY)
    with sqlite3.connect(home / "tagger" / "state.sqlite") as database:
        run_id, path, before, size = database.execute(
            "SELECT run_id, path, before, size FROM journal"
        ).fetchone()
    assert run_id == scan.summary["run_id"]
    assert os.fsdecode(path) == str(library / "a.flac")
    assert json.loads(before)["genres"] == ["Polka"]
    assert size == (library / "a.flac").stat().st_size


@pytest.mark.parametrize("mode", ["skip", "break", "in-place"])
def test_hard_links(
    library: Path, tmp_path: Path, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, seeding = library / "a.flac", tmp_path / "seeding.flac"
    os.link(path, seeding)
    original = seeding.read_bytes()
    row = Scan(capsys, path, "--hardlinks", mode, *ANY).row("a.flac")
    if mode == "skip":
        assert (row["action"], row["kind"]) == ("kept", "hard-links")
        assert "hard links" in row["error"]
    else:
        assert read_tags(path).genres == (row["genre"],)
    assert path.samefile(seeding) == (mode != "break")
    assert (seeding.read_bytes() == original) == (mode != "in-place")


def test_a_name_that_is_not_utf8(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = library / os.fsdecode(b"caf\xe9\n.mp3")
    (library / "b.mp3").rename(path)
    scan = Scan(capsys, library, "-v", *ANY)
    assert read_tags(path).genres
    (row,) = [row for row in scan.rows if "caf" in row["path"]]
    assert row["path"].endswith("caf\\xe9\n.mp3")
    assert "caf\\xe9\\n.mp3" in scan.err


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["scan"], 2, "Missing argument"),
        (["scan", "--existing", "never", "."], 2, "must be one of keep|replace|append"),
        (["scan", "--frobnicate", "."], 2, "No such option"),
        (["scan", "/no/such/folder"], 3, "cannot read /no/such/folder: No such file"),
        (["scan", "-m", "./no-model", "."], 3, "there is no model folder ./no-model"),
        (["scan", "-m", "some/model", "."], 3, "some/model is not in the cache"),
        (["scan", "--state", "/dev/null/x", "."], 3, "the state file"),
        (["scan", "--report", "/dev/null/x.csv", "."], 3, "cannot write the report"),
        (["scan", "--report", "/dev/full", "."], 3, "No space left"),
        (["scan", "--report", "s3://bucket/x.csv", "."], 2, "must be a file on this machine"),
        (["scan", "--report", "~nobody-knows/x", "."], 2, "home of an unknown user"),
        (["scan", ""], 2, "'PATH...': must not be empty"),
        (["scan", "--max-seconds", "5000000000", "."], 2, "must be 86400 or less"),
    ],
)
def test_wrong_usage_and_runs_that_cannot_go_on(
    args: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == code
    out, err = capsys.readouterr()
    assert words in err
    assert "Traceback" not in err
    assert out == ""


def test_a_second_run_on_one_state_file_is_refused(
    library: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = (
        "import sys; from pathlib import Path; from tagger.state import open_state\n"
        "with open_state(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    state = home / "tagger" / "state.sqlite"
    command = [sys.executable, "-c", script, str(state)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        assert Scan(capsys, library).code == 4
        holder.kill()
    assert Scan(capsys, library, *ANY).code == 0


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_an_interrupted_run_keeps_what_it_did_and_the_next_goes_on(
    tmp_path: Path, number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "m"
    source = build_audio(tmp_path / "source.flac", seconds=4)
    folder.mkdir()
    for index in range(60):
        shutil.copy(source, folder / f"{index:02}.flac")
    report = tmp_path / "report.csv"
    command = [
        sys.executable, "-m", "tagger", "scan", str(folder), "--report", str(report), "-v", *ANY,
        "--batch-size", "1",
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr
        for line in process.stderr:
            if line.startswith("written"):
                break
        os.killpg(process.pid, number)  # as a terminal does it: the workers get it too
        errors = process.stderr.read()
    assert process.returncode == code, errors
    assert "stopped; the next run goes on from here" in errors
    assert "Traceback" not in errors
    rows = read_report(report)
    assert 0 < len(rows) < 60
    for path in folder.iterdir():
        written = [row for row in rows if row["path"] == str(path)]
        assert bool(read_tags(path).genres) == bool(written)
    assert [path for path in folder.iterdir() if path.name.startswith(".")] == []
    scan = Scan(capsys, folder, *ANY)
    assert scan.actions == {"unchanged": len(rows), "written": 60 - len(rows)}


@pytest.mark.slow
def test_scores_do_not_depend_on_batch_or_neighbours(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_audio(library / "d.wav", seconds=1.5, seed=9)
    build_audio(library / "e.wav", seconds=33, seed=10)
    results = []
    for batch, jobs in ((1, 1), (3, 2), (1000, 1)):
        args = ("-n", "--top-k", "30", "--batch-size", str(batch), "--jobs", str(jobs))
        scan = Scan(capsys, library, "--state", tmp_path / f"{batch}.sqlite", *args, *ANY)
        results.append({row["path"]: parse(row["scores"]) for row in scan.rows})
    for other in results[1:]:
        for path, scores in results[0].items():
            assert other[path] == pytest.approx(scores, abs=1.5e-3)


def parse(scores: str) -> dict[str, float]:
    pairs = (part.rsplit("=", 1) for part in scores.split(";"))
    return {genre: float(score) for genre, score in pairs}


def test_progress_is_plain_lines_away_from_a_terminal_and_quiet_is_quiet(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["scan", str(library), *ANY]) == 0
    out, err = capsys.readouterr()
    assert "3 tracks to listen to" in err
    assert "\x1b" not in out + err
    assert "written" in out
    assert main(["scan", str(library), "-q", *ANY]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("looks", others_slow([(6,), (1,), (2,), (4,), (7,)]))
def test_when_the_time_is_up_the_rest_is_left_to_the_next_run(
    library: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    night, morning = (datetime(2026, 11, 24, hour).astimezone() for hour in (5, 6))
    clock = iter([night] * looks)
    with monkeypatch.context() as patch:
        patch.setattr(SystemClock, "now", lambda _: next(clock, morning))
        scan = Scan(capsys, library, *ANY, "--until", "6:00")
    assert scan.code == 0
    assert scan.actions == Counter(written=max(looks - 5, 0), kept=min(8 - looks, 3))
    assert scan.summary["tracks"] == 3
    assert scan.summary["waiting"] == scan.actions["kept"]
    late = [row for row in scan.rows if row["action"] == "kept"]
    assert all("--until" in row["error"] and not row["genre"] for row in late)
    assert {row["kind"] for row in late} <= {"time-is-up"}
    again = Scan(capsys, library, *ANY)
    assert again.actions == Counter(written=len(late), unchanged=3 - len(late))
    assert "waiting" not in again.summary


def test_a_run_that_is_stopped_by_the_clock_says_so(
    library: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([datetime(2026, 11, 24, 5).astimezone()])
    monkeypatch.setattr(
        SystemClock, "now", lambda _: next(clock, datetime(2026, 11, 24, 6).astimezone())
    )
    assert main(["scan", str(library), "--until", "06:00"]) == 0
    assert "The time was up (--until): 3 tracks left for the next run." in capsys.readouterr().out


@pytest.mark.slow
def test_a_gentle_run_and_all_its_processes_stand_behind_all_others(library: Path) -> None:
    """Run in a fork, which has imported torch: a gentle process beside others takes minutes."""

    def print_priorities(*_: object) -> None:
        here = psutil.Process()
        everyone = [here, *here.children(recursive=True)]
        print(json.dumps([(each.nice(), int(each.ionice().ioclass)) for each in everyone]))

    def scan() -> int:
        get_fork_server.cache_clear()  # the one of the tests is not gentle
        patch = pytest.MonkeyPatch()
        patch.setattr(pacing, "MAX_REST_S", 0.0)  # it would rest while other tests run
        patch.setattr(RunProgress, "on_outcome", print_priorities)
        return main(["scan", str(library), "--gentle", "-q", *ANY])

    done = capture_fork(scan)
    assert done.returncode == 0, done.stderr
    seen = [[tuple(each) for each in json.loads(line)] for line in done.stdout.splitlines()]
    assert len(seen) == 3
    assert max(map(len, seen)) > 3
    assert {each for everyone in seen for each in everyone} == {(19, 3)}


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_failure(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Scan(capsys, library, "-n", *ANY)
    command = f"'{sys.executable}' -m tagger scan '{library}' -v --min-score 0 2>&1"
    tagger = f"'{sys.executable}' -m tagger"
    for line, code in (
        (f"{command} | head -c 1 >/dev/null", 0),
        (f"{command} | true", 0),
        (f"{tagger} runs | true", 0),
        (f"{tagger} bogus 2>&1 | true", 2),
        (f"{tagger} scan /nowhere 2>&1 | true", 3),
    ):
        script = f"{line}; exit ${{PIPESTATUS[0]}}"
        result = subprocess.run(["bash", "-c", script], capture_output=True, check=False)
        assert (result.returncode, result.stderr) == (code, b""), line
    assert Scan(capsys, library, *ANY).actions == {"unchanged": 3}


def test_mtime_moves_on_unless_it_is_to_be_kept(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = time.time() - 1000
    for name in ("a.flac", "b.mp3"):
        os.utime(library / name, (old, old))
    Scan(capsys, library / "a.flac", *ANY)
    Scan(capsys, library / "b.mp3", "--preserve-mtime", *ANY)
    assert (library / "a.flac").stat().st_mtime > old + 500
    assert (library / "b.mp3").stat().st_mtime == pytest.approx(old)
    assert Scan(capsys, library, *ANY).actions == {"unchanged": 2, "written": 1}


def test_music_in_folders_with_a_dot_in_front_is_found_and_junk_is_counted(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for old, new in (("a.flac", "...And Justice for All"), ("b.mp3", ".38 Special")):
        (library / new).mkdir()
        (library / old).rename(library / new / old)
    (library / ".Trash-1000").mkdir()
    shutil.copy(library / "c.ogg", library / ".Trash-1000")
    shutil.copy(library / "c.ogg", library / "._c.ogg")
    scan = Scan(capsys, library, *ANY)
    assert scan.summary["written"] == 3
    assert scan.summary["passed_over"] == {"folders": 1, "files": 1, "suffixes": {}}
    assert main(["scan", str(library), *ANY]) == 0
    assert "; files such as .nomedia): folders 1, audio files 1\n" in capsys.readouterr().out


@pytest.mark.parametrize("options", [(), ("--by-album",)])
def test_the_rows_of_known_failures_are_repeated_until_the_file_changes(
    library: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
) -> None:
    write_text(library / "text.mp3")
    write_empty(library / "empty.flac")
    build_audio(library / "short.wav", seconds=0.2)
    first = Scan(capsys, library, "-n", *ANY, *options)
    assert (first.code, first.summary["failed"], first.summary["failed_new"]) == (1, 3, 3)
    loaded: list[Track] = []
    load = tracks.TrackDecider.load

    def count(self: tracks.TrackDecider, track: Track) -> Any:
        loaded.append(track)
        return load(self, track)

    monkeypatch.setattr(tracks.TrackDecider, "load", count)
    again = Scan(capsys, library, "-n", *ANY, *options)
    assert (again.code, again.summary["failed"], again.summary["failed_new"]) == (0, 3, 0)
    assert sorted(again.rows, key=str) == sorted(first.rows, key=str)
    assert loaded == []
    build_audio(library / "short.wav", seconds=4)
    changed = Scan(capsys, library, "-n", *ANY, *options)
    assert (changed.code, changed.summary["failed"]) == (0, 2)
    forced = Scan(capsys, library, "-n", *ANY, *options, "--force")
    assert forced.summary["failed"] == 2
