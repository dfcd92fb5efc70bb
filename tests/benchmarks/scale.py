"""Measure how a scan grows with the library: time and memory for 1,000, 10,000, 100,000 files.

    python tests/benchmarks/scale.py [--counts 1000,10000,100000] [--max-predicted N] [--hours H]
                                     [--seconds S] [--rounds N] [--folder FOLDER]

The files are real and small (four formats, ten to a folder). The files of a library of up to
--max-predicted files have no genre: tagger predicts, writes and undoes all. The files of a larger
library have a genre, which a scan reads and keeps, but one in a hundred holds no audio and fails.
Of such a library `normalize` renames the genre of 10,000 files, and `undo` takes that back. --hours
adds a single file of that length, made by ffmpeg. Memory is the greatest sum of PSS over all
processes, measured every 0.05 s. Measuring takes time, so the short re-runs are timed without it.

A million files of 0.2 seconds take 15 GB below --folder, their state file and report 1 GB.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from tests.benchmarks.measure import (
    MIB,
    SMALL_S,
    Cost,
    make_environment,
    make_small_files,
    run_command,
    walk,
)

RENAMED_ARTISTS = 50
"""They have 10,000 files."""

FILES_PER_FAILURE = 100


def run(home: Path, *words: object, watched: bool = True) -> Cost:
    command = [sys.executable, "-m", "tagger", *words]
    environment = make_environment(home)
    return run_command(command, environment, watch_memory=watched, accepted=(0, 1))


def break_files(folder: Path) -> None:
    for number, path in enumerate(sorted(folder.rglob("*.*"))):
        if number % FILES_PER_FAILURE == 0:
            path.write_bytes(b"no audio")


def measure_walk(folder: Path) -> Cost:
    clock_s, processor_s = time.perf_counter(), time.process_time()
    walk(folder)
    return Cost(time.perf_counter() - clock_s, time.process_time() - processor_s)


def take_medians(costs: Sequence[Cost]) -> Cost:
    clock_s = median(each.clock_s for each in costs)
    return Cost(clock_s, median(each.processor_s for each in costs), costs[0].peak_mib)


def measure(
    folder: Path, count: int, *, predicted: bool, seconds: float, rounds: int
) -> Iterator[str]:
    """Yield the rows of one library."""
    library, report, page = (folder / name for name in ("library", "report.csv", "page.html"))
    state = ("--state", folder / "state.sqlite")
    make_small_files(library, count, with_genre=not predicted, seconds=seconds)
    if not predicted:
        break_files(library)
    scan = ("scan", library, "-q", "--min-score", "0", *state, "--report", report)
    what = "no genre" if predicted else "a genre each"
    yield line(count, what, "first run", run(folder, *scan))
    yield f"| {count:,} | {what} | state: {get_mib(state[1])}, report: {get_mib(report)} | | | |"
    one = ("scan", next(library.rglob("01*.mp3")), *scan[2:])
    peak_mib = run(folder, *scan).peak_mib
    walks, reruns, starts = [], [], []
    for _ in range(rounds):
        walks.append(measure_walk(library))
        reruns.append(run(folder, *scan, watched=False))
        starts.append(run(folder, *one, watched=False))
    walked, rerun, start = map(take_medians, (walks, reruns, starts))
    yield line(count, what, "re-run", replace(rerun, peak_mib=peak_mib))
    yield line(count, what, "os.walk + stat", walked)
    times = (rerun.clock_s - start.clock_s) / walked.clock_s
    yield f"| {count:,} | {what} | re-run without start-up, ratio to the walk | {times:.1f} x | | |"
    yield line(count, what, "dry run after a run", run(folder, *scan, "-n"))
    yield line(count, what, "runs", run(folder, "runs", *state))
    yield line(count, what, "page", run(folder, "report", *state, "--html", page))
    yield f"| {count:,} | {what} | page: {get_mib(page)} | | | |"
    if not predicted:
        artists = sorted(library.iterdir())[:RENAMED_ARTISTS]
        yield line(count, what, "normalize", run(folder, "normalize", *artists, "-q", *state))
    yield line(count, what, "undo", run(folder, "undo", library, "-q", *state))


def get_mib(path: Path) -> str:
    return f"{path.stat().st_size / MIB:.1f} MiB"


def measure_long(folder: Path, hours: float) -> Iterator[str]:
    """Yield the row of a single long file."""
    from tests.builders import build_audio

    folder.mkdir()
    song, long = build_audio(folder / "song.wav", seconds=60), folder / "long" / "long.mp3"
    long.parent.mkdir()
    loop = ["ffmpeg", "-v", "error", "-stream_loop", "-1", "-i", str(song), "-t", str(hours * 3600)]
    subprocess.run([*loop, "-b:a", "64k", str(long)], check=True)
    scan = ("scan", long, "-q", "--min-score", "0", "--state", folder / "state.sqlite")
    yield line(1, f"{hours:g} hours", "dry run", run(folder, *scan, "-n"))
    yield line(1, f"{hours:g} hours", "write", run(folder, *scan))


def line(count: int, what: str, how: str, cost: Cost) -> str:
    memory = f"{cost.peak_mib:.0f} MiB" if cost.peak_mib else ""
    times = f"{cost.clock_s:.2f} s | {cost.processor_s:.2f} s"
    return f"| {count:,} | {what} | {how} | {times} | {memory} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--counts", default="1000,10000,100000")
    parser.add_argument("--max-predicted", type=int, default=1000)
    parser.add_argument("--hours", type=float)
    parser.add_argument("--seconds", type=float, default=SMALL_S, help="the length of each file")
    parser.add_argument("--rounds", type=int, default=5, help="of re-runs, for the median")
    parser.add_argument("--folder", type=Path, help="where the libraries are made, for a while")
    options = parser.parse_args()
    lines = [
        "| files | with | run | clock | processor | peak memory |",
        "|---|---|---|---|---|---|",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        for count in map(int, options.counts.split(",")):
            place = Path(temporary, str(count))
            place.mkdir()
            for each in measure(
                place,
                count,
                predicted=count <= options.max_predicted,
                seconds=options.seconds,
                rounds=options.rounds,
            ):
                sys.stdout.write(each + "\n")
                sys.stdout.flush()
        if options.hours:
            for each in measure_long(Path(temporary, "long"), options.hours):
                sys.stdout.write(each + "\n")


if __name__ == "__main__":
    main()
