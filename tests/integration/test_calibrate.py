"""`tagger calibrate`: bounds from a library's own genres, and a scan that obeys them."""

import json
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mutagen
import pytest

from tagger.cli import main
from tagger.models import find_model
from tagger.records import Prediction, Score
from tagger.settings import Settings
from tagger.state import AUTO_WINDOWS, open_state
from tagger.storage import look_up
from tests.builders import build_audio
from tests.front_door import Command, Scan, run_without_torch, set_album

Capsys = pytest.CaptureFixture[str]

ALBUMS, ALBUM_TRACKS = 16, 5


@pytest.fixture
def judged(tmp_path: Path) -> tuple[Path, Path]:
    """Build a library with genres by a person, and a state file with scores for them.

    The model hears Jazz in each track. It is right from a score of 0.6 on. In one more album it
    hears two tracks of Folk.
    """
    library, state = tmp_path / "judged", tmp_path / "state.sqlite"
    library.mkdir()
    sound = build_audio(tmp_path / "sound.flac", seconds=2)
    scores: dict[Path, tuple[Score, ...]] = {}
    for number in range(ALBUMS * ALBUM_TRACKS):
        album, score = divmod(number, ALBUM_TRACKS)[0], 0.3 + 0.65 * (number % 16) / 16
        path = add_track(sound, library / f"{number}.flac", f"Album {album}")
        set_genre_field(path, "jazz" if score >= 0.6 else "Rock")
        scores[path] = (Score("Jazz", score), Score("Rock", 0.2))
    for name in ("folk 1.flac", "folk 2.flac"):
        path = add_track(sound, library / name, "Songs")
        set_genre_field(path, "Folk")
        scores[path] = (Score("Folk", 0.9), Score("Jazz", 0.1))
    set_genre_field(add_track(sound, library / "zydeco.flac", "Songs"), "Zydeco")
    set_genre_field(add_track(sound, library / "new.flac", "Songs"), "Folk")
    add_track(sound, library / "untagged.flac", "Songs")
    save_scores(state, scores)
    return library, state


def add_track(sound: Path, path: Path, album: str) -> Path:
    shutil.copy(sound, path)
    audio: Any = mutagen.File(path)
    audio["album"] = album
    audio.save()
    return path


def set_genre_field(path: Path, genre: str) -> None:
    audio: Any = mutagen.File(path)
    audio["genre"] = genre
    audio.save()


def save_scores(state_file: Path, scores: dict[Path, tuple[Score, ...]]) -> None:
    model = find_model(Settings()).identity
    with open_state(state_file) as state:
        for path, found in scores.items():
            track = look_up(path)
            assert track
            state.save_prediction(Prediction(track, found, model, 2.0), windows=AUTO_WINDOWS)


def test_the_bound_is_where_the_model_becomes_right(
    judged: tuple[Path, Path], capsys: Capsys
) -> None:
    library, state = judged
    found = Command(capsys, "calibrate", library, "--state", state, "--precision", "0.8")
    assert found.code == 0, found.err
    result = found.summary
    assert result["tracks"] == 82
    assert result["albums"] == 17
    assert result["without_scores"] == 1
    assert result["unknown_labels"] == {"Zydeco": 1}
    folk, jazz = result["genres"]
    common = result["all"]["bound"]
    assert (folk["genre"], folk["verdict"], folk["bound"]) == ("Folk", "too-few", common)
    assert (jazz["genre"], jazz["verdict"]) == ("Jazz", "reached")
    assert 0.5 < jazz["bound"] <= 0.6
    assert jazz["least_precision"] >= 0.8
    assert jazz["precision"] > result["all"]["curve"][0]["precision"]
    assert result["min_score"] == {"default": common, "Jazz": jazz["bound"]}
    check = result["left_out"]
    assert check["parts"] == 5
    assert check["usual"]["tracks"] == check["by_genre"]["tracks"] == 82
    assert check["by_genre"]["precision"] > check["usual"]["precision"]


def test_a_persons_spelling_counts_as_the_genre(
    judged: tuple[Path, Path], tmp_path: Path, capsys: Capsys
) -> None:
    library, state = judged
    scores: dict[Path, tuple[Score, ...]] = {
        library / f"folk {number}.flac": (Score("Folk", 0.9), Score("Jazz", 0.1))
        for number in (1, 2)
    }
    set_genre_field(library / "folk 1.flac", "Folkmusik")
    set_genre_field(library / "folk 2.flac", "Nerd Folk")
    set_genre_field(library / "new.flac", "Polka")  # the vocabulary has it under Folk
    save_scores(state, scores)
    run = ("calibrate", library, "--state", state)
    result = Command(capsys, *run).summary
    assert (result["tracks"], result["unknown_labels"]) == (81, {"Nerd Folk": 1, "Zydeco": 1})
    assert result["without_scores"] == 1  # new.flac
    mine = tmp_path / "mine.toml"
    mine.write_text(
        "[genres.Folk]\naliases = ['Nerd Folk', 'Zydeco']\n[genres.Jazz]\n[genres.Rock]"
    )
    result = Command(capsys, *run, "--vocabulary", mine).summary
    assert (result["tracks"], result["unknown_labels"]) == (81, {"Folkmusik": 1, "Polka": 1})
    assert result["without_scores"] == 1  # zydeco.flac


def test_a_bound_of_a_name_for_two_genres_is_obeyed(
    judged: tuple[Path, Path], tmp_path: Path, capsys: Capsys
) -> None:
    library, state = judged
    names, config = tmp_path / "names.toml", tmp_path / "bounds.toml"
    names.write_text('Jazz = "Jazz; Acoustic"')
    run = ("calibrate", library, "--state", state, "--precision", "0.8", "--genre-map", names)
    result = Command(capsys, *run, "--output", config).summary
    bound = result["min_score"]["Jazz; Acoustic"]
    assert bound > result["min_score"]["default"] or bound > 0.4
    config.write_text(config.read_text().replace("default = ", "default = 0.3 #"))
    scores = (Score("Jazz", bound - 0.01), Score("Rock", 0.1))
    save_scores(state, {library / "untagged.flac": scores})
    scan = Scan(
        capsys, library / "untagged.flac", "--state", state, "--config", config,
        "--genre-map", names, "-n",
    )  # fmt: skip
    assert (scan.row("untagged.flac")["action"], scan.err) == ("low-score", "")
    assert scan.row("untagged.flac")["genre"] == "Jazz;Acoustic"


def test_the_lines_for_the_config_file_work(
    judged: tuple[Path, Path], tmp_path: Path, capsys: Capsys
) -> None:
    library, state = judged
    config = tmp_path / "bounds.toml"
    run = ["calibrate", str(library), "--state", str(state), "--precision", "0.8"]
    assert main([*run, "--output", str(config)]) == 0
    out = capsys.readouterr().out
    assert out.endswith(config.read_text())
    assert re.search(r"\[min-score\]\ndefault = 0\.\d+ +# .* right, at least .*\nJazz = 0", out)
    assert re.search(r"^Folk +2 .* too few *$", out, re.MULTILINE)
    assert "Not counted: 1 track without scores in the state file." in out
    assert "tagger scan --audit --dry-run" in out
    assert "Zydeco 1" in out
    assert main([*run, "--output", str(config)]) == 0  # again: it is tagger's own file
    config_text = config.read_text()
    assert main([*run, "--output", str(library / "new.flac")]) == 2
    assert "would overwrite" in capsys.readouterr().err
    bound = float(config_text.partition("Jazz = ")[2].split()[0])
    scores = (Score("Jazz", bound - 0.01), Score("Rock", 0.1))
    save_scores(state, {library / "untagged.flac": scores})
    scan = ("scan", library / "untagged.flac", "-n", "--state", state)
    assert Command(capsys, *map(str, scan)).summary["would_write"] == 1
    assert Command(capsys, *map(str, scan), "--config", config).summary["low_score"] == 1


def test_it_needs_scores_and_genres_and_says_how_to_get_them(
    library: Path, judged: tuple[Path, Path], tmp_path: Path, capsys: Capsys
) -> None:
    assert main(["calibrate", str(library)]) == 3
    assert "has no track with a genre of" in capsys.readouterr().err
    judged_library, _ = judged
    empty = tmp_path / "empty.sqlite"
    assert main(["calibrate", str(judged_library), "--state", str(empty)]) == 3
    assert "tagger scan --audit --dry-run" in capsys.readouterr().err
    assert not empty.exists()
    assert main(["calibrate", ""]) == 2
    assert main(["calibrate", str(judged_library), "--precision", "1"]) == 2
    capsys.readouterr()


def test_the_command_that_listens_has_the_options_of_the_calibration(
    judged: tuple[Path, Path], tmp_path: Path, capsys: Capsys
) -> None:
    library, _ = judged
    config, state = tmp_path / "other.toml", tmp_path / "empty.sqlite"
    config.write_text("windows = 2\n")
    options = ["--windows=auto", "--exclude=[0-5]?.flac", "--exclude=z*", "--include-ignored"]
    options += ["--max-seconds=7", "--max-memory=900"]
    files = ["--state", str(state), "--config", str(config)]
    assert main(["calibrate", *files, *options, "--min-score=0.5", str(library)]) == 3
    command = capsys.readouterr().err.partition("write no tags: ")[2]
    words = ["tagger", "scan", "--audit", "--dry-run", *files, *options, "--", str(library)]
    assert sorted(shlex.split(command)) == sorted(words)


def test_scores_of_an_audit_are_enough(library: Path, tmp_path: Path, capsys: Capsys) -> None:
    state = tmp_path / "state.sqlite"
    for path in library.iterdir():
        audio: Any = mutagen.File(path, easy=True)
        audio["genre"] = "Jazz"
        audio.save()
    Scan(capsys, library, "-n", "--audit", "--state", state)
    result = run_without_torch("calibrate", library, "--json", "--state", state)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["tracks"] == 3


def build_albums(folder: Path, names: Sequence[str], *, various: bool = False) -> tuple[Path, Path]:
    """Build an album of three tracks for each name of an artist; return also the state file.

    A person calls them Rock, the model hears rather Jazz.
    """
    library, state = folder / "artist", folder / "state.sqlite"
    library.mkdir(parents=True)
    sound = build_audio(folder / "sound.flac", seconds=2)
    scores: dict[Path, tuple[Score, ...]] = {}
    for number in range(3 * len(names)):
        path = Path(shutil.copy(sound, library / f"{number}.flac"))
        set_album(path, f"Album {number // 3}", names[number // 3], various=various)
        set_genre_field(path, "Rock")
        scores[path] = (Score("Jazz", 0.5), Score("Rock", 0.4), Score("Pop", 0.1))
    save_scores(state, scores)
    return library, state


def test_context_groups_tracks_as_a_scan_does(tmp_path: Path, capsys: Capsys) -> None:
    names = ("The Band", "the band", "The-Band", "THE BAND")
    library, state = build_albums(tmp_path / "spellings", names)
    found = Command(capsys, "calibrate", library, "--state", state).summary["context"]
    assert (found["helped"], found["artist"]["right"]) == (12, 12)
    library, state = build_albums(tmp_path / "compilations", ["Band"] * 4, various=True)
    assert Command(capsys, "calibrate", library, "--state", state).summary["context"] is None


def test_it_says_what_the_other_albums_of_an_artist_would_add(
    tmp_path: Path, capsys: Capsys
) -> None:
    library, state = build_albums(tmp_path, ["Band"] * 4)
    found = Command(capsys, "calibrate", library, "--state", state).summary["context"]
    assert (found["helped"], found["alone"]["right"], found["artist"]["right"]) == (12, 0, 12)
    assert main(["calibrate", str(library), "--state", str(state)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(
        " ".join(line.split()) == "alone 100% written, 0% of 12 right (at least 0%)"
        for line in lines
    )
    assert any(
        line.strip().startswith("--context artist") and "100% of 12" in line for line in lines
    )
