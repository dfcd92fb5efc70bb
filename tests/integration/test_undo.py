"""`tagger undo` puts back what stood there, and nothing that somebody wrote since."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tagger.audio import hash_streams, read_metadata
from tagger.cli import main
from tagger.records import Tags
from tagger.state import open_state
from tagger.state.schema import SCHEMA
from tagger.tags import read_other_fields, read_tags
from tests.builders import add_genre, audio_bytes, build_audio, open_tags
from tests.front_door import ANY, Command, Scan, set_genre
from tests.integration.test_killed import save_predictions
from tests.replacing import retag


class Undo(Command):
    """One `tagger undo`."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *args: str | Path) -> None:
        super().__init__(capsys, "undo", "-v", *args)

    @property
    def counts(self) -> dict[str, int]:
        names = ("restored", "would_restore", "refused", "failed")
        return {name: self.summary[name] for name in names if self.summary[name]}


Before = dict[Path, tuple[Tags, object, object, object]]


def contents(library: Path) -> Before:
    """Return all that is in the files, tags as they are stored included."""
    return {
        path: (tags := read_tags(path), tags.raw, read_other_fields(path), hash_streams(path))
        for path in library.iterdir()
    }


REPLACE = ("--existing", "replace")


@pytest.fixture
def tagged(library: Path) -> Path:
    """Give one of the three tracks a genre of its owner's, in two values."""
    add_genre(library / "b.mp3", "Polka", "Walzer")
    return library


def test_the_newest_run_is_put_back_and_not_tagged_again(
    tagged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(tagged)
    Scan(capsys, tagged, *REPLACE, *ANY)
    dry = Undo(capsys, "--dry-run")
    assert (dry.code, dry.counts) == (0, {"would_restore": 3})
    assert contents(tagged) != before
    undo = Undo(capsys)
    assert (undo.code, undo.counts) == (0, {"restored": 3})
    assert contents(tagged) == before

    nightly = Scan(capsys, tagged, *REPLACE, *ANY)
    assert nightly.actions == {"kept": 3}
    assert "was undone" in nightly.row("a.flac")["error"]
    assert nightly.row("a.flac")["kind"] == "undone"
    add_title(tagged / "a.flac")
    assert Scan(capsys, tagged, *REPLACE, *ANY).actions == {"kept": 3}
    assert Undo(capsys).counts == {}
    assert Scan(capsys, tagged / "a.flac", "--force", *ANY).actions == {"written": 1}


def add_title(path: Path) -> None:
    """Change something about a file that is none of tagger's business."""
    audio = open_tags(path)
    audio["title"] = ["New"]
    audio.save()


V1 = b"TAG" + b"".join(text.ljust(30, b"\0") for text in (b"Title", b"Artist", b"Album"))
V1 += b"1999".ljust(34, b"\0") + b"\xff"


def frame(name: bytes, content: bytes) -> bytes:
    return name + len(content).to_bytes(4, "big") + bytes(2) + content


@pytest.mark.parametrize(
    "frames",
    [
        frame(b"TIlb", b"\0no such name"),
        frame(b"POPM", b"owner\0\x40") + frame(b"\x14ALB", b"\0A") + frame(b"TPE1", b"\0Artist"),
    ],
    ids=["a frame of no such name", "a frame behind one of no such name"],
)
def test_texts_of_id3v1_that_a_write_brings_to_light_do_not_hinder_the_undo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], frames: bytes
) -> None:
    folder = tmp_path / "library"
    folder.mkdir()
    path = build_audio(folder / "song.mp3", seconds=4)
    sound = path.read_bytes()
    sound = sound[sound.index(b"\xff\xfb") :]
    path.write_bytes(b"ID3\3\0\0" + bytes([0, 0, 0, len(frames)]) + frames + sound + V1)
    before, seen = contents(folder), read_metadata(path)
    assert "what FFmpeg shows as album" not in seen
    Scan(capsys, path, *ANY)
    written, shown = contents(folder), read_metadata(path)
    assert shown["what FFmpeg shows as album"] == "Album"
    undo = Undo(capsys)
    assert (undo.code, undo.counts) == (0, {"restored": 1})
    assert (contents(folder), read_metadata(path)) == (before, seen)
    assert Undo(capsys, "--run", undo.summary["run_id"]).counts == {"restored": 1}
    assert (contents(folder), read_metadata(path)) == (written, shown)


def test_a_path_goes_back_to_what_stood_there_before_all_runs(
    tagged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(tagged)
    Scan(capsys, tagged, *REPLACE, *ANY)
    Scan(capsys, tagged, *REPLACE, "--top-k", "2", *ANY)
    undo = Undo(capsys, tagged / "b.mp3", tagged / "a.flac")
    assert undo.counts == {"restored": 2}
    after = contents(tagged)
    changed = tagged / "c.ogg"
    assert after.pop(changed) != before.pop(changed)
    assert after == before


def test_one_run_goes_back_by_itself_but_not_below_a_later_one(
    tagged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = Scan(capsys, tagged, *REPLACE, *ANY)
    between = contents(tagged)
    second = Scan(capsys, tagged / "b.mp3", *REPLACE, "--top-k", "2", *ANY)
    refused = Undo(capsys, "--run", first.summary["run_id"], tagged / "b.mp3")
    assert (refused.code, refused.counts) == (1, {"refused": 1})
    assert f"run {second.summary['run_id']} wrote it later" in refused.err
    assert Undo(capsys, "--run", second.summary["run_id"]).counts == {"restored": 1}
    assert contents(tagged) == between
    assert Undo(capsys, "--run", first.summary["run_id"]).counts == {"restored": 3}


@pytest.mark.slow
def test_an_undo_can_be_undone_and_that_too(
    tagged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(tagged)
    Scan(capsys, tagged, *REPLACE, *ANY)
    written = contents(tagged)
    undo = Undo(capsys)
    assert Undo(capsys, "--run", undo.summary["run_id"]).counts == {"restored": 3}
    assert contents(tagged) == written
    assert Scan(capsys, tagged, *REPLACE, *ANY).actions == {"unchanged": 3}
    third = Undo(capsys)
    assert third.counts == {"restored": 3}
    assert contents(tagged) == before
    assert Scan(capsys, tagged, *REPLACE, *ANY).actions == {"kept": 3}
    assert Undo(capsys).counts == {}
    assert Undo(capsys, "--run", third.summary["run_id"]).counts == {"restored": 3}
    assert Undo(capsys, tagged).counts == {"restored": 3}
    assert contents(tagged) == before


def test_a_file_changed_since_is_refused_and_an_edited_genre_always(
    tagged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Scan(capsys, tagged, *REPLACE, *ANY)
    add_title(tagged / "a.flac")
    set_genre(tagged / "b.mp3", "Swing", keep=read_tags(tagged / "b.mp3"))
    (tagged / "c.ogg").unlink()
    edited = contents(tagged)
    undo = Undo(capsys)
    assert (undo.code, undo.counts) == (1, {"refused": 2, "failed": 1})
    assert "a.flac: changed since tagger wrote it" in undo.err
    assert "b.mp3: its tags were edited" in undo.err
    assert "c.ogg: it is not there" in undo.err
    assert contents(tagged) == edited
    assert Undo(capsys, "--force", tagged).counts == {"restored": 1, "refused": 1, "failed": 1}
    assert read_tags(tagged / "a.flac") == Tags()
    assert "title" in read_other_fields(tagged / "a.flac")
    assert read_tags(tagged / "b.mp3").genres == ("Swing",)


@pytest.mark.slow
def test_an_edit_between_two_runs_is_as_far_back_as_it_goes(
    tagged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tagged / "b.mp3"
    Scan(capsys, path, *REPLACE, *ANY)
    retag(path, Tags(("Swing",)))
    Scan(capsys, path, *REPLACE, *ANY)
    Undo(capsys, path)
    assert read_tags(path).genres == ("Swing",)
    assert Undo(capsys, path).counts == {"refused": 1}
    assert read_tags(path).genres == ("Swing",)


def test_a_file_that_was_moved_is_found(tagged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Scan(capsys, tagged, *REPLACE, *ANY)
    (tagged / "b.mp3").rename(tagged / "moved.mp3")
    Scan(capsys, tagged, *ANY)
    assert Undo(capsys).counts == {"restored": 3}
    assert read_tags(tagged / "moved.mp3").genres == ("Polka", "Walzer")


def test_names_that_were_swapped_do_not_swap_what_was_undone(
    tagged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other, spare = tagged / "a.flac", tagged / "d.flac", tagged / "spare"
    build_audio(other, seconds=4, frequency_hz=440)
    Scan(capsys, tagged, *ANY)
    Undo(capsys, one)
    for source, target in ((one, spare), (other, one), (spare, other)):
        source.rename(target)
    scan = Scan(capsys, tagged, *ANY)
    assert scan.row("a.flac")["action"] == "unchanged"
    assert "was undone" in scan.row("d.flac")["error"]
    assert Undo(capsys, one).counts == {"restored": 1}
    assert read_tags(one) == read_tags(other) == Tags()


def test_a_file_with_several_links_is_left_alone_unless_asked(
    tagged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tagged / "a.flac"
    Scan(capsys, path, *ANY)
    os.link(path, tagged / "twin.flac")
    undo = Undo(capsys)
    assert undo.counts == {"refused": 1}
    assert "several hard links" in undo.err
    assert Undo(capsys, "--hardlinks", "in-place").counts == {"restored": 1}
    assert read_tags(tagged / "twin.flac") == Tags()
    assert path.samefile(tagged / "twin.flac")


def test_times_move_on_unless_they_are_to_be_kept(
    tagged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Scan(capsys, tagged, *ANY)
    old = {path: path.stat().st_mtime_ns for path in tagged.iterdir()}
    Undo(capsys, tagged / "a.flac", "--preserve-mtime")
    Undo(capsys, tagged / "c.ogg")
    assert (tagged / "a.flac").stat().st_mtime_ns == old[tagged / "a.flac"]
    assert (tagged / "c.ogg").stat().st_mtime_ns > old[tagged / "c.ogg"]


def test_there_is_nothing_to_undo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["undo"]) == 0
    assert capsys.readouterr().out == "Nothing to undo.\n"
    assert main(["undo", str(tmp_path)]) == 0
    assert main(["undo", "--run", "never"]) == 2
    assert "there is no run never" in capsys.readouterr().err


def test_runs_are_listed_even_while_another_run_holds_the_file(
    tagged: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs"]) == 0
    assert capsys.readouterr().out == "There was no run yet.\n"
    scan = Scan(capsys, tagged, *ANY)
    undo = Undo(capsys, tagged / "a.flac")
    with open_state(home / "tagger" / "state.sqlite"):
        listed = Command(capsys, "runs").summary
    names = ("run_id", "kind", "replaced", "undone")
    assert [tuple(run[name] for name in names) for run in listed] == [
        (scan.summary["run_id"], "scan", 2, 1),
        (undo.summary["run_id"], "undo", 1, 0),
    ]
    assert main(["runs"]) == 0
    table = capsys.readouterr().out
    assert scan.summary["run_id"] in table


def test_the_state_of_the_first_version_is_taken_over(
    library: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(home, ignore_errors=True)
    (home / "tagger").mkdir(parents=True)
    with sqlite3.connect(home / "tagger" / "state.sqlite") as database:
        database.executescript(SCHEMA + "PRAGMA user_version = 1;")
        database.execute("INSERT INTO runs VALUES ('old', '2026-11-22', NULL, 'm', 0, 'r', NULL)")
        empty = json.dumps({"genres": [], "written": [], "scores": "", "model": "", "raw": []})
        database.execute(  # of a run that was killed
            "INSERT INTO journal (run_id, path, before, after) VALUES ('old', ?, ?, ?)",
            (os.fsencode(library / "a.flac"), empty, empty.replace("[]", '["Jazz"]', 1)),
        )
    database.close()
    assert [run["run_id"] for run in Command(capsys, "runs").summary] == ["old"]
    assert Scan(capsys, library, *ANY).actions == {"written": 3}
    assert Undo(capsys).counts == {"restored": 3}


def test_a_second_undo_beside_a_running_one_is_refused(
    library: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Scan(capsys, library, *ANY)
    with open_state(home / "tagger" / "state.sqlite"):
        assert Undo(capsys).code == 4


def test_files_of_one_run_alone_under_one_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("music", "music2"):
        (tmp_path / name).mkdir()
        build_audio(tmp_path / name / "a.flac", seconds=4)
    scan = Scan(capsys, tmp_path / "music", tmp_path / "music2", *ANY)
    undo = Undo(capsys, "--run", scan.summary["run_id"], tmp_path / "music")
    assert undo.counts == {"restored": 1}
    assert read_tags(tmp_path / "music2" / "a.flac").genres


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_undo_is_taken_up_again(
    tmp_path: Path, number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, state = tmp_path / "m", tmp_path / "state.sqlite"
    folder.mkdir()
    songs = [folder / f"{index:02}.flac" for index in range(60)]
    for song in songs:
        song.write_bytes(audio_bytes(".flac"))
    save_predictions(state, songs)
    Scan(capsys, folder, "--state", state)
    command = [sys.executable, "-m", "tagger", "undo", "-v", "--state", str(state)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        for line in process.stderr:
            if line.startswith("put back"):
                break
        process.send_signal(number)
        told = 1 + sum(line.startswith("put back") for line in process.stderr)
    assert process.returncode == code
    left = [song for song in songs if read_tags(song).genres]
    assert len(left) == 60 - told > 0
    assert Undo(capsys, "--state", state).counts == {"restored": len(left)}
    assert not any(read_tags(song).genres for song in songs)


def test_a_file_with_two_names_is_undone_under_both(
    tagged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.link(tagged / "a.flac", tagged / "twin.flac")
    in_place = ("--hardlinks", "in-place")
    Scan(capsys, tagged, *in_place, *ANY)
    assert Undo(capsys, *in_place).code == 0
    again = Scan(capsys, tagged, *in_place, *ANY)
    assert again.actions == {"kept": 4}
    assert read_tags(tagged / "twin.flac") == Tags()


def test_a_file_moved_over_another_is_undone_as_itself(
    tagged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = tagged / "a.flac", tagged / "d.flac"
    build_audio(other, seconds=4, frequency_hz=440)
    Scan(capsys, tagged, *ANY)
    one.replace(other)
    Scan(capsys, tagged, *ANY)
    assert Undo(capsys, other).counts == {"restored": 1}
    assert read_tags(other) == Tags()


def test_files_moved_over_each_other_again_and_again_are_still_known(
    tagged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    songs = [tagged / f"{number}.flac" for number in range(3)]
    for number, song in enumerate(songs):
        build_audio(song, seconds=4, frequency_hz=440 + number)
    Scan(capsys, *songs, *ANY)
    songs[0].replace(songs[1])
    assert Scan(capsys, songs[1], *ANY).actions == {"unchanged": 1}
    songs[1].replace(songs[2])
    assert Scan(capsys, songs[2], *ANY).actions == {"unchanged": 1}
    assert Undo(capsys).counts == {"restored": 1}
    assert main(["undo"]) == 0
    assert capsys.readouterr().out == "Nothing to undo.\n"
