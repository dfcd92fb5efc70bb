"""`tagger normalize`: the genres that stand in real files get the names of a vocabulary."""

import csv
import json
import os
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
from mutagen import id3
from mutagen.mp3 import MP3

from tagger.cli import main
from tagger.records import Tags
from tagger.tags import read_tags
from tests.builders import EACH_ENDING, add_genre, audio_bytes, build_audio
from tests.front_door import (
    ANY,
    Command,
    Scan,
    read_report,
    run_without_torch,
    set_album,
    set_genre,
)

Capsys = pytest.CaptureFixture[str]


class Normalized(Command):
    """One `tagger normalize`, with its report."""

    def __init__(self, capsys: Capsys, *args: str | Path) -> None:
        super().__init__(capsys, "normalize", *args)
        self.rows = {
            Path(row["path"]).name: row
            for row in (read_report(self.summary["report"]) if self.out else [])
        }


def make_song(path: Path, *genres: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(audio_bytes(path.suffix, rich=True))
    return add_genre(path, *genres) if genres else path


def make_old_mp3(path: Path, genre: str, *, v1_genre: int | None = None) -> Path:
    """Write an MP3 with ID3v2.3 and, if a number is given, ID3v1."""
    make_song(path)
    audio = MP3(path)
    frames: Any = id3
    tags: Any = audio.tags
    tags.setall("TCON", [frames.TCON(encoding=1, text=[genre])])
    audio.save(v2_version=3, v1=0)
    if v1_genre is not None:
        with path.open("ab") as file:
            file.write(b"TAG" + b"Title".ljust(124, b"\0") + bytes([v1_genre]))
    return path


def genres(path: Path) -> tuple[str, ...]:
    return read_tags(path).genres


MESSY = {
    "a.mp3": ("Rock;Pop/Rock", ("Rock", "Pop")),
    "b.flac": ("hip hop", ("Hip-Hop",)),
    "c.ogg": ("(17)", ("Rock",)),
    "d.m4a": ("Electronica/Dance", ("Electronic",)),
    "e.wav": ("Rhythm and Blues", ("R&B",)),
    "f.wv": ("17", ("Rock",)),
    "g.opus": ("Drum, Bass|house", ("Drum and Bass", "House")),
    "h.wma": ("Klassik", ("Classical",)),
    "i.ape": ("Rock\\Other", ("Rock",)),
    "j.aiff": ("Swamp Thing", ("Swamp Thing",)),
    "k.flac": ("Jazz", ("Jazz",)),
}


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    folder = tmp_path / "messy"
    for name, (genre, _) in MESSY.items():
        make_song(folder / name, genre)
    make_old_mp3(folder / "l.mp3", "(17)Rock", v1_genre=17)
    make_song(folder / "m.ogg", "Rock", "rock", "Misc")
    make_song(folder / "n.flac")
    return folder


def test_a_messy_library_there_and_back(messy: Path, capsys: Capsys) -> None:
    before = {path.name: (read_tags(path).raw, path.read_bytes()) for path in messy.iterdir()}
    planned = Normalized(capsys, messy, "-n")
    assert planned.summary["would_write"] == 11
    assert {path.name: path.read_bytes() for path in messy.iterdir()} == {
        name: content for name, (_, content) in before.items()
    }
    done = Normalized(capsys, messy)
    assert (done.code, done.summary["written"], done.summary["kept"]) == (0, 11, 3)
    expected = {name: after for name, (_, after) in MESSY.items()} | {
        "l.mp3": ("Rock",), "m.ogg": ("Rock",), "n.flac": ()
    }  # fmt: skip
    assert {path.name: genres(path) for path in messy.iterdir()} == expected
    assert [raw.values for raw in read_tags(messy / "l.mp3").raw] == [("Rock",)]
    assert all(not read_tags(path).written for path in messy.iterdir())
    assert done.summary["unknown_genres"] == {"Swamp Thing": 1}
    assert {"from": "hip hop", "to": "Hip-Hop", "tracks": 1} in done.summary["renamed"]
    assert (done.summary["genres_before"], done.summary["genres_after"]) == (14, 10)
    assert done.rows["b.flac"]["existing_genre"] == "hip hop"
    assert done.rows["b.flac"]["genre"] == "Hip-Hop"
    assert (done.rows["k.flac"]["kind"], done.rows["n.flac"]["kind"]) == ("has-genre", "no-genre")

    written = {path.name: path.read_bytes() for path in messy.iterdir()}
    again = Normalized(capsys, messy)
    assert (again.summary["kept"], again.summary["renamed"]) == (14, [])
    assert {path.name: path.read_bytes() for path in messy.iterdir()} == written

    (run,) = [run for run in list_runs(capsys) if run["replaced"]]
    assert (run["kind"], run["run_id"]) == ("normalize", done.summary["run_id"])
    assert Command(capsys, "undo").summary["restored"] == 11
    assert {path.name: read_tags(path).raw for path in messy.iterdir()} == {
        name: raw for name, (raw, _) in before.items()
    }
    assert Normalized(capsys, messy).summary["written"] == 11


def list_runs(capsys: Capsys) -> Any:
    return Command(capsys, "runs").summary


@pytest.mark.parametrize("ending", EACH_ENDING)
def test_every_kind_of_file(tmp_path: Path, capsys: Capsys, ending: str) -> None:
    path = make_song(tmp_path / "library" / f"song{ending}", "hip hop;Other")
    raw = read_tags(path).raw
    done = Normalized(capsys, path)
    assert (done.code, done.summary["written"], genres(path)) == (0, 1, ("Hip-Hop",))
    assert Normalized(capsys, path).summary["written"] == 0
    assert Command(capsys, "undo", path).summary["restored"] == 1
    assert read_tags(path).raw == raw


def test_a_name_that_is_only_stored_as_a_number(tmp_path: Path, capsys: Capsys) -> None:
    path = make_old_mp3(tmp_path / "a" / "a.mp3", "(9)")
    raw = read_tags(path).raw
    done = Normalized(capsys, path)
    assert done.rows["a.mp3"]["error"] == "its genre is stored as a number"
    assert read_tags(path).raw[0].values == ("Metal",)
    assert Normalized(capsys, path).summary["kept"] == 1
    assert Command(capsys, "undo").summary["restored"] == 1
    assert read_tags(path).raw == raw
    assert Command(capsys, "undo", "--run", last_run(capsys)).summary["restored"] == 1
    assert read_tags(path).raw[0].values == ("Metal",)


def last_run(capsys: Capsys) -> str:
    return str(list_runs(capsys)[-1]["run_id"])


def test_junk_goes_but_not_where_another_tag_would_show_it(tmp_path: Path, capsys: Capsys) -> None:
    alone = make_old_mp3(tmp_path / "a" / "alone.mp3", "Other")
    beside = make_old_mp3(tmp_path / "a" / "beside.mp3", "Other", v1_genre=0)
    done = Normalized(capsys, tmp_path / "a")
    assert (done.code, genres(alone), genres(beside)) == (0, (), ("Other",))
    assert done.rows["alone.mp3"]["error"] == '"Other" is no genre; tagger scan listens to it'
    assert 'players show "Blues" of another tag' in done.rows["beside.mp3"]["error"]
    assert Command(capsys, "undo").summary["restored"] == 1
    assert genres(alone) == ("Other",)


def test_who_wrote_a_genre_stays_as_it_was(library: Path, tmp_path: Path, capsys: Capsys) -> None:
    names = tmp_path / "mine.toml"
    set_genre(library / "c.ogg", "rhythm and blues")
    Scan(capsys, library, *ANY, "--existing", "append")
    ours = genres(library / "a.flac")[0]
    set_genre(library / "b.mp3", "hip hop", keep=read_tags(library / "b.mp3"))
    names.write_text(f'extends = "default"\n[genres."My {ours}"]\naliases = ["{ours}"]\n', "utf-8")
    assert Normalized(capsys, library, "--vocabulary", names).code == 0
    renamed = read_tags(library / "a.flac")
    assert renamed.genres == renamed.written == (f"My {ours}",)
    assert genres(library / "b.mp3") == ("Hip-Hop",)
    both = read_tags(library / "c.ogg")
    assert both.genres == ("R&B", *both.written)
    assert both.written
    actions = Scan(capsys, library, *ANY)
    assert actions.row("a.flac")["action"] == "written"  # the label's own name again
    assert [actions.row(name)["action"] for name in ("b.mp3", "c.ogg")] == ["kept", "kept"]
    by_vocabulary = Scan(capsys, library, *ANY, "--vocabulary", names)
    assert by_vocabulary.row("a.flac")["genre"] == f"My {ours}"


def test_an_edit_into_the_name_that_tagger_wrote_stays_the_persons(
    tmp_path: Path, capsys: Capsys
) -> None:
    path = make_song(tmp_path / "a" / "a.flac")
    set_genre(path, "hip hop", keep=Tags(("Hip-Hop",), ("Hip-Hop",), "Hip-Hop=0.900", "m"))
    Normalized(capsys, path)
    assert (genres(path), read_tags(path).written) == (("Hip-Hop",), ())


def test_rules_decide_and_what_they_write_is_the_persons(
    library: Path, tmp_path: Path, capsys: Capsys
) -> None:
    rules = tmp_path / "mine.toml"
    rules.write_text(
        '[[rules]]\nartist = "Radiohead"\nkeep = true\n'
        '[[rules]]\nfolder = "Films/**"\ngenre = ["Soundtrack", "Score"]\n'
    )
    films = library / "Films" / "Alien"
    films.mkdir(parents=True)
    (library / "a.flac").rename(films / "a.flac")
    (library / "b.mp3").rename(films / "b.mp3")
    set_genre(films / "b.mp3", "classic")
    set_album(library / "c.ogg", "OK", "Radiohead")
    set_genre(library / "c.ogg", "hip hop")

    scan = Scan(capsys, library, "--vocabulary", rules)
    assert scan.code == 0
    row = scan.row("a.flac")
    assert (row["action"], row["genre"], row["scores"]) == ("written", "Soundtrack;Score", "")
    assert row["error"] == "by a rule of the vocabulary: folder Films/**"
    assert read_tags(films / "a.flac").written == ("Soundtrack", "Score")
    assert scan.row("b.mp3")["kind"] == "has-genre"
    assert scan.row("c.ogg")["kind"] == "by-rule"
    assert Scan(capsys, library, "--vocabulary", rules).row("a.flac")["action"] == "unchanged"
    replaced = Scan(capsys, library, "--vocabulary", rules, "--existing", "replace", "-n")
    assert replaced.row("c.ogg")["kind"] == "by-rule"
    assert replaced.row("b.mp3")["genre"] == "Soundtrack;Score"

    done = Normalized(capsys, library, "--vocabulary", rules)
    assert (done.summary["written"], done.rows["c.ogg"]["kind"]) == (1, "by-rule")
    assert read_tags(films / "b.mp3") == Tags(("Soundtrack", "Score"))
    assert genres(library / "c.ogg") == ("hip hop",)
    assert Normalized(capsys, library, "--vocabulary", rules).summary["written"] == 0
    assert Command(capsys, "undo").summary["restored"] == 1
    assert genres(films / "b.mp3") == ("classic",)


def test_a_rule_reaches_a_track_that_nobody_could_listen_to(
    library: Path, tmp_path: Path, capsys: Capsys
) -> None:
    short, rules = build_audio(library / "short.flac", seconds=0.3), tmp_path / "mine.toml"
    set_album(short, "Chimes", "Radiohead")
    assert Scan(capsys, library, *ANY).row(short.name)["kind"] == "too-short"
    rules.write_text('[[rules]]\nartist = "Radiohead"\ngenre = "Field Recording"\n')
    scan = Scan(capsys, library, *ANY, "--vocabulary", rules)
    assert (scan.code, scan.row(short.name)["action"]) == (0, "written")
    assert read_tags(short).written == ("Field Recording",)
    again = Scan(capsys, library, *ANY, "--vocabulary", rules, "--audit")
    assert again.row(short.name)["action"] == "unchanged"
    assert Command(capsys, "undo").summary["restored"] == 1
    rules.write_text('[[rules]]\nartist = "Radiohead"\nkeep = true\n')
    kept = Scan(capsys, library, *ANY, "--vocabulary", rules, "--audit")
    assert kept.row(short.name)["kind"] == "by-rule"
    assert Scan(capsys, library, *ANY).row(short.name)["kind"] == "too-short"


def test_a_rule_does_not_try_again_what_no_tag_can_hold(
    library: Path, tmp_path: Path, capsys: Capsys
) -> None:
    broken, rules = library / "broken.m4a", tmp_path / "mine.toml"
    broken.write_bytes((library / "a.flac").read_bytes())
    rules.write_text(f'[[rules]]\nfolder = "{library}"\ngenre = "Jazz"\n')
    codes = []
    for _ in range(2):
        scan = Scan(capsys, library, "--vocabulary", rules)
        assert scan.row(broken.name)["action"] == "failed"
        codes.append(scan.code)
    assert codes == [1, 0]


def test_fill_writes_known_scores_and_listens_to_nothing(library: Path, capsys: Capsys) -> None:
    set_genre(library / "a.flac", "Other")
    Scan(capsys, library, *ANY, "-n", "--junk-genres", "", "--audit")
    set_genre(library / "b.mp3", "Misc")  # a new file for tagger, as its tags changed
    filled = Normalized(capsys, library, "--fill", *ANY)
    row = filled.rows["a.flac"]
    assert (row["action"], row["error"]) == ("written", '"Other" is no genre')
    assert filled.summary["filled"] == 2
    assert filled.summary["renamed"] == [{"from": "Misc", "to": "", "tracks": 1}]
    assert read_tags(library / "a.flac").written == genres(library / "a.flac") == (row["genre"],)
    assert row["score"]
    assert "nothing is known of its sound" in filled.rows["b.mp3"]["error"]
    assert genres(library / "b.mp3") == ()
    assert filled.rows["c.ogg"]["action"] == "written"
    assert Command(capsys, "undo").summary["restored"] == 3
    assert genres(library / "a.flac") == ("Other",)
    assert Normalized(capsys, library, "--fill", *ANY).rows["c.ogg"]["kind"] == "no-genre"
    scan = Scan(capsys, library, *ANY)
    assert [scan.row(name)["kind"] for name in ("a.flac", "c.ogg")] == ["undone", "undone"]
    assert scan.row("b.mp3")["action"] == "written"  # its junk was undone, not a genre of tagger


def edit_report(report: str, target: Path, changes: dict[str, str]) -> Path:
    """Copy a report with other genres for some files."""
    rows = read_report(report)
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        for row in rows:
            name = Path(row["path"]).name
            writer.writerow(row | ({"genre": changes[name]} if name in changes else {}))
    return target


def test_a_report_of_new_names_is_applied_as_it_is(messy: Path, capsys: Capsys) -> None:
    before = {path.name: read_tags(path).raw for path in messy.iterdir()}
    planned = Normalized(capsys, messy, "-n")
    applied = Command(capsys, "apply", planned.summary["report"])
    assert (applied.code, applied.summary["written"]) == (0, 11)
    again = Normalized(capsys, messy)
    assert (again.summary["kept"], again.summary["renamed"]) == (14, [])
    assert Command(capsys, "undo").summary["restored"] == 11
    assert {path.name: read_tags(path).raw for path in messy.iterdir()} == before


def test_an_edited_report_of_new_names_gives_the_persons_names(
    library: Path, tmp_path: Path, capsys: Capsys
) -> None:
    ours, edited, others = library / "a.flac", library / "c.ogg", library / "b.mp3"
    Scan(capsys, library, *ANY)
    for path in (ours, edited):
        set_genre(path, "hip hop", keep=Tags(written=("hip hop",), scores="x", model="m"))
    set_genre(others, "Klassik;Rock")
    planned = Normalized(capsys, library, "-n")
    assert {row["kind"] for row in planned.rows.values()} == {"renamed"}
    report = edit_report(
        planned.summary["report"], tmp_path / "edited.csv", {"c.ogg": "Rap", "b.mp3": ""}
    )
    applied = Command(capsys, "apply", report)
    rows = {Path(row["path"]).name: row for row in read_report(applied.summary["report"])}
    assert (rows["b.mp3"]["action"], genres(others)) == ("kept", ("Klassik;Rock",))
    assert rows["b.mp3"]["error"] == "its new names were taken out of the report"
    assert (read_tags(ours).genres, read_tags(ours).written) == (("Hip-Hop",), ("Hip-Hop",))
    assert read_tags(edited) == Tags(("Rap",))
    scan = Scan(capsys, library, *ANY)
    assert [scan.row(name)["kind"] for name in ("b.mp3", "c.ogg")] == ["has-genre"] * 2
    assert scan.row("a.flac")["action"] == "written"


def test_names_of_a_file_that_changed_since_are_not_applied(messy: Path, capsys: Capsys) -> None:
    planned = Normalized(capsys, messy, "-n")
    set_genre(messy / "b.flac", "Polka")
    applied = Command(capsys, "apply", planned.summary["report"])
    assert (applied.code, applied.summary["failed"], applied.summary["written"]) == (1, 1, 10)
    assert genres(messy / "b.flac") == ("Polka",)


def test_the_overview_counts_new_names_as_no_genres_of_tagger(messy: Path, capsys: Capsys) -> None:
    Normalized(capsys, messy)
    overview = Command(capsys, "report").summary
    assert not any(row["ours"] for row in overview["genres"])
    assert {row["genre"]: row["kept"] for row in overview["genres"]}["Rock"] == 6


def test_what_was_undone_stays_unwanted_whatever_becomes_of_its_names(
    library: Path, capsys: Capsys
) -> None:
    path = library / "a.flac"
    set_genre(path, "Other")
    Scan(capsys, path, *ANY)
    assert Command(capsys, "undo").summary["restored"] == 1
    assert Scan(capsys, path, *ANY).row(path.name)["kind"] == "undone"
    done = Normalized(capsys, path)  # takes "Other" out
    for _ in range(2):
        undo = Command(capsys, "undo", path).summary
        assert (undo["restored"], genres(path)) == (1, ("Other",))
        assert Scan(capsys, path, *ANY).row(path.name)["kind"] == "undone"
        redo = Command(capsys, "undo", "--run", undo["run_id"]).summary
        assert (redo["restored"], genres(path)) == (1, ())
        assert Scan(capsys, path, *ANY).row(path.name)["kind"] == "undone"
    assert done.summary["written"] == 1


def test_a_redo_of_a_scan_makes_its_genre_wanted_again(library: Path, capsys: Capsys) -> None:
    path = library / "a.flac"
    written = Scan(capsys, path, *ANY).row(path.name)["genre"]
    undo = Command(capsys, "undo").summary
    assert Command(capsys, "undo", "--run", undo["run_id"]).summary["restored"] == 1
    assert Scan(capsys, path, *ANY).row(path.name)["action"] == "unchanged"
    assert genres(path) == (written,)


def test_a_vocabulary_to_start_from(messy: Path, tmp_path: Path, capsys: Capsys) -> None:
    before = {path: path.read_bytes() for path in messy.iterdir()}
    mine = tmp_path / "mine.toml"
    made = Normalized(capsys, messy, "--init-vocabulary", mine)
    assert (made.code, made.summary["dry_run"]) == (0, True)
    assert {path: path.read_bytes() for path in messy.iterdir()} == before
    content = tomllib.loads(mine.read_text("utf-8"))
    assert content["genres"] == {"Swamp Thing": {}}
    assert '"hip hop" -> "Hip-Hop"' in mine.read_text("utf-8")
    refused = Normalized(capsys, messy, "--init-vocabulary", mine)
    assert (refused.code, "exists already" in refused.err) == (2, True)
    done = Normalized(capsys, messy, "--vocabulary", mine)
    assert (done.summary["written"], done.summary["unknown_genres"]) == (11, {})


def test_hard_links_and_files_in_use(messy: Path, tmp_path: Path, capsys: Capsys) -> None:
    os.link(messy / "b.flac", tmp_path / "other.flac")
    with (messy / "d.m4a").open("r+b"):
        done = Normalized(capsys, messy, "--exclude", "a.mp3")
    assert (done.code, done.rows["d.m4a"]["kind"]) == (1, "in-use")
    assert done.rows["b.flac"]["kind"] == "hard-links"
    assert genres(messy / "b.flac") == ("hip hop",)
    assert "a.mp3" not in done.rows
    assert not {"hip hop", "Electronica/Dance"} & {each["from"] for each in done.summary["renamed"]}
    broken = Normalized(capsys, messy, "--hardlinks", "in-place", "--preserve-mtime")
    assert (broken.code, broken.summary["written"]) == (0, 3)
    assert genres(tmp_path / "other.flac") == ("Hip-Hop",)


def test_two_names_of_a_file_with_a_number(tmp_path: Path, capsys: Capsys) -> None:
    path = make_old_mp3(tmp_path / "a" / "a.mp3", "(9)")
    os.link(path, path.with_name("b.mp3"))
    raw = read_tags(path).raw
    done = Normalized(capsys, path.parent, "--hardlinks", "in-place")
    others = done.summary["unchanged"] + done.summary["kept"]  # kept: the first write was over
    assert (done.summary["written"], others) == (1, 1)
    assert Command(capsys, "undo", "--hardlinks", "in-place").code == 0
    assert read_tags(path).raw == raw


def test_it_needs_no_torch_and_the_profile_counts(messy: Path, capsys: Capsys) -> None:
    done = run_without_torch("normalize", messy, "--profile", "itunes", "--json")
    assert done.returncode == 0, done.stderr
    assert genres(messy / "a.mp3") == ("Rock, Pop",)
    again = Normalized(capsys, messy, "--profile", "itunes").summary
    assert (again["written"], again["renamed"]) == (0, [])


def test_a_broken_vocabulary_names_file_and_key(
    messy: Path, tmp_path: Path, capsys: Capsys
) -> None:
    (tmp_path / "mine.toml").write_text("[genres.Rock]\nalias = ['Rawk']\n")
    refused = Normalized(capsys, messy, "--vocabulary", tmp_path / "mine.toml")
    assert refused.code == 2
    assert 'mine.toml: genres."Rock" has an unknown key: alias' in refused.err


@pytest.mark.parametrize("existing", ["keep", "append", "replace"])
def test_a_scan_writes_over_junk_and_undo_brings_it_back(
    library: Path, capsys: Capsys, existing: str
) -> None:
    set_genre(library / "a.flac", "Other")
    set_genre(library / "b.mp3", "Misc", "Polka")
    raw = read_tags(library / "a.flac").raw
    scan = Scan(capsys, library, *ANY, "--existing", existing)
    row = scan.row("a.flac")
    assert (row["action"], row["existing_genre"]) == ("written", "Other")
    assert row["error"] == '"Other" is no genre'
    assert genres(library / "a.flac") == (row["genre"],)
    assert scan.row("b.mp3")["error"] == ""
    kept = existing == "keep"
    assert scan.row("b.mp3")["action"] == ("kept" if kept else "written")
    assert (genres(library / "b.mp3")[:2] == ("Misc", "Polka")) == (existing != "replace")
    again = Scan(capsys, library, *ANY, "--existing", existing)
    assert again.row("a.flac")["action"] == "unchanged"
    Command(capsys, "undo")
    assert read_tags(library / "a.flac").raw == raw


def test_junk_and_rows_that_are_repeated(library: Path, capsys: Capsys) -> None:
    set_genre(library / "a.flac", "Misc")
    for _ in range(2):
        assert Scan(capsys, library, *ANY, "-n").row("a.flac")["action"] == "would-write"
    for _ in range(2):
        kept = Scan(capsys, library, *ANY, "-n", "--junk-genres", "Other")
        assert kept.row("a.flac")["action"] == "kept"
    scan = Scan(capsys, library, *ANY, "-n")
    assert scan.row("a.flac")["error"] == '"Misc" is no genre'
    assert Command(capsys, "apply", scan.summary["report"]).summary["written"] == 3
    assert genres(library / "a.flac") == (scan.row("a.flac")["genre"],)


def test_the_command_after_a_dry_run_has_vocabulary_and_junk(
    library: Path, tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text('drop = ["Swamp"]')
    set_genre(library / "a.flac", "Swamp")
    set_genre(library / "b.mp3", "Mud")
    flags = (*ANY, "--vocabulary", "mine.toml", "--junk-genres", "Mud,No Name")
    assert main(["scan", "library", "-n", *flags]) == 0
    out = capsys.readouterr().out
    assert "would-write       3" in out
    words = shlex.split(out.splitlines()[-1].partition(": ")[2])
    assert words[-4:] == [
        "--junk-genres", "Mud,No Name", "--vocabulary", str(tmp_path / "mine.toml")
    ]  # fmt: skip
    assert main([*words[1:], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] == 3


def test_the_command_after_a_dry_run_names_the_config_file_of_the_run(
    messy: Path, home: Path, tmp_path: Path, capsys: Capsys
) -> None:
    own, other = home / "tagger" / "config.toml", tmp_path / "other.toml"
    own.parent.mkdir(parents=True)
    (tmp_path / "mine.toml").write_text('drop = ["Rock"]')
    own.write_text(f'vocabulary = "{tmp_path}/mine.toml"')
    other.write_text("")
    assert main(["normalize", str(messy), "-n", "--config", str(other)]) == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[-1].partition(": ")[2])
    assert words[words.index("--config") + 1] == str(other)
    assert main([*words[1:], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] == 11


def test_what_the_terminal_shows(messy: Path, tmp_path: Path, capsys: Capsys) -> None:
    assert main(["normalize", str(messy)]) == 0
    out = capsys.readouterr().out
    for line in (
        "  written          11",
        "  kept              3   nothing to rename; the report says why",
        "Different genres: 14 before, 10 after",
        "        1   hip hop -> Hip-Hop",
        "  … 11 names in all; --json and the report have them",
        "Not in the vocabulary, left as they are: Swamp Thing (1)",
        "Without a genre: 1 track (tagger scan listens to them)",
    ):
        assert line in out.splitlines()
    mine = tmp_path / "mine.toml"
    assert main(["normalize", str(messy), "--init-vocabulary", str(mine)]) == 0
    assert f"Vocabulary to start from: {mine}" in capsys.readouterr().out


def test_junk_is_no_disagreement(library: Path, capsys: Capsys) -> None:
    set_genre(library / "a.flac", "Other")
    set_genre(library / "b.mp3", "Polka")
    Scan(capsys, library, *ANY, "--existing", "replace")
    report = Command(capsys, "report").summary
    assert [pair["existing"] for pair in report["pairs"]] == ["Polka"]
    set_genre(library / "b.mp3", "pop/rock")
    Normalized(capsys, library)
    assert Command(capsys, "report").summary["compared"] == 0


def test_junk_that_a_person_put_in_the_place_of_taggers_genre_stays(
    library: Path, capsys: Capsys
) -> None:
    Scan(capsys, library, *ANY)
    set_genre(library / "a.flac", "Other", keep=read_tags(library / "a.flac"))
    row = Scan(capsys, library, *ANY).row("a.flac")
    assert (row["action"], row["kind"]) == ("kept", "removed-by-hand")


def test_a_vocabulary_names_the_answers_of_a_model(
    library: Path, tmp_path: Path, capsys: Capsys
) -> None:
    first = Scan(capsys, library, *ANY, "-n")
    label = first.row("a.flac")["genre"]
    mine, names = tmp_path / "mine.toml", tmp_path / "names.toml"
    mine.write_text(
        f'parents = "add"\n[genres.Top]\n[genres.Mine]\naliases = ["{label}"]\nparent = "Top"\n'
    )
    row = Scan(capsys, library, *ANY, "-n", "--vocabulary", mine).row("a.flac")
    assert row["genre"] == "Mine;Top"
    names.write_text(f'"{label}" = "Between"')
    mine.write_text('[genres.Mine]\naliases = ["between"]')
    flags = ("--vocabulary", mine, "--genre-map", names)
    assert Scan(capsys, library, *ANY, "-n", *flags).row("a.flac")["genre"] == "Mine"
    mine.write_text(f'drop = ["{label}"]')
    dropped = Scan(capsys, library, *ANY, "-n", "--vocabulary", mine).row("a.flac")
    assert dropped["genre"] != label
    assert label not in dropped["scores"]


def test_by_album_a_rule_decides_its_track_alone(
    library: Path, tmp_path: Path, capsys: Capsys
) -> None:
    for path in library.iterdir():
        set_album(path, "Title", "Artist" if path.suffix != ".ogg" else "Other artist")
    mine = tmp_path / "mine.toml"
    mine.write_text('[[rules]]\nartist = "other artist"\ngenre = "Polka"')
    scan = Scan(capsys, library, *ANY, "--by-album", "--vocabulary", mine)
    assert scan.row("c.ogg")["genre"] == "Polka"
    assert scan.actions == {"written": 3}


def test_the_time_of_until_ends_it(
    messy: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tagger.pacing import Pacer

    monkeypatch.setattr(Pacer, "is_time_up", lambda _: True)
    done = Normalized(capsys, messy)
    assert (done.summary["waiting"], done.summary["kept"]) == (14, 14)
