"""The bundled YAMNet: parity with the published network, and what Hugging Face asks of it."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    pipeline,
)

from tagger.models.pretrained import YamnetConfig, YamnetForAudioClassification
from tagger.models.yamnet import CHECKPOINT, register

Floats = NDArray[np.float32]

SIGNALS = json.loads((Path(__file__).parents[1] / "data" / "yamnet-signals.json").read_text())
RATE = 16_000
FRAME, HOP, PATCH_FRAMES, PATCH_HOP = 400, 160, 96, 48
PATCH_SAMPLES = FRAME + (PATCH_FRAMES - 1) * HOP


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    register()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def bundled() -> YamnetForAudioClassification:
    model: YamnetForAudioClassification = YamnetForAudioClassification.from_pretrained(CHECKPOINT)
    return model


def make_signal(name: str) -> Floats:
    names = {word: getattr(np, word) for word in ("sin", "exp", "sign", "floor", "pi")}
    t = np.arange(144_000) / RATE
    signal: Floats = eval(SIGNALS["formulas"][name], {"t": t, **names}).astype(np.float32)
    return signal


def cut(signal: Floats, count: int) -> Tensor:
    starts = range(0, count * PATCH_HOP * HOP, PATCH_HOP * HOP)
    return torch.from_numpy(np.stack([signal[n : n + PATCH_SAMPLES] for n in starts]))


@pytest.mark.parametrize("name", sorted(SIGNALS["signals"]))
def test_probabilities_of_signals_are_those_of_the_published_network(
    name: str, bundled: YamnetForAudioClassification
) -> None:
    expected = SIGNALS["signals"][name]
    signal = make_signal(name)
    frames = bundled.log_mel(torch.from_numpy(signal)[None])
    first = expected["logmel_first_frame_first_8_bands"]
    np.testing.assert_allclose(frames[0, 0, :8], first, atol=1e-4)
    assert float(frames.mean()) == pytest.approx(expected["logmel_mean"], abs=1e-4)
    probabilities = np.array(expected["probabilities"])
    with torch.inference_mode():
        logits = bundled(cut(signal, len(probabilities))).logits
    found = logits.sigmoid()[:, expected["class_index"]]
    # Weights rounded to float16 move a probability by up to 0.004.
    np.testing.assert_allclose(found, probabilities, rtol=0, atol=5e-3)


def test_silence_is_silence_and_noise_is_noise(bundled: YamnetForAudioClassification) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, 2 * RATE).astype(np.float32)
    classify = pipeline("audio-classification", str(CHECKPOINT))
    assert classify(np.zeros(2 * RATE, np.float32))[0] == {"label": "Silence", "score": 1.0}
    assert classify(noise)[0]["label"] == "White noise"
    assert bundled.config.num_labels == 521


def test_a_padded_clip_is_classified_like_the_clip_alone(
    bundled: YamnetForAudioClassification,
) -> None:
    long, short = make_signal("chirp")[: 3 * RATE], make_signal("clicks_and_bass")[:RATE]
    extractor = AutoFeatureExtractor.from_pretrained(CHECKPOINT)
    both = extractor([long, short], sampling_rate=RATE, padding=True, return_tensors="pt")
    with torch.inference_mode():
        together = bundled(**both).logits
        alone = [bundled(torch.from_numpy(clip)[None]).logits[0] for clip in (long, short)]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-4, rtol=1e-4)


def test_a_clip_shorter_than_a_patch_is_repeated(bundled: YamnetForAudioClassification) -> None:
    with torch.inference_mode():
        logits = bundled(torch.from_numpy(make_signal("chirp")[None, :3000])).logits
        nothing = bundled(torch.zeros(1, 10)).logits
    assert logits.isfinite().all()
    assert nothing.isfinite().all()


def test_it_learns_and_survives_saving(tmp_path: Path) -> None:
    torch.manual_seed(3)
    labels = {0: "bark", 1: "bell", 2: "rain"}
    config = YamnetConfig(
        first_filters=4,
        blocks=[[6, 2], [8, 1]],
        initializer_range=0.3,
        id2label=labels,
        label2id={name: number for number, name in labels.items()},
    )
    model = YamnetForAudioClassification(config)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    clips, targets = cut(make_signal("chirp"), 3), torch.eye(3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = model(clips, labels=targets).loss
        assert loss is not None
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.92 * losses[0]
    model.train(mode=False).save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), YamnetConfig)
    again: nn.Module = AutoModelForAudioClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(again(clips).logits, model(clips).logits)
