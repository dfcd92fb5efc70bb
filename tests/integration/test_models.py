"""Scans with other models than the bundled one: genre names, several genres, stored scores."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tagger.tags import read_tags
from tests.checkpoints import save
from tests.front_door import ANY, Scan, run_without_transformers


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for kind in ("hubert", "ast", "clap"):
        save(folder / kind, kind)
    return folder


def genres(folder: Path) -> set[str]:
    return {genre for path in folder.iterdir() for genre in read_tags(path).genres}


def test_labels_of_gtzan_get_their_usual_names_and_the_users_map_wins(
    models: Path, library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = Scan(capsys, library, "-m", models / "hubert", *ANY)
    assert scan.actions == {"written": 3}
    assert genres(library) <= {"Rock", "Jazz", "Hip-Hop"}
    assert "Hip-Hop=" in scan.row("a.flac")["scores"]
    names = tmp_path / "names.toml"
    names.write_text('"HipHop" = "Rap"\nrock = "Rap"\njazz = ""\n', "utf-8")
    again = Scan(capsys, library, "-m", models / "hubert", "--genre-map", names, *ANY)
    assert "to listen to" not in again.err
    assert genres(library) == {"Rap"}
    assert again.row("a.flac")["scores"].startswith("Rap=")


def test_a_warning_names_the_entries_of_a_map_that_the_model_does_not_know(
    models: Path, library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = tmp_path / "names.toml"
    names.write_text('rock = "Rock"\n"Hip Hop" = "Rap"\nTechno = ""\n', "utf-8")
    scan = Scan(capsys, library, "-n", "-m", models / "hubert", "--genre-map", names, *ANY)
    assert "has labels that the model does not know: hip hop, techno" in scan.err
    assert "it knows rock, jazz, hiphop" in scan.err
    names.write_text('rock = "Rock"\n', "utf-8")
    scan = Scan(capsys, library, "-n", "-m", models / "hubert", "--genre-map", names, *ANY)
    assert "does not know" not in scan.err


def test_several_genres_are_true_multi_values(
    models: Path, library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ("-m", models / "ast", "--min-score", "0.45")
    one = Scan(capsys, library, *model)
    assert all(len(read_tags(path).genres) == 1 for path in library.iterdir())
    two = Scan(capsys, library, *model, "--genres", "3")
    assert "to listen to" not in two.err
    for path in library.iterdir():
        scores = dict(pair.split("=") for pair in two.row(path.name)["scores"].split(";"))
        likely = tuple(name for name, score in scores.items() if float(score) >= 0.45)
        tags = read_tags(path)
        assert tags.genres == tags.written == likely
        assert two.row(path.name)["genre"] == ";".join(likely)
    assert max(len(read_tags(path).genres) for path in library.iterdir()) > 1
    assert one.actions == {"written": 3}


def test_labels_of_the_user_are_written_unchanged(
    models: Path, library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = Scan(capsys, library, "-m", models / "clap", "--labels", "rock,hiphop,Techno", *ANY)
    assert scan.actions == {"written": 3}
    assert genres(library) <= {"rock", "hiphop", "Techno"}
    other = Scan(capsys, library, "-m", models / "clap", "--labels", "rock,Ambient", "-n", *ANY)
    assert "3 tracks to listen to" in other.err
    assert other.summary["model"] != scan.summary["model"]


def test_a_new_model_makes_only_its_own_results_stale(
    models: Path, library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "3 tracks to listen to" in Scan(capsys, library, "-n", *ANY).err
    other = ("-m", models / "hubert")
    assert "3 tracks to listen to" in Scan(capsys, library, "-n", *other, *ANY).err
    assert "to listen to" not in Scan(capsys, library, "-n", *ANY).err
    assert "to listen to" not in Scan(capsys, library, "-n", *other, *ANY).err
    shorter = (*other, "--window-seconds", "2")
    assert "3 tracks to listen to" in Scan(capsys, library, "-n", *shorter, *ANY).err


def test_silence_in_the_windows_of_one_model_is_no_failure_for_another(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = np.zeros(16_000 * 40)
    samples[: 16_000 * 6] = np.random.default_rng(0).normal(0, 0.1, 16_000 * 6)
    (tmp_path / "m").mkdir()
    soundfile.write(tmp_path / "m" / "intro.flac", samples, 16_000)
    middle = ("-m", models / "hubert", "--window-seconds", "5", "--windows", "1")
    first = Scan(capsys, tmp_path / "m", *middle, *ANY)
    assert (first.code, first.actions) == (1, {"failed": 1})
    again = Scan(capsys, tmp_path / "m", *middle, *ANY)
    assert (again.code, again.actions) == (0, {"failed": 1})
    assert "to listen to" not in again.err
    assert Scan(capsys, tmp_path / "m", *ANY).actions == {"written": 1}
    back = Scan(capsys, tmp_path / "m", *middle, *ANY)
    assert (back.code, back.actions) == (0, {"failed": 1})
    assert "to listen to" not in back.err


@pytest.mark.slow
def test_messages_of_transformers_are_not_shown(models: Path, library: Path) -> None:
    args = ["scan", str(library), "-n", "-m", str(models / "ast"), *ANY]
    done = subprocess.run(
        [sys.executable, "-m", "tagger", *args], capture_output=True, text=True, check=True
    )
    assert done.stderr == "tagger: 3 tracks to listen to\n"


def test_a_scan_with_the_bundled_model_needs_no_transformers(library: Path) -> None:
    result = run_without_transformers("scan", library, *ANY)
    assert (result.returncode, len(genres(library))) == (0, 1), result.stderr


def test_classify_with_a_bundled_model_needs_no_transformers(library: Path) -> None:
    result = run_without_transformers("classify", library / "a.flac", "-m", "yamnet")
    assert (result.returncode, "a.flac" in result.stdout) == (0, True), result.stderr
