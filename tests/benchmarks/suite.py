"""Measure a scan: its stages, the whole, other programs for comparison, and lower bounds.

    python tests/benchmarks/suite.py [--music FOLDER] [--tracks N] [--seconds S] [--formats mp3,ogg]
        [--markdown FILE] [--essentia-python ESS/bin/python --tensorflow-python TF/bin/python
        --wheel musicnn-0.1.0-py3-none-any.whl]

The benchmark makes its own library: of the real tracks in --music, which ffmpeg joins and cuts to
that length, or else of synthetic sound. Each row of the table has its own process, which a first
round warms up. The rows take turns. Their medians are compared, of the wall-clock time and of the
CPU time. Stages run alone, on all cores, with the same functions as a scan. The other programs are
slow, so they take only --peer-tracks of the library, and are compared per track. The essentia row
needs the last three options (see network.py). It predicts whole tracks, as essentia's own examples
do.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[2]
CORES = len(os.sched_getaffinity(0))
RATE_HZ = 16_000
SOURCE_RATE_HZ = 44_100
WINDOWS = 8
WINDOW_S = 186 * 256 / RATE_HZ
ENCODERS = {
    "mp3": ("-b:a", "192k"),
    "m4a": ("-c:a", "aac", "-b:a", "160k"),
    "opus": ("-b:a", "128k"),
}

Task = Callable[[], object]


def make_library(folder: Path, options: argparse.Namespace) -> None:
    """Fill a folder with tracks of one length, each of different music, format after format."""
    folder.mkdir(parents=True)
    formats = options.formats.split(",")
    sources = find_songs(options.music) if options.music else []
    for number in range(options.tracks):
        path = folder / f"{number:04d}.{formats[number % len(formats)]}"
        if sources:
            join(sources[number % len(sources) :] + sources, path, options.seconds)
        else:
            sys.path.insert(0, str(ROOT))
            from tests.builders import build_audio

            build_audio(path, seconds=options.seconds, frequency_hz=80 + 7 * number, seed=number)


def find_songs(folder: Path) -> list[Path]:
    """Return the larger half of the files, which are songs."""
    suffixes = {".mp3", ".ogg", ".flac", ".m4a", ".opus", ".wav"}
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes)
    size = median(path.stat().st_size for path in files)
    return [path for path in files if path.stat().st_size >= size]


def join(sources: Sequence[Path], target: Path, seconds: float) -> None:
    """Join these tracks and write the first `seconds` of them."""
    parts: list[str] = []
    joined_s = 0.0
    for source in sources:
        if joined_s >= seconds:
            break
        parts += ["-i", str(source)]
        joined_s += probe_duration_s(source)
    count = len(parts) // 2
    common_format = "aresample=44100,aformat=channel_layouts=stereo"
    chain = "".join(f"[{i}:a:0]{common_format}[a{i}];" for i in range(count))
    chain += "".join(f"[a{i}]" for i in range(count)) + f"concat=n={count}:v=0:a=1[out]"
    ffmpeg = ["ffmpeg", "-v", "error", "-y", *parts, "-filter_complex", chain, "-map", "[out]"]
    encoder = ENCODERS.get(target.suffix[1:], ())
    subprocess.run([*ffmpeg, "-t", str(seconds), *encoder, str(target)], check=True)


def probe_duration_s(path: Path) -> float:
    probe = ["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0"]
    return float(subprocess.run([*probe, path], check=True, capture_output=True, text=True).stdout)


def find_tracks(library: Path) -> list[Any]:
    from tagger.crawl import Scope, crawl
    from tagger.records import Track
    from tagger.tags import EXTENSIONS

    return [each for each in crawl([library], Scope(EXTENSIONS)) if isinstance(each, Track)]


def crawling(library: Path) -> Task:
    return partial(find_tracks, library)


def looking_up(library: Path) -> Task:
    """Scan a library that the state file knows, without the start of the program."""
    run = partial(scan, library, "--dry-run", "--state", library.with_name("known.sqlite"))
    run()
    return run


def scan(library: Path, *more: object) -> None:
    from tagger.cli import main

    words = ["scan", library, "--quiet", "--min-score", 0, *more]
    assert main([str(word) for word in words]) == 0


def read_track(path: Path) -> object:
    from tagger.audio import read_windows

    return len(read_windows(path, rate_hz=RATE_HZ, window_s=WINDOW_S, count=WINDOWS).windows)


def decoding(library: Path) -> Task:
    return spread(read_track, [track.path for track in find_tracks(library)])


def resample_windows(_number: int) -> object:
    import numpy as np
    import soxr

    sound = np.random.default_rng(0).normal(0, 0.1, round(WINDOW_S * SOURCE_RATE_HZ))
    sound = sound.astype(np.float32)
    return [
        len(soxr.resample(sound, SOURCE_RATE_HZ, RATE_HZ, quality="HQ")) for _ in range(WINDOWS)
    ]


def resampling(library: Path) -> Task:
    return spread(resample_windows, range(len(find_tracks(library))))


def spread(function: Callable[[Any], object], items: Sequence[object]) -> Task:
    """Return a task that calls the function with each item, on all cores."""
    pool = ProcessPoolExecutor(CORES)
    return lambda: list(pool.map(function, items, chunksize=1))


def load_bundled() -> tuple[Any, Any]:
    """Load the bundled model; return its classifier and the settings."""
    from tagger.models import find_model
    from tagger.models.loading import load_classifier
    from tagger.settings import load_settings

    settings = load_settings({})
    return load_classifier(find_model(settings), settings), settings


def make_noise() -> Any:
    import numpy as np

    white = np.random.default_rng(0).normal(0, 0.1, (WINDOWS, round(WINDOW_S * RATE_HZ)))
    return list(white.astype(np.float32))


def making_features(library: Path) -> Task:
    import torch

    extractor, windows = load_bundled()[0].extractor, make_noise()
    count = len(find_tracks(library))
    pool = ThreadPoolExecutor(CORES, initializer=torch.set_num_threads, initargs=(1,))
    return lambda: list(pool.map(lambda _: extractor(windows), range(count)))


def calculating(library: Path) -> Task:
    """Run the network alone, on inputs that are ready."""
    from tagger.inference.dataset import Sample
    from tagger.inference.devices import choose_compute_mode, choose_devices
    from tagger.inference.predict import Predictor

    classifier, settings = load_bundled()
    devices = choose_devices(settings.device)
    predictor = Predictor(
        classifier, devices, choose_compute_mode(settings, devices, classifier.model)
    )
    inputs = classifier.extractor(make_noise())
    starts = tuple(map(float, range(WINDOWS)))
    samples = [Sample(track, 240.0, starts, inputs) for track in find_tracks(library)]
    return lambda: list(predictor.predict(samples))


def writing(library: Path) -> Task:
    """Replace the tags of each file, without verifying the rest of it."""
    from tagger.records import TagChange, Tags
    from tagger.tags import read_tags
    from tagger.writing.replace import make_copy_name, replace_tags

    pool, rounds = ThreadPoolExecutor(CORES), iter(range(10**6))

    def write(number: int, track: Any) -> object:
        after = Tags((f"Genre {number}",), (f"Genre {number}",), "Rock=1.000", "m@1")
        change = TagChange(track, read_tags(track.path), after, make_copy_name(track))
        return replace_tags(change, lambda _: {})

    def task() -> object:
        return list(pool.map(partial(write, next(rounds)), find_tracks(library)))

    return task


def verifying(library: Path) -> Task:
    """Parse and hash each file twice, as a scan does with the original and the copy."""
    from tagger.audio import hash_streams
    from tagger.isolation import CallLimits, IsolatedCaller
    from tagger.tags import read_other_fields

    isolated, pool = IsolatedCaller(CallLimits(120, 2048)), ThreadPoolExecutor(CORES)

    def look(path: Path) -> dict[str, str]:
        sound = isolated.call(hash_streams, path, bytes_compared=True)
        return isolated.call(read_other_fields, path) | sound

    def verify(track: Any) -> bool:
        return look(track.path) == look(track.path)

    return lambda: list(pool.map(verify, find_tracks(library)))


def tagger(library: Path, *more: str) -> Task:
    """Run the program with a new state file; each round has tags to write."""
    rounds = iter(range(10**6))

    def task() -> object:
        number = next(rounds)
        state = library.with_name(f"{'-'.join(more)}-{number}.sqlite")
        command = [sys.executable, "-m", "tagger", "scan", library, "-q", "--state", state, *more]
        choice = ["--min-score", "0", "--existing", "replace", "--top-k", str(4 + number % 2)]
        return subprocess.run([*map(str, command), *choice], check=True)

    return task


def plain_loop(library: Path) -> Task:
    """Run a simple loop of librosa, torch and mutagen, on the same windows."""
    import librosa
    import mutagen
    import numpy as np
    import torch

    from tagger.audio import plan_windows

    classifier, _ = load_bundled()
    paths = [track.path for track in find_tracks(library)]

    def tag(path: Path) -> None:
        sound, _ = librosa.load(path, sr=RATE_HZ, mono=True)
        starts = plan_windows(len(sound) / RATE_HZ, WINDOW_S, WINDOWS)
        size = round(WINDOW_S * RATE_HZ)
        windows = [sound[round(start * RATE_HZ) :][:size].astype(np.float32) for start in starts]
        with torch.inference_mode():
            logits = classifier.model(**classifier.extractor(windows)).logits.mean(0)
        file = mutagen.File(path, easy=True)
        file["genre"] = [classifier.make_scores(logits)[0].genre]
        file.save()

    return lambda: list(map(tag, paths))


def whole_pipeline(library: Path) -> Task:
    """Run the pipeline of transformers, which decodes with ffmpeg and predicts the whole track."""
    from transformers import pipeline

    from tagger.models import musicnn

    musicnn.register()
    classify = pipeline("audio-classification", str(musicnn.CHECKPOINT))
    paths = [str(track.path) for track in find_tracks(library)]
    return lambda: [classify(path) for path in paths]


def essentia(library: Path) -> Task:
    """Whole tracks through essentia's TensorflowPredictMusiCNN, both networks (library: tracks)."""
    sys.path.insert(0, str(ROOT))
    from essentia.standard import MonoLoader

    from tests.benchmarks.network import make_essentia_predictor

    predict = make_essentia_predictor(str(library.with_name("graphs")), 64)
    paths = sorted(map(str, library.iterdir()))
    return lambda: [
        predict(MonoLoader(filename=path, sampleRate=RATE_HZ, resampleQuality=4)()).mean(0)
        for path in paths
    ]


def walking(library: Path) -> Task:
    def task() -> object:
        walk = os.walk(library)
        return [os.stat(os.path.join(folder, name)) for folder, _, names in walk for name in names]  # noqa: PTH116, PTH118 - the barest way

    return task


def finding(library: Path) -> Task:
    return partial(
        subprocess.run, ["find", library, "-type", "f"], check=True, stdout=subprocess.DEVNULL
    )


STAGES = {
    "crawl": crawling,
    "look-up (a re-run)": looking_up,
    "decode": decoding,
    "of that, resampling": resampling,
    "features": making_features,
    "network": calculating,
    "tag write": writing,
    "verify": verifying,
}


def starting(library: Path) -> Task:
    """Run the program for a single track: the cost of a run with almost no work."""
    one = library.with_name("one")
    one.mkdir(exist_ok=True)
    shutil.copy(min(library.iterdir()), one)
    return tagger(one, "-n")


WHOLE: dict[str, Callable[[Path], Task]] = {
    "start (one track)": starting,
    "dry run": lambda library: tagger(library, "-n"),
    "scan": tagger,
}
PEERS = {"plain loop": plain_loop, "transformers.pipeline": whole_pipeline, "essentia": essentia}
LIMITS = {"os.walk + stat": walking, "find": finding}
ROWS: dict[str, Callable[[Path], Task]] = STAGES | WHOLE | PEERS | LIMITS
OWN_COPY = {"tag write", "start (one track)", "dry run", "scan", "plain loop"}
"""Rows that change the files, or must not see the state files of other rows."""


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds that a row took: wall clock, and CPU time of all processes."""

    clock: float
    processor: float


def get_cpu_s() -> float:
    """Return the CPU time of this process and all that it started."""
    import psutil

    here = psutil.Process()
    ended = here.cpu_times()
    total = ended.user + ended.system + ended.children_user + ended.children_system
    for child in here.children(recursive=True):
        times = child.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return float(total)


def serve(name: str, library: Path) -> None:
    """Run one round for each line of stdin; print how long it took."""
    if name != "essentia":
        sys.path.insert(0, str(ROOT))
    task = ROWS[name](library)
    for _ in sys.stdin:
        clock, processor = time.perf_counter(), get_cpu_s()
        task()
        sys.stdout.write(f"round {time.perf_counter() - clock} {get_cpu_s() - processor}\n")
        sys.stdout.flush()


class Side:
    """The process of a row."""

    def __init__(self, name: str, library: Path, python: str) -> None:
        command = [python, __file__, "--row", name, "--library", str(library)]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            command,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.rounds: list[Round] = []
        self.play()
        self.rounds.clear()  # the first round only warms up

    def play(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            word, *numbers = line.split() or [""]
            if word == "round":
                self.rounds.append(Round(*map(float, numbers)))
                return
        raise SystemExit("a row of the benchmark ended early")

    def end(self) -> None:
        """Kill the process and all that it started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def median(self) -> Round:
        return Round(
            median(each.clock for each in self.rounds),
            median(each.processor for each in self.rounds),
        )


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Round]:
    """Run all rows in turns; return their medians per track."""
    library = folder / "library"
    if not library.exists():
        make_library(library, options)
    few = folder / "few"
    shutil.rmtree(few, ignore_errors=True)
    few.mkdir()
    for path in sorted(library.iterdir())[: options.peer_tracks]:
        shutil.copy(path, few)
    sides, counts = {}, {}
    for name in chosen_rows(options, folder):
        source = few if name in PEERS else library
        place = folder / f"of {name}" / "library" if name in OWN_COPY else source
        if name in OWN_COPY:
            shutil.rmtree(place.parent, ignore_errors=True)
            shutil.copytree(source, place)
        counts[name] = 1 if name.startswith("start") else len(list(source.iterdir()))
        python = options.essentia_python if name == "essentia" else sys.executable
        sides[name] = Side(name, place, python)
        sys.stderr.write(f"{name} is ready\n")
    for number in range(options.rounds):
        for side in sides.values():
            side.play()
        sys.stderr.write(f"round {number + 1} of {options.rounds}\n")
    for side in sides.values():
        side.end()
    medians = {name: side.median() for name, side in sides.items()}
    return {
        name: Round(each.clock / counts[name], each.processor / counts[name])
        for name, each in medians.items()
    }


def chosen_rows(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    wanted = options.rows.split(",") if options.rows else list(ROWS)
    if "essentia" in wanted and options.essentia_python:
        graphs = folder / "graphs"
        graphs.mkdir(exist_ok=True)
        script = Path(__file__).with_name("network.py")
        freeze = [script, "--freeze", graphs, "--wheel", options.wheel]
        subprocess.run([options.tensorflow_python, *freeze], check=True)
    elif "essentia" in wanted:
        sys.stderr.write("essentia is left out: it needs --essentia-python, see above\n")
        wanted.remove("essentia")
    yield from wanted


def table(rounds: dict[str, Round], tracks: int) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    whole, start = rounds.get("scan"), rounds.pop("start (one track)", None)
    if whole and start:
        rounds["scan, once it is started"] = Round(
            whole.clock - start.clock / tracks, whole.processor - start.processor / tracks
        )
    yield "| | ms a track | CPU ms a track | ratio to the scan |"
    yield "|---|---|---|---|"
    for name, each in rounds.items():
        beside = f"{each.clock / whole.clock:.2f}" if whole else ""
        yield f"| {name} | {1000 * each.clock:.2f} | {1000 * each.processor:.2f} | {beside} |"
    stages = {
        name: rounds[name] for name in STAGES if name in rounds and name != "of that, resampling"
    }
    if not whole or len(stages) < len(STAGES) - 1:
        return
    slowest = max(stages, key=lambda name: stages[name].clock)
    work = sum(each.processor for each in stages.values()) / CORES
    yield ""
    yield f"{tracks} tracks, {CORES} cores. The time of a scan is this many times"
    begun = rounds.get("scan, once it is started", whole)
    for what, limit in (
        (f"its slowest stage alone ({slowest})", stages[slowest].clock),
        ("the CPU time of all its stages divided by the cores", work),
    ):
        yield f"- {what}: {whole.clock / limit:.2f}, once it is started {begun.clock / limit:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--music", type=Path, help="a folder of real music to make the library of")
    parser.add_argument("--tracks", type=int, default=60)
    parser.add_argument("--peer-tracks", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--formats", default="mp3", help="mp3,flac,ogg,m4a,opus,wav")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", help=f"instead of all: {','.join(ROWS)}")
    parser.add_argument("--keep", type=Path, help="make or reuse the library in this folder")
    parser.add_argument("--markdown", type=Path, help="write the table there as well")
    parser.add_argument("--essentia-python")
    parser.add_argument("--tensorflow-python")
    parser.add_argument("--wheel")
    for internal, kind in (("--row", str), ("--library", Path)):
        parser.add_argument(internal, type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        serve(options.row, options.library)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        lines = list(table(measure(options, folder), options.tracks))
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    if options.markdown:
        options.markdown.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
