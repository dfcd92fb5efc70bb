"""The bundled genre model: its two networks, its head, and what Hugging Face asks of it."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    pipeline,
)

from tagger.models import musicnn, musicnn_yamnet, yamnet
from tagger.models.musicnn_yamnet.modeling import MusicnnLogMel
from tagger.models.patches import average_by_clip, cut_patches
from tagger.models.pretrained import (
    MusicnnFeatureExtractor,
    MusicnnForAudioClassification,
    MusicnnYamnetConfig,
    MusicnnYamnetForAudioClassification,
    YamnetForAudioClassification,
)
from tagger.models.sources import register_bundled_models

Floats = NDArray[np.float32]

CHECKPOINT = musicnn_yamnet.CHECKPOINT
RATE, WINDOW = 16_000, 186 * 256
MUSICNN_TAGS, MUSICNN_EMBEDDING = 100, 400


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    register_bundled_models()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def bundled() -> MusicnnYamnetForAudioClassification:
    model: MusicnnYamnetForAudioClassification = (
        MusicnnYamnetForAudioClassification.from_pretrained(CHECKPOINT)
    )
    assert model.dtype == torch.float32
    return model


def play(seed: int, samples: int = WINDOW) -> Floats:
    """Make a loud chord with noise."""
    t = np.arange(samples) / RATE
    chord = sum(np.sin(2 * np.pi * 110 * (seed + 1) * ratio * t) for ratio in (1, 1.25, 1.5))
    noise = np.random.default_rng(seed).normal(0, 0.1, samples)
    return np.asarray(0.2 * chord + noise, np.float32)


def run(model: MusicnnYamnetForAudioClassification, clip: Floats) -> Tensor:
    with torch.inference_mode():
        logits = model(torch.from_numpy(clip)[None]).logits
    assert isinstance(logits, Tensor)
    return logits


def test_both_networks_say_what_they_say_alone(
    bundled: MusicnnYamnetForAudioClassification,
) -> None:
    """The networks' weights are rounded to float16 here, those of musicnn alone are not."""
    clip = play(1)
    alone = MusicnnForAudioClassification.from_pretrained(musicnn.CHECKPOINT)
    sounds = YamnetForAudioClassification.from_pretrained(yamnet.CHECKPOINT)
    features = MusicnnFeatureExtractor()([clip], RATE, return_tensors="pt")
    with torch.inference_mode():
        both = bundled(torch.from_numpy(clip)[None])
        first, second = alone(**features), sounds(torch.from_numpy(clip)[None])
    tags, embedding = both.tag_logits, both.embedding
    torch.testing.assert_close(tags[:, :MUSICNN_TAGS], first.tag_logits, atol=0.02, rtol=0.01)
    torch.testing.assert_close(tags[:, MUSICNN_TAGS:], second.logits, atol=1e-3, rtol=1e-3)
    heard = embedding[:, MUSICNN_EMBEDDING:]
    torch.testing.assert_close(heard, second.embedding, atol=1e-3, rtol=1e-3)


def test_the_log_mel_layer_is_the_feature_extractor() -> None:
    clip = play(2)
    expected = MusicnnFeatureExtractor()([clip], RATE, return_tensors="pt").input_values
    torch.testing.assert_close(MusicnnLogMel(96)(torch.from_numpy(clip)[None]), expected)


def test_clips_of_several_lengths_do_not_disturb_each_other(
    bundled: MusicnnYamnetForAudioClassification,
) -> None:
    clips = [play(3, 2 * WINDOW + 100), play(4, WINDOW // 3)]
    extractor = AutoFeatureExtractor.from_pretrained(CHECKPOINT)
    inputs = extractor(clips, sampling_rate=RATE, padding=True, return_tensors="pt")
    with torch.inference_mode():
        together = bundled(**inputs).logits
    alone = torch.cat([run(bundled, clip) for clip in clips])
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=1e-3)
    halves = torch.cat(
        [run(bundled, clips[0][: 2 * WINDOW][part * WINDOW :][:WINDOW]) for part in (0, 1)]
    )
    torch.testing.assert_close(together[0], halves.mean(0), atol=1e-3, rtol=1e-3)


def test_nothing_waits_for_a_gpu() -> None:
    """On the device "meta" no tensor has values, so whatever waits for a value fails."""
    patches, counts = cut_patches(torch.empty(3, 296, 64, device="meta"), None, 96, 48)
    assert patches.shape == (3 * 5, 96, 64)
    assert average_by_clip(patches.flatten(1), counts).shape == (3, 96 * 64)


def test_a_clip_is_averaged_alike_alone_and_beside_others_of_any_length() -> None:
    def average(clips: Tensor, lengths: Tensor | None = None) -> Tensor:
        patches, counts = cut_patches(clips, lengths, 96, 48)
        return average_by_clip(patches.flatten(1), counts)

    clips = torch.rand(2, 400, 64)
    first, second, short = average(clips[:1]), average(clips[1:]), average(clips[1:, :150])
    assert torch.equal(average(clips), torch.cat([first, second]))
    assert torch.equal(average(clips, torch.tensor([400, 400])), torch.cat([first, second]))
    assert torch.equal(average(clips, torch.tensor([400, 150])), torch.cat([first, short]))


def test_a_pipeline_takes_it_and_noise_is_no_music() -> None:
    classify = pipeline("audio-classification", str(CHECKPOINT))
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, WINDOW).astype(np.float32)
    best = classify(noise)[0]
    assert best["label"] == "Other sound"
    assert best["score"] > 0.9
    config = json.loads((CHECKPOINT / "config.json").read_text())
    assert config["not_music"] == ["Speech", "Other sound"]


def test_a_new_head_can_be_trained_and_saved(tmp_path: Path) -> None:
    model = MusicnnYamnetForAudioClassification.from_pretrained(
        CHECKPOINT, num_labels=2, ignore_mismatched_sizes=True
    )
    clips = torch.from_numpy(np.stack([play(5), play(6)]))
    loss = model(clips, labels=torch.tensor([0, 1])).loss
    assert loss is not None
    loss.backward()
    gradients = [weight.grad for weight in model.parameters()]
    assert all(grad is not None and grad.isfinite().all() for grad in gradients)
    model.train(mode=False).save_pretrained(tmp_path)
    again = AutoModelForAudioClassification.from_pretrained(tmp_path)
    with torch.inference_mode():
        torch.testing.assert_close(again(clips).logits, model(clips).logits)
        expected = MusicnnYamnetForAudioClassification.from_pretrained(CHECKPOINT)(clips)
        torch.testing.assert_close(again(clips).attribute_logits, expected.attribute_logits)


def test_the_sizes_of_its_networks_can_be_chosen() -> None:
    config = MusicnnYamnetConfig(
        musicnn={"num_mel_bins": 80, "timbral_filters": 4, "temporal_filters": 3},
        yamnet={"num_mel_bins": 32, "first_filters": 4, "blocks": [[6, 2], [8, 1]]},
        audioset_classes=5,
        id2label={0: "Rock", 1: "Jazz"},
    )
    model = MusicnnYamnetForAudioClassification(config).train(mode=False)
    assert run(model, play(1)).shape == (1, 2)


def test_the_checkpoint_is_small() -> None:
    assert (CHECKPOINT / "model.safetensors").stat().st_size < 12_000_000
