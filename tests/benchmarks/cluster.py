"""Measure a scan on Ray beside the local engine, and how it grows from one worker to four.

    python tests/benchmarks/cluster.py --music FOLDER [--tracks 200] [--rounds 3]

Real tracks, copied under other names until there are enough, are scanned and written: by the local
engine, then by clusters of one, two and four nodes on this machine, each node with a predictor of
one core and one core to decode and write. Rows take turns within a round; the table has medians of
the whole run and of the pace once started, between the first and the last tenth of the rows, and
the ratios to the local engine of the same round. All nodes share the cores of this one machine:
with two of those, four nodes can gain nothing over one but what those have to wait for.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
NODES = (1, 2, 4)
LOOK_EVERY_S = 0.05


class Pace(NamedTuple):
    """How long a scan took by the clock, and its tracks a second once started."""

    whole_s: float
    per_s: float


def copy_music(music: Path, folder: Path, tracks: int) -> None:
    songs = sorted(path for path in music.rglob("*") if path.is_file())
    folder.mkdir()
    for number in range(tracks):
        song = songs[number % len(songs)]
        shutil.copy(song, folder / f"{number:05}{song.suffix}")


def scan(music: Path, tracks: int, *options: str) -> Pace:
    """Scan fresh copies of the music and write into them."""
    with tempfile.TemporaryDirectory() as name:
        folder, report = Path(name), Path(name) / "report.csv"
        copy_music(music, folder / "music", tracks)
        command = [
            sys.executable, "-m", "tagger", "scan", str(folder / "music"), "-q", "--min-score", "0",
            "--existing", "replace", "--state", str(folder / "state.sqlite"),
            "--report", str(report), *options,
        ]  # fmt: skip
        environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        started = time.perf_counter()
        marks = []
        with subprocess.Popen(command, env=environment) as process:
            while process.poll() is None:
                rows = report.read_bytes().count(b"\n") if report.exists() else 0
                marks.append((time.perf_counter() - started, rows))
                time.sleep(LOOK_EVERY_S)
        whole_s = time.perf_counter() - started
        if process.returncode:
            raise SystemExit(f"{command} ended with {process.returncode}")
    first = next(mark for mark in marks if mark[1] > tracks / 10)
    last = next(mark for mark in marks if mark[1] > tracks * 9 / 10)
    return Pace(whole_s, (last[1] - first[1]) / (last[0] - first[0]))


@contextmanager
def nodes(count: int) -> Iterator[Any]:
    sys.path.insert(0, str(ROOT))
    from tests.ray_nodes import ray_nodes

    with ray_nodes(count, cpus=2) as cluster:
        yield cluster


def measure(music: Path, tracks: int) -> Mapping[str, Pace]:
    """Measure each way once."""
    found = {}
    for count in (0, *NODES):
        with nodes(count) if count else nullcontext() as cluster:
            ray = ("--engine", "ray", "--ray-address", cluster.address) if cluster else ()
            found[f"Ray, {count} nodes" if count else "local"] = scan(music, tracks, *ray)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--music", type=Path, required=True)
    parser.add_argument("--tracks", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rounds = []
    for number in range(options.rounds):
        rounds.append(measure(options.music, options.tracks))
        print(f"round {number + 1}: {rounds[-1]}", file=sys.stderr)
    print("| way | whole run | beside local | once started | beside local |")
    print("|---|---|---|---|---|")
    for way in rounds[0]:
        whole_s = median(each[way].whole_s for each in rounds)
        per_s = median(each[way].per_s for each in rounds)
        slower = median(each[way].whole_s / each["local"].whole_s for each in rounds)
        pace = median(each[way].per_s / each["local"].per_s for each in rounds)
        print(f"| {way} | {whole_s:.1f} s | {slower:.2f} x | {per_s:.1f} a second | {pace:.2f} x |")


if __name__ == "__main__":
    main()
