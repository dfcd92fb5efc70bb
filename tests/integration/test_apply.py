"""`tagger apply`: a dry run's report, edited as in a spreadsheet, and then written."""

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tagger.decide import KEEP_SENTENCES
from tagger.errors import KeepReason
from tagger.models.musicnn import CHECKPOINT
from tagger.models.sources import read_config
from tagger.records import Tags
from tagger.tags import read_tags
from tests.builders import build_audio
from tests.front_door import ANY, Command, Scan, read_report, set_album, set_genre
from tests.marks import others_slow

Rows = list[dict[str, str]]


class Applied(Command):
    """One `tagger apply`, with its report."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *args: str | Path) -> None:
        super().__init__(capsys, "apply", *args)
        self.rows = {
            Path(row["path"]).name: (row["action"], row["error"])
            for row in (read_report(self.summary["report"]) if self.out else [])
        }


@pytest.fixture
def edited(tmp_path: Path) -> Path:
    return tmp_path / "edited.csv"


def dry_run(
    capsys: pytest.CaptureFixture[str],
    library: Path,
    edited: Path,
    edit: Callable[[dict[str, dict[str, str]]], None] = lambda _: None,
    *options: str,
    delimiter: str = ",",
) -> Rows:
    """Do a dry run and save its report as `edited`, changed by `edit`, which gets rows by name."""
    rows = Scan(capsys, library, *ANY, "-n", *options).rows
    by_name = {Path(row["path"]).name: row for row in rows}
    edit(by_name)
    with edited.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(by_name.values())
    return rows


def genres(path: Path) -> tuple[str, ...]:
    return read_tags(path).genres


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_what_a_person_saw_and_corrected_is_written(
    library: Path, edited: Path, capsys: pytest.CaptureFixture[str], delimiter: str
) -> None:
    build_audio(library / "d.opus", seconds=4, seed=9)

    def edit(rows: dict[str, dict[str, str]]) -> None:
        rows["b.mp3"]["genre"] = "Drum & Bass; Jungle"
        rows["c.ogg"]["genre"] = ""
        del rows["d.opus"]

    rows = dry_run(capsys, library, edited, edit, delimiter=delimiter)
    done = Applied(capsys, edited)
    assert done.code == 0
    assert {name: action for name, (action, _) in done.rows.items()} == {
        "a.flac": "written", "b.mp3": "written", "c.ogg": "kept"
    }  # fmt: skip
    row = next(row for row in rows if row["path"].endswith("a.flac"))
    said = read_tags(library / "a.flac")
    assert said == Tags((row["genre"],), (row["genre"],), row["scores"], row["model"])
    assert read_tags(library / "b.mp3") == Tags(("Drum & Bass", "Jungle"))
    assert not genres(library / "c.ogg")
    assert not genres(library / "d.opus")
    later = Scan(capsys, library, *ANY)
    actions = {Path(row["path"]).name: row["action"] for row in later.rows}
    assert actions == {
        "a.flac": "unchanged", "b.mp3": "kept", "c.ogg": "kept", "d.opus": "written"
    }  # fmt: skip


def test_it_can_be_taken_back(
    library: Path, edited: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in library.iterdir()}
    dry_run(capsys, library, edited, lambda rows: rows["b.mp3"].update(genre="Jungle"))
    assert Applied(capsys, edited, "-n").summary["would_write"] == 3
    assert {path: path.read_bytes() for path in library.iterdir()} == before
    assert Applied(capsys, edited).summary["written"] == 3
    assert Command(capsys, "undo").summary["restored"] == 3
    assert not any(map(genres, library.iterdir()))


def test_an_apply_goes_on_where_one_was_cut_off(
    library: Path, edited: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dry_run(capsys, library, edited, lambda rows: rows["b.mp3"].update(genre="Jungle"))
    assert Applied(capsys, edited).summary["written"] == 3
    again = Applied(capsys, edited)
    assert (again.code, again.summary["unchanged"]) == (0, 3)
    assert read_tags(library / "b.mp3") == Tags(("Jungle",))


def test_a_dry_run_of_it_forgets_nobody(
    library: Path, edited: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dry_run(capsys, library, edited, lambda rows: rows["c.ogg"].update(genre=" ; "))
    assert Applied(capsys, edited, "-n").rows["c.ogg"][0] == "kept"
    assert Scan(capsys, library, *ANY).actions == {"written": 3}


def test_the_report_of_it_does_not_take_the_place_of_what_was_edited(
    library: Path, edited: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dry_run(capsys, library, edited)
    before = edited.read_bytes()
    refused = Applied(capsys, edited, "--report", edited)
    assert (refused.code, edited.read_bytes()) == (2, before)


@pytest.mark.parametrize(
    "options",
    others_slow(
        [
            (("--profile", "itunes", "--genres", "2"),),
            (("--genres", "2", "--top-k", "1"),),
            (("--by-album",),),
        ]
    ),
)
def test_what_nobody_edited_is_written_as_by_a_scan(
    library: Path, edited: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    for path in library.iterdir():
        set_album(path, "Title")
    by_scan = library.with_name("scanned")
    shutil.copytree(library, by_scan)
    dry_run(capsys, library, edited, lambda _: None, *options)
    assert Applied(capsys, edited).summary["written"] == 3
    Scan(capsys, by_scan, *ANY, *options)
    for path in library.iterdir():
        assert read_tags(path) == read_tags(by_scan / path.name)
        assert read_tags(path).written


def test_an_edited_genre_is_the_persons_also_if_the_file_has_another_inode_since(
    library: Path, edited: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = library / "b.mp3"
    for each in library.iterdir():
        set_album(each, "Title")
    dry_run(capsys, library, edited, lambda rows: rows["b.mp3"].update(genre="Swamp"), "--by-album")
    shutil.copy2(path, library.with_name("copy"))
    library.with_name("copy").replace(path)  # as on a disk that numbers its files anew
    assert Applied(capsys, edited).summary["written"] == 3
    assert (read_tags(path).genres, read_tags(path).written) == (("Swamp",), ())


def test_a_score_that_is_too_low_for_an_album_stays_that(
    library: Path, edited: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in library.iterdir():
        set_album(path, "Title")
    dry_run(capsys, library, edited, lambda _: None, "--by-album", "--min-score", "1")
    assert not Applied(capsys, edited).rows


def test_the_same_row_twice(
    library: Path, edited: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dry_run(capsys, library, edited)
    lines = edited.read_text("utf-8-sig").splitlines(keepends=True)
    edited.write_text("".join([*lines, *lines[1:]]))
    done = Applied(capsys, edited)
    assert (done.summary["written"], done.summary["failed"]) == (3, 3)
    assert "names the same file" in done.rows["a.flac"][1]


def test_a_genre_that_cannot_be_written_says_nothing_of_the_file(
    library: Path, edited: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dry_run(capsys, library, edited, lambda rows: rows["b.mp3"].update(genre="17"))
    for _ in range(2):
        done = Applied(capsys, edited)
        assert (done.code, done.rows["b.mp3"][0]) == (1, "failed")
    assert Scan(capsys, library, *ANY).row("b.mp3")["action"] == "written"


def test_a_low_score_that_somebody_took_out_is_not_wanted_later_either(
    library: Path, edited: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    low = ("--min-score", "1")
    dry_run(capsys, library, edited, lambda rows: rows["b.mp3"].update(genre=""), *low)
    reason = KEEP_SENTENCES[KeepReason.NOT_WANTED]
    assert Applied(capsys, edited).rows == {"b.mp3": ("kept", reason)}
    scan = Scan(capsys, library, *ANY)
    assert scan.actions == {"written": 2, "kept": 1}
    assert "taken out of a report" in scan.row("b.mp3")["error"]


def test_a_genre_of_the_person_brings_back_no_genre_that_was_undone(
    library: Path, edited: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    song = library / "b.mp3"
    dry_run(capsys, library, edited, lambda rows: rows["b.mp3"].update(genre="Polka"))
    Scan(capsys, song, *ANY)
    assert Command(capsys, "undo").summary["restored"] == 1
    Scan(capsys, library, *ANY, "-n")
    assert Applied(capsys, edited).rows["b.mp3"][0] == "written"
    assert genres(song) == ("Polka",)
    set_genre(song)
    assert Scan(capsys, song, *ANY).row("b.mp3")["kind"] == "undone"


def other_song(path: Path) -> None:
    build_audio(path, seconds=7, frequency_hz=300)


@pytest.mark.slow
@pytest.mark.parametrize("scanned_again", [False, True])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (other_song, "changed since the report"),
        (lambda path: set_genre(path, "Polka"), "its genre is no longer|changed since"),
        (Path.unlink, "not there any more"),
        (lambda path: path.write_bytes(b"no song"), "changed since"),
    ],
)
def test_a_file_that_changed_since_is_refused(
    library: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], None],
    reason: str,
    scanned_again: bool,  # noqa: FBT001
) -> None:
    edited = library.with_suffix(".csv")
    dry_run(capsys, library, edited)
    song = library / "b.mp3"
    change(song)
    if scanned_again:
        Scan(capsys, library, *ANY, "-n")
    before = song.read_bytes() if song.exists() else None
    done = Applied(capsys, edited)
    assert (done.code, done.summary["written"], done.summary["failed_new"]) == (1, 2, 1)
    action, error = done.rows["b.mp3"]
    assert action == "failed"
    assert any(part in error for part in reason.split("|"))
    assert (song.read_bytes() if song.exists() else None) == before


def test_a_file_that_no_run_has_seen_is_refused(
    library: Path, edited: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger = tmp_path / "b.mp3"
    shutil.copy(library / "b.mp3", stranger)
    dry_run(capsys, library, edited, lambda rows: rows["b.mp3"].update(path=str(stranger)))
    done = Applied(capsys, edited)
    assert done.rows["b.mp3"][0] == "failed"
    assert not genres(stranger)


def test_no_server_is_asked_for_a_file_that_no_run_has_seen(
    library: Path,
    edited: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[object] = []
    monkeypatch.setattr("tagger.scanning.apply.look_up", asked.append)
    url = "http://127.0.0.1:9/private/b.mp3"
    dry_run(capsys, library, edited, lambda rows: rows["b.mp3"].update(path=url))
    assert Applied(capsys, edited).rows["b.mp3"][0] == "failed"
    assert sorted({type(path) for path in asked}, key=str) == [type(library)]


@pytest.mark.parametrize(
    ("existing", "action", "after"),
    [
        ("keep", "kept", ("Polka",)),
        ("replace", "written", ("Jungle",)),
        ("append", "written", ("Polka", "Jungle")),
    ],
)
def test_a_genre_that_stands_there_goes_by_the_same_option_as_in_a_scan(
    library: Path,
    capsys: pytest.CaptureFixture[str],
    existing: str,
    action: str,
    after: tuple[str, ...],
) -> None:
    edited = library.with_suffix(".csv")
    set_genre(library / "a.flac", "Polka")
    change = ("--existing", "replace")
    dry_run(capsys, library, edited, lambda rows: rows["a.flac"].update(genre="Jungle"), *change)
    done = Applied(capsys, edited, "--existing", existing)
    assert done.rows["a.flac"][0] == action
    assert genres(library / "a.flac") == after
    assert not read_tags(library / "a.flac").written


def test_a_genre_for_what_no_model_could_name(
    library: Path, edited: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_audio(library / "short.mp3", seconds=0.5)

    def edit(rows: dict[str, dict[str, str]]) -> None:
        assert rows["a.flac"]["action"] == "low-score"
        rows["a.flac"]["genre"] = "Noise"
        rows["short.mp3"]["genre"] = "'=SUM(A1)"

    dry_run(capsys, library, edited, edit, "--min-score", "1")
    done = Applied(capsys, edited)
    assert (done.code, sorted(done.rows)) == (0, ["a.flac", "short.mp3"])
    assert genres(library / "a.flac") == ("Noise",)
    assert genres(library / "short.mp3") == ("=SUM(A1)",)


def test_nothing_is_written_of_a_report_that_is_broken_further_down(
    library: Path, edited: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dry_run(capsys, library, edited, lambda rows: rows["c.ogg"].update(duration_s="long"))
    done = Applied(capsys, edited)
    assert (done.code, "edited.csv, line 4" in done.err) == (3, True)
    assert not any(map(genres, library.iterdir()))
    assert Applied(capsys, edited.with_name("none.csv")).code == 3


def test_a_name_that_is_no_utf_8_and_one_with_several_links(
    library: Path, edited: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strange = library / "caf\udce9.mp3"
    (library / "b.mp3").rename(strange)
    os.link(library / "a.flac", library / "other.txt")
    dry_run(capsys, library, edited, lambda _: None, "--hardlinks", "break")
    done = Applied(capsys, edited)
    assert genres(strange)
    assert done.rows["a.flac"][0] == "kept"
    assert "hard links" in done.rows["a.flac"][1]


def test_a_dry_run_says_how_much_it_would_write_anew(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_genre(library / "a.flac", "Polka")
    size = sum(path.stat().st_size for path in library.iterdir() if path.suffix != ".flac")
    for _ in range(3):  # heard, known, repeated
        assert Scan(capsys, library, *ANY, "-n").summary["would_rewrite_bytes"] == size
    assert "would_rewrite_bytes" not in Scan(capsys, library, *ANY).summary


@pytest.mark.parametrize(
    ("name", "expected"),
    others_slow(
        [
            ("Folk; World", ("Folk", "World")),
            (";Folk;; World ;Folk", ("Folk", "World")),
            ("Folk\\nWorld\\u0000Pop", ("Folk World Pop",)),
            ("'=Folk", ("'=Folk",)),
            ("-5=x;'@x, y", ("-5=x", "'@x, y")),
        ]
    ),
)
def test_a_name_of_the_genre_map_is_the_same_in_a_scan_and_in_an_applied_dry_run(
    library: Path,
    edited: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    name: str,
    expected: tuple[str, ...],
) -> None:
    names = tmp_path / "names.toml"
    labels = read_config(CHECKPOINT)["id2label"].values()
    names.write_text("".join(f'"{label}" = "{name}"\n' for label in labels), "utf-8")
    option = ("--genre-map", str(names))
    copy = tmp_path / "scanned"
    shutil.copytree(library, copy)
    Scan(capsys, copy, *ANY, *option)
    dry_run(capsys, library, edited, lambda _: None, *option)
    Applied(capsys, edited)
    for path in library.iterdir():
        assert read_tags(path) == read_tags(copy / path.name)
        assert read_tags(path).genres == read_tags(path).written == expected
