"""Checkpoints of any architecture are loaded, named by their version, or refused with a reason."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    pipeline,
)

from tagger.errors import ModelError
from tagger.inference.dataset import Sample
from tagger.inference.predict import Predictor
from tagger.models import find_source
from tagger.models.checkpoint import Classifier, load_classifier
from tagger.models.musicnn import CHECKPOINT, register
from tagger.records import Failure, Prediction, Track

TRACK = Track(Path("a.mp3"), 1, 1, 1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a random wav2vec2 of the true architecture, small, with three labels."""
    folder = tmp_path_factory.mktemp("models") / "tiny-wav2vec2"
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_kernel=(10, 3),
        conv_stride=(5, 2),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        id2label={0: "rock", 1: "jazz", 2: "hiphop"},
    )
    Wav2Vec2ForSequenceClassification(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


@pytest.mark.parametrize("model", ["tiny", "musicnn"])
def test_scores_are_those_of_the_pipeline(tiny: Path, model: str) -> None:
    register()
    classifier = load(str(tiny) if model == "tiny" else model)
    samples = np.random.default_rng(0).normal(0, 0.1, 47_616).astype(np.float32)
    inputs = classifier.extractor([samples])
    sample = Sample(TRACK, 3.0, inputs)
    (result,) = predictor(classifier).predict([sample])
    assert isinstance(result, Prediction)
    classify = pipeline("audio-classification", str(tiny if model == "tiny" else CHECKPOINT))
    expected = classify(samples, top_k=None)
    assert [score.genre for score in result.scores] == [score["label"] for score in expected]
    for score, other in zip(result.scores, expected, strict=True):
        assert score.probability == pytest.approx(other["score"], abs=1e-4)


def load(name: str) -> Classifier:
    return load_classifier(find_source(name))


def identity(name: str) -> str:
    return find_source(name).identity


def predictor(classifier: Classifier) -> Predictor:
    return Predictor(classifier, device=torch.device("cpu"), dtype=None, batch_size=4)


def test_a_bad_file_or_bad_score_costs_its_neighbours_nothing(tiny: Path) -> None:
    classifier = load(str(tiny))
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    good = Sample(TRACK, 1.0, classifier.extractor([noise, noise]))
    bad = Sample(TRACK, 1.0, {"input_values": torch.full((1, 16_000), torch.nan)})
    failure = Failure(TRACK, "silent")
    results = list(predictor(classifier).predict([good, failure, bad, good, bad]))
    kinds = [type(result) for result in results]
    assert kinds == [Prediction, Failure, Failure, Prediction, Failure]
    assert results[1] == failure
    assert results[0] == results[3]
    assert isinstance(results[2], Failure)
    assert not results[2].lasting  # another precision or model may do


def test_the_identity_follows_the_content_of_a_folder(tiny: Path, copy: Path) -> None:
    assert identity(str(copy)).startswith("copy@")
    assert identity(str(copy)).split("@")[1] == identity(str(tiny)).split("@")[1]
    weights = load_file(copy / "model.safetensors")
    weights["classifier.bias"] += 1
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert identity(str(copy)).split("@")[1] != identity(str(tiny)).split("@")[1]


def test_a_checkpoint_without_a_trained_head_is_no_classifier(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    for name in [name for name in weights if name.startswith("classifier")]:
        del weights[name]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"no trained audio classifier: it lacks classifier"):
        load(str(copy))


def test_what_cannot_be_loaded_is_one_clear_line(copy: Path, tmp_path: Path) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded") as error:
        load(str(copy))
    assert "\n" not in str(error.value)
    path.unlink()
    torch.save({}, copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(str(copy))
    with pytest.raises(ModelError, match=r"has no config\.json"):
        find_source(str(tmp_path))
