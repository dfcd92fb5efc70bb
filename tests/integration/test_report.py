"""`tagger report`: the overview for people and the JSON for programs."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tagger.cli import main
from tagger.errors import FAILURE_HELP, FailureKind
from tagger.records import Action, Album, Score
from tagger.report.csv import ReportRow
from tagger.report.page import TableRows
from tests.front_door import ANY, Command, Scan, run_without_torch, set_genre
from tests.reports import outcome, write_run

ROCK, JAZZ = (Score("Rock", 0.9),), (Score("Jazz", 0.8),)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    rows = [
        outcome("m/1.mp3", Action.WRITTEN, genres=("Rock",), scores=ROCK),
        outcome("m/2.mp3", Action.KEPT, genres=("rock",), scores=ROCK, existing=("Rock",)),
        outcome("m/3.mp3", Action.KEPT, genres=("Jazz",), scores=JAZZ, existing=("Rock", "Pop")),
        outcome("m/4.mp3", Action.WOULD_WRITE, genres=("Rock",), scores=ROCK),
        outcome("m/5.mp3", Action.LOW_SCORE, scores=(Score("Jazz", 0.31),)),
        outcome(
            "m/6.mp3",
            Action.FAILED,
            error="truncated: 10 bytes are missing at its end",
            kind=FailureKind.TRUNCATED,
        ),
    ]
    return write_run(tmp_path, rows, {row.track.path: Album("A", "Title") for row in rows})


def test_a_run_in_short(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--state", str(state)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "6 tracks: 1 written, 1 would-write, 2 kept, 1 low-score, 1 failed" in shown
    assert "Rock 2 2" in shown
    assert (
        "1 of 2 tracks with a genre get the same from tagger, or one above it"
        " 1 had Rock, tagger says Jazz" in shown
    )
    assert "Title (Rock): 3.mp3 (Jazz)" in shown
    assert f"1 Cut off or empty. {FAILURE_HELP[FailureKind.TRUNCATED].cure}" in shown


def test_the_page_says_the_same_of_genres(state: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert main(["report", "--state", str(state), "--html", str(page)]) == 0
    assert "1 of 2 tracks with a genre get the same from tagger, or one above" in page.read_text()


def test_a_run_for_programs(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = Command(capsys, "report", "--state", state).summary
    assert (found["run_id"], found["tracks"], found["would_write"]) == ("made-up", 6, 1)
    assert found["genres"][0] == {"genre": "Rock", "ours": 2, "kept": 2}
    assert found["pairs"] == [{"existing": "Rock", "heard": "Jazz", "tracks": 1}]
    assert found["low_scores"][6] == 1
    assert sum(found["written_scores"]) == 4
    (failures,) = found["failures"]
    assert (failures["kind"], failures["tracks"]) == ("truncated", 1)
    assert failures["examples"][0]["path"] == "/m/6.mp3"


def test_the_newest_scan_or_the_one_that_was_named(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_genre(library / "a.flac", "Polka")
    first = Scan(capsys, library, *ANY, "-n")
    second = Scan(capsys, library, *ANY)
    assert Command(capsys, "undo").code == 0  # has no report
    assert Command(capsys, "report").summary["written"] == 2
    assert Command(capsys, "report", "--run", first.summary["run_id"]).summary["would_write"] == 2
    copy = tmp_path / "copy.csv"
    assert main(["report", "--csv", str(copy)]) == 0
    assert copy.read_bytes() == Path(second.summary["report"]).read_bytes()


def test_a_report_that_nobody_can_show(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no run has written a report" in (first := Command(capsys, "report")).err
    assert first.code == 2
    scan = Scan(capsys, library, *ANY)
    undo = Command(capsys, "undo")
    for run_id, reason in (("none", "there is no run"), (undo.summary["run_id"], "was no scan")):
        refused = Command(capsys, "report", "--run", run_id)
        assert (refused.code, reason in refused.err) == (2, True)
    (song := tmp_path / "song.html").write_text("mine")
    for target in (song, tmp_path):
        refused = Command(capsys, "report", "--html", target)
        assert (refused.code, song.read_text()) == (2, "mine")
        assert Command(capsys, "scan", library, "--html", target).code == 2
    Path(scan.summary["report"]).unlink()
    gone = Command(capsys, "report")
    assert (gone.code, "cannot read the report" in gone.err) == (3, True)


def test_of_tracks_without_scores_the_state_file_is_not_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [outcome("m/1.mp3", Action.WRITTEN, genres=("Rock",), scores=ROCK)]
    rows.append(outcome("m/2.mp3", Action.KEPT, existing=("Rock",)))
    state = write_run(tmp_path, rows, {row.track.path: Album("A", "Title") for row in rows})
    with closing(sqlite3.connect(state)) as connection, connection:
        damaged = connection.execute(
            "UPDATE tracks SET tags = 'damaged' WHERE path = ?", (b"/m/2.mp3",)
        )
        assert damaged.rowcount == 1
    assert Command(capsys, "report", "--state", state).summary["kept"] == 1


@pytest.mark.parametrize(
    ("paths", "base"),
    [
        (["/music/a/1.mp3", "/music/b/c/2.mp3", "/music/a/3.mp3"], "/music/"),
        (["/music/ab/1.mp3", "/music/a/2.mp3"], "/music/"),
        (["/music/1.mp3", "s3://bucket/2.mp3"], "/"),
        ([], "/"),
    ],
)
def test_the_table_of_a_page_names_the_folder_of_all_tracks_once(
    paths: list[str], base: str
) -> None:
    rows = TableRows()
    for path in paths:
        rows.add(ReportRow(path, Action.KEPT))
    assert json.loads(rows.as_json())["base"] == base


def test_a_page_is_made_without_torch(state: Path, tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.html"
    for _ in range(2):  # our own page is written over
        done = run_without_torch("report", "--state", state, "--html", page)
        assert (done.returncode, done.stderr) == (0, "")
    assert page.read_text("utf-8").count("<section ") == 7
    assert not list(page.parent.glob(".*"))


def test_a_genre_of_any_length(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_genre(library / "c.ogg", "x" * 140_000)
    assert Scan(capsys, library, *ANY, "--html", tmp_path / "page.html").code == 0
    assert Command(capsys, "report").summary["kept"] == 1


def test_a_report_is_found_from_anywhere(
    library: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Scan(capsys, library, *ANY, "--report", "here.csv")
    monkeypatch.chdir(library)
    assert Command(capsys, "report").summary["written"] == 3


def test_a_run_that_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, page = write_run(tmp_path, [], {}), tmp_path / "page.html"
    assert main(["report", "--state", str(state)]) == 0
    assert "No tracks." in capsys.readouterr().out
    assert main(["report", "--state", str(state), "--html", str(page)]) == 0
    assert "No track has a genre" in page.read_text("utf-8")


def test_every_kind_of_failure_has_a_title_and_a_cure() -> None:
    assert set(FAILURE_HELP) == set(FailureKind)
    assert len({each.title for each in FAILURE_HELP.values()}) == len(FailureKind)
    assert all(each.cure.endswith(".") for each in FAILURE_HELP.values())
