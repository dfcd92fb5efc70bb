"""`scan --by-album`: the tracks of an album get one genre."""

import re
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tagger import decide
from tagger.records import Attributes, Prediction, Score, Track
from tagger.state import AUTO_WINDOWS, open_state
from tagger.storage import look_up
from tagger.tags import read_tags
from tests.builders import build_audio
from tests.front_door import ANY, Command, Scan, set_album, set_genre
from tests.marks import others_slow

BY_ALBUM = ("--by-album", "--top-k", "18", *ANY)
ROCK, JAZZ = (Score("Rock", 0.9), Score("Jazz", 0.1)), (Score("Jazz", 0.8), Score("Rock", 0.2))


def genres(folder: Path) -> dict[str, tuple[str, ...]]:
    return {path.name: read_tags(path).genres for path in sorted(folder.iterdir())}


def save_scores(
    capsys: pytest.CaptureFixture[str],
    home: Path,
    scores: dict[Path, Any],
    attributes: Attributes = Attributes(),  # noqa: B008 - it is frozen
) -> None:
    """Save scores of the bundled model in the state file, as if a scan had predicted them."""
    folder = next(iter(scores)).parent
    state_file = home / "tagger" / "state.sqlite"
    scan = Scan(capsys, folder, "-n", *ANY)
    model = scan.summary["model"]
    with open_state(state_file) as state:
        for track in list(scan.rows):
            path = Path(track["path"])
            found = state.load_track(stat_track(path), model=model, windows=AUTO_WINDOWS)
            assert found.scores
            state.save_prediction(
                Prediction(
                    stat_track(path),
                    scores[path],
                    model,
                    found.duration_s or 0,
                    attributes=attributes,
                ),
                windows=AUTO_WINDOWS,
            )


def stat_track(path: Path) -> Track:
    track = look_up(path)
    assert track
    return track


def test_the_progress_counts_the_tracks_that_wait_for_their_album(
    library: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in library.iterdir():
        set_album(path, "Title")
    Scan(capsys, library, "-n", *BY_ALBUM)
    build_audio(library / "d.flac", seconds=4)
    set_album(library / "d.flac", "Title")
    monkeypatch.setattr("tagger.cli.progress.LINE_INTERVAL_S", 0.0)
    monkeypatch.setattr("tagger.cli.progress.BAR_INTERVAL_S", 0.0)
    lines = Scan(capsys, library, "-n", *BY_ALBUM).err.splitlines()
    assert "tagger: 1 track to listen to" in lines
    *_, last = lines
    assert re.fullmatch(r"tagger: 4 of 4 tracks, [\d.]+ tracks/s, 0:00:00 left", last)


def test_an_album_gets_the_genre_of_its_pooled_scores(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in library.iterdir():
        set_album(path, "Title")
    scan = Scan(capsys, library, *BY_ALBUM)
    sums: dict[str, float] = defaultdict(float)
    for row in scan.rows:
        for name, _, number in (part.partition("=") for part in row["scores"].split(";")):
            sums[name] += float(number) / 3
    best = max(sums, key=sums.__getitem__)
    assert set(genres(library).values()) == {(best,)}
    assert {row["genre"] for row in scan.rows} == {best}
    assert {row["score"] for row in scan.rows} == {scan.rows[0]["score"]}
    assert float(scan.rows[0]["score"]) == pytest.approx(sums[best], abs=0.002)
    assert len({row["scores"] for row in scan.rows}) == 3  # those are of each track
    assert Scan(capsys, library, *BY_ALBUM).actions == {"unchanged": 3}


@pytest.fixture
def album(library: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Build an album of three Rock tracks and one Jazz track, with scores in the state file."""
    build_audio(library / "d.flac", seconds=4, seed=9)
    for path in library.iterdir():
        set_album(path, "Title")
    scores = {path: JAZZ if path.name == "b.mp3" else ROCK for path in library.iterdir()}
    save_scores(capsys, home, scores)
    return library


def test_a_track_that_sounds_like_something_else_is_named(
    album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = Scan(capsys, album, *BY_ALBUM)
    assert set(genres(album).values()) == {("Rock",)}
    remarks = {Path(row["path"]).name: row["error"] for row in scan.rows}
    assert remarks.pop("b.mp3") == "sounds more like Jazz than its album does"
    assert set(remarks.values()) == {""}
    assert read_tags(album / "b.mp3").scores.startswith("Jazz=0.800")
    (odd,) = Command(capsys, "report").summary["odd"]
    assert (odd["title"], odd["genre"], len(odd["odd"])) == ("Title", "Rock", 1)


def test_the_report_has_the_styles_of_the_genre_that_is_written(
    album: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    styles = (Score("Swing", 0.9), Score("Grunge", 0.8), Score("Hard Rock", 0.4))
    scores = {path: JAZZ if path.name == "b.mp3" else ROCK for path in album.iterdir()}
    save_scores(capsys, home, scores, Attributes(styles))
    alone = Scan(capsys, album, "-n")
    assert [row["style"] for row in alone.rows] == ["Grunge", "Swing", "Grunge", "Grunge"]
    together = Scan(capsys, album, "-n", "--by-album")
    assert {(row["genre"], row["style"]) for row in together.rows} == {("Rock", "Grunge")}


def test_a_skit_has_no_voice_and_no_genre_in_its_album(
    album: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    skit = (Score("Speech", 0.94), Score("Jazz", 0.05), Score("Rock", 0.01))
    save_scores(capsys, home, {p: skit if p.name == "b.mp3" else ROCK for p in album.iterdir()})
    scan = Scan(capsys, album, "--by-album")
    assert scan.actions == {"written": 3, "not-music": 1}
    assert scan.row("b.mp3")["error"] == "no music: Speech 0.94"
    assert {row["score"] for row in scan.rows} == {"0.9000", ""}
    assert read_tags(album / "b.mp3").genres == ()
    assert Command(capsys, "report").summary["odd"] == []


def test_an_album_below_the_minimum_is_not_written(
    album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at_least = ("--by-album", "--min-score", "0.75")
    assert Scan(capsys, album, *at_least).actions == {"low-score": 4}  # (3 x 0.9 + 0.2) / 4
    assert Scan(capsys, album, "--by-album", "--min-score", "0.72").actions == {"written": 4}


def test_how_many_scores_are_shown_does_not_change_what_stands_apart(
    album: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    close = (Score("Jazz", 0.41), Score("Rock", 0.4))
    scores = {path: close if path.name == "b.mp3" else ROCK for path in album.iterdir()}
    save_scores(capsys, home, scores)
    scan = Scan(capsys, album, *ANY, "--by-album", "--top-k", "1")
    assert {row["error"] for row in scan.rows} == {""}


@pytest.mark.parametrize("kind", others_slow([("loose",), ("flag",), ("artists",), ("titles",)]))
def test_compilations_and_loose_tracks_are_what_each_track_is(
    album: Path, home: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    for number, path in enumerate(sorted(album.iterdir())):
        title = {"loose": "", "titles": f"Title {number}"}.get(kind, "Hits")
        artist = f"Artist {number}" if kind == "artists" else "Artist"
        set_album(path, title, artist, various=kind == "flag")
    scores = {path: JAZZ if path.name == "b.mp3" else ROCK for path in album.iterdir()}
    save_scores(capsys, home, scores)
    Scan(capsys, album, *BY_ALBUM)
    assert genres(album) == {
        name: ("Jazz" if name == "b.mp3" else "Rock",) for name in genres(album)
    }


def test_what_is_known_is_not_heard_again_and_the_rest_joins_it(
    album: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Scan(capsys, album, *BY_ALBUM)
    Scan(capsys, album, *BY_ALBUM)
    with monkeypatch.context() as patch:
        patch.setattr(decide, "decide", None)
        assert Scan(capsys, album, *BY_ALBUM).actions == {"unchanged": 4}
    shutil.copy(album / "a.flac", album / "e.flac")
    set_genre(album / "e.flac")
    set_genre(album / "c.ogg", "Polka")
    scan = Scan(capsys, album, *BY_ALBUM)
    assert scan.row("e.flac")["action"] == "written"
    assert genres(album)["c.ogg"] == ("Polka",)
    assert {genres(album)[name] for name in ("a.flac", "d.flac", "e.flac")} == {("Rock",)}


def test_a_track_that_fails_leaves_the_others_their_genre(
    album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = build_audio(album / "z.wav", seconds=0.5)
    set_album(album / "a.flac", "Title", "Somebody")
    scan = Scan(capsys, album, *BY_ALBUM)
    assert scan.actions == {"written": 4, "failed": 1}
    assert scan.row(broken.name)["action"] == "failed"
    assert len({row["genre"] for row in scan.rows if row["genre"]}) == 1


def test_time_that_is_up_leaves_an_album_whole(
    library: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tagger.pacing import Pacer

    for path in library.iterdir():
        set_album(path, "Title")
    asked: list[bool] = []

    def is_time_up(_: Pacer) -> bool:
        asked.append(True)
        return len(asked) > 5  # after the first track was heard

    with monkeypatch.context() as patch:
        patch.setattr(Pacer, "is_time_up", is_time_up)
        scan = Scan(capsys, library, *BY_ALBUM)
    assert scan.actions == {"kept": 3}
    assert scan.summary["waiting"] == 3
    assert not any(genres(library).values())
    assert Scan(capsys, library, *BY_ALBUM).actions == {"written": 3}
