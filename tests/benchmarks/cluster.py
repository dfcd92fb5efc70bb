"""Compare scans on Ray clusters of one, two and four nodes with scans by the local engine.

    python tests/benchmarks/cluster.py --music FOLDER [--tracks 200] [--rounds 3]

The benchmark copies real tracks under other names until there are enough. It scans and writes them
with the local engine, then with clusters of one, two and four nodes on this machine. Each node has
a predictor of one core and one core to decode; the run itself writes the tags, on local threads.
All ways take turns within a round. The table has medians of the whole run, and of the speed between
the first and the last tenth of the rows, with their ratios to the local engine in the same round.
All nodes share the cores of this one machine. On two cores, four nodes can only gain over one node
what that node spends waiting.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from tests.benchmarks.measure import find_songs, make_environment
from tests.ray_nodes import start_ray_nodes

NODES = (1, 2, 4)
POLL_INTERVAL_S = 0.05


class ScanSpeed(NamedTuple):
    """The duration of a whole scan, and its tracks a second once started."""

    whole_s: float
    tracks_per_s: float


def copy_music(songs: Sequence[Path], folder: Path, tracks: int) -> None:
    folder.mkdir()
    for number in range(tracks):
        song = songs[number % len(songs)]
        shutil.copy(song, folder / f"{number:05}{song.suffix}")


def scan(songs: Sequence[Path], tracks: int, *options: str) -> ScanSpeed:
    """Scan fresh copies of the songs and write into them."""
    with tempfile.TemporaryDirectory() as name:
        folder, report = Path(name), Path(name) / "report.csv"
        copy_music(songs, folder / "music", tracks)
        command = [
            sys.executable, "-m", "tagger", "scan", str(folder / "music"), "-q", "--min-score", "0",
            "--existing", "replace", "--state", str(folder / "state.sqlite"),
            "--report", str(report), *options,
        ]  # fmt: skip
        started = time.perf_counter()
        marks = []
        with subprocess.Popen(command, env=make_environment(folder / "home")) as process:
            while process.poll() is None:
                rows = report.read_bytes().count(b"\n") if report.exists() else 0
                marks.append((time.perf_counter() - started, rows))
                time.sleep(POLL_INTERVAL_S)
        whole_s = time.perf_counter() - started
        if process.returncode:
            raise SystemExit(f"{command} ended with {process.returncode}")
    first = next(mark for mark in marks if mark[1] > tracks / 10)
    last = next(mark for mark in marks if mark[1] > tracks * 9 / 10)
    return ScanSpeed(whole_s, (last[1] - first[1]) / (last[0] - first[0]))


def measure(songs: Sequence[Path], tracks: int) -> Mapping[str, ScanSpeed]:
    """Measure each engine once."""
    speeds = {}
    for count in (0, *NODES):
        with start_ray_nodes(count, cpus=2) if count else nullcontext() as cluster:
            ray = ("--engine", "ray", "--ray-address", cluster.address) if cluster else ()
            speeds[f"Ray, {count} nodes" if count else "local"] = scan(songs, tracks, *ray)
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--music", type=Path, required=True)
    parser.add_argument("--tracks", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    songs = find_songs(options.music)
    rounds = []
    for number in range(options.rounds):
        rounds.append(measure(songs, options.tracks))
        print(f"round {number + 1}: {rounds[-1]}", file=sys.stderr)
    print("| engine | whole run | to local | once started | to local |")
    print("|---|---|---|---|---|")
    for engine in rounds[0]:
        whole_s = median(each[engine].whole_s for each in rounds)
        tracks_per_s = median(each[engine].tracks_per_s for each in rounds)
        time_ratio = median(each[engine].whole_s / each["local"].whole_s for each in rounds)
        speed_ratio = median(
            each[engine].tracks_per_s / each["local"].tracks_per_s for each in rounds
        )
        whole = f"{whole_s:.1f} s | {time_ratio:.2f} x"
        print(f"| {engine} | {whole} | {tracks_per_s:.1f} a second | {speed_ratio:.2f} x |")


if __name__ == "__main__":
    main()
