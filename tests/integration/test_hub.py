"""Models are found on the Hub, downloaded, cached, and used again without it."""

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

import pytest
import torch
from safetensors.torch import load_file, save_file

from tagger.cli import main
from tagger.tags import read_tags
from tests.checkpoints import edit, save
from tests.front_door import ANY
from tests.hub import NOWHERE, Hub, serving, start_tagger, tagger


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub()) as hub:
        yield hub


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("hub") / "model", "hubert")


@pytest.fixture
def model(saved_model: Path, tmp_path: Path) -> Path:
    """Copy a checkpoint that a test may change."""
    return Path(shutil.copytree(saved_model, tmp_path / "model"))


def make_command(library: Path, model: str) -> list[str]:
    return ["scan", str(library), "-m", model, "--json", *ANY]


def read_summary(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.slow
def test_a_model_is_downloaded_once_and_works_offline_from_then_on(
    hub: Hub, model: Path, library: Path
) -> None:
    torch.save({}, model / "pytorch_model.bin")
    (model / "own.py").write_text("raise SystemExit('remote code ran')", "utf-8")
    commit = hub.publish("team/genres", model)
    scan = make_command(library, "team/genres")
    first = read_summary(start_tagger(hub.endpoint, *scan))
    assert (first["written"], first["model"]) == (3, f"team/genres@{commit[:8]}")
    assert read_tags(library / "a.flac").genres[0] in {"Rock", "Jazz", "Hip-Hop"}
    assert sorted(hub.downloads) == [
        "config.json", "model.safetensors", "preprocessor_config.json",
    ]  # fmt: skip
    again = read_summary(tagger(NOWHERE, *scan))
    assert (again["unchanged"], again["model"]) == (3, first["model"])
    for run, environment in ((tagger, {}), (start_tagger, {"HF_HUB_OFFLINE": "1"})):
        forced = read_summary(run(NOWHERE, *scan, "--force", **environment))
        assert (forced["unchanged"], forced["model"]) == (3, first["model"])


@pytest.mark.slow
def test_a_revision_is_another_model_and_each_keeps_its_own_results(
    hub: Hub, model: Path, tmp_path: Path, library: Path
) -> None:
    newer = Path(shutil.copytree(model, tmp_path / "newer"))
    weights = load_file(newer / "model.safetensors")
    weights["classifier.bias"] += torch.tensor([0.0, 0.0, 30.0])
    save_file(weights, newer / "model.safetensors", metadata={"format": "pt"})
    hub.publish("team/genres", model)
    commit = hub.publish("team/genres", newer, "v2")
    scan = make_command(library, "team/genres")
    assert read_summary(tagger(hub.endpoint, *scan))["written"] == 3
    second = read_summary(tagger(hub.endpoint, *scan, "--revision", "v2"))
    assert (second["written"], second["model"]) == (3, f"team/genres@{commit[:8]}")
    assert read_tags(library / "a.flac").genres == ("Hip-Hop",)
    back = tagger(NOWHERE, *scan)
    assert read_summary(back)["written"] == 3
    assert "to listen to" not in back.stderr
    missing = tagger(hub.endpoint, *scan, "--revision", "v3")
    assert missing.returncode == 3
    assert "the model team/genres has no revision v3" in missing.stderr


@pytest.mark.slow
def test_pickled_weights_are_not_even_downloaded(hub: Hub, model: Path, library: Path) -> None:
    weights = load_file(model / "model.safetensors")
    torch.save(weights, model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    hub.publish("team/old", model)
    scan = make_command(library, "team/old")
    refused = tagger(hub.endpoint, *scan)
    assert refused.returncode == 3
    assert "has only pickled weights (pytorch_model.bin)" in refused.stderr
    assert "--allow-pickle" in refused.stderr
    assert "pytorch_model.bin" not in hub.downloads
    assert read_summary(tagger(hub.endpoint, *scan, "--allow-pickle"))["written"] == 3
    assert read_summary(tagger(NOWHERE, *scan, "--allow-pickle", "--force"))["unchanged"] == 3


@pytest.mark.slow
def test_a_download_that_was_cut_off_is_completed(hub: Hub, model: Path, library: Path) -> None:
    hub.publish("team/genres", model)
    hub.broken.add("model.safetensors")
    scan = make_command(library, "team/genres")
    done = tagger(hub.endpoint, *scan)
    assert done.returncode == 3
    assert f"as a whole, and {hub.endpoint} answers with status 403" in done.stderr
    offline = tagger(NOWHERE, *scan)
    assert offline.returncode == 3
    assert "connect once to download it" in offline.stderr
    hub.broken.clear()
    assert read_summary(tagger(hub.endpoint, *scan))["written"] == 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("team/none", "there is no model team/none"),
        pytest.param(
            *("team/closed", "the model team/closed is gated: accept its terms at"),
            marks=pytest.mark.slow,
        ),
        pytest.param("team/secret", "or it is private", marks=pytest.mark.slow),
        ("not a name", "neither a model folder nor the id of a model"),
    ],
)
def test_a_refusal_of_the_hub_is_one_line_with_advice(
    hub: Hub, model: Path, library: Path, name: str, words: str
) -> None:
    hub.publish("team/closed", model)
    hub.publish("team/secret", model)
    hub.gated.add("team/closed")
    hub.private.add("team/secret")
    done = tagger(hub.endpoint, "scan", library, "-m", name)
    assert done.returncode == 3
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    if name.startswith("team") and name != "team/none":
        opened = tagger(hub.endpoint, *make_command(library, name), HF_TOKEN=hub.token)
        assert read_summary(opened)["written"] == 3


def test_without_the_hub_the_error_names_model_cache_and_advice(library: Path, home: Path) -> None:
    cache = home / "elsewhere"
    done = tagger(NOWHERE, "scan", library, "-m", "team/genres", HF_HOME=str(cache))
    assert done.returncode == 3
    for words in ("team/genres", str(cache / "hub"), "connect once to download it"):
        assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_other_models_are_refused_before_their_weights_are_downloaded(
    hub: Hub, model: Path, tmp_path: Path, library: Path
) -> None:
    image = Path(shutil.copytree(model, tmp_path / "image"))
    edit(image, architectures=["ViTForImageModeling"], model_type="vit")
    hub.publish("team/image", image)
    hub.publish("team/clap", save(tmp_path / "clap", "clap"))
    for name, code, words in (
        ("team/image", 3, "not an audio classifier but ViTForImageModeling"),
        ("team/clap", 2, "team/clap is a CLAP model: name the labels"),
    ):
        done = tagger(hub.endpoint, *make_command(library, name))
        assert (done.returncode, words in done.stderr) == (code, True), done.stderr
    assert "model.safetensors" not in hub.downloads


@pytest.mark.slow
def test_code_of_a_model_is_downloaded_and_run_only_on_demand(
    hub: Hub, model: Path, library: Path
) -> None:
    own = {"AutoConfig": "own.Own", "AutoModelForAudioClassification": "own.OwnModel"}
    edit(model, model_type="own-hubert", auto_map=own)
    (model / "own.py").write_text(
        "from transformers import HubertConfig, HubertForSequenceClassification\n"
        "class Own(HubertConfig):\n    model_type = 'own-hubert'\n"
        "class OwnModel(HubertForSequenceClassification):\n    config_class = Own\n",
        "utf-8",
    )
    hub.publish("team/own", model)
    refused = tagger(hub.endpoint, *make_command(library, "team/own"))
    assert refused.returncode == 3
    assert "code of its own, which --trust-remote-code would run" in refused.stderr
    assert "own.py" not in hub.downloads
    trusting = [*make_command(library, "team/own"), "--trust-remote-code"]
    assert read_summary(tagger(hub.endpoint, *trusting))["written"] == 3
    assert read_summary(tagger(NOWHERE, *trusting, "--force"))["unchanged"] == 3


@pytest.mark.slow
def test_an_incomplete_model_in_the_cache_is_completed(
    hub: Hub, tmp_path: Path, library: Path, home: Path
) -> None:
    folder = save(tmp_path / "clap", "clap")
    commit = hub.publish("team/clap", folder)
    labels = ["--labels", "techno,birdsong"]
    assert (
        read_summary(tagger(hub.endpoint, *make_command(library, "team/clap"), *labels))["written"]
        == 3
    )
    cache = home / ".cache" / "huggingface" / "hub" / "models--team--clap" / "snapshots" / commit
    if not cache.is_dir():
        cache = next(home.rglob(commit))
    (cache / "tokenizer.json").unlink()
    again = tagger(hub.endpoint, *make_command(library, "team/clap"), *labels, "--force")
    assert read_summary(again)["unchanged"] == 3
    assert (cache / "tokenizer.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("job", ["scan", "classify"])
def test_a_download_can_be_interrupted(hub: Hub, model: Path, library: Path, job: str) -> None:
    with (model / "model.safetensors").open("ab") as file:
        file.write(bytes(64 << 20))
    hub.publish("team/large", model)
    hub.pause_s = 1.0
    env = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    args = [sys.executable, "-m", "tagger", job, str(library / "a.flac"), "-m", "team/large"]
    with subprocess.Popen(
        args, env=env | {"HF_ENDPOINT": hub.endpoint}, stderr=subprocess.PIPE, text=True
    ) as process:
        while "model.safetensors" not in hub.downloads:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=40)  # the whole download would take a minute
    hub.pause_s = 0.0
    assert process.returncode == 130, err
    assert "Traceback" not in err


def test_an_error_of_the_hubs_own_client_is_one_line(
    monkeypatch: pytest.MonkeyPatch, library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Task error: File reconstruction error\nat line 7")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    assert main(["scan", str(library), "-m", "team/genres"]) == 3
    assert "cannot download team/genres: Task error: File reconstruction error\n" in (
        capsys.readouterr().err
    )


def test_an_endpoint_that_is_no_address_is_one_line(library: Path) -> None:
    done = start_tagger("http://[bad", "scan", library, "-m", "team/genres")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "HF_ENDPOINT" in done.stderr
