"""Measure how a scan grows with the library: time and memory for 1,000, 10,000, 100,000 files.

    python tests/benchmarks/scale.py [--counts 1000,10000,100000] [--max-predicted N] [--hours H]

The files are real and small (two seconds, four formats, ten to a folder). The files of a library of
up to --max-predicted files have no genre: tagger predicts, writes and undoes all. The files of a
larger library have a genre, which a scan reads and keeps. --hours adds a single file of that
length, made by ffmpeg. Memory is the greatest sum of PSS over all processes, measured every tenth
of a second. Measuring takes time, so the short re-runs are timed without it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from threading import Event, Thread

import psutil

ROOT = Path(__file__).parents[2]
SUFFIXES = (".mp3", ".ogg", ".flac", ".m4a")
SECONDS = 2.0
POLL_INTERVAL_S = 0.1
RERUNS = 5
MIB = 1 << 20


def make_library(folder: Path, count: int, *, with_genre: bool) -> None:
    sys.path.insert(0, str(ROOT))
    from tests.builders import add_genre, build_audio

    originals = []
    for number, suffix in enumerate(SUFFIXES):
        path = build_audio(folder.with_suffix(suffix), seconds=SECONDS, seed=number)
        originals.append((add_genre(path, "Rock") if with_genre else path).read_bytes())
    for number in range(count):
        album = folder / f"artist {number // 200:04}" / f"album {number // 10 % 20:02}"
        if number % 10 == 0:
            album.mkdir(parents=True)
        kind = number // 10 % len(SUFFIXES)
        (album / f"{number % 10:02} a song{SUFFIXES[kind]}").write_bytes(originals[kind])


def walk_s(folder: Path) -> float:
    """Return how long os.walk and os.stat of all files take."""
    started = time.perf_counter()
    for place, _, names in os.walk(folder):
        for name in names:
            os.stat(os.path.join(place, name))  # noqa: PTH116, PTH118 - no Path for each
    return time.perf_counter() - started


def run(*words: object, watched: bool = True) -> tuple[float, float]:
    """Run the program; return its seconds and its peak memory in MiB (0 if not watched)."""
    command = [sys.executable, "-m", "tagger", *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    started = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        peak_mib = [0.0]
        ended = Event()
        observer = Thread(target=record_peak, args=(process.pid, peak_mib, ended))
        if watched:
            observer.start()
        code = process.wait()
        seconds = time.perf_counter() - started
        if watched:
            ended.set()
            observer.join()
    if code:
        raise SystemExit(f"{words} ended with {code}")
    return seconds, peak_mib[0]


def record_peak(pid: int, peak_mib: list[float], ended: Event) -> None:
    while not ended.wait(POLL_INTERVAL_S):
        peak_mib[0] = max(peak_mib[0], get_pss_bytes(pid) / MIB)


def get_pss_bytes(pid: int) -> float:
    """Return the bytes of a process and its descendants; shared memory counts once."""
    total = 0
    try:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            total += process.memory_full_info().pss
    except psutil.Error:
        return 0
    return float(total)


def measure(folder: Path, count: int, *, predicted: bool) -> Iterator[str]:
    """Yield the rows of one library."""
    library, state = folder / "library", ("--state", folder / "state.sqlite")
    make_library(library, count, with_genre=not predicted)
    scan = ("scan", library, "-q", "--min-score", "0", *state)
    what = "no genre" if predicted else "a genre each"
    yield line(count, what, "first run", *run(*scan))
    one = ("scan", next(library.rglob("*.mp3")), *scan[2:])
    _, peak_mib = run(*scan)
    walks, reruns, starts = [], [], []
    for _ in range(RERUNS):
        walks.append(walk_s(library))
        reruns.append(run(*scan, watched=False)[0])
        starts.append(run(*one, watched=False)[0])
    seconds, walked, start_s = map(median, (reruns, walks, starts))
    yield line(count, what, "re-run", seconds, peak_mib)
    yield line(count, what, "os.walk + stat", walked, 0)
    times = (seconds - start_s) / walked
    yield f"| {count:,} | {what} | re-run without start-up, ratio to the walk | {times:.1f} x | |"
    yield line(count, what, "dry run after a run", *run(*scan, "-n"))
    yield line(count, what, "runs", *run("runs", *state))
    if predicted:
        yield line(count, what, "undo", *run("undo", library, "-q", *state))


def measure_long(folder: Path, hours: float) -> Iterator[str]:
    """Yield the row of a single long file."""
    sys.path.insert(0, str(ROOT))
    from tests.builders import build_audio

    folder.mkdir()
    song, long = build_audio(folder / "song.wav", seconds=60), folder / "long" / "long.mp3"
    long.parent.mkdir()
    loop = ["ffmpeg", "-v", "error", "-stream_loop", "-1", "-i", str(song), "-t", str(hours * 3600)]
    subprocess.run([*loop, "-b:a", "64k", str(long)], check=True)
    scan = ("scan", long, "-q", "--min-score", "0", "--state", folder / "state.sqlite")
    yield line(1, f"{hours:g} hours", "dry run", *run(*scan, "-n"))
    yield line(1, f"{hours:g} hours", "write", *run(*scan))


def line(count: int, what: str, how: str, seconds: float, peak_mib: float) -> str:
    memory = f"{peak_mib:.0f} MiB" if peak_mib else ""
    return f"| {count:,} | {what} | {how} | {seconds:.2f} s | {memory} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--counts", default="1000,10000,100000")
    parser.add_argument("--max-predicted", type=int, default=1000)
    parser.add_argument("--hours", type=float)
    options = parser.parse_args()
    lines = ["| files | with | run | time | peak memory |", "|---|---|---|---|---|"]
    sys.stdout.write("\n".join(lines) + "\n")
    with tempfile.TemporaryDirectory() as temporary:
        for count in map(int, options.counts.split(",")):
            place = Path(temporary, str(count))
            place.mkdir()
            for each in measure(place, count, predicted=count <= options.max_predicted):
                sys.stdout.write(each + "\n")
                sys.stdout.flush()
        if options.hours:
            for each in measure_long(Path(temporary, "long"), options.hours):
                sys.stdout.write(each + "\n")


if __name__ == "__main__":
    main()
