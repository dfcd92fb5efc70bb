"""`tagger evaluate` through the front door: folders, lists, libraries, pictures, bad data."""

import contextlib
import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tagger.cli import main
from tagger.records import Score
from tagger.training.evaluate import ClipScores, compute_measures, compute_proportion
from tests.builders import build_audio, write_text
from tests.checkpoints import LABELS, edit, save
from tests.front_door import Scan, set_genre


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "hubert", "hubert")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Build a folder with a folder for each of three labels, two clips in each."""
    root = tmp_path / "dataset"
    for number, label in enumerate(["Jazz", "hip hop", "Rock"]):
        (root / label).mkdir(parents=True)
        for clip in range(2):
            build_audio(root / label / f"{clip}.flac", seconds=2, seed=2 * number + clip)
    return root


def evaluate(capsys: pytest.CaptureFixture[str], *args: str | Path) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["evaluate", "--json", *map(str, args)]) in {0, 1}
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def listen(capsys: pytest.CaptureFixture[str], model: Path, path: Path) -> dict[str, float]:
    """Return the score of each label, best first."""
    capsys.readouterr()
    main(["classify", "--json", "-m", str(model), str(path)])
    scores = json.loads(capsys.readouterr().out)[0]["scores"]
    return {each["label"]: each["score"] for each in scores}


NAMES = {"jazz": "Jazz", "hiphop": "hip hop", "rock": "Rock"}
"""The labels of the model, and those of the data set."""


def test_measures_are_those_of_what_the_model_hears(
    model: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = {path: next(iter(listen(capsys, model, path))) for path in dataset.glob("*/*")}
    right = sum(NAMES[label] == path.parent.name for path, label in best.items())
    found = evaluate(capsys, dataset, "-m", model)
    assert found["accuracy"]["clips"] == 6
    assert found["accuracy"]["value"] == pytest.approx(right / 6)
    assert found["accuracy"]["low"] < right / 6 < found["accuracy"]["high"] or right in {0, 6}
    assert [row["genre"] for row in found["genres"]] == ["Hip-Hop", "Jazz", "Rock"]
    assert sum(map(sum, found["confusion"]["counts"])) == 6
    assert found["model"].startswith("hubert@")


def test_what_is_no_music_is_no_answer(
    model: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = {path: listen(capsys, model, path) for path in dataset.glob("*/*")}
    best = {path: next(iter(each)) for path, each in scores.items()}
    other = next(label for path, label in best.items() if NAMES[label] != path.parent.name)
    plain = Path(shutil.copytree(model, tmp_path / "plain"))
    labels = {n: "Speech" if label == other else label for n, label in LABELS.items()}
    edit(plain, id2label=labels, label2id={label: n for n, label in labels.items()})
    picky = Path(shutil.copytree(plain, tmp_path / "picky"))
    edit(picky, not_music=["Speech"])
    (dataset / NAMES[other]).rename(dataset / "Speech")
    all_labels = evaluate(capsys, dataset, "-m", picky)["confusion"]
    assert all_labels == evaluate(capsys, dataset, "-m", plain)["confusion"]
    shutil.rmtree(dataset / "Speech")
    found = evaluate(capsys, dataset, "-m", picky, "--min-score", "0.01")
    assert len(found["confusion"]["labels"]) == 2
    music = [path for path, each in scores.items() if path.exists() and each[other] <= 0.5]
    assert (found["sure"]["clips"] if found["sure"] else 0) == len(music) < 4


@pytest.mark.slow
def test_a_list_and_a_library_are_data_sets_too(
    model: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = evaluate(capsys, dataset, "-m", model)
    with (tmp_path / "list.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["label", "path"])
        for path in sorted(dataset.glob("*/*")):
            rows.writerow([path.parent.name, path.relative_to(tmp_path)])
        rows.writerow(["Jazz", "none.flac"])
        rows.writerow(["", path.relative_to(tmp_path)])
    listed = evaluate(capsys, tmp_path / "list.csv", "-m", model)
    assert listed["confusion"] == expected["confusion"]
    reasons = [each["reason"] for each in listed["left_out"]]
    assert reasons == ["there is no such file", "it has no label"]
    for path in dataset.glob("*/*"):
        set_genre(path, path.parent.name)
    build_audio(dataset / "untagged.flac", seconds=2)
    tagged = evaluate(capsys, dataset, "--from-tags", "-m", model)
    assert tagged["confusion"] == expected["confusion"]
    assert [each["reason"] for each in tagged["left_out"]] == ["no person gave it a genre"]


def test_gtzan_as_it_was_published_is_sun_audio(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "genres" / "jazz").mkdir(parents=True)
    noise = np.random.default_rng(0).normal(0, 0.1, 22_050 * 2)
    soundfile.write(tmp_path / "genres" / "jazz" / "jazz.00000.au", noise, 22_050)
    assert evaluate(capsys, tmp_path / "genres", "-m", model)["accuracy"]["clips"] == 1


def test_a_model_is_not_downloaded_for_data_that_it_cannot_be_held_against(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "set" / "Polka").mkdir(parents=True)
    build_audio(tmp_path / "set" / "Polka" / "a.flac", seconds=2)

    def download(*_: object) -> None:
        pytest.fail("there is nothing to listen to")

    monkeypatch.setattr("tagger.training.evaluate.download_missing", download)
    assert main(["evaluate", str(tmp_path / "set"), "-m", str(model)]) == 3
    assert "has no clip with a label of hubert@" in capsys.readouterr().err


def test_what_tagger_wrote_is_nobodys_opinion(
    library: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Scan(capsys, library, "--min-score", "0", "-m", model).actions == {"written": 3}
    assert main(["evaluate", str(library), "--from-tags", "-m", str(model)]) == 3
    assert "has no track with a genre" in capsys.readouterr().err


def test_labels_that_the_model_lacks_and_bad_files_are_told_and_not_counted(
    model: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(dataset / "Jazz", dataset / "Polka")
    write_text(dataset / "Rock" / "2.mp3")
    build_audio(dataset / "loose.flac", seconds=2)
    assert main(["evaluate", str(dataset), "-m", str(model)]) == 1
    out = capsys.readouterr().out
    assert "2 tracks of Polka: no label of the model, not counted" in out
    assert "1 track left out: it is in no folder that is named after a label" in out
    assert "of 6 (95 %:" in out
    assert "labelled (rows) and predicted (columns):" in out


@pytest.mark.slow
def test_a_map_renames_the_labels_of_both_sides_and_rare_ones_are_left_out(
    model: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = tmp_path / "names.toml"
    names.write_text('jazz = "Old"\nhiphop = "New"\n"hip hop" = "New"\nrock = "New"\n', "utf-8")
    found = evaluate(capsys, dataset, "-m", model, "--genre-map", names)
    assert [(row["genre"], row["clips"]) for row in found["genres"]] == [("New", 4), ("Old", 2)]
    few = evaluate(capsys, dataset, "-m", model, "--genre-map", names, "--min-tracks", "3")
    assert [row["genre"] for row in few["genres"]] == ["New"]
    assert [each["reason"] for each in few["left_out"]] == ["fewer than 3 tracks are Old"] * 2


def test_the_picture_is_drawn(
    model: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(capsys, dataset, "-m", model, "--picture", tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert main(["evaluate", str(dataset), "-m", str(model), "--picture", "/no/a.png"]) == 3
    assert "cannot write the picture /no/a.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["evaluate"], 2, "Missing argument"),
        (["evaluate", "/no/such"], 3, "cannot read /no/such"),
        (["evaluate", "list.csv"], 3, "does not have the columns path and label"),
        (["evaluate", "empty"], 3, "empty has no track with a genre"),
    ],
)
def test_data_that_cannot_be_used(
    args: list[str], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.csv").write_text("a,b\n1,2\n", "utf-8")
    (tmp_path / "empty").mkdir()
    with contextlib.chdir(tmp_path):
        assert main(args) == code
    assert words in capsys.readouterr().err


def answer(truth: str, guess: str, score: float) -> ClipScores:
    return ClipScores((truth,), (Score(guess, score), Score("Other", 1 - score)))


def test_measures_by_hand() -> None:
    found = compute_measures(
        [
            answer("Jazz", "Jazz", 0.95),
            answer("Jazz", "Rock", 0.65),
            answer("Rock", "Rock", 0.95),
            answer("Rock", "Rock", 0.65),
        ]
    )
    assert found.accuracy.value == 0.75
    assert [row.genre for row in found.genres] == ["Jazz", "Rock"]
    assert [row.precision for row in found.genres] == pytest.approx([1.0, 2 / 3])
    assert [row.recall for row in found.genres] == [0.5, 1.0]
    assert found.macro_f1 == pytest.approx((2 / 3 + 0.8) / 2)
    assert found.confusion.tolist() == [[1, 1], [0, 2]]
    assert found.ece == pytest.approx((2 * 0.05 + 2 * 0.15) / 4)


def test_one_of_several_labels_is_enough_and_the_choice_can_be_narrowed() -> None:
    scores = (Score("Rock", 0.6), Score("Pop", 0.3), Score("Jazz", 0.1))
    both = ClipScores(("Pop", "Rock"), scores)
    assert both.is_correct
    assert both.true_label == "Rock"
    narrow = both.restrict_to({"Pop", "Jazz"})
    assert narrow.predicted_label == "Pop"
    assert narrow.scores[0].probability == pytest.approx(0.75)


def test_the_interval_is_wilsons() -> None:
    found = compute_proportion(71, 100)
    assert [found.low, found.high] == pytest.approx([0.6146, 0.7899], abs=1e-4)
