"""Compare tagger with transformers' own pipeline, both with a DistilHuBERT of full size.

    python tests/benchmarks/pipeline.py [--songs FOLDER] [--device cpu|cuda] [--rounds N]

The first part takes decoded windows of 30 s. It measures features and network alone, and the
difference of the scores; in fp32 the benchmark fails where that is too large. The second part takes
whole songs, with the defaults of each side: tagger decodes and predicts the middle, the pipeline
lets ffmpeg decode the whole song and predicts all of it. The time includes the start of tagger's
decoding processes, but not the loading of the model. Each side has its own process. They take
turns, and medians are compared.

Memory is measured in an extra round with one side alone, because measuring takes time. It is the
greatest sum of PSS over the side's process and all its descendants (Linux only).
Another process with torch on this machine would share its libraries, and make both sums smaller.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from tests.benchmarks.measure import ask, watch_peak_mib

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae",
          "rock")  # fmt: skip
RATE_HZ = 16_000
WINDOW_S = 30
WINDOWS = 4
SONG_S = 240
SONGS = 4
MAX_DIFFERENCE = 1e-4
"""The largest difference that a label's scores may have in fp32."""

OURS, OURS_BF16, PIPELINE = "tagger", "tagger, bf16", "pipeline"

Scores = list[dict[str, float]]
Task = Callable[[], Scores]
"""The work of a round; returns the scores of each window or song."""


def prepare(folder: Path, *, with_songs: bool) -> None:
    """Save a DistilHuBERT with random weights, and songs if asked to."""
    save_distilhubert(folder / "model")
    if with_songs:
        from tests.builders import build_audio

        (folder / "songs").mkdir()
        for number in range(SONGS):
            path = folder / "songs" / f"{number}.mp3"
            build_audio(path, seconds=SONG_S, frequency_hz=110 * (number + 1), seed=number)


def save_distilhubert(folder: Path) -> None:
    """Save ntu-spml/distilhubert as it would be after fine-tuning on GTZAN, but untrained."""
    import torch
    from transformers import HubertConfig, HubertForSequenceClassification, Wav2Vec2FeatureExtractor
    from transformers.utils import logging

    logging.disable_progress_bar()
    # All else is as in HuBERT base, whose configuration is the default.
    config = HubertConfig(
        num_hidden_layers=2, feat_proj_layer_norm=False, id2label=dict(enumerate(GENRES))
    )
    torch.manual_seed(0)
    model = HubertForSequenceClassification(config)
    with torch.no_grad():
        for layer in (model.projector, model.classifier):
            layer.weight.mul_(8)  # else all labels would have similar scores
    model.save_pretrained(folder)
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    extractor.save_pretrained(folder)


def make_windows() -> list[NDArray[np.float32]]:
    """Make noise of shape (n,), each window more muffled than the one before."""
    white = np.random.default_rng(0).normal(0, 0.1, (WINDOWS, WINDOW_S * RATE_HZ))
    kernels = (np.ones(4**number) / 4**number for number in range(WINDOWS))
    pairs = zip(white, kernels, strict=True)
    return [np.convolve(noise, kernel, "same").astype(np.float32) for noise, kernel in pairs]


def make_our_tasks(
    folder: Path, songs: Sequence[Path], device: str, precision: str
) -> dict[str, Task]:
    """Load the model; return tagger's tasks."""
    import torch

    from tagger.inference import predict
    from tagger.inference.dataset import TrackInputs
    from tagger.inference.devices import choose_compute_mode
    from tagger.inference.engine import InferenceRequest
    from tagger.inference.predict import Predictor
    from tagger.models import find_model
    from tagger.models.loading import load_classifier
    from tagger.records import Failure, Prediction, Track
    from tagger.settings import Precision, Settings

    settings = Settings(model=str(folder), device=device, precision=Precision(precision))
    source = find_model(settings)
    classifier = load_classifier(source, settings)
    place = torch.device(device)
    predictor = Predictor(
        classifier, [place], choose_compute_mode(settings, [place], classifier.model)
    )
    tracks = [Track.from_stat(path, path.stat()) for path in songs]
    windows = make_windows()

    def scores(result: Prediction | Failure) -> dict[str, float]:
        assert isinstance(result, Prediction), result
        return {score.genre: score.probability for score in result.scores}

    def predict_windows() -> Scores:
        extract = classifier.extractor
        inputs = (TrackInputs(tracks[0], WINDOW_S, (0.0,), extract([each])) for each in windows)
        return [scores(result) for result in predictor.predict(inputs)]

    def predict_songs(tracks: Sequence[Track]) -> Scores:
        with patch.object(predict, "load_classifier", return_value=classifier):
            request = InferenceRequest(source, settings)
            loaded = predict.load_predictor(request)
            return [scores(each) for each in predict.predict_tracks(tracks, request, loaded)]

    return {
        "windows": predict_windows,
        "song": lambda: predict_songs(tracks[:1]),
        "songs": lambda: predict_songs(tracks),
    }


def make_pipeline_tasks(folder: Path, songs: Sequence[Path], device: str) -> dict[str, Task]:
    """Load the model; return the pipeline's tasks."""
    import torch
    from transformers import pipeline
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    task: Any = "audio-classification"
    classify: Any = pipeline(
        task, model=str(folder), device=device, dtype=torch.float32, top_k=None
    )
    windows = make_windows()

    def classify_all(sounds: Sequence[Any]) -> Scores:
        return [{each["label"]: each["score"] for each in classify(sound)} for sound in sounds]

    paths = [str(path) for path in songs]
    return {
        "windows": lambda: classify_all(windows),
        "song": lambda: classify_all(paths[:1]),
        "songs": lambda: classify_all(paths),
    }


def serve(tasks: Mapping[str, Task]) -> None:
    """Run the task that each line of stdin names; print its times and scores."""
    for line in sys.stdin:
        clock, processor = time.perf_counter(), time.process_time()
        scores = tasks[line.strip()]()
        clock, processor = time.perf_counter() - clock, time.process_time() - processor
        print("answer", json.dumps([clock, processor, scores]), flush=True)


@dataclass(frozen=True, slots=True)
class RoundResult:
    """The result of a round. processor_s: the CPU time of the side's own process."""

    seconds: float
    processor_s: float
    scores: Scores


@dataclass(frozen=True, slots=True)
class Side:
    """The process of one side, which runs a task when asked to."""

    process: "subprocess.Popen[str]"

    def play(self, task: str) -> RoundResult:
        return RoundResult(*json.loads(ask(self.process, task)))


@dataclass(frozen=True, slots=True)
class Contest:
    """The sides, which take turns, and the command that starts a side with its name added."""

    command: Sequence[str]
    names: Sequence[str]
    rounds: int

    @contextmanager
    def start(self, name: str) -> Iterator[Side]:
        process = subprocess.Popen(
            [*self.command, "--side", name],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            yield Side(process)
        finally:
            process.communicate()

    def play(self, task: str, *, warm_up: str) -> dict[str, list[RoundResult]]:
        """Return each side's results, one for each round."""
        with ExitStack() as stack:
            sides = {name: stack.enter_context(self.start(name)) for name in self.names}
            for side in sides.values():
                side.play(warm_up)
            rounds = [
                {name: side.play(task) for name, side in sides.items()} for _ in range(self.rounds)
            ]
        return {name: [each[name] for each in rounds] for name in self.names}

    def peak_mib(self, name: str, task: str) -> float:
        """Return the peak memory of one side alone, from its start to its end."""
        with ThreadPoolExecutor(1) as pool:
            with self.start(name) as side:
                peak = pool.submit(watch_peak_mib, side.process)
                side.play(task)
            return peak.result()


def compare_windows(contest: Contest) -> None:
    """Print the time of a window and the difference of the scores. Fails where it is too large."""
    answers = contest.play("windows", warm_up="windows")
    print(f"A window of {WINDOW_S} s, features and network:")
    show_times(answers, each=WINDOWS)
    processor = {name: median(one.processor_s for one in answers[name]) for name in contest.names}
    for name, seconds in processor.items():  # CPU time: other work disturbs it less
        ratio = processor[PIPELINE] / seconds
        print(f"  {name:14} {seconds / WINDOWS:7.3f} s each on the processors ({ratio:.2f})")
    theirs = answers[PIPELINE][0].scores
    for name in contest.names[:-1]:
        apart = get_max_difference(answers[name][0].scores, theirs)
        print(f"  scores of {name} and {PIPELINE} are at most {apart:.1e} apart")
        if name == OURS and not apart <= MAX_DIFFERENCE:  # written so that NaN fails too
            raise SystemExit(
                f"FAILED: the scores may be {MAX_DIFFERENCE:g} apart, and are {apart:g}"
            )


def get_max_difference(ours: Scores, theirs: Scores) -> float:
    pairs = list(zip(ours, theirs, strict=True))
    assert all(mine.keys() == other.keys() == set(GENRES) for mine, other in pairs)
    gaps = [abs(mine[genre] - other[genre]) for mine, other in pairs for genre in GENRES]
    return float(np.max(gaps))


def compare_songs(contest: Contest, songs: int) -> None:
    """Print the time of a song and the peak of memory."""
    print(f"Whole songs, {songs} of them, from the file to its scores:")
    peaks = {name: contest.peak_mib(name, "songs") for name in contest.names}
    show_times(contest.play("songs", warm_up="song"), each=songs)
    for name, peak in peaks.items():
        print(f"  {name:14} peak memory {peak:6.0f} MiB (x {peak / peaks[PIPELINE]:.2f})")


def show_times(answers: Mapping[str, Sequence[RoundResult]], *, each: int) -> None:
    """Print each side's median of the rounds, how it compares, and the rounds."""
    seconds = {name: [one.seconds / each for one in played] for name, played in answers.items()}
    theirs = median(seconds[PIPELINE])
    for name, rounds in seconds.items():
        middle = median(rounds)
        print(f"  {name:14} {middle:7.3f} s each, {1 / middle:6.2f} a second", end=" ")
        print(f"({theirs / middle:.2f} times as fast); rounds:", *(f"{one:.3f}" for one in rounds))


def songs_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")


def compare(options: argparse.Namespace, folder: Path) -> None:
    songs = options.songs or folder / "songs"
    command = [sys.executable, __file__, "--folder", str(folder), "--songs", str(songs)]
    command += ["--device", options.device]
    subprocess.run([*command, "--side", "prepare"], check=True)
    names = (OURS, OURS_BF16, PIPELINE) if options.device == "cuda" else (OURS, PIPELINE)
    compare_windows(Contest(command, names, 3 * options.rounds))  # short ones
    compare_songs(Contest(command, names, options.rounds), len(songs_in(songs)))


def play_side(options: argparse.Namespace) -> None:
    """Run one side of the comparison, or prepare the files of both."""
    if options.side == "prepare":
        prepare(options.folder, with_songs=not options.songs.exists())
        return
    device = "cuda:0" if options.device == "cuda" else "cpu"
    model, songs = options.folder / "model", songs_in(options.songs)
    if options.side == PIPELINE:
        serve(make_pipeline_tasks(model, songs, device))
    else:
        precision = "bf16" if options.side == OURS_BF16 else "fp32"
        serve(make_our_tasks(model, songs, device, precision))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--songs", type=Path, help="a folder of audio files; else it makes some")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    for internal, kind in (("--side", str), ("--folder", Path)):
        parser.add_argument(internal, type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        play_side(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(options, Path(folder))


if __name__ == "__main__":
    main()
