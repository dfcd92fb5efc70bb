"""Sound of a kind that tagger does not know: counted wherever a person looks."""

from pathlib import Path

import pytest

from tagger.cli import main
from tagger.tags import EXTENSIONS, UNKNOWN_SOUND_EXTENSIONS
from tests.builders import write_empty
from tests.front_door import ANY, Command, Scan

SEEN = ("a.mka", "b.MKA", "c.webm", "below/d.mka")
NOT_SEEN = ("e.txt", "mka", "._f.mka", "hidden.mka/g.jpg")


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """Build a folder with no file that tagger knows."""
    for name in (*SEEN, *NOT_SEEN):
        path = tmp_path / "music" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_empty(path)
    (tmp_path / "music" / "link.mka").symlink_to("a.mka")
    return tmp_path / "music"


def test_sound_that_tagger_does_not_know_is_counted(
    music: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Scan(capsys, music).summary["passed_over"]["suffixes"] == {".mka": 3, ".webm": 1}
    page = music.parent / "page.html"
    assert main(["scan", str(music), "--html", str(page)]) == 0
    words = "because tagger does not know these formats: 3 .mka, 1 .webm"
    assert words in capsys.readouterr().out
    assert words in page.read_text()
    assert main(["report"]) == 0
    assert words in capsys.readouterr().out


def test_names_of_trash_are_counted_wherever_a_person_looks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("#recycle/a.mp3", ".git/b.mp3", "._c.mp3"):
        (tmp_path / "music" / name).parent.mkdir(parents=True, exist_ok=True)
        write_empty(tmp_path / "music" / name)
    page = tmp_path / "page.html"
    assert main(["scan", str(tmp_path / "music"), "--html", str(page)]) == 0
    words = "folders 2, audio files 1"
    assert words in capsys.readouterr().out
    assert words in page.read_text()
    assert main(["report"]) == 0
    assert words in capsys.readouterr().out


def test_no_suffix_is_both_known_and_unknown() -> None:
    assert UNKNOWN_SOUND_EXTENSIONS.isdisjoint(EXTENSIONS)


def test_what_is_left_out_or_belongs_to_another_machine_is_not_counted(
    music: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    passed_over = Scan(capsys, music, "--exclude", "*.mka").summary["passed_over"]
    assert passed_over["suffixes"] == {".webm": 1, ".mka": 1}
    shards = [Scan(capsys, music, "--shard", f"{number}/3").summary for number in (1, 2, 3)]
    counts = [each["passed_over"]["suffixes"] for each in shards if "passed_over" in each]
    assert sum(sum(each.values()) for each in counts) == 4
    (music.parent / "none").mkdir()
    assert "passed_over" not in Command(capsys, "scan", music.parent / "none").summary


def test_what_ignore_files_hide_is_counted_wherever_a_person_looks(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in (("pod/a.flac", ""), ("live/b.mp3", "b.mp3")):
        song = library / name
        song.parent.mkdir()
        (library / song.name).rename(song)
        (song.parent / ".ndignore").write_text(text)
    before = {path: path.read_bytes() for path in library.rglob("*.*")}
    scan = Scan(capsys, library, *ANY)
    assert (scan.code, [Path(row["path"]).name for row in scan.rows]) == (0, ["c.ogg"])
    assert scan.summary["passed_over"] == {"folders": 1, "files": 1, "suffixes": {}}
    assert {path for path in before if path.read_bytes() != before[path]} == {library / "c.ogg"}
    assert main(["report"]) == 0
    assert "files such as .nomedia): folders 1, audio files 1" in capsys.readouterr().out
    assert Scan(capsys, library, *ANY, "--include-ignored").summary["tracks"] == 3


def test_an_ignore_file_that_cannot_be_read_leaves_its_folder_out(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (library / "pod").mkdir()
    (library / "a.flac").rename(library / "pod" / "a.flac")
    (library / "pod" / ".ignore").write_text("[z-a]\n")
    scan = Scan(capsys, library, *ANY)
    assert (scan.code, scan.actions) == (1, {"written": 2, "failed": 1})
    row = scan.row("pod")
    assert row["error"].startswith("the folder is left out, because its .ignore cannot be read: a")
    assert row["kind"] == "other"
    assert Scan(capsys, library, *ANY).code == 0  # known by now
    (library / "pod" / ".ignore").write_text("b.flac\n")
    assert Scan(capsys, library, *ANY).actions == {"written": 1, "unchanged": 2}
