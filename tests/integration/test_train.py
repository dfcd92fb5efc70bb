"""`tagger train` through the front door: what it leaves, bad data, resuming, the Hub."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from filelock import FileLock
from rich.console import Console
from transformers import EvalPrediction, pipeline

from tagger.audio import read_windows
from tagger.cli import main
from tagger.cli.terminal import StopSignal
from tagger.cli.training import TrainingProgress
from tagger.errors import SettingsError, TerminatedRunError
from tagger.models import find_base_model
from tagger.settings import Settings
from tagger.training.evaluate import EpochMeasures
from tagger.training.finetune import FinetuneTask, PartSegments, measure_epoch
from tagger.training.network import load_trainable_config, make_untrained_model
from tagger.training.recipe import Freeze, Recipe
from tagger.training.splits import Split
from tagger.training.workspace import open_workspace
from tests.builders import build_audio, write_text
from tests.checkpoints import CLASSIFIERS, save
from tests.front_door import set_genre
from tests.hub import serving, tagger
from tests.hub_uploads import UploadHandler, WritableHub
from tests.unit.test_fingerprints import tune

Capsys = pytest.CaptureFixture[str]

SECONDS = 1.2
FREQUENCIES_HZ = {"low": 110.0, "middle": 330.0, "High": 990.0}
QUICK = ("--epochs", "2", "--learning-rate", "0.003", "--jobs", "1")


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a data set of three genres that even a tiny network can tell apart."""
    root = tmp_path_factory.mktemp("data") / "tones"
    for label, frequency_hz in FREQUENCIES_HZ.items():
        (root / label).mkdir(parents=True)
        for number in range(10):
            path = root / label / f"{number}.flac"
            at_hz = frequency_hz * (1 + number / 50)
            build_audio(path, seconds=SECONDS, frequency_hz=at_hz, seed=number)
    return root


@pytest.fixture(scope="module")
def hubert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("base") / "hubert", "hubert")


@pytest.fixture(scope="module")
def trained(tones: Path, hubert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "model"
    args = ["--base-model", str(hubert), *QUICK, "--min-tracks", "2"]
    assert main(["train", str(tones), "--output-dir", str(folder), *args]) == 0
    return folder


@pytest.fixture
def command(tones: Path, hubert: Path, tmp_path: Path) -> list[str]:
    return [str(tones), "--output-dir", str(tmp_path / "out"), "--base-model", str(hubert)]


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "evaluation.json").read_text("utf-8"))
    return found


def train(*args: str | Path) -> int:
    return main(["train", *map(str, args)])


def test_the_folder_is_one_that_a_pipeline_takes(trained: Path, tones: Path) -> None:
    path = tones / "High" / "3.flac"
    samples = read_windows(path, rate_hz=16_000, window_s=30, count=1).windows[0]
    scores = pipeline("audio-classification", str(trained))(samples)
    assert {each["label"] for each in scores} == set(FREQUENCIES_HZ)
    config = json.loads((trained / "config.json").read_text("utf-8"))
    assert config["id2label"] == {"0": "High", "1": "low", "2": "middle"}
    assert config["label2id"] == {"High": 0, "low": 1, "middle": 2}
    features = json.loads((trained / "preprocessor_config.json").read_text("utf-8"))
    assert features["do_normalize"]
    assert features["return_attention_mask"]


def test_what_is_left_beside_the_model(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert names == {
        "README.md", "config.json", "curves.png", "evaluation.json", "measures.png",
        "model.safetensors", "preprocessor_config.json", "recipe.json", "split.csv",
    }  # fmt: skip
    for name in ("curves.png", "measures.png"):
        assert (trained / name).read_bytes().startswith(b"\x89PNG")
    found = results(trained)
    assert [epoch["number"] for epoch in found["epochs"]] == [1, 2]
    assert found["epochs"][1]["train_loss"] < found["epochs"][0]["train_loss"]
    recipe = json.loads((trained / "recipe.json").read_text("utf-8"))["recipe"]
    assert recipe["epochs"] == "2"
    assert recipe["learning-rate"] == "0.003"
    assert recipe["base-model"] == "hubert"


def test_the_best_epoch_is_kept_and_measured_as_a_scan_hears(trained: Path) -> None:
    found = results(trained)
    best = max(epoch["accuracy"] for epoch in found["epochs"])
    assert found["accuracy"]["value"] == pytest.approx(best)
    assert found["accuracy"]["clips"] == 3


@pytest.mark.parametrize(
    ("earlier", "later", "is_better"),
    [
        ((3, 0.9), (3, 0.5), True),
        ((3, 0.5), (3, 0.9), False),
        ((2, 0.1), (3, 90.0), True),
        ((3, 90.0), (2, 0.1), False),
    ],
)
def test_of_epochs_as_right_as_each_other_the_one_with_the_lower_loss_is_better(
    earlier: tuple[int, float], later: tuple[int, float], *, is_better: bool
) -> None:
    part = PartSegments((), (1, 2, 1, 1), tuple(frozenset([0]) for _ in range(4)))
    ranks, measures = [], []
    for right, loss in (earlier, later):
        logits = np.eye(2)[[0 if clip < right else 1 for clip in (0, 1, 1, 2, 3)]]
        found = measure_epoch(EvalPrediction(logits, np.zeros(5), losses=np.full(5, loss)), part)
        assert found["accuracy"] == right / 4
        ranks.append(found["rank"])
        measures.append(EpochMeasures(1, 0.0, loss, found["accuracy"]))
    assert (ranks[1] > ranks[0]) == (measures[1].rank > measures[0].rank) == is_better


@pytest.mark.parametrize(
    ("clips", "options", "kept"),
    [
        (49, {"freeze": Freeze.BACKBONE}, 3),
        (50, {"freeze": Freeze.BACKBONE}, 2),
        (49, {"freeze": Freeze.BACKBONE, "early_stopping": 2}, 2),
        (49, {}, 2),
    ],
)
def test_few_clips_do_not_choose_the_epoch_of_a_head(
    clips: int, options: dict[str, Any], kept: int
) -> None:
    part = PartSegments((), (1,) * clips, (frozenset([0]),) * clips)
    recipe = Recipe(base_model="musicnn", **options)
    task = FinetuneTask(None, None, part, part, recipe, Path(), Settings())  # type: ignore[arg-type]
    accuracies = (0.5, 0.9, 0.8)
    epochs = [EpochMeasures(number, 0.1, 0.1, each) for number, each in enumerate(accuracies, 1)]
    assert task.choose_epoch(epochs).number == kept


def test_the_card_says_whether_the_measured_clips_chose_the_checkpoint(
    trained: Path, command: list[str]
) -> None:
    sentence = "The checkpoint was chosen by the clips that were measured"
    assert sentence in (trained / "README.md").read_text("utf-8")
    assert train(*command, "--freeze", "backbone", *QUICK) == 0
    assert sentence not in (Path(command[2]) / "README.md").read_text("utf-8")


def test_the_parts_are_those_of_the_library_datasets(trained: Path) -> None:
    from datasets import Dataset

    with (trained / "split.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    paths = sorted((row["path"] for row in rows), key=str)
    parts = Dataset.from_dict({"path": paths}).train_test_split(
        test_size=0.1, shuffle=True, seed=42
    )
    validation = {row["path"] for row in rows if row["part"] == "validation"}
    assert validation == set(parts["test"]["path"])


def test_nothing_that_could_be_pushed_tells_where_the_clips_lie(trained: Path, tones: Path) -> None:
    for path in trained.glob("*.[jm]*"):
        assert os.fsencode(tones.parent.parent) not in path.read_bytes(), path.name
    card = (trained / "README.md").read_text("utf-8")
    assert "pipeline_tag: audio-classification" in card
    assert "hubert, fine-tuned on tones by tagger" in card
    assert "| epoch | training loss | validation loss | accuracy |" in card
    assert results(trained)["dataset"] == "tones"
    assert "seed 42" in card


def test_the_result_is_a_model_like_any_other(trained: Path, tones: Path, capsys: Capsys) -> None:
    capsys.readouterr()
    path = tones / "low" / "1.flac"
    assert main(["classify", "--json", "-m", str(trained), str(path)]) == 0
    scores = json.loads(capsys.readouterr().out)[0]["scores"]
    assert {score["label"] for score in scores} == set(FREQUENCIES_HZ)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*CLASSIFIERS, "musicnn"])
def test_a_head_alone_is_what_the_whole_model_has_in_the_end(
    kind: str, tones: Path, tmp_path: Path
) -> None:
    """The accuracy that the training saw, on embeddings, is that of the folder on sound."""
    base = "musicnn" if kind == "musicnn" else save(tmp_path / kind, kind)
    folder = tmp_path / "out"
    args = (
        "--base-model",
        base,
        "--freeze",
        "backbone",
        "--epochs",
        "3",
        "--learning-rate",
        "0.01",
    )
    assert train(tones, "--output-dir", folder, *args, "--jobs", "1") == 0
    found = results(folder)
    assert found["accuracy"]["value"] == found["epochs"][-1]["accuracy"]
    assert found["epochs"][-1]["train_loss"] < found["epochs"][0]["train_loss"]


@pytest.mark.slow
def test_a_frozen_backbone_stays_to_the_bit(tones: Path, hubert: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    args = ("--base-model", hubert, "--freeze", "backbone", *QUICK)
    assert train(tones, "--output-dir", tmp_path / "out", *args) == 0
    before, after = (
        load_file(folder / "model.safetensors") for folder in (hubert, tmp_path / "out")
    )
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.split(".")[0] for name in changed} == {"projector", "classifier"}


def trained_with(command: list[str], *options: str) -> dict[str, Any]:
    """Train with some options more, and return what is measured."""
    folder = Path(command[2])
    shutil.rmtree(folder, ignore_errors=True)
    assert train(*command, *QUICK, *options) == 0
    return results(folder)


def losses(found: dict[str, Any]) -> list[float]:
    return [epoch["train_loss"] for epoch in found["epochs"]]


@pytest.mark.slow
def test_random_crops_lie_elsewhere_in_each_epoch(command: list[str]) -> None:
    short = ("--segment-seconds", "0.4", "--learning-rate", "1e-12", "--dropout", "0")
    plain = losses(trained_with(command, *short))
    features = json.loads((Path(command[2]) / "preprocessor_config.json").read_text("utf-8"))
    assert features["chunk_length_s"] == 0.4
    cropped = losses(trained_with(command, *short, "--random-crops"))
    assert cropped != plain
    assert cropped == losses(trained_with(command, *short, "--random-crops"))


@pytest.mark.slow
@pytest.mark.parametrize("base", ["hubert", "musicnn"])
def test_a_scan_hears_segments_as_long_as_those_of_the_training(
    base: str, command: list[str], tones: Path, capsys: Capsys
) -> None:
    model = [] if base == "hubert" else ["--base-model", base]
    trained_with([*command, *model], "--freeze", "backbone", "--segment-seconds", "0.5")
    capsys.readouterr()
    path = tones / "low" / "1.flac"
    assert main(["classify", "--json", "--timeline", "-m", command[2], str(path)]) == 0
    assert len(json.loads(capsys.readouterr().out)[0]["timeline"]) == int(SECONDS / 0.5)


@pytest.mark.slow
def test_accumulated_gradients_give_the_loss_of_one_batch(command: list[str]) -> None:
    still = ("--learning-rate", "1e-12", "--dropout", "0", "--gradient-checkpointing")
    whole = losses(trained_with(command, *still, "--batch-size", "8"))
    parts = trained_with(command, *still, "--batch-size", "2", "--gradient-accumulation", "4")
    assert losses(parts) == pytest.approx(whole, rel=0.05)


@pytest.mark.slow
def test_smoothing_dropout_and_frozen_convolutions(command: list[str], hubert: Path) -> None:
    from safetensors.torch import load_file

    plain = losses(trained_with(command, "--dropout", "0"))
    options = ("--freeze", "feature-encoder", "--dropout", "0", "--label-smoothing", "0.9")
    assert losses(trained_with(command, *options)) != plain
    folder = Path(command[2])
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert {config[name] for name in ("hidden_dropout", "attention_dropout", "final_dropout")} == {
        0.0
    }
    before, after = (load_file(place / "model.safetensors") for place in (hubert, folder))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not [name for name in changed if name.startswith("hubert.feature_extractor")]
    assert [name for name in changed if name.startswith("hubert.encoder")]


@pytest.mark.parametrize("base", ["musicnn", "musicnn-yamnet"])
def test_dropout_reaches_the_layers_of_a_bundled_model(base: str) -> None:
    settings, recipe = Settings(model=base), Recipe(dropout=0.125)
    config, _ = load_trainable_config(find_base_model(settings), recipe, settings)
    with torch.device("meta"):
        model = make_untrained_model(config, ["a", "b"], recipe, trust=False)
    dropouts = [layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout)]
    assert set(dropouts) == {0.125}


@pytest.mark.slow
def test_it_stops_early_and_keeps_logs_where_that_is_asked(command: list[str]) -> None:
    options = ("--epochs", "6", "--early-stopping", "1", "--learning-rate", "1e-12")
    found = trained_with(command, *options, "--tensorboard", "--split", "stratified")
    assert len(found["epochs"]) == 2
    assert list((Path(command[2]) / "runs").glob("events*"))


@pytest.mark.slow
def test_every_layer_of_the_bundled_model_can_be_trained(
    command: list[str], tones: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few"  # an epoch of all tones takes ten seconds
    for path in tones.glob("*/[0-2].flac"):
        (few / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, few / path.parent.name)
    command[0] = str(few)
    options = ("--batch-size", "4", "--learning-rate", "0.0005")
    found = trained_with([*command, "--base-model", "musicnn"], *options)
    assert losses(found)[1] < losses(found)[0]


@pytest.mark.slow
def test_clips_of_any_length_are_heard_alone(hubert: Path, tmp_path: Path) -> None:
    """What the training sees of each clip is what a scan hears, whoever is in its batch."""
    root = tmp_path / "set"
    for number, label in enumerate(["a", "b"]):
        (root / label).mkdir(parents=True)
        for length in range(5):
            path = root / label / f"{length}.flac"
            build_audio(path, seconds=1 + length / 3, frequency_hz=200 * (1 + number), seed=length)
    for freeze in ("backbone", "none"):
        folder = tmp_path / freeze
        args = ("--base-model", hubert, "--freeze", freeze, "--test-size", "0.5", *QUICK)
        assert train(root, "--output-dir", folder, *args) == 0
        found = results(folder)
        accuracies = [epoch["accuracy"] for epoch in found["epochs"]]
        kept = accuracies[-1] if freeze == "backbone" else max(accuracies)
        assert found["accuracy"]["value"] == kept


@pytest.mark.slow
def test_a_config_file_for_scans_does_not_reach_a_training(
    command: list[str], tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text('labels = ["a", "b"]\nrevision = "main"\nwindows = 3\n', "utf-8")
    assert train(*command, *QUICK, "--config", config) == 0


@pytest.mark.slow
def test_names_are_no_formulas_and_the_media_server_may_read_the_weights(
    tones: Path, command: list[str], tmp_path: Path
) -> None:
    root = Path(shutil.copytree(tones, tmp_path / "$et"))
    (root / "low").rename(root / "100% _{$ | x")
    command[0] = str(root)
    assert train(*command, *QUICK) == 0
    modes = {path.stat().st_mode & 0o777 for path in Path(command[2]).glob("*.[js]*")}
    assert modes == {0o666 & ~_umask()}


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.slow
def test_a_stop_while_it_is_measured_loses_nothing(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr("tagger.cli.training.TrainingProgress.on_evaluated", stop)
        patch.setattr("tagger.training.job.draw_curves", _interrupted)
        assert train(*command, *QUICK) == 143
    assert train(*command, *QUICK, "--resume") == 0
    assert len(results(Path(command[2]))["epochs"]) == 2


def _interrupted(*_: object) -> None:
    raise TerminatedRunError("stopped")


def test_two_trainings_do_not_share_a_folder(
    command: list[str], tmp_path: Path, capsys: Capsys
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    with FileLock(folder / ".lock"):
        assert train(*command, *QUICK) == 4
    assert "another training is running in" in capsys.readouterr().err


@pytest.mark.slow
def test_a_split_can_be_used_again(trained: Path, command: list[str], capsys: Capsys) -> None:
    capsys.readouterr()
    assert train(*command, "--split-file", trained / "split.csv", "-n", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["train"], row["validation"]) for row in found["halves"]["genres"]] == [(9, 1)] * 3


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"tagger": "0.1.0"}, "with tagger 0.1.0, and this is tagger 0.2.0: go on with tagger 0.1"),
        ({"recipe": {"epochs": "4"}}, "with --epochs 4, not 3: use the same options, or choose"),
        ({"recipe": {"epochs": "3", "x": "1"}}, "with --x 1, not None: use the same options"),
        ({"recipe": None}, "with other options: use the same ones, or choose another"),
        ({"base": "musicnn@2"}, "with the base model musicnn@2, not musicnn@1: use the same one"),
        ({"labels": ["a"]}, "with other genres: use the same data, or choose another"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_message_names_what_another_training_was_started_with(
    other: dict[str, Any], said: str, tmp_path: Path
) -> None:
    split = Split((), (), (), "by nobody")
    this: dict[str, Any] = {
        "tagger": "0.2.0",
        "recipe": {"epochs": "3"},
        "base": "musicnn@1",
        "labels": ["a", "b"],
    }
    open_workspace(tmp_path, this | other, split)
    (tmp_path / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    with pytest.raises(SettingsError) as caught:
        open_workspace(tmp_path, this, split)
    assert said in str(caught.value)


def killed_in_the_second_epoch(command: list[str], folder: Path) -> None:
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 120
        while not list(folder.glob("checkpoints/*/trainer_state.json")):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < until, "no checkpoint came"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_training_resumes_and_ends_the_same(
    tones: Path, hubert: Path, tmp_path: Path, capsys: Capsys
) -> None:
    args = [str(tones), "--base-model", str(hubert), "--epochs", "3", "--learning-rate", "0.003"]
    args += ["--random-crops", "--segment-seconds", "0.8", "--jobs", "1"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train(*args, "--output-dir", whole) == 0
    command = [sys.executable, "-m", "tagger", "train", *args, "--output-dir", str(killed)]
    killed_in_the_second_epoch(command, killed)
    assert train(*args, "--output-dir", killed) == 2
    assert "add --resume" in capsys.readouterr().err
    assert train(*args, "--output-dir", killed, "--resume", "--epochs", "4") == 2
    assert "was started with --epochs 3, not 4" in capsys.readouterr().err
    incomplete = killed / "checkpoints" / "checkpoint-9999"
    incomplete.mkdir()
    (incomplete / "trainer_state.json").write_text('{"global_step": 99', "utf-8")
    assert train(*args, "--output-dir", killed, "--resume") == 0
    assert results(killed)["epochs"] == results(whole)["epochs"]
    assert results(killed)["accuracy"] == results(whole)["accuracy"]
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert not (killed / "checkpoints").exists()
    assert train(*args, "--output-dir", killed, "--resume") == 2
    assert "holds a finished training" in capsys.readouterr().err


def test_a_dry_run_shows_the_split_and_the_memory_and_leaves_nothing(
    command: list[str], tmp_path: Path, capsys: Capsys
) -> None:
    folder = tmp_path / "out"
    assert train(*command, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "split: at random, 10 % for validation, seed 42" in shown
    assert "all        27           3" in shown
    assert "memory for a step: about" in shown
    assert main(["train", *command, "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["train"] for row in found["halves"]["genres"]] == [9, 9, 9]
    assert found["memory_bytes"]["layers"] > found["memory_bytes"]["weights"] > 0
    assert not folder.exists()


@pytest.mark.parametrize("base", ["hubert", "musicnn-yamnet"])
def test_gradient_checkpointing_takes_less_memory(
    base: str, command: list[str], capsys: Capsys
) -> None:
    model = [] if base == "hubert" else ["--base-model", base]
    sizes = []
    for option in ([], ["--gradient-checkpointing"]):
        capsys.readouterr()
        assert train(*command, *model, "--dry-run", "--json", *option) == 0
        sizes.append(json.loads(capsys.readouterr().out)["memory_bytes"]["layers"])
    assert sizes[1] < 0.9 * sizes[0]


@pytest.mark.slow
def test_the_same_recording_in_two_parts_is_shown(
    hubert: Path, tmp_path: Path, capsys: Capsys
) -> None:
    root = tmp_path / "set"
    for number, name in enumerate(["a/0", "a/1", "a/2", "b/0", "b/1", "b/2"]):
        path = root / f"{name}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        build_audio(path, seconds=12, sound=tune(number))
    build_audio(root / "b" / "3.mp3", seconds=12, sound=tune(3))
    lists = {"train": ["a/0", "a/1", "b/0", "b/1"], "test": ["a/2", "b/2", "b/3"]}
    for name, lines in lists.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(lines), "utf-8")
    files = [arg for name in lists for arg in ("--split-file", tmp_path / f"{name}.txt")]
    args = ("--output-dir", tmp_path / "out", "--base-model", hubert, "--dry-run", *files)
    assert train(root, *args, "--segment-seconds", "1") == 0
    shown = capsys.readouterr().out.replace("\n", "")
    assert f"the same recording is in two parts: {root}/b/0.flac = {root}/b/3.mp3" in shown
    assert shown.count("the same recording") == 1
    assert "split: by the published lists" in shown


def test_a_library_teaches_its_own_genres_album_by_album(
    hubert: Path, tmp_path: Path, capsys: Capsys
) -> None:
    library = tmp_path / "library"
    for album in range(6):
        (library / str(album)).mkdir(parents=True)
        for number in range(2):
            path = library / str(album) / f"{number}.flac"
            build_audio(path, seconds=SECONDS, frequency_hz=110 * (1 + album % 2), seed=album)
            set_genre(path, ["Rock", "hip hop"][album % 2])
            _set_album(path, str(album))
    build_audio(library / "loose.flac", seconds=SECONDS)
    args = (library, "--from-tags", "--base-model", hubert, "--output-dir", tmp_path / "out", "-n")
    assert train(*args) == 3
    assert "has no genre with 10 tracks" in capsys.readouterr().err
    assert train(*args, "--min-tracks", "4") == 0
    shown = capsys.readouterr().out
    assert "no album in two parts" in shown
    assert "1 track left out: no person gave it a genre" in shown


def _set_album(path: Path, album: str) -> None:
    from mutagen.flac import FLAC

    tags = FLAC(path)
    tags["ALBUM"] = [album]
    tags.save()


def test_bad_clips_are_listed_and_the_others_are_used(
    tones: Path, hubert: Path, tmp_path: Path, capsys: Capsys
) -> None:
    root = tmp_path / "set"
    shutil.copytree(tones, root)
    (root / "low").rename(root / "LOW")
    (root / "low").mkdir()
    (root / "LOW" / "0.flac").rename(root / "low" / "0.flac")
    write_text(root / "High" / "jazz.00054.wav")
    (root / "rare").mkdir()
    build_audio(root / "rare" / "only.flac", seconds=SECONDS)
    args = ("--output-dir", tmp_path / "out", "--base-model", hubert, "--dry-run")
    assert train(root, *args) == 0
    shown = capsys.readouterr().out
    assert "1 track left out: GTZAN's jazz.00054 is known to be broken" in shown
    assert "1 track left out: fewer than 2 tracks are rare" in shown
    assert "LOW" in shown
    assert "\nlow" not in shown
    write_text(root / "High" / "bad.wav")
    assert train(root, *args) == 1
    shown = capsys.readouterr().out
    assert "all        27           3" in shown
    assert "bad.wav: " in shown


def test_a_clip_with_a_silent_middle_is_learned_from(hubert: Path, tmp_path: Path) -> None:
    """Only its fingerprint is made from the middle."""
    noise = np.random.default_rng(0).normal(0, 0.1, 40 * 8000)
    for number, name in enumerate(["a/0", "a/1", "b/0", "b/1"]):
        path = tmp_path / "set" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = np.roll(noise, 99 * number)
        samples[5 * 8000 : 35 * 8000] = 0
        soundfile.write(path, samples, 8000)
    args = ("--output-dir", tmp_path / "out", "--base-model", hubert, "--segment-seconds", "1")
    assert train(tmp_path / "set", *args, "--dry-run") == 0


def test_a_fingerprint_is_made_once(command: list[str], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    options = ("--random-crops", "--segment-seconds", "0.4", "--cache", cache, "--dry-run")
    assert train(*command, *options) == 0
    assert len(list(cache.glob("*.print.npy"))) == 30


@pytest.mark.parametrize(
    ("labels", "said"),
    [(["one"], "needs two genres or more, it has only one"), ([], "has no track with a genre")],
)
def test_data_that_nothing_can_be_learned_from(
    labels: list[str],
    said: str,
    hubert: Path,
    tmp_path: Path,
    capsys: Capsys,
) -> None:
    root = tmp_path / "set"
    root.mkdir()
    for label in labels:
        (root / label).mkdir()
        for number in range(3):
            build_audio(root / label / f"{number}.flac", seconds=SECONDS)
    assert train(root, "--output-dir", tmp_path / "out", "--base-model", hubert) == 3
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "recipe.json").exists()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--random-crops", "--freeze", "backbone"], 2, "--random-crops does not work with"),
        (["--freeze", "backbone", "--dropout", "0.1"], 2, "--dropout does not work with"),
        (["--dropout", "0.1", "--base-model", "yamnet"], 3, "has no dropout to set (--dropout)"),
        (["--learning-rate", "-1"], 2, "--learning-rate: must be a number above 0"),
        (["--test-size", "1"], 2, "--test-size: must be a number between 0 and 1"),
        (["--split", "artist"], 3, "has no artists for its clips"),
        (["--precision", "fp16"], 2, "--precision fp16 needs a CUDA GPU"),
        (["--base-model", "no/such-model"], 3, "the model no/such-model is not in the cache"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_said_in_a_line(
    options: list[str], code: int, said: str, command: list[str], capsys: Capsys
) -> None:
    assert train(*command, *options) == code
    assert said in capsys.readouterr().err


def test_a_folder_with_other_things_in_it_is_left_alone(
    tones: Path, hubert: Path, tmp_path: Path, capsys: Capsys
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work", "utf-8")
    assert train(tones, "--output-dir", tmp_path / "out", "--base-model", hubert, *QUICK) == 2
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[WritableHub]:
    with serving(WritableHub(root=tmp_path / "hub"), UploadHandler) as hub:
        assert isinstance(hub, WritableHub)
        yield hub


@pytest.mark.slow
def test_the_result_is_published_with_its_card_commit_by_commit(
    hub: WritableHub, command: list[str], tones: Path
) -> None:
    keys = {"HF_TOKEN": hub.token, "HF_HUB_DISABLE_XET": "1"}
    done = tagger(
        hub.endpoint, "train", *command, *QUICK, "--push-to-hub", "tones", "--private", **keys
    )
    assert done.returncode == 0, done.stderr
    (name,) = hub.history
    assert name.endswith("/tones")
    assert name in hub.private
    (commit,) = hub.history[name]
    assert commit.oid in done.stdout
    assert commit.message == "hubert fine-tuned by tagger"
    there = {path.name for path in commit.folder.iterdir()}
    assert there == {
        "README.md", "config.json", "curves.png", "evaluation.json", "measures.png",
        "model.safetensors", "preprocessor_config.json", "recipe.json",
    }  # fmt: skip
    path = tones / "low" / "0.flac"
    heard = tagger(hub.endpoint, "classify", "-m", name, "--json", path, **keys)
    assert heard.returncode == 0, heard.stderr


@pytest.mark.slow
def test_a_training_that_could_not_be_published_is_not_begun(
    hub: WritableHub, command: list[str], tmp_path: Path
) -> None:
    done = tagger(hub.endpoint, "train", *command, "--push-to-hub", "tones")
    assert done.returncode == 3
    assert "there is no token" in done.stderr
    assert not (tmp_path / "out").exists()


def test_brackets_in_the_path_of_a_data_set_are_no_markup() -> None:
    progress = TrainingProgress(StopSignal("stopped"))
    progress.begin_step("reading /music/[flac] Jazz")
    progress.hide()
    console = Console(file=io.StringIO(), width=120)
    with console.capture() as capture:
        console.print(progress.bar.get_renderable())
    assert "Reading /music/[flac] Jazz" in capture.get()
