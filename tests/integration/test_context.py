"""`scan --context`: other tracks of the album or artist count for the genre of a track."""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from tagger.models import find_model
from tagger.records import Prediction, Score, Tags
from tagger.settings import Settings
from tagger.state import AUTO_WINDOWS, open_state
from tagger.storage import look_up
from tagger.tags import read_tags
from tests.builders import build_audio
from tests.front_door import Command, Scan, set_album, set_genre
from tests.marks import others_slow

Capsys = pytest.CaptureFixture[str]
Scores = tuple[Score, ...]

LABELS = tuple(label for label in find_model(Settings()).labels)
ALBUM, ARTIST = ("--context", "album"), ("--context", "artist")
OTHERS = 6


def make_scores(**probabilities: float) -> Scores:
    """Return scores of all labels; those that are not named share what is left."""
    named = {name.replace("_", "-"): value for name, value in probabilities.items()}
    rest = (1 - sum(named.values())) / (len(LABELS) - len(named))
    scores = [Score(label, named.get(label, rest)) for label in LABELS]
    return tuple(sorted(scores, key=lambda score: -score.probability))


DOUBTFUL = make_scores(Hip_Hop=0.46, Reggae=0.34)
REGGAE = make_scores(Reggae=0.9)
FLAT = make_scores()


def save_scores(home: Path, scores: Mapping[Path, Scores]) -> None:
    """Save scores of the bundled model in the state file, as if a scan had predicted them."""
    model = find_model(Settings()).identity
    with open_state(home / "tagger" / "state.sqlite") as state:
        for path, each in scores.items():
            track = look_up(path)
            assert track
            state.save_prediction(Prediction(track, each, model, 4.0), windows=AUTO_WINDOWS)


def build_others(
    folder: Path, artist: str = "Burning Spear", title: str = "Marcus", genre: str = "reggae"
) -> list[Path]:
    """Build tracks with a genre that a person gave them, if any."""
    folder.mkdir(parents=True, exist_ok=True)
    others = []
    for number in range(OTHERS):
        path = build_audio(folder / f"{number}.flac", seconds=1, seed=number)
        set_album(path, title, artist)
        set_genre(path, *[genre] if genre else [])
        others.append(path)
    return others


@pytest.fixture
def song(tmp_path: Path) -> Path:
    """Build a track of Burning Spear, on an album of which the library has no other track."""
    (tmp_path / "music" / "new").mkdir(parents=True)
    path = build_audio(tmp_path / "music" / "new" / "song.flac", seconds=1, seed=99)
    set_album(path, "New", "Burning Spear")
    return path


@pytest.fixture
def music(song: Path, home: Path) -> Path:
    """Build a library: the doubtful song, and six tracks of its artist that a person tagged."""
    folder = song.parents[1]
    build_others(folder / "old")
    save_scores(home, {song: DOUBTFUL})
    return folder


def test_the_genres_that_people_gave_the_artist_decide(music: Path, capsys: Capsys) -> None:
    assert Scan(capsys, music, "-n").row("song.flac")["genre"] == "Hip-Hop"
    assert Scan(capsys, music, "-n", *ALBUM).row("song.flac")["genre"] == "Hip-Hop"
    scan = Scan(capsys, music, *ARTIST)
    row = scan.row("song.flac")
    assert (row["action"], row["genre"]) == ("written", "Reggae")
    assert row["error"] == "artist: 6 tracks Reggae"
    assert row["scores"].startswith("Hip-Hop=0.460;Reggae=0.340")  # of the track alone
    assert float(row["score"]) > 0.46
    assert scan.actions == {"written": 1, "kept": OTHERS}
    tags = read_tags(music / "new" / "song.flac")
    assert (tags.genres, tags.written) == (("Reggae",), ("Reggae",))
    assert tags.scores.startswith("Hip-Hop=0.460")


def test_a_dry_run_a_run_and_the_next_run_agree(music: Path, song: Path, capsys: Capsys) -> None:
    rows = [Scan(capsys, music, *flags, *ARTIST).row("song.flac") for flags in (["-n"], [], [])]
    assert [row["action"] for row in rows] == ["would-write", "written", "unchanged"]
    for row in rows:
        assert [row[name] for name in ("genre", "score", "scores", "error")] == [
            rows[0][name] for name in ("genre", "score", "scores", "error")
        ]
    content = song.read_bytes()
    Scan(capsys, music, *ARTIST)
    assert song.read_bytes() == content
    assert read_tags(song).written == ("Reggae",)


def test_a_track_is_judged_anew_when_its_neighbours_change(
    music: Path, song: Path, capsys: Capsys
) -> None:
    Scan(capsys, music, *ARTIST)
    for path in (music / "old").iterdir():
        set_genre(path, "Hip Hop")
    again = Scan(capsys, music, *ARTIST)
    assert again.row("song.flac")["action"] == "written"
    assert read_tags(song).genres == ("Hip-Hop",)


def test_files_that_were_deleted_have_no_say_any_more(
    music: Path, song: Path, capsys: Capsys
) -> None:
    assert Scan(capsys, music, "-n", *ARTIST).row("song.flac")["genre"] == "Reggae"
    for path in (music / "old").iterdir():
        path.unlink()
    (music / "old").rmdir()
    outside = Scan(capsys, song.parent, "-n", *ARTIST)  # nobody looks there
    assert outside.row("song.flac")["genre"] == "Reggae"
    row = Scan(capsys, music, "-n", *ARTIST).row("song.flac")
    assert (row["genre"], row["error"]) == ("Hip-Hop", "")


def test_files_that_are_excluded_still_have_their_say(music: Path, capsys: Capsys) -> None:
    Scan(capsys, music, "-n", *ARTIST)
    row = Scan(capsys, music, "-n", *ARTIST, "--exclude", "old").row("song.flac")
    assert (row["genre"], row["error"]) == ("Reggae", "artist: 6 tracks Reggae")


def test_spellings_that_the_vocabulary_knows_count(song: Path, home: Path, capsys: Capsys) -> None:
    build_others(song.parent, title="New", genre="Reggae Music")
    save_scores(home, {song: DOUBTFUL})
    row = Scan(capsys, song.parent, "-n", *ALBUM).row(song.name)
    assert (row["genre"], row["error"]) == ("Reggae", "album: 6 tracks Reggae")


def test_only_the_named_folder_is_touched_but_the_library_has_its_say(
    music: Path, capsys: Capsys
) -> None:
    Scan(capsys, music, "-n")
    scan = Scan(capsys, music / "new", *ARTIST)
    assert [(row["action"], row["genre"]) for row in scan.rows] == [("written", "Reggae")]


def test_genres_that_tagger_wrote_count_for_nothing(song: Path, home: Path, capsys: Capsys) -> None:
    others = build_others(song.parent, title="New")
    for path in others:
        set_genre(path, "Reggae", keep=Tags(written=("Reggae",)))
    save_scores(home, {song: DOUBTFUL} | dict.fromkeys(others, FLAT))
    scan = Scan(capsys, song.parent, "-n", "--min-score", "0", *ARTIST)
    assert (scan.row(song.name)["genre"], scan.row(song.name)["error"]) == ("Hip-Hop", "")


def test_how_the_album_sounds_has_a_say(song: Path, home: Path, capsys: Capsys) -> None:
    others = build_others(song.parent, title="New", genre="")
    save_scores(home, {song: DOUBTFUL} | dict.fromkeys(others, REGGAE))
    row = Scan(capsys, song.parent, "-n", *ALBUM).row(song.name)
    assert (row["genre"], row["error"]) == ("Reggae", "album: 6 tracks sound like Reggae")


def test_a_score_that_was_too_low_is_lifted(
    music: Path, song: Path, home: Path, capsys: Capsys
) -> None:
    save_scores(home, {song: make_scores(Reggae=0.3, Pop=0.2)})
    assert Scan(capsys, music, "-n").row("song.flac")["action"] == "low-score"
    row = Scan(capsys, music, "-n", *ARTIST).row("song.flac")
    assert (row["action"], row["error"]) == ("would-write", "artist: 6 tracks Reggae")


def test_what_is_no_music_stays_so(music: Path, song: Path, home: Path, capsys: Capsys) -> None:
    save_scores(home, {song: make_scores(Speech=0.9)})
    assert Scan(capsys, music, "-n", *ARTIST).row("song.flac")["action"] == "not-music"


@pytest.mark.parametrize("kind", others_slow([("flag",), ("artists",), ("nobody",), ("loose",)]))
def test_compilations_and_various_artists_are_no_context(
    song: Path, home: Path, capsys: Capsys, kind: str
) -> None:
    others = build_others(song.parent, title="New")
    for number, path in enumerate([song, *others]):
        artist = {"artists": f"Artist {number}", "nobody": "Various Artists"}.get(kind, "Spear")
        own_artist = "" if kind == "loose" else artist
        set_album(path, "" if kind == "loose" else "New", own_artist, various=kind == "flag")
    save_scores(home, {song: DOUBTFUL})
    for context in (ALBUM, ARTIST):
        row = Scan(capsys, song.parent, "-n", *context).row(song.name)
        assert (row["genre"], row["error"]) == ("Hip-Hop", "")


def test_genres_that_the_model_does_not_know_are_no_evidence(
    song: Path, home: Path, capsys: Capsys
) -> None:
    build_others(song.parent, title="New", genre="Fado")
    save_scores(home, {song: DOUBTFUL})
    row = Scan(capsys, song.parent, "-n", *ARTIST).row(song.name)
    assert (row["genre"], row["score"], row["error"]) == ("Hip-Hop", "0.4600", "")


def test_genres_have_the_names_of_the_genre_map(
    song: Path, home: Path, tmp_path: Path, capsys: Capsys
) -> None:
    build_others(song.parent, title="New", genre="Roots")
    save_scores(home, {song: DOUBTFUL})
    names = tmp_path / "genres.toml"
    names.write_text('Reggae = "Roots"\n')
    row = Scan(capsys, song.parent, "-n", "--genre-map", names, *ALBUM).row(song.name)
    assert (row["genre"], row["error"]) == ("Roots", "album: 6 tracks Roots")


def test_genres_that_are_to_be_replaced_count_for_nothing(
    music: Path, home: Path, capsys: Capsys
) -> None:
    save_scores(home, dict.fromkeys((music / "old").iterdir(), FLAT))
    flags = (*ARTIST, "--existing", "replace", "--min-score", "0")
    row = Scan(capsys, music, "-n", *flags).row("song.flac")
    assert (row["genre"], row["error"]) == ("Hip-Hop", "")
    appended = Scan(capsys, music, "-n", *ARTIST, "--existing", "append")
    assert appended.row("song.flac")["genre"] == "Reggae"


def test_a_report_is_applied_as_it_is(
    music: Path, song: Path, tmp_path: Path, capsys: Capsys
) -> None:
    report = tmp_path / "report.csv"
    Scan(capsys, music, "-n", "--report", report, *ARTIST)
    Scan(capsys, music, "-n", "--report", report, *ARTIST)
    assert Command(capsys, "apply", report).summary["written"] == 1
    assert read_tags(song).written == ("Reggae",)  # tagger's, not the person's
    assert Scan(capsys, music, *ARTIST).row("song.flac")["action"] == "unchanged"


def test_an_undone_genre_is_not_written_again(music: Path, song: Path, capsys: Capsys) -> None:
    Scan(capsys, music, *ARTIST)
    assert Command(capsys, "undo").summary["restored"] == 1
    assert Scan(capsys, music, *ARTIST).row("song.flac")["kind"] == "undone"
    assert read_tags(song).genres == ()


def test_tags_that_were_read_without_the_album_are_read_again(
    music: Path, home: Path, capsys: Capsys
) -> None:
    Scan(capsys, music, "-n")
    with closing(sqlite3.connect(home / "tagger" / "state.sqlite")) as database, database:
        for number, text in database.execute("SELECT id, tags FROM tracks").fetchall():
            tags = json.dumps(json.loads(text) | {"album": None})
            database.execute("UPDATE tracks SET tags = ? WHERE id = ?", (tags, number))
    assert Scan(capsys, music, "-n", *ARTIST).row("song.flac")["genre"] == "Reggae"


def test_an_audit_compares_with_what_the_other_tracks_say(
    music: Path, home: Path, capsys: Capsys
) -> None:
    save_scores(home, dict.fromkeys((music / "old").iterdir(), DOUBTFUL))
    scan = Scan(capsys, music, "-n", "--audit", *ARTIST)
    assert scan.actions == {"kept": OTHERS, "would-write": 1}
    assert {row["genre"] for row in scan.rows} == {"Reggae"}


def test_an_album_has_one_genre_or_its_tracks_have_context(music: Path, capsys: Capsys) -> None:
    scan = Command(capsys, "scan", music, "-n", "--by-album", *ALBUM)
    assert (scan.code, scan.out) == (2, "")
    assert "--by-album" in scan.err
    assert "--context" in scan.err


def test_tracks_are_decided_on_when_all_of_them_have_scores(
    library: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tagger.pacing import Pacer

    for path in library.iterdir():
        set_album(path, "Title")
    monkeypatch.setattr("tagger.cli.progress.LINE_INTERVAL_S", 0.0)
    monkeypatch.setattr("tagger.cli.progress.BAR_INTERVAL_S", 0.0)
    asked: list[bool] = []

    def is_time_up(_: Pacer) -> bool:
        asked.append(True)
        return len(asked) > 6  # after the second track was heard

    with monkeypatch.context() as patch:
        patch.setattr(Pacer, "is_time_up", is_time_up)
        scan = Scan(capsys, library, "--min-score", "0", *ALBUM)
    assert scan.actions == {"kept": 3}
    assert scan.summary["waiting"] == 3
    assert not any(read_tags(path).genres for path in library.iterdir())
    scan = Scan(capsys, library, "--min-score", "0", *ALBUM)
    assert scan.actions == {"written": 3}
    lines = scan.err.splitlines()
    assert "tagger: 1 track to listen to" in lines
    assert any(line.startswith("tagger: 1 of 1 tracks") for line in lines)
    assert lines[-1].startswith("tagger: 3 of 3 tracks")


def test_a_run_without_news_is_silent(music: Path, capsys: Capsys) -> None:
    Scan(capsys, music, *ARTIST)
    assert Scan(capsys, music, *ARTIST).err == ""


def test_the_time_of_until_ends_the_decisions_too(
    library: Path, home: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tagger.pacing import Pacer

    save_scores(home, dict.fromkeys(library.iterdir(), REGGAE))
    asked: list[bool] = []

    def is_time_up(_: Pacer) -> bool:
        asked.append(True)
        return len(asked) > 4  # the first track was decided on

    with monkeypatch.context() as patch:
        patch.setattr(Pacer, "is_time_up", is_time_up)
        scan = Scan(capsys, library, *ALBUM)
    assert scan.actions == {"written": 1, "kept": 2}
    assert scan.summary["waiting"] == 2
    assert Scan(capsys, library, *ALBUM).actions == {"unchanged": 1, "written": 2}
