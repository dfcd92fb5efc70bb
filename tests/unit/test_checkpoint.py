"""Checkpoints of any architecture are loaded, named by their version, or refused with a reason."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import (
    ViTConfig,
    ViTForImageClassification,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
    pipeline,
)

from tagger.errors import ModelError, SettingsError
from tagger.inference import predict
from tagger.inference.dataset import TrackInputs
from tagger.inference.devices import ComputeMode
from tagger.inference.predict import Predictor
from tagger.models import download_missing, find_model, sources
from tagger.models.classifier import Classifier
from tagger.models.loading import load_classifier
from tagger.models.musicnn import CHECKPOINT, register
from tagger.records import Failure, Prediction, Score, Track
from tagger.settings_sources import load_settings
from tests.checkpoints import CLASSIFIERS, WAVE, edit, save

TRACK = Track(Path("a.mp3"), 1, 1, 1)
CPU = [torch.device("cpu")]
LABELS = ("techno", "chamber music", "birdsong")

Samples = NDArray[np.float32]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the folder of a tiny checkpoint of one kind, made on first use."""
    made = {"musicnn": CHECKPOINT}

    def give(kind: str) -> Path:
        if kind not in made:
            made[kind] = save(tmp_path_factory.mktemp("models") / kind, kind)
        return made[kind]

    return give


@pytest.fixture
def tiny(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("wav2vec2")


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def load(model: str | Path, **options: object) -> Classifier:
    settings = load_settings({"model": str(model), **options})
    source = find_model(settings)
    download_missing(source, settings, lambda _done, _total: None)
    return load_classifier(source, settings)


def identity(model: str | Path, **options: object) -> str:
    return find_model(load_settings({"model": str(model), **options})).identity


def test_weights_are_hashed_once_until_they_change(
    copy: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    digest = hashlib.file_digest

    def count(file: Any, name: Any) -> Any:
        hashed.append(Path(file.name).name)
        return digest(file, name)

    weights = copy / "model.safetensors"
    in_full = identity(copy)
    monkeypatch.setattr(hashlib, "file_digest", count)
    monkeypatch.setattr(sources, "MIN_CACHED_BYTES", weights.stat().st_size)
    monkeypatch.setattr(sources, "CLOCK_STEP_S", -1.0)
    for times in (1, 1):
        assert identity(copy) == in_full
        assert hashed.count(weights.name) == times
    before = weights.stat()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    time.sleep(0.02)
    weights.write_bytes(content)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))  # as `rsync -t` does
    changed = identity(copy)
    assert changed != in_full
    for text in ("{", "[1]", '{"x": 1}', '{"x": [1, 2, 3, 4, "z"]}'):
        (home / "tagger" / "weights.json").write_text(text)
        assert identity(copy) == changed
    home.joinpath("tagger", "weights.json").unlink()
    home.joinpath("tagger", "weights.json").mkdir()  # cannot be written
    assert identity(copy) == changed


def sound(rate_hz: int, seconds: float, seed: int) -> Samples:
    """Make a chord with noise; the model scores each seed differently."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(rate_hz * seconds)) / rate_hz
    waves = [np.sin(2 * np.pi * f * time_s) for f in rng.uniform(80, 4000, 3)]
    return np.asarray(0.1 * sum(waves) + rng.normal(0, 0.02, time_s.size), np.float32)


def make_inputs(classifier: Classifier, *windows: Samples) -> TrackInputs:
    return TrackInputs(TRACK, 1.0, (0.0,) * len(windows), classifier.extractor(windows))


def scores_of(
    classifier: Classifier, clips: Sequence[Samples], **options: Any
) -> list[tuple[Score, ...]]:
    tracks = [make_inputs(classifier, clip) for clip in clips]
    results = list(Predictor(classifier, **{"devices": CPU} | options).predict(tracks))
    assert all(isinstance(result, Prediction) for result in results)
    return [result.scores for result in results if isinstance(result, Prediction)]


def batch_sizes(classifier: Classifier) -> list[int]:
    """Return a list that grows by the size of each batch that the network gets."""
    sizes: list[int] = []
    classifier.model.register_forward_pre_hook(
        lambda _model, _args, inputs: sizes.append(len(next(iter(inputs.values())))),
        with_kwargs=True,
    )
    return sizes


def assert_same(scores: Sequence[Score], expected: Sequence[dict[str, Any]]) -> None:
    ours = {score.genre: score.probability for score in scores}
    assert ours == pytest.approx({each["label"]: each["score"] for each in expected}, abs=1e-4)
    assert scores[0].genre == expected[0]["label"]


@pytest.mark.parametrize("kind", [*CLASSIFIERS, "musicnn"])
def test_scores_are_those_of_the_pipeline_alone_and_among_clips_of_other_lengths(
    checkpoint: Callable[[str], Path], kind: str
) -> None:
    register()
    classifier = load(checkpoint(kind))
    rate_hz, window_s = classifier.extractor.rate_hz, classifier.extractor.window_s
    lengths = [1.5, 1.5, min(window_s, 4.0), min(window_s, 4.0), 2.1]
    clips = [sound(rate_hz, seconds, seed) for seed, seconds in enumerate(lengths)]
    classify = pipeline("audio-classification", str(checkpoint(kind)))
    expected = [classify(clip, top_k=None) for clip in clips]
    tops = {each[0]["score"] for each in expected}
    assert len(tops) == len(clips), "the clips must not all sound the same to the model"
    sizes = batch_sizes(classifier)
    together = scores_of(classifier, clips, batch_size=4)
    assert max(sizes) > 1, "some clips must have shared a batch"
    alone = [scores_of(classifier, [clip], batch_size=1)[0] for clip in clips]
    for ours, by_itself, theirs in zip(together, alone, expected, strict=True):
        assert_same(ours, theirs)
        assert_same(by_itself, theirs)


@pytest.mark.parametrize("kind", ["clap", pytest.param("clap-fused", marks=pytest.mark.slow)])
def test_zero_shot_scores_are_those_of_the_pipeline(
    checkpoint: Callable[[str], Path], kind: str
) -> None:
    folder = checkpoint(kind)
    classifier = load(folder, labels=",".join(LABELS))
    assert (classifier.extractor.rate_hz, classifier.extractor.window_s) == (48_000, 10.0)
    clips = [sound(48_000, seconds, seed) for seed, seconds in enumerate([10, 2.5, 10, 1.2])]
    classify = pipeline("zero-shot-audio-classification", str(folder))
    expected = [classify(clip, candidate_labels=list(LABELS)) for clip in clips]
    for ours, theirs in zip(scores_of(classifier, clips), expected, strict=True):
        assert_same(ours, theirs)
    # Of several or longer clips, the pipeline picks parts at random; tagger does not.
    track = make_inputs(classifier, *clips[::2])
    first, second = (list(Predictor(classifier, CPU).predict([track])) for _ in "12")
    assert first == second


def test_words_of_its_own_for_a_label_are_what_clap_compares_with(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    file = tmp_path / "labels.txt"
    file.write_text(
        "# what we have\ntechno = a drum machine, {} and fast\n\nchamber music\n", "utf-8"
    )
    folder = checkpoint("clap")
    classifier = load(folder, labels=str(file))
    clip = sound(48_000, 3, 1)
    prompts = ["a drum machine, techno and fast", "This is a sound of chamber music."]
    classify = pipeline("zero-shot-audio-classification", str(folder))
    expected = classify(clip, candidate_labels=prompts, hypothesis_template="{}")
    names = dict(zip(prompts, ["techno", "chamber music"], strict=True))
    renamed = [each | {"label": names[each["label"]]} for each in expected]
    assert_same(scores_of(classifier, [clip])[0], renamed)


def test_windows_without_music_count_only_where_they_are_the_majority(
    checkpoint: Callable[[str], Path],
) -> None:
    classifier = replace(
        load(checkpoint("musicnn")),
        labels=("Rock", "Jazz", "Speech"),
        not_music=frozenset({"Speech"}),
    )
    rock, talk = torch.tensor([4.0, 1.0, -4.0]), torch.tensor([-2.0, 3.0, 9.0])
    song = torch.stack([rock, talk, rock + 1, talk])
    torch.testing.assert_close(classifier.pool(song), rock + 0.5)
    podcast = torch.stack([talk, rock, talk + 1])
    torch.testing.assert_close(classifier.pool(podcast), talk + 0.5)
    without = replace(classifier, not_music=frozenset())
    torch.testing.assert_close(without.pool(song), song.mean(0))


@pytest.mark.parametrize(
    ("kind", "window_s", "windows"),
    [("hubert", 30, 1), ("ast", 10.24, 3), ("whisper", 30, 1), ("musicnn", 2.976, 8)],
)
def test_windows_are_as_long_as_the_model_was_trained_on(
    checkpoint: Callable[[str], Path], kind: str, window_s: float, windows: int
) -> None:
    extractor = load(checkpoint(kind)).extractor
    assert extractor.window_s == pytest.approx(window_s)
    assert extractor.window_count == windows
    shorter = load(checkpoint(kind), **{"window-seconds": "2"}).extractor
    assert (shorter.window_s, shorter.window_count) == (2.0, 8)


def test_a_window_longer_than_the_input_is_refused(checkpoint: Callable[[str], Path]) -> None:
    with pytest.raises(SettingsError, match=r"listens to 10\.24 s at once"):
        load(checkpoint("ast"), **{"window-seconds": "11"})


def test_the_logits_of_windows_are_averaged(tiny: Path) -> None:
    classifier = load(tiny)
    windows = [sound(16_000, 2, seed) for seed in range(3)]
    with torch.inference_mode():
        logits = torch.cat([classifier.model(**classifier.extractor([w])).logits for w in windows])
    pooled = logits.mean(0).softmax(-1)
    track = make_inputs(classifier, *windows)
    (result,) = Predictor(classifier, CPU, timeline=True).predict([track])
    assert isinstance(result, Prediction)
    assert {s.genre: s.probability for s in result.scores} == pytest.approx(
        dict(zip(classifier.labels, pooled.tolist(), strict=True)), abs=1e-5
    )
    by_window = [window.scores for window in result.timeline]
    for scores, row in zip(by_window, logits.softmax(-1), strict=True):
        assert scores[0].probability == pytest.approx(row.max().item(), abs=1e-5)


def test_similarities_are_not_rounded_to_half_precision(checkpoint: Callable[[str], Path]) -> None:
    classifier = load(checkpoint("clap"), labels=",".join(LABELS))
    network: Any = classifier.model
    projected: list[torch.Tensor] = []
    network.projection.register_forward_hook(lambda _model, _args, output: projected.append(output))
    inputs = classifier.extractor([sound(48_000, 10, 0)])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        logits = network(**inputs).logits
    audio = torch.nn.functional.normalize(projected[0].float(), dim=-1)
    torch.testing.assert_close(logits, audio @ network.texts.T * network.scale.exp())


@pytest.mark.slow
def test_the_top_genre_is_the_same_in_bf16(checkpoint: Callable[[str], Path]) -> None:
    # No tiny HuBERT: for its convolutions of 8 channels oneDNN 3.12 is wrong on CPUs with AMX.
    for kind in ("musicnn", "whisper", "ast"):
        classifier = load(checkpoint(kind))
        seconds = min(4.0, classifier.extractor.window_s)
        clips = [sound(classifier.extractor.rate_hz, seconds, seed) for seed in range(6)]
        tracks = [make_inputs(classifier, clip) for clip in clips]
        exact = list(Predictor(classifier, CPU).predict(tracks))
        rough = list(Predictor(classifier, CPU, ComputeMode(torch.bfloat16)).predict(tracks))
        for one, other in zip(exact, rough, strict=True):
            assert isinstance(one, Prediction)
            assert isinstance(other, Prediction)
            margin = one.scores[0].probability - one.scores[1].probability
            assert one.scores[0].genre == other.scores[0].genre or margin < 0.02


def test_the_identity_follows_the_content_of_a_folder(tiny: Path, copy: Path) -> None:
    assert identity(copy).startswith("copy@")
    assert identity(copy).split("@")[1] == identity(tiny).split("@")[1]
    weights = load_file(copy / "model.safetensors")
    weights["classifier.bias"] += 1
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert identity(copy).split("@")[1] != identity(tiny).split("@")[1]


def test_the_identity_tells_labels_and_window_length_apart(
    checkpoint: Callable[[str], Path],
) -> None:
    clap = checkpoint("clap")
    names = {
        identity(clap, labels="a,b"),
        identity(clap, labels="a,c"),
        identity(clap, labels=["a", "b = a violin"]),
        identity(clap, labels="a,b", **{"window-seconds": "5"}),
    }
    assert len(names) == 4


def test_labels_are_one_line_of_text(copy: Path) -> None:
    edit(copy, id2label={"0": "rock\0roll", "1": " jazz\n\ud800", "2": "hip\x1b[31mhop"})
    assert load(copy).labels == ("rock roll", "jazz", "hip [31mhop")


def extract(folder: Path, **values: object) -> None:
    edit(folder, "preprocessor_config.json", **values)


def fifo_for_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


def without_head(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    rest = {name: each for name, each in weights.items() if not name.startswith("classifier")}
    save_file(rest, folder / "model.safetensors", metadata={"format": "pt"})


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def index_of_pickles(folder: Path) -> None:
    """Do what transformers follows blindly: an index of safetensors that leads to a pickle."""
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "weights.json")
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "weights.json")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")


JOINED = {"model_type": "musicnn-yamnet"}


def cut_off(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def speech_recogniser(folder: Path) -> None:
    sizes = {name: value for name, value in WAVE.items() if name != "id2label"}
    Wav2Vec2ForCTC(Wav2Vec2Config(**sizes)).save_pretrained(folder)


def image_model(folder: Path) -> None:
    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    ViTForImageClassification(config).save_pretrained(folder)


def own_code(folder: Path) -> None:
    own = {"AutoConfig": "own.OwnConfig", "AutoModelForAudioClassification": "own.OwnModel"}
    edit(folder, auto_map=own, model_type="own")
    (folder / "own.py").write_text("raise SystemExit('remote code ran')\n", "utf-8")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without_head, "is no trained audio classifier: it lacks classifier.bias"),
        (pickled, "only pickled weights (pytorch_model.bin)"),
        (cut_off, "cannot be loaded"),
        (speech_recogniser, "is not an audio classifier but Wav2Vec2ForCTC"),
        (image_model, "is not an audio classifier but ViTForImageClassification"),
        (own_code, "brings code of its own, which --trust-remote-code would run"),
        (lambda folder: edit(folder, id2label=None), "has no labels"),
        (lambda folder: edit(folder, problem_type="regression"), "estimates numbers"),
        (lambda folder: edit(folder, model_type="nonsense"), "nonsense"),
        (lambda folder: edit(folder, hidden_size=1 << 50), "cannot be loaded"),
        (lambda folder: edit(folder, num_attention_heads=0), "cannot be loaded"),
        (lambda folder: edit(folder, hidden_size="many"), "cannot be loaded"),
        (lambda folder: edit(folder, id2label={"a": "b"}), "not numbered from 0"),
        (lambda folder: edit(folder, id2label={"0": "a", "2": "b"}), "not numbered from 0"),
        (lambda folder: edit(folder, id2label={"0": "a", "1": "b"}), "do not fit its config"),
        (lambda folder: edit(folder, architectures=5, id2label=None), "has no labels"),
        (lambda folder: edit(folder, **JOINED, styles=["House"]), "config.json: styles must give"),
        (lambda folder: edit(folder, **JOINED, styles={"House": 5}), "config.json: styles must"),
        (lambda folder: edit(folder, **JOINED, moods="Happy"), "config.json: moods must be a list"),
        (lambda folder: edit(folder, **JOINED, voices=[None]), "config.json: voices must be a"),
        (lambda folder: edit(folder, transformers_weights="w/x.safetensors"), "from another place"),
        (lambda folder: extract(folder, sampling_rate=0), "a sampling rate of 0 Hz"),
        (lambda folder: extract(folder, sampling_rate="16000"), "rate of '16000' Hz"),
        (lambda folder: os.mkfifo(folder / "x.py"), "x.py is not a regular file"),
        (fifo_for_config, "config.json is not a regular file"),
        (lambda folder: edit(folder, attn_implementation="some/kernel"), "code from another"),
        (lambda folder: (folder / "config.json").write_text("[" * 99999), "is not valid JSON"),
        (index_of_pickles, "names other files than .safetensors files"),
        (
            lambda folder: os.mkfifo(folder / "model.safetensors.index.json"),
            "is not a regular file",
        ),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "no feature extractor"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no weights"),
        (lambda folder: (folder / "config.json").write_text("[]"), "is not that of a model"),
        (lambda folder: (folder / "config.json").write_text("{"), "is not valid JSON"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_clear_line(
    copy: Path, spoil: Callable[[Path], object], words: str
) -> None:
    spoil(copy)
    with pytest.raises(ModelError) as error:
        load(copy)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_clap_without_its_tokenizer_would_take_all_labels_for_the_same(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(checkpoint("clap"), tmp_path / "copy"))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="it has no tokenizer"):
        load(folder, labels="a,b")


@pytest.mark.parametrize(
    ("entry", "value", "words"),
    [
        (
            "transformers_weights",
            "w.safetensors.index.json",
            "takes its weights from another place",
        ),
        ("attn_implementation", "some/kernel", "needs code from another repository"),
    ],
)
def test_clap_is_loaded_no_less_safely(
    checkpoint: Callable[[str], Path], tmp_path: Path, entry: str, value: str, words: str
) -> None:
    folder = Path(shutil.copytree(checkpoint("clap"), tmp_path / "copy"))
    edit(folder, **{entry: value})
    with pytest.raises(ModelError, match=words):
        load(folder, labels="a,b")


def test_weights_in_several_files_are_loaded_when_all_are_there(tiny: Path, copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    names = sorted(weights)
    halves = {f"model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for file, keys in halves.items():
        part = {key: weights[key] for key in keys}
        save_file(part, copy / file, metadata={"format": "pt"})
    where = {key: file for file, keys in halves.items() for key in keys}
    index = copy / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}), "utf-8")
    clip = sound(16_000, 2, 0)
    assert scores_of(load(copy), [clip]) == scores_of(load(tiny), [clip])
    (copy / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match="has no weights"):
        load(copy)


def test_pickled_weights_are_loaded_only_on_demand(tiny: Path, copy: Path) -> None:
    expected = load(tiny)
    pickled(copy)
    found = load(copy, **{"allow-pickle": True})
    clip = sound(16_000, 2, 0)
    assert scores_of(found, [clip]) == scores_of(expected, [clip])


def test_code_that_a_model_brings_is_run_only_on_demand(
    tiny: Path, copy: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(home / "code"))
    edit(
        copy,
        model_type="own-wav2vec2",
        auto_map={"AutoConfig": "own.Own", "AutoModelForAudioClassification": "own.OwnModel"},
    )
    (copy / "own.py").write_text(
        "from transformers import Wav2Vec2Config, Wav2Vec2ForSequenceClassification\n"
        "class Own(Wav2Vec2Config):\n    model_type = 'own-wav2vec2'\n"
        "class OwnModel(Wav2Vec2ForSequenceClassification):\n    config_class = Own\n",
        "utf-8",
    )
    classifier = load(copy, **{"trust-remote-code": True})
    assert type(classifier.model).__name__ == "OwnModel"
    clip = sound(16_000, 2, 0)
    assert scores_of(classifier, [clip]) == scores_of(load(tiny), [clip])


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("clap", {}, "with --labels"),
        ("musicnn", {"labels": "a,b"}, "--labels needs a CLAP model"),
        ("hubert", {"labels": "a,b"}, "--labels needs a CLAP model"),
        ("hubert", {"revision": "main"}, "--revision is for models on the Hub"),
    ],
)
def test_options_that_do_not_suit_the_model_are_wrong_usage(
    checkpoint: Callable[[str], Path], kind: str, options: dict[str, str], words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        load(checkpoint(kind), **options)


def test_a_bad_file_or_bad_score_costs_its_neighbours_nothing(tiny: Path) -> None:
    classifier = load(tiny)
    noise = sound(16_000, 1, 0)
    good = make_inputs(classifier, noise, noise)
    bad = TrackInputs(TRACK, 1.0, (0.0,), {"input_values": torch.full((1, 16_000), torch.nan)})
    failure = Failure(TRACK, "silent")
    results = list(Predictor(classifier, CPU).predict([good, failure, bad, good, bad]))
    kinds = [type(result) for result in results]
    assert kinds == [Prediction, Failure, Failure, Prediction, Failure]
    assert results[1] == failure
    assert results[0] == results[3]
    assert isinstance(results[2], Failure)
    assert not results[2].permanent  # another precision or model may do


def test_failures_wait_for_no_batch_to_fill(tiny: Path) -> None:
    classifier = load(tiny)
    taken = []

    def failures() -> Iterator[Failure]:
        for number in range(100):
            taken.append(number)
            yield Failure(TRACK, "silent")

    results = Predictor(classifier, CPU, batch_size=64).predict(failures())
    next(results)
    assert len(taken) <= 3
    assert len(list(results)) == 99


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's, of its own code and that of transformers
def test_a_compiled_network_gives_the_same_scores(tiny: Path) -> None:
    if not shutil.which("g++"):
        pytest.skip("torch.compile needs a C++ compiler")
    classifier = load(tiny)
    clips = [sound(16_000, 1, seed) for seed in range(3)]
    expected = scores_of(classifier, clips)
    tracks = [make_inputs(classifier, clip) for clip in clips]
    compiled = Predictor(classifier, CPU, ComputeMode(compiled=True)).predict(tracks)
    for ours, theirs in zip(compiled, expected, strict=True):
        assert isinstance(ours, Prediction)
        assert [s.genre for s in ours.scores] == [s.genre for s in theirs]
        assert [s.probability for s in ours.scores] == pytest.approx(
            [s.probability for s in theirs], abs=1e-4
        )


class Fussy(torch.nn.Module):
    """A network that breaks down on some clips."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: torch.Tensor) -> Any:
        if (inputs["input_values"].abs() > 50).any():
            raise ValueError("too loud\nfor me")
        return self.model(**inputs)


def test_a_track_that_the_network_breaks_down_on_is_a_failure_of_its_own(tiny: Path) -> None:
    classifier = load(tiny)
    object.__setattr__(classifier, "model", Fussy(classifier.model))
    good = make_inputs(classifier, sound(16_000, 1, 0))
    loud = TrackInputs(TRACK, 1.0, (0.0,), {"input_values": torch.full((1, 16_000), 99.0)})
    results = list(Predictor(classifier, CPU).predict([good, loud, good, loud, good]))
    assert [type(result) for result in results] == [
        Prediction, Failure, Prediction, Failure, Prediction,
    ]  # fmt: skip
    assert isinstance(results[1], Failure)
    assert results[1].reason == "the network breaks down on it: too loud"
    assert results[0] == results[2] == results[4]
    with pytest.raises(ModelError, match="breaks down on it: too loud"):
        list(Predictor(classifier, CPU).predict([good, *[loud] * 20]))


def test_a_gpu_survives_a_network_that_breaks_down_on_the_first_window(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "get_default_batch_size", lambda *_: None)  # as on a GPU
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (8 << 30, 8 << 30))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: None)
    for name in ("memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda _: 0)
    classifier = load(tiny)
    object.__setattr__(classifier, "model", Fussy(classifier.model))
    good = make_inputs(classifier, sound(16_000, 1, 0))
    loud = TrackInputs(TRACK, 1.0, (0.0,), {"input_values": torch.full((1, 16_000), 99.0)})
    predictor = Predictor(classifier, CPU)
    results = list(predictor.predict([loud, good]))
    assert [type(result) for result in results] == [Failure, Prediction]
    assert predictor.batch_size is not None
    assert predictor.idle_replicas.qsize() == predictor.replica_count


class Greedy(torch.nn.Module):
    """A network whose memory holds only so many windows at once."""

    def __init__(self, model: torch.nn.Module, most: int, error: type[RuntimeError]) -> None:
        super().__init__()
        self.model, self.most, self.error = model, most, error
        self.sizes: list[int] = []

    def forward(self, **inputs: torch.Tensor) -> Any:
        self.sizes.append(len(inputs["input_values"]))
        if self.sizes[-1] > self.most:
            raise self.error("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")
        return self.model(**inputs)


@pytest.mark.slow
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_a_batch_that_memory_does_not_hold_is_halved_until_it_does(
    tiny: Path, error: type[RuntimeError]
) -> None:
    classifier = load(tiny)
    clips = [sound(16_000, 1, seed) for seed in range(24)]
    expected = scores_of(classifier, clips, batch_size=1)
    greedy = Greedy(classifier.model, 3, error)
    object.__setattr__(classifier, "model", greedy)
    found = scores_of(classifier, clips, batch_size=8)
    for ours, theirs in zip(found, expected, strict=True):
        assert [s.genre for s in ours] == [s.genre for s in theirs]
        assert [s.probability for s in ours] == pytest.approx(
            [s.probability for s in theirs], abs=1e-5
        )
    assert greedy.sizes[-1] <= 3, "what was learned once holds for the batches that follow"
    greedy.most = 0
    with pytest.raises(torch.OutOfMemoryError if error is torch.OutOfMemoryError else ModelError):
        list(Predictor(classifier, CPU).predict([make_inputs(classifier, clip) for clip in clips]))
