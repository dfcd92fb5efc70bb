"""The stages of a scan, and whole scans, as tasks that the suite runs again and again.

Each function makes a task for a library. It fails if a name of the package has changed.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import CORES

SOURCE_RATE_HZ = 44_100

Task = Callable[[], object]


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


def spread(function: Callable[[Any], object], items: Sequence[object]) -> Task:
    """Return a task that calls the function with each item, in a process for each core."""
    pool = ProcessPoolExecutor(CORES)
    return lambda: list(pool.map(function, items, chunksize=1))


def spread_threads(function: Callable[[Any], object], items: Sequence[object]) -> Task:
    """Return a task that calls the function with each item, in a thread for each core.

    torch works in each of these threads alone, as it does in a scan.
    """
    import torch

    pool = ThreadPoolExecutor(CORES, initializer=torch.set_num_threads, initargs=(1,))
    return lambda: list(pool.map(function, items))


def load_bundled() -> tuple[Any, Any]:
    """Load the bundled model; return its classifier and the settings."""
    from tagger.models import find_model
    from tagger.models.loading import load_classifier
    from tagger.settings_sources import load_settings

    settings = load_settings({})
    return load_classifier(find_model(settings), settings), settings


def load_window_plan() -> dict[str, Any]:
    """Return the arguments of read_windows for the bundled model."""
    from tagger.models import find_model
    from tagger.models.loading import load_extractor
    from tagger.settings_sources import load_settings

    settings = load_settings({})
    extractor = load_extractor(find_model(settings), settings)
    return {
        "rate_hz": extractor.rate_hz,
        "window_s": extractor.window_s,
        "count": extractor.window_count,
    }


def read_track(plan: Mapping[str, Any], path: Path) -> object:
    from tagger.audio import read_windows

    return len(read_windows(path, **plan).windows)


def decoding(library: Path) -> Task:
    tracks = [track.path for track in find_tracks(library)]
    return spread(partial(read_track, load_window_plan()), tracks)


def resample_windows(plan: Mapping[str, Any], _number: int) -> object:
    import numpy as np
    import soxr

    sound = np.random.default_rng(0).normal(0, 0.1, round(plan["window_s"] * SOURCE_RATE_HZ))
    sound = sound.astype(np.float32)
    resample = partial(soxr.resample, sound, SOURCE_RATE_HZ, plan["rate_hz"], quality="HQ")
    return [len(resample()) for _ in range(plan["count"])]


def resampling(library: Path) -> Task:
    return spread(partial(resample_windows, load_window_plan()), range(len(find_tracks(library))))


def make_noise(extractor: Any) -> Any:
    """Return the windows of a track, filled with noise."""
    import numpy as np

    shape = extractor.window_count, round(extractor.window_s * extractor.rate_hz)
    return list(np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32))


def choose_mode(classifier: Any, settings: Any) -> tuple[Any, Any]:
    """Return the devices and the precision of a scan."""
    from tagger.inference.devices import choose_compute_mode, choose_devices

    devices = choose_devices(settings.device)
    return devices, choose_compute_mode(settings, devices, classifier.model)


def calculating(library: Path) -> Task:
    """Run the network alone, as a scan does, on inputs that are ready."""
    from tagger.inference.dataset import TrackInputs
    from tagger.inference.predict import Predictor

    classifier, settings = load_bundled()
    predictor = Predictor(classifier, *choose_mode(classifier, settings))
    inputs = classifier.extractor(make_noise(classifier.extractor))
    starts = tuple(map(float, range(classifier.extractor.window_count)))
    tracks = [TrackInputs(track, 240.0, starts, inputs) for track in find_tracks(library)]
    return lambda: list(predictor.predict(tracks))


def calculating_part(part: str, library: Path) -> Task:
    """Run one part of the network alone: `features` of both networks, `musicnn` or `yamnet`."""
    import torch

    from tagger.models.patches import cut_patches

    classifier, settings = load_bundled()
    networks = classifier.model.get_submodule("networks")
    windows = classifier.extractor(make_noise(classifier.extractor))["input_values"]
    _, mode = choose_mode(classifier, settings)

    def features() -> tuple[Any, Any]:
        return networks.musicnn_log_mel(windows), networks.yamnet_log_mel(windows)

    frames, yamnet_frames = features()
    patches, _ = cut_patches(yamnet_frames, None, *networks.patch)
    calls: dict[str, Task] = {
        "features": features,
        "musicnn": partial(networks.musicnn, frames),
        "yamnet": partial(networks.yamnet, patches),
    }

    def run(_number: int) -> None:
        with (
            torch.inference_mode(),
            torch.autocast("cpu", mode.dtype, enabled=mode.dtype is not None),
        ):
            calls[part]()

    return spread_threads(run, range(len(find_tracks(library))))


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


def starting(library: Path) -> Task:
    """Run the program for a single track: the cost of a run with almost no work."""
    one = library.with_name("one")
    one.mkdir(exist_ok=True)
    shutil.copy(min(library.iterdir()), one)
    return tagger(one, "-n")
