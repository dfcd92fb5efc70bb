"""Model cards and pushes to the Hub: contents, uploaded files, refusals."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard

from tagger.errors import ModelError
from tagger.models.card import CardContent, CardScores, write_card
from tagger.models.musicnn import CHECKPOINT
from tests.checkpoints import save
from tests.hub import NOWHERE, serving
from tests.hub_uploads import UploadHandler, WritableHub

CARD = CardContent(
    name="team/genres",
    base="ntu-spml/distilhubert",
    dataset="marsyas/gtzan",
    model_type="hubert",
    labels=("Jazz", "Rock | Pop\n# Metal", "*R&B* [x](http://y)"),
    scores=CardScores(0.8, 0.72, 0.86, 100, 0.79, 0.0512, chose=True),
    data={"clips to learn from": 899, "clips to measure": 100, "parted": "at random, seed 42"},
    recipe={"learning rate": 5e-5, "epochs": 10},
    epochs=({"epoch": 1, "loss": 2.1, "accuracy": 0.5}, {"epoch": 2, "loss": 1.5, "accuracy": 0.8}),
    genres=({"genre": "Rock | Pop\n# Metal", "clips": 50, "f1": 2 / 3},),
    leaks=("2 clips of one recording were in both halves",),
)

SCRIPT = """
import sys
from pathlib import Path
from tagger.errors import TaggerError
from tagger.models.hub import check_push, push_model

what, repo, *rest = sys.argv[1:]
seen = []
try:
    if what == "check":
        print(check_push(repo))
    else:
        private = what == "push-private"
        tell = lambda done, total: seen.append((done, total))
        print(push_model(Path(rest[0]), repo, private=private, message=rest[1], progress=tell))
        assert seen == sorted(seen) and seen[-1][0] == seen[-1][1]
except TaggerError as error:
    sys.exit(f"tagger: {error}")
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[WritableHub]:
    with serving(WritableHub(root=tmp_path / "hub"), UploadHandler) as hub:
        assert isinstance(hub, WritableHub)
        yield hub


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("sharing") / "model", "hubert")


@pytest.fixture
def model(saved_model: Path, tmp_path: Path) -> Path:
    """Make the folder of a trained model: its card, a picture, and files that must stay private."""
    folder = Path(shutil.copytree(saved_model, tmp_path / "model"))
    (folder / "curves.png").write_bytes(b"\x89PNG")
    (folder / "recipe.json").write_text("{}", "utf-8")
    write_card(folder, CARD)
    for name in (
        "checkpoint-7/model.safetensors",
        "runs/events",
        ".secret.json",
        "own.py",
        "clips.csv",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("not to be shared", "utf-8")
    return folder


def run_script(
    endpoint: str, *args: str | Path, token: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the script in a process of its own, which reads the Hub's address as it starts."""
    env = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    env |= {"HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": token} | environment
    command = [sys.executable, "-W", "error", "-c", SCRIPT, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def test_a_model_is_pushed_as_a_commit_and_another_is_put_on_top(
    hub: WritableHub, model: Path
) -> None:
    done = run_script(hub.endpoint, "push-private", "team/genres", model, "first", token=hub.token)
    (first,) = hub.history["team/genres"]
    assert (done.stdout, done.stderr) == (f"{hub.endpoint}/team/genres/commit/{first.oid}\n", "")
    assert sorted(path.name for path in first.folder.iterdir()) == [
        "README.md", "config.json", "curves.png", "model.safetensors", "preprocessor_config.json",
        "recipe.json",
    ]  # fmt: skip
    for path in first.folder.iterdir():
        assert path.read_bytes() == (model / path.name).read_bytes()
    assert hub.private == {"team/genres"}
    (model / "recipe.json").write_text('{"epochs": 2}', "utf-8")
    done = run_script(hub.endpoint, "push", "team/genres", model, "second", token=hub.token)
    _, second = hub.history["team/genres"]
    assert done.stdout.strip().endswith(second.oid)
    assert (second.parent, second.message) == (first.oid, "second")
    assert (first.folder / "recipe.json").read_text("utf-8") == "{}"
    assert (second.folder / "recipe.json").read_text("utf-8") == '{"epochs": 2}'
    assert hub.private == {"team/genres"}
    again = run_script(hub.endpoint, "push", "team/genres", model, "third", token=hub.token)
    assert again.stdout == done.stdout
    assert len(hub.history["team/genres"]) == 2


def test_a_name_without_an_owner_is_the_users(hub: WritableHub, model: Path) -> None:
    checked = run_script(hub.endpoint, "check", "genres", token=hub.token)
    assert checked.stdout == "me/genres\n"
    assert not hub.history
    done = run_script(hub.endpoint, "push", "genres", model, "first", token=hub.token)
    assert done.stdout.startswith(f"{hub.endpoint}/me/genres/commit/")
    assert run_script(hub.endpoint, "check", "team/x", token=hub.token).stdout == "team/x\n"


@pytest.mark.parametrize(
    ("repo", "token", "words"),
    [
        ("not a name", "hf_secret", "it is not a name of a repository (owner/name)"),
        ("a/b/c", "hf_secret", "it is not a name of a repository (owner/name)"),
        ("team/genres", "", "there is no token: log in (hf auth login) or set HF_TOKEN"),
        ("team/genres", "hf_wrong", "does not know the token: log in"),
        ("team/genres", "hf_reader", "the token may only read"),
        ("others/genres", "hf_secret", "me may only write to me, team"),
    ],
)
def test_a_push_that_would_fail_is_refused_beforehand(
    hub: WritableHub, repo: str, token: str, words: str
) -> None:
    done = run_script(hub.endpoint, "check", repo, token=token)
    assert done.returncode == 1
    assert f"cannot push to {repo}: " in done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_push_that_fails_is_one_line_and_the_folder_stays(hub: WritableHub, model: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in model.rglob("*"))
    hub.full = True
    cases = (
        (
            run_script(hub.endpoint, "push", "team/a", model, "m", token=hub.reader),
            "lets this token",
        ),
        (
            run_script(hub.endpoint, "push", "else/a", model, "m", token=hub.token),
            "lets this token",
        ),
        (
            run_script(hub.endpoint, "push", "team/a", model, "m", token=hub.token),
            "lets this token",
        ),
        (
            run_script(NOWHERE, "push", "team/a", model, "m", token="t"),
            f"{NOWHERE} cannot be reached",
        ),
        (
            run_script(NOWHERE, "push", "team/a", model, "m", token="t", HF_HUB_OFFLINE="1"),
            "HF_HUB_OFFLINE is set",
        ),
    )
    for done, words in cases:
        assert done.returncode == 1
        assert words in done.stderr
        assert f"{model} stays, and can be pushed later\n" in done.stderr
        assert done.stderr.count("\n") == 1
    assert not hub.history["team/a"]
    assert sorted((path, path.stat().st_mtime_ns) for path in model.rglob("*")) == before
    done = run_script("http://[bad", "check", "team/a", token="t")
    assert "HF_ENDPOINT is no address" in done.stderr


def test_the_card_is_what_the_hub_reads(model: Path) -> None:
    card = ModelCard.load(model / "README.md")
    data = card.data.to_dict()
    assert data["base_model"] == "ntu-spml/distilhubert"
    assert data["datasets"] == ["marsyas/gtzan"]
    assert (data["pipeline_tag"], data["library_name"]) == ("audio-classification", "transformers")
    assert [(each.metric_type, each.metric_value) for each in card.data.eval_results or []] == [
        ("accuracy", 0.8),
        ("f1", 0.79),
        ("ece", 0.0512),
    ]
    assert data["model-index"][0]["results"][0]["dataset"] == {
        "name": "gtzan",
        "type": "marsyas/gtzan",
    }
    for words in (
        "Accuracy 80.0% of 100 clips (95 % confidence interval: 72.0% to 86.0%), macro-F1 0.790",
        "| learning rate | 5e-05 |",
        "| 2 | 1.5 | 0.8 |",
        "- 2 clips of one recording were in both halves",
        "(curves.png)",
        "The checkpoint was chosen by the clips that were measured",
        "tagger scan ~/Music --model team/genres",
    ):
        assert words in card.text
    assert "measures.png" not in card.text
    assert "musicnn" not in card.text


def test_no_label_becomes_markup(model: Path) -> None:
    text = (model / "README.md").read_text("utf-8")
    assert "| Rock \\| Pop \\# Metal | 50 | 0.6667 |" in text
    assert "\\*R\\&B\\* \\[x\\](http://y)" in text
    odd = 'odd"\n---\n- x: [`$(id)`\udcff'
    write_card(model, replace(CARD, name=odd, base=odd, dataset=odd, labels=(odd,)))
    card = ModelCard.load(model / "README.md")
    assert "base_model" not in card.data.to_dict()
    assert card.data.eval_results
    assert "--model 'odd\" --- - x: [`$(id)`\\xff'" in card.text
    assert re.findall(r"^#+ ", card.text, re.MULTILINE) == ["# ", *["## "] * 5]


def test_the_card_of_a_musicnn_says_what_to_import_and_that_works(tmp_path: Path) -> None:
    write_card(tmp_path, replace(CARD, name=str(CHECKPOINT), model_type="musicnn"))
    text = (tmp_path / "README.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert code.endswith('classify("song.mp3")\n')
    names: dict[str, object] = {}
    exec(code.removesuffix('classify("song.mp3")\n'), names)
    classify = names["classify"]
    assert callable(classify)
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000 * 4).astype(np.float32)
    assert len(classify({"raw": noise, "sampling_rate": 16_000})) == 18


def test_a_card_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot write .*README.md: No such file"):
        write_card(tmp_path / "none", CARD)
