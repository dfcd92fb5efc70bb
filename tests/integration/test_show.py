"""`tagger show`: what is known of a track, and what a scan would do, without any trace."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tagger.cli import main
from tagger.state import open_state
from tagger.storage import look_up
from tagger.tags import read_tags
from tests.builders import build_audio, build_speech, open_tags
from tests.front_door import ANY, Command, Scan, run_without_torch, set_album, set_genre
from tests.integration.test_context import DOUBTFUL, save_scores
from tests.integration.test_old_files import MODEL, OldLibrary

Capsys = pytest.CaptureFixture[str]

OPTIONS: tuple[tuple[str, ...], ...] = (
    (),
    ("--existing", "replace"),
    ("--existing", "append", "--genres", "2"),
    ("--min-score", "1"),
    ("--by-album",),
    ("--hardlinks", "break"),
    ("--not-music", "tag"),
    ("--profile", "plex", "--genres", "3"),
)


def show(capsys: Capsys, *args: str | Path) -> Any:
    """Return the view of the only file."""
    command = Command(capsys, "show", *args)
    assert command.code == 0, command.err
    (view,) = command.summary
    return view


def show_text(capsys: Capsys, *args: str | Path) -> str:
    capsys.readouterr()
    assert main(["show", *map(str, args)]) == 0
    return capsys.readouterr().out


@pytest.fixture
def mixed(library: Path) -> Path:
    """Add to the library what makes a scan decide in each way."""
    build_audio(library / "mine.flac", seconds=4, frequency_hz=200)
    set_genre(library / "mine.flac", "Jungle")
    build_speech(library / "speech.wav", seconds=8)
    build_audio(library / "short.mp3", seconds=0.3)
    build_audio(library / "linked.ogg", seconds=4, frequency_hz=300)
    (library.parent / "twin.ogg").hardlink_to(library / "linked.ogg")
    for name in ("a.flac", "b.mp3", "c.ogg"):
        set_album(library / name, "Title")
    return library


def test_it_decides_as_a_scan_does_whatever_the_options(mixed: Path, capsys: Capsys) -> None:
    Scan(capsys, mixed / "a.flac", *ANY)
    Scan(capsys, mixed / "b.mp3", *ANY)
    assert Command(capsys, "undo", mixed / "b.mp3").summary["restored"] == 1
    Scan(capsys, mixed, "-n", "--audit", *ANY)
    found = set()
    for options in OPTIONS:
        flags = options if "--min-score" in options else (*options, "--min-score", "0.1")
        rows = {row["path"]: row for row in Scan(capsys, mixed, "-n", *flags).rows}
        views = Command(capsys, "show", *sorted(mixed.iterdir()), *flags).summary
        assert {view["path"] for view in views} == set(rows)
        for view in views:
            row, plan = rows[view["path"]], view["scan"]
            assert plan["action"] == row["action"], (options, view)
            assert ";".join(plan["genres"]) == row["genre"]
            assert (plan["kind"] or "") == row["kind"]
            assert f"{plan['score']:.4f}" == row["score"] if row["score"] else not plan["score"]
            assert plan["reason"]
            found.add((row["action"], row["kind"]))
    assert found >= {
        ("would-write", ""), ("unchanged", ""), ("low-score", ""), ("not-music", ""),
        ("failed", "too-short"), ("kept", "has-genre"), ("kept", "undone"), ("kept", "hard-links"),
    }  # fmt: skip


def test_nothing_is_imported_written_or_created(library: Path, home: Path, capsys: Capsys) -> None:
    before = {path: path.stat().st_mtime_ns for path in library.iterdir()}
    result = run_without_torch("show", *sorted(library.iterdir()))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("would listen to it") == 3
    assert "which does not exist" in result.stdout
    assert not (home / "tagger" / "state.sqlite").exists()
    Scan(capsys, library, *ANY)
    state = {path: path.read_bytes() for path in (home / "tagger").iterdir() if path.is_file()}
    after = {path: path.stat().st_mtime_ns for path in library.iterdir()}
    show(capsys, library / "a.flac", *ANY)
    assert {p: p.read_bytes() for p in (home / "tagger").iterdir() if p.is_file()} == state
    assert {path: path.stat().st_mtime_ns for path in library.iterdir()} == after != before


def test_the_story_of_a_file(library: Path, capsys: Capsys) -> None:
    path = library / "b.mp3"
    view = show(capsys, path)
    assert view["tags"]["genre_from"] == "none"
    assert view["models"] == view["history"] == []
    assert view["scan"]["action"] == "listen"
    written = Scan(capsys, path, *ANY).row("b.mp3")
    view = show(capsys, path, *ANY)
    assert view["tags"]["genre_from"] == "tagger"
    twin = library / "twin.mp3"
    shutil.copy(path, twin)
    set_genre(twin, keep=read_tags(twin))
    removed = show(capsys, twin)
    assert removed["tags"]["genre_from"] == "removed"
    assert removed["scan"]["kind"] == "removed-by-hand"
    assert view["tags"]["fields"]["TCON"] == [written["genre"]]
    assert view["tags"]["fields"]["TXXX:TAGGER_GENRE"] == [written["genre"]]
    (model,) = view["models"]
    assert model["scores"][0]["score"] == pytest.approx(float(written["score"]), abs=1e-4)
    assert model["moods"]
    assert view["scan"]["action"] == "unchanged"
    undo = Command(capsys, "undo", path).summary
    view = show(capsys, path, *ANY)
    assert [(write["kind"], write["after"]) for write in view["history"]] == [
        ("scan", [written["genre"]]),
        ("undo", []),
    ]
    assert view["history"][0]["undone_by"] == undo["run_id"]
    assert view["undone"]
    assert view["scan"]["kind"] == "undone"
    text = show_text(capsys, path, *ANY)
    assert f"scan {view['history'][0]['run_id']}: no genre -> {written['genre']}" in text
    assert "would keep the file as it is (kept, undone)\n" in text
    assert "tagger's genre was undone or taken out of a report (--force writes it again)" in text
    set_genre(path, "Gabber")
    assert show(capsys, path)["tags"]["genre_from"] == "user"


def test_it_says_what_a_crawl_passes_over(library: Path, capsys: Capsys) -> None:
    song = library / "a.flac"
    assert show(capsys, song)["passed_over"] is None
    trash, quiet = library / ".Trash-1000" / "b.mp3", library / "Ringtones" / "x" / "c.ogg"
    for path in (trash, quiet):
        path.parent.mkdir(parents=True)
        (library / path.name).rename(path)
    (library / "Ringtones" / ".nomedia").touch()
    assert show(capsys, trash)["passed_over"].startswith(f"{trash.parent} has a name of trash")
    assert show(capsys, quiet)["passed_over"] == f"a file .nomedia hides {quiet.parent}"
    found = show(capsys, song, "--exclude", f"{library.name}/*.flac")["passed_over"]
    assert found == f"--exclude {library.name}/*.flac fits {song} (in a scan of {library.parent})"
    text = show_text(capsys, song, "--exclude", "a.*")
    assert f"passes it over: --exclude a.* fits {song} (in a scan of {library})\n" in text
    assert Scan(capsys, library, "-n", "--exclude", "a.*").rows == []


def test_the_history_has_the_fields_that_a_run_wrote(library: Path, capsys: Capsys) -> None:
    path = library / "a.flac"
    genre = Scan(capsys, path, *ANY).row(path.name)["genre"]
    row = Scan(capsys, path, *ANY, "--write", "mood", "--mood-numbers").row(path.name)
    text = show_text(capsys, path, *ANY)
    assert f": no genre -> {genre}\n" in text
    assert re.search(r"scan \S+: (mood: none -> \w+, )?mood-happy: none -> 0\.\d{3}, ", text), text
    assert (f"mood: none -> {row['mood']}" in text) == bool(row["mood"])


def test_it_says_what_other_tracks_did(library: Path, home: Path, capsys: Capsys) -> None:
    song, other = library / "a.flac", library / "c.ogg"
    for path in library.iterdir():
        set_album(path, "Marcus", "Burning Spear")
    set_genre(other, "Reggae")
    set_genre(library / "b.mp3", "Reggae")
    save_scores(home, {song: DOUBTFUL})
    context = ("--context", "artist")
    not_asked = "the other tracks of its artist count in a scan (--context), but not here"
    assert not_asked in show(capsys, song, *context)["scan"]["reason"]
    Scan(capsys, library, "-n")
    assert not_asked in show(capsys, song, *context)["scan"]["reason"]
    row = Scan(capsys, library, "-n", *context).row(song.name)
    said = f"said would-write Reggae {float(row['score']):.3f} (artist: 2 tracks Reggae)"
    assert said in show(capsys, song, *context)["scan"]["reason"]
    assert "--context" not in show(capsys, song)["scan"]["reason"]
    assert "--context" not in show(capsys, other, *context)["scan"]["reason"]  # it keeps its genre


def test_reasons_name_scores_bounds_and_options(
    mixed: Path, tmp_path: Path, capsys: Capsys
) -> None:
    Scan(capsys, mixed, "-n", *ANY)
    best = show(capsys, mixed / "a.flac", *ANY)["scan"]["genres"][0]
    low = show_text(capsys, mixed / "a.flac", "--min-score", "0.99")
    assert "would write no genre (low-score)" in low
    assert f"the score of {best}, 0." in low
    assert "is below 0.99 (--min-score)" in low
    config = tmp_path / "config.toml"
    config.write_text(f'[min-score]\ndefault = 0\n"{best}" = 0.98\nPolka = 0.5\n')
    by_genre = show(capsys, mixed / "a.flac", "--config", config)["scan"]
    assert (by_genre["action"], by_genre["min_score"]) == ("low-score", 0.98)
    assert Scan(capsys, mixed / "a.flac", "-n", "--config", config).actions == {"low-score": 1}
    warning = "tagger: min-score has genres that the model never gives: Polka (it gives "
    main(["show", str(mixed / "a.flac"), "--config", str(config)])
    assert warning in capsys.readouterr().err
    kept = show_text(capsys, mixed / "mine.flac")
    assert "a person or another program" in kept
    assert "its genre is not tagger's: --existing keep leaves it alone" in kept
    assert "no music: Speech" in show_text(capsys, mixed / "speech.wav")
    assert "2 hard links lead to it" in show_text(capsys, mixed / "linked.ogg")
    assert "too short" in show_text(capsys, mixed / "short.mp3")


def test_a_file_that_another_program_writes(library: Path, capsys: Capsys) -> None:
    path = library / "a.flac"
    Scan(capsys, path, "-n", *ANY)
    with path.open("r+b"):
        view = show(capsys, path, *ANY)
    assert "another program has it open for writing" in view["in_use"]
    assert (view["scan"]["action"], view["scan"]["kind"]) == ("failed", "in-use")
    assert show(capsys, path, *ANY)["scan"]["action"] == "would-write"


def test_genres_that_other_programs_find(library: Path, capsys: Capsys) -> None:
    path = library / "b.mp3"
    tags = open_tags(path)
    tags.save(path, v1=2)
    content = bytearray(path.read_bytes())
    assert content[-128:-125] == b"TAG"
    content[-1] = 17  # Rock
    path.write_bytes(content)
    set_genre(path, "Jungle")
    view = show(capsys, path)
    assert view["tags"]["fields"]["TCON"] == ["Jungle"]
    assert view["tags"]["elsewhere"] == {"ID3v1": ["Rock"]}
    assert "also in ID3v1: Rock" in show_text(capsys, path)


def test_it_works_beside_a_run_and_after_a_move(library: Path, home: Path, capsys: Capsys) -> None:
    Scan(capsys, library, *ANY)
    moved = library / "moved.flac"
    (library / "a.flac").rename(moved)
    other = look_up(library / "b.mp3")
    assert other
    with open_state(home / "tagger" / "state.sqlite") as state:
        state.mark_not_wanted(other)
        state.commit()
        view = show(capsys, moved, *ANY)
        assert show(capsys, library / "b.mp3", *ANY)["undone"]
    assert view["scan"]["action"] == "unchanged"
    assert len(view["history"]) == 1
    assert view["path"] == str(moved)


def test_a_state_file_of_an_old_version_stays_as_it_is(tmp_path: Path, capsys: Capsys) -> None:
    old = OldLibrary(tmp_path / "old")
    before = old.state.read_bytes()
    path = next(path for path in sorted(old.music().rglob("*.flac")) if path.is_file())
    show(capsys, path, "--state", old.state, *MODEL)
    assert old.state.read_bytes() == before
    assert [each.name for each in old.root.glob("state.sqlite*")] == ["state.sqlite"]


def test_files_that_cannot_be_shown(library: Path, capsys: Capsys) -> None:
    (library / "notes.txt").write_text("words")
    (library / "loop.mp3").symlink_to("loop.mp3")
    (library / "link.mp3").symlink_to("b.mp3")
    os.mkfifo(library / "pipe.mp3")
    names = ("none.mp3", "notes.txt", "loop.mp3", "", "link.mp3", "pipe.mp3")
    command = Command(capsys, "show", *(library / name for name in names))
    assert command.code == 1
    missing, text, loop, folder, link, pipe = command.summary
    assert "No such file" in missing["error"]
    assert text["error"] == "tagger knows no files named *.txt"
    assert loop["error"].startswith("cannot open: ")
    assert folder["error"].startswith("is a folder")
    assert link["path"] == str(library / "b.mp3")
    assert pipe["error"] == "is no regular file"
    assert main(["show", ""]) == 2
    assert main(["show"]) == 2
    assert main(["show", str(library / "b.mp3"), "--state", str(library)]) == 3


def test_broken_tags_are_told(library: Path, capsys: Capsys) -> None:
    path = library / "a.flac"
    path.write_bytes(b"no music" * 100)
    view = show(capsys, path)
    assert view["tags"]["error"]
    assert view["scan"]["action"] == "failed"
    assert "every scan" not in view["scan"]["reason"]
    shutil.copy(library / "b.mp3", library / "odd\n.mp3")
    os.utime(library / "odd\n.mp3")
    assert "odd\\n.mp3" in show_text(capsys, library / "odd\n.mp3")
