"""The bundled models without transformers say what they say with it."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel
from transformers.audio_utils import mel_filter_bank

from tagger.audio import read_windows
from tagger.errors import ModelError
from tagger.models import find_model
from tagger.models.classifier import Classifier
from tagger.models.filter_banks import make_htk_filters, make_slaney_filters
from tagger.models.loading import NETWORKS, load_classifier, load_extractor
from tagger.models.sources import BUNDLED_MODELS
from tagger.settings_sources import load_settings
from tests.builders import build_audio

RATE = 16_000


def load(model: str | Path, **options: object) -> Classifier:
    settings = load_settings({"model": str(model), **options})
    return load_classifier(find_model(settings), settings)


def test_each_bundled_model_has_a_network() -> None:
    assert NETWORKS.keys() == BUNDLED_MODELS.keys()


@pytest.mark.parametrize("seconds", [1.0, 25.0])
@pytest.mark.parametrize("name", sorted(BUNDLED_MODELS))
def test_scores_are_those_of_the_same_folder_in_transformers(
    name: str, seconds: float, tmp_path: Path
) -> None:
    light, full = load(name), load(BUNDLED_MODELS[name].checkpoint)
    assert isinstance(full.model, PreTrainedModel)
    assert not isinstance(light.model, PreTrainedModel)
    extractor = light.extractor
    assert (extractor.rate_hz, extractor.window_s, extractor.input_s, extractor.window_count) == (
        full.extractor.rate_hz,
        full.extractor.window_s,
        full.extractor.input_s,
        full.extractor.window_count,
    )
    audio = build_audio(tmp_path / "song.mp3", seconds=seconds)
    windows = read_windows(
        audio, rate_hz=RATE, window_s=extractor.window_s, count=3, shortest_s=0.1
    ).windows
    inputs, full_inputs = extractor(windows), full.extractor(windows)
    assert torch.equal(inputs["input_values"], full_inputs["input_values"])
    assert bool((full_inputs["attention_mask"] == 1).all())
    # transformers maps the file of weights into memory, where they begin at odd addresses, and a
    # matrix product rounds in another way. A copy begins where torch's own memory does.
    model = copy.deepcopy(full.model)
    with torch.inference_mode():
        found, expected = light.model(**inputs), model(**full_inputs)
    outputs = {name: value for name, value in vars(found).items() if value is not None}
    assert outputs.keys() == expected.keys()
    assert [name for name, value in outputs.items() if not torch.equal(value, expected[name])] == []
    assert light.make_scores(found.logits[0]) == full.make_scores(expected.logits[0])


@pytest.mark.parametrize("name", sorted(BUNDLED_MODELS))
def test_every_tensor_can_be_moved_to_the_gpu_of_a_mac(name: str) -> None:
    for model in (load(name).model, load(BUNDLED_MODELS[name].checkpoint).model):
        tensors = [*model.named_parameters(), *model.named_buffers()]
        assert [name for name, tensor in tensors if tensor.dtype == torch.float64] == []


@pytest.mark.parametrize("name", sorted(BUNDLED_MODELS))
def test_windows_are_as_long_as_the_user_says(name: str) -> None:
    settings = load_settings({"model": name, "window-seconds": 2.0})
    extractor = load_extractor(find_model(settings), settings)
    assert (extractor.window_s, extractor.input_s) == (2.0, 2.0)


def test_broken_weights_are_an_error_of_the_model(tmp_path: Path) -> None:
    settings = load_settings({"model": "yamnet"})
    source = find_model(settings)
    for file in source.folder.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="the model yamnet cannot be loaded"):
        load_classifier(replace(source, folder=tmp_path), settings)


def test_filters_are_those_of_transformers() -> None:
    slaney = mel_filter_bank(257, 96, 0.0, 8000.0, RATE, norm="slaney", mel_scale="slaney")
    np.testing.assert_array_equal(make_slaney_filters(257, 96, RATE), slaney)
    htk = mel_filter_bank(257, 64, 125.0, 7500.0, RATE, triangularize_in_mel_space=True)
    np.testing.assert_array_equal(make_htk_filters(257, 64, RATE, 125.0, 7500.0), htk)
