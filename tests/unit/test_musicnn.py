"""The bundled model: parity with the published networks, and what Hugging Face asks of it."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    Trainer,
    TrainingArguments,
    pipeline,
)

from tagger.models.musicnn import CHECKPOINT, modeling, register
from tagger.models.musicnn.modeling import FixedBatchNorm, PooledConvolution
from tagger.models.pretrained import (
    MusicnnConfig,
    MusicnnFeatureExtractor,
    MusicnnForAudioClassification,
)

Floats = NDArray[np.float32]

DATA = Path(__file__).parents[1] / "data"
SIGNALS = json.loads((DATA / "musicnn-signals.json").read_text())
FMA = json.loads((DATA / "musicnn-fma.json").read_text())
FMA_DIR = os.environ.get("TAGGER_FMA_DIR", "")
TOWERS = ("MSD_musicnn", "MTT_musicnn")
PATCH = 187
WINDOW = 186 * 256
RATE = 16_000


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    register()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two threads on a busy machine wait for each other most of the time
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def extractor() -> MusicnnFeatureExtractor:
    return MusicnnFeatureExtractor.from_pretrained(CHECKPOINT)


@pytest.fixture(scope="module")
def bundled() -> MusicnnForAudioClassification:
    return MusicnnForAudioClassification.from_pretrained(CHECKPOINT)


@pytest.fixture
def small() -> MusicnnForAudioClassification:
    """Make a network of the same shape with few filters, whose batch norms point both ways."""
    torch.manual_seed(7)
    labels = {0: "Rock", 1: "Jazz", 2: "Folk"}
    config = MusicnnConfig(
        towers={"one": ["a", "b"], "two": ["c"]},
        timbral_filters=5,
        temporal_filters=3,
        midend_filters=4,
        embedding_size=6,
        initializer_range=0.1,
        id2label=labels,
        label2id={name: index for index, name in labels.items()},
    )
    model = MusicnnForAudioClassification(config)
    model.train(mode=False)
    for module in model.modules():
        if isinstance(module, FixedBatchNorm):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model


def noise(*shape: int) -> Floats:
    return np.random.default_rng(3).normal(0, 0.1, shape).astype(np.float32)


def frames(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(5)) * 4


def tags_of(model: MusicnnForAudioClassification, clip: Tensor) -> Floats:
    """Give the tag probabilities (patches, 100) of the whole patches of a clip (1, frames, 96)."""
    count = clip.shape[1] // PATCH
    with torch.inference_mode():
        logits, _ = model.musicnn(clip[0, : count * PATCH].view(count, PATCH, -1))
    result: Floats = logits.sigmoid().numpy()
    return result


@pytest.mark.parametrize("name", sorted(SIGNALS["signals"]))
def test_tags_of_signals_are_those_of_the_published_networks(
    name: str, extractor: MusicnnFeatureExtractor, bundled: MusicnnForAudioClassification
) -> None:
    numpy_names = {word: getattr(np, word) for word in ("sin", "exp", "sign", "floor", "pi")}
    t = np.arange(144_000) / RATE
    samples = eval(SIGNALS["formulas"][name], {"t": t, **numpy_names})  # our own file
    expected = SIGNALS["signals"][name]
    clip = extractor(samples, RATE, return_tensors="pt").input_values
    first, whole = expected["logmel_first_frame_first_8_bands"], clip[:, : 3 * PATCH]
    np.testing.assert_allclose(clip[0, 0, :8], first, atol=1e-4)
    assert float(whole.mean()) == pytest.approx(expected["logmel_mean"], abs=1e-4)
    tags = np.concatenate([expected[tower] for tower in TOWERS], axis=1)
    np.testing.assert_allclose(tags_of(bundled, clip), tags, rtol=0, atol=1e-4)


@pytest.mark.skipif(not FMA_DIR, reason="TAGGER_FMA_DIR does not name the folder of the FMA clips")
@pytest.mark.parametrize("name", sorted(FMA["clips"]))
def test_tags_of_music_are_those_of_the_published_networks(
    name: str, extractor: MusicnnFeatureExtractor, bundled: MusicnnForAudioClassification
) -> None:
    stored, rate = soundfile.read(Path(FMA_DIR) / name, dtype="float32", always_2d=True)
    samples = soxr.resample(stored.mean(1), rate, RATE)  # what librosa.load does
    tags = tags_of(bundled, extractor(samples, RATE, return_tensors="pt").input_values)
    expected = FMA["clips"][name]
    assert len(tags) == expected["patches"]
    means = np.concatenate([expected[tower] for tower in TOWERS])
    np.testing.assert_allclose(tags.mean(0), means, rtol=0, atol=0.01)


def test_the_tags_are_in_the_order_of_the_published_networks(
    bundled: MusicnnForAudioClassification,
) -> None:
    assert bundled.config.tags == [tag for tower in TOWERS for tag in SIGNALS["labels"][tower]]


def test_the_checkpoint_is_small_and_its_package_light() -> None:
    assert (CHECKPOINT / "model.safetensors").stat().st_size < 8_000_000
    code = (
        "import sys, tagger.models.musicnn; assert not {'torch', 'transformers'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.slow
@pytest.mark.extra
def test_log_mel_is_that_of_librosa(extractor: MusicnnFeatureExtractor) -> None:
    """Try several lengths in one test: in each process, librosa first compiles for 15 seconds."""
    librosa = pytest.importorskip("librosa", reason="needs librosa, from the extra `dev`")
    for samples in (WINDOW, WINDOW + 1, 100_000):
        clip = noise(samples)
        mel = librosa.feature.melspectrogram(y=clip, sr=RATE, n_fft=512, hop_length=256, n_mels=96)
        features = extractor(clip, RATE)["input_values"]
        assert features.dtype == np.float32
        np.testing.assert_allclose(features[0], np.log10(10_000 * mel + 1).T, atol=1e-5)


def test_loud_sound_stays_finite(extractor: MusicnnFeatureExtractor) -> None:
    assert np.isfinite(extractor(np.sign(noise(WINDOW)), RATE)["input_values"]).all()


def test_one_window_is_one_patch(extractor: MusicnnFeatureExtractor) -> None:
    assert extractor.chunk_length_s * RATE == WINDOW
    assert extractor(noise(WINDOW), RATE)["input_values"].shape == (1, PATCH, 96)


def test_a_short_clip_is_repeated_to_fill_one_patch(extractor: MusicnnFeatureExtractor) -> None:
    clip = noise(20_000)
    repeated = extractor(np.tile(clip, 3)[:WINDOW], RATE)["input_values"]
    np.testing.assert_array_equal(extractor(clip, RATE)["input_values"], repeated)


def test_a_batch_is_padded_and_masked(extractor: MusicnnFeatureExtractor) -> None:
    batch = extractor([noise(WINDOW), noise(2 * WINDOW)], RATE, return_tensors="pt")
    assert batch.input_values.shape == (2, 373, 96)
    assert batch.attention_mask.sum(1).tolist() == [187, 373]
    assert not batch.input_values[0, 187:].any()


def test_truncation_cuts_samples(extractor: MusicnnFeatureExtractor) -> None:
    cut = extractor(noise(100_000), RATE, max_length=WINDOW, truncation=True)
    np.testing.assert_array_equal(
        cut["input_values"], extractor(noise(100_000)[:WINDOW], RATE)["input_values"]
    )


@pytest.mark.parametrize("clip", [noise(2, 2, WINDOW), [noise(2, WINDOW)], noise(0), [noise(0)]])
def test_what_is_no_mono_clip_is_refused(clip: Any, extractor: MusicnnFeatureExtractor) -> None:
    with pytest.raises(ValueError, match=r"mono|empty"):
        extractor(clip, RATE)


def test_another_sampling_rate_is_refused(extractor: MusicnnFeatureExtractor) -> None:
    with pytest.raises(ValueError, match="16000 Hz, not 44100 Hz"):
        extractor(noise(WINDOW), 44_100)


def test_the_settings_of_the_extractor_are_saved(tmp_path: Path) -> None:
    MusicnnFeatureExtractor(hop_length=128, patch_frames=100).save_pretrained(tmp_path)
    loaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert (loaded.hop_length, loaded.patch_frames, loaded.chunk_length) == (128, 100, 99 * 128)
    assert (
        json.loads((tmp_path / "preprocessor_config.json").read_text())["chunk_length_s"] == 0.792
    )
    loaded.chunk_length_s = 10.0
    loaded.save_pretrained(tmp_path)
    again = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert (again.chunk_length_s, again.chunk_length) == (10.0, 99 * 128)


def test_the_pipeline_gives_the_softmax_of_the_logits(
    extractor: MusicnnFeatureExtractor,
    bundled: MusicnnForAudioClassification,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clip = noise(WINDOW)
    with caplog.at_level(logging.WARNING):
        heard = pipeline("audio-classification", model=str(CHECKPOINT), device="cpu", top_k=None)
        scores = {score["label"]: score["score"] for score in heard(clip)}
    with torch.inference_mode():
        output = bundled(**extractor(clip, RATE, return_tensors="pt"))
    expected = output.logits[0].softmax(0).tolist()
    labels = bundled.config.id2label or {}
    named = dict(zip(labels.values(), expected, strict=True))
    assert scores == pytest.approx(named, abs=1e-6)
    assert not caplog.records


def test_auto_classes_load_what_was_saved(
    tmp_path: Path, small: MusicnnForAudioClassification
) -> None:
    small.save_pretrained(tmp_path)
    loaded = AutoModelForAudioClassification.from_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, MusicnnForAudioClassification)
    assert (config.timbral_filters, config.towers) == (5, {"one": ["a", "b"], "two": ["c"]})
    assert config.id2label == {0: "Rock", 1: "Jazz", 2: "Folk"}
    clip = frames(1, PATCH, 96)
    torch.testing.assert_close(loaded(clip).logits, small(clip).logits, rtol=0, atol=0)


class TinyDataset(Dataset[dict[str, Any]]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_values": frames(4, PATCH, 96)[index], "labels": index % 2}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_trainer_trains_every_layer(
    tmp_path: Path, small: MusicnnForAudioClassification, *, checkpointing: bool
) -> None:
    before = {name: weight.clone() for name, weight in small.state_dict().items()}
    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=2,
        learning_rate=0.01,
        activation_checkpointing=checkpointing,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(small, arguments, train_dataset=TinyDataset(), eval_dataset=TinyDataset())
    assert np.isfinite(trainer.train().training_loss)
    assert np.shape(trainer.predict(TinyDataset()).predictions) == (4, 3)
    moved = {name for name, weight in small.state_dict().items() if (weight != before[name]).any()}
    assert moved == {name for name, _ in small.named_parameters()}


def test_a_fresh_head_fits_on_the_towers(extractor: MusicnnFeatureExtractor) -> None:
    model = MusicnnForAudioClassification.from_pretrained(
        CHECKPOINT, num_labels=3, ignore_mismatched_sizes=True
    )
    clips = extractor([noise(WINDOW), noise(5_000)], RATE, return_tensors="pt")
    output = model(**clips, labels=torch.tensor([0, 2]))
    output.loss.backward()
    assert output.logits.shape == (2, 3)
    assert not model.head.tag_map.any()
    weight = model.head.linear.get_parameter("weight")
    assert weight.std().item() == pytest.approx(0.02, rel=0.2)
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    assert not [
        name for name, grad in gradients.items() if grad is None or not grad.isfinite().all()
    ]


def plainly(block: PooledConvolution, rows: Tensor) -> Tensor:
    """Do the block's work in the order of the paper: convolution, ReLU, batch norm, pooling.

    rows: (patches, frames, bands), padded; the result is (patches, frames, filters).
    """
    bands = block.bands if isinstance(block, modeling.TimbralBlock) else 1
    kernel = block.weight.unflatten(1, (bands, -1)).mT.unsqueeze(1)
    maps = functional.relu(functional.conv2d(rows.unsqueeze(1), kernel, block.bias))
    norm = block.norm
    statistics = norm.running_mean, norm.running_var, norm.weight, norm.bias
    return functional.batch_norm(maps, *statistics, eps=norm.eps).amax(3).mT


def test_the_quick_front_end_equals_the_plain_one_with_its_gradients(
    small: MusicnnForAudioClassification,
) -> None:
    front = small.get_submodule("musicnn.towers.one.front_end")
    assert isinstance(front, modeling.FrontEnd)
    patches = frames(2, PATCH, 96)
    normed = front.norm(patches)
    padded = [functional.pad(normed, (0, 0, 3, 3))] * 2
    padded += [functional.pad(normed, (0, 0, (n - 1) // 2, n // 2)) for n in (128, 64, 32)]
    blocks = zip([*front.timbral, *front.temporal], padded, strict=True)
    plain = torch.cat([plainly(block, rows) for block, rows in blocks], 2)
    quick = front(patches)
    torch.testing.assert_close(quick, plain, rtol=1e-4, atol=1e-4)
    parameters, weight = list(front.parameters()), frames(*plain.shape)
    gradients = [torch.autograd.grad((way * weight).sum(), parameters) for way in (quick, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-2)


def test_the_way_for_half_precision_differs_by_rounding_alone(
    small: MusicnnForAudioClassification,
) -> None:
    front = small.get_submodule("musicnn.towers.one.front_end")
    assert isinstance(front, modeling.FrontEnd)
    patches = frames(3, PATCH, 96)
    with torch.inference_mode():
        exact = front(patches)
        torch.testing.assert_close(
            front.forward_half(front.norm(patches)), exact, rtol=1e-4, atol=1e-4
        )
        with torch.autocast("cpu", torch.bfloat16):
            rounded = front(patches)
    assert 0 < float((rounded - exact).norm() / exact.norm()) < 2**-6


def test_many_patches_at_once_give_the_same(
    small: MusicnnForAudioClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = frames(1, 3 * PATCH, 96)
    one = small(clip).logits
    monkeypatch.setattr(modeling, "FRONT_END_PATCHES", 2)
    torch.testing.assert_close(small(clip).logits, one)


@pytest.mark.parametrize("taps", [3, 7])
def test_a_convolution_as_one_product_is_the_convolution(taps: int) -> None:
    layer = torch.nn.Conv1d(5, 6, taps, padding="same")
    x = torch.randn(3, 20, 5)
    torch.testing.assert_close(
        modeling.convolve_frames(x, layer), layer(x.mT).mT, atol=1e-5, rtol=1e-5
    )


def test_a_long_clip_scores_the_mean_of_its_patches(small: MusicnnForAudioClassification) -> None:
    clip = frames(1, 3 * PATCH + 50, 96)
    patches = small(clip[0, : 3 * PATCH].view(3, PATCH, 96))
    whole = small(clip)
    torch.testing.assert_close(whole.logits[0], patches.logits.mean(0))
    torch.testing.assert_close(whole.embedding[0], patches.embedding.mean(0))


def test_padding_does_not_leak(small: MusicnnForAudioClassification) -> None:
    long, short = frames(1, 3 * PATCH, 96), frames(1, 2 * PATCH - 1, 96)
    batch = torch.cat([long, functional.pad(short, (0, 0, 0, PATCH + 1), value=9.0)])
    mask = (torch.arange(3 * PATCH) < torch.tensor([[3 * PATCH], [2 * PATCH - 1]])).long()
    together = small(batch, mask).logits
    torch.testing.assert_close(together, torch.cat([small(long).logits, small(short).logits]))


def test_a_clip_of_few_frames_is_repeated(small: MusicnnForAudioClassification) -> None:
    short = frames(1, 100, 96)
    filled = torch.cat([short, short], 1)[:, :PATCH]
    torch.testing.assert_close(small(short).logits, small(filled).logits)


def test_half_precision_and_autocast_stay_near(small: MusicnnForAudioClassification) -> None:
    clip = frames(1, PATCH, 96)
    with torch.inference_mode():
        exact = small(clip).logits.softmax(1)
        with torch.autocast("cpu", torch.bfloat16):
            cast = small(clip).logits
        half = nn.Module.half(small)(clip).logits
    assert cast.dtype == half.dtype == torch.float32
    torch.testing.assert_close(cast.softmax(1), exact, rtol=0, atol=0.05)
    torch.testing.assert_close(half.softmax(1), exact, rtol=0, atol=0.01)
