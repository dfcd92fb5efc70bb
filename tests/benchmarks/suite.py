"""Measure a scan: its stages, the whole, the limit beside each, and other programs.

    python tests/benchmarks/suite.py [--music FOLDER] [--tracks N] [--seconds S] [--formats mp3,ogg]
        [--page PAGE.md] [--tensorflow-python TF/bin/python --wheel musicnn-0.1.0-py3-none-any.whl
        [--essentia-python ESS/bin/python] [--audiomuse-python AM/bin/python --audiomuse CHECKOUT]]

The benchmark makes its own library: of the real tracks in --music, which ffmpeg joins and cuts to
that length, or else of synthetic sound. Each row of the table has its own process, which a first
round warms up. The rows take turns. Their medians are compared, of the wall-clock time and of the
processor time. Stages run alone, on all cores, with the same functions as a scan.

A limit is the barest way to do the unavoidable part of a row: it walks the disk, reads the same
bytes, decodes the same windows by FFmpeg's libraries without looking at them, multiplies matrices
of the network's sizes, or copies a file and renames the copy. Limits run on all cores, too.

The other programs are slow, so they take only --peer-tracks of the library, and are compared per
track. Two of them need environments of their own:
- essentia: essentia-tensorflow and psutil. It runs musicnn alone, over whole tracks, as essentia's
  examples do.
- AudioMuse-AI: its requirements/common.txt, as far as its analysis imports them, and a checkout of
  NeptuneHub/AudioMuse-AI. Its function for one track runs one of musicnn's two networks over the
  whole track, and estimates tempo and key. Its server, database, CLAP and lyrics are left out.
Both get the published weights of musicnn from TF, which has tensorflow-cpu and, for AudioMuse-AI,
tf2onnx, and from the wheel.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from tests.benchmarks import limits, peers, stages
from tests.benchmarks.measure import (
    CORES,
    Cost,
    adopt_orphans,
    ask,
    copy_fresh,
    describe_machine,
    get_processor_s,
    make_environment,
    make_tracks,
)
from tests.benchmarks.stages import Task

PAGE_START, PAGE_END = "<!-- table of suite.py -->", "<!-- end of the table -->"
SHORTEST_ROUND_S = 0.3
"""A task that takes less is repeated within a round."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table.

    limits: the rows that together do the unavoidable part of the work. owns_copy: it changes the
    files, or must not see the state files of other rows. is_part: it is a part of the row above.
    """

    make: Callable[[Path], Task]
    limits: tuple[str, ...] = ()
    owns_copy: bool = False
    is_part: bool = False


WALK, READ, COPY = "os.walk + stat", "reading the bytes twice", "copy + fsync + rename"
DECODE, DECODE_WHOLE = "the same windows by libav", "whole files by ffmpeg"
FEATURES, MUSICNN, YAMNET = "FFT + products", "products of musicnn", "products of YAMNet"

LIMITS = {
    WALK: Row(limits.walking),
    DECODE: Row(limits.decoding_bare),
    FEATURES: Row(limits.transforming),
    MUSICNN: Row(partial(limits.multiplying, limits.list_musicnn_products)),
    YAMNET: Row(partial(limits.multiplying, limits.list_yamnet_products)),
    COPY: Row(limits.copying, owns_copy=True),
    READ: Row(limits.reading),
}
NETWORK_LIMITS = (FEATURES, MUSICNN, YAMNET)
DRY_LIMITS = (WALK, DECODE, *NETWORK_LIMITS)
STAGES = {
    "crawl": Row(stages.crawling, (WALK,)),
    "look-up (a re-run)": Row(stages.looking_up, (WALK,)),
    "decode and resample": Row(stages.decoding, (DECODE,)),
    "of that, resampling": Row(stages.resampling, is_part=True),
    "network": Row(stages.calculating, NETWORK_LIMITS),
    "of that, features of both": Row(
        partial(stages.calculating_part, "features"), (FEATURES,), is_part=True
    ),
    "of that, musicnn": Row(partial(stages.calculating_part, "musicnn"), (MUSICNN,), is_part=True),
    "of that, YAMNet": Row(partial(stages.calculating_part, "yamnet"), (YAMNET,), is_part=True),
    "tag write": Row(stages.writing, (COPY,), owns_copy=True),
    "verify": Row(stages.verifying, (READ,)),
}
START, DRY_RUN, SCAN = "start (one track)", "dry run", "scan"
STARTED = {DRY_RUN: "dry run, once it is started", SCAN: "scan, once it is started"}
WHOLE = {
    START: Row(stages.starting, owns_copy=True),
    DRY_RUN: Row(lambda library: stages.tagger(library, "-n"), DRY_LIMITS, owns_copy=True),
    SCAN: Row(stages.tagger, (*DRY_LIMITS, COPY, READ), owns_copy=True),
}
ESSENTIA, AUDIOMUSE = "essentia", "AudioMuse-AI"
GRAPHS = {ESSENTIA: "--freeze", AUDIOMUSE: "--to-onnx"}
"""How network.py makes what these programs load."""

PEERS = {
    "plain loop": Row(peers.plain_loop, owns_copy=True),
    "transformers.pipeline": Row(peers.whole_pipeline),
    ESSENTIA: Row(peers.essentia),
    AUDIOMUSE: Row(peers.audiomuse),
}
ROWS = STAGES | WHOLE | PEERS | {DECODE_WHOLE: Row(limits.decoding_whole)} | LIMITS


def serve(name: str, library: Path) -> None:
    """Run one round for each line of stdin; print how long its task took once."""
    adopt_orphans()
    task = ROWS[name].make(library)
    for _ in sys.stdin:
        clock_s, processor_s, times = time.perf_counter(), get_processor_s(), 0
        while not times or time.perf_counter() - clock_s < SHORTEST_ROUND_S:
            task()
            times += 1
        clock_s, processor_s = time.perf_counter() - clock_s, get_processor_s() - processor_s
        sys.stdout.write(f"answer {clock_s / times} {processor_s / times}\n")
        sys.stdout.flush()


class Side:
    """The process of a row."""

    def __init__(self, name: str, library: Path, python: str) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [python, __file__, "--row", name, "--library", str(library)],
            env=make_environment(library.parent / "home"),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.rounds: list[Cost] = []
        self.play()
        self.rounds.clear()  # the first round only warms up

    def play(self) -> None:
        self.rounds.append(Cost(*map(float, ask(self.process, "go").split())))

    def end(self) -> None:
        """Kill the process and all that it started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def median(self, tracks: int) -> Cost:
        """Return the medians of a track."""
        clock_s = median(each.clock_s for each in self.rounds) / tracks
        return Cost(clock_s, median(each.processor_s for each in self.rounds) / tracks)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Cost]:
    """Run all rows in turns; return their medians per track."""
    library, few = folder / "library", folder / "few"
    if not library.exists():
        make_tracks(
            library,
            options.tracks,
            options.seconds,
            formats=options.formats,
            music=options.music,
        )
    shutil.rmtree(few, ignore_errors=True)
    few.mkdir()
    for path in sorted(library.iterdir())[: options.peer_tracks]:
        shutil.copy(path, few)
    sides: list[Side] = []
    counts = {}
    try:
        for name in choose_rows(options, folder):
            place = few if name in PEERS else library
            counts[name] = 1 if name == START else len(list(place.iterdir()))
            if ROWS[name].owns_copy:
                place = copy_fresh(place, folder / f"of {name}" / "library")
            python = choose_python(name, options) or sys.executable
            sides.append(Side(name, place, python))
            sys.stderr.write(f"{name} is ready\n")
        for number in range(options.rounds):
            for side in sides:
                side.play()
            sys.stderr.write(f"round {number + 1} of {options.rounds}\n")
    finally:
        for side in sides:
            side.end()
    return {side.name: side.median(counts[side.name]) for side in sides}


def choose_rows(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    """Yield the rows to measure; before those of other programs make what they load."""
    for name in options.rows.split(",") if options.rows else ROWS:
        if name in GRAPHS and not choose_python(name, options):
            sys.stderr.write(f"{name} is left out: it needs an environment (--help)\n")
            continue
        if name in GRAPHS:
            graphs = folder / "graphs"
            graphs.mkdir(exist_ok=True)
            script = Path(__file__).with_name("network.py")
            make = [script, GRAPHS[name], graphs, "--wheel", options.wheel]
            subprocess.run([options.tensorflow_python, *make], check=True)
        if name == AUDIOMUSE:
            (folder / "AudioMuse-AI").unlink(missing_ok=True)  # of an earlier run, by --keep
            (folder / "AudioMuse-AI").symlink_to(options.audiomuse.resolve())
        yield name


def choose_python(name: str, options: argparse.Namespace) -> str | None:
    """Return the Python of a program that has an environment of its own."""
    pythons = {ESSENTIA: options.essentia_python, AUDIOMUSE: options.audiomuse_python}
    found: str | None = pythons.get(name)
    return found


def add_started_rows(costs: Mapping[str, Cost], tracks: int) -> Iterator[tuple[str, Cost]]:
    """Yield the rows of the table; behind those of the program, those without its start."""
    for name, cost in costs.items():
        if name not in LIMITS:
            yield name, cost
        if name in STARTED and START in costs and tracks > 1:
            start = costs[START]
            clock_s, processor_s = (
                (whole * tracks - one) / (tracks - 1)
                for whole, one in (
                    (cost.clock_s, start.clock_s),
                    (cost.processor_s, start.processor_s),
                )
            )
            yield STARTED[name], Cost(clock_s, processor_s)


def add(costs: Sequence[Cost]) -> Cost:
    return Cost(sum(each.clock_s for each in costs), sum(each.processor_s for each in costs))


def divide(cost: Cost, other: Cost) -> str:
    """Return how many times the other cost a cost is, by the clock and by processor time."""
    pairs = ((cost.clock_s, other.clock_s), (cost.processor_s, other.processor_s))
    return ", ".join(f"{a / max(b, 1e-9):.2f}" for a, b in pairs)


def show(cost: Cost) -> str:
    return f"{1000 * cost.clock_s:.2f} | {1000 * cost.processor_s:.2f}"


def format_table(costs: Mapping[str, Cost], tracks: int) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield "| | clock | processor | limit | clock | processor | times the limit | times the scan |"
    yield "|---|---|---|---|---|---|---|---|"
    shown = dict(add_started_rows(costs, tracks))
    unstarted = {started: name for name, started in STARTED.items()}
    for name, cost in shown.items():
        least = ROWS[unstarted.get(name, name)].limits
        if least and all(each in costs for each in least):
            limit = add([costs[each] for each in least])
            what = least[0] if len(least) == 1 else f"{len(least)} limits together"
            beside = f"{what} | {show(limit)} | {divide(cost, limit)}"
        else:
            beside = "| | | "
        whole = divide(cost, shown[SCAN]) if SCAN in shown else ""
        yield f"| {name} | {show(cost)} | {beside} | {whole} |"
    yield from compare_with_stages(shown)


def compare_with_stages(shown: Mapping[str, Cost]) -> Iterator[str]:
    names = [name for name, row in STAGES.items() if not row.is_part]
    if not all(name in shown for name in (*names, SCAN)):
        return
    slowest = max(names, key=lambda name: shown[name].clock_s)
    work_s = add([shown[name] for name in names]).processor_s / CORES
    whole, begun = shown[SCAN], shown.get(STARTED[SCAN], shown[SCAN])
    yield ""
    yield "The clock of a scan is this many times"
    yield ""
    for what, limit_s in (
        (f"that of its slowest stage alone ({slowest})", shown[slowest].clock_s),
        ("the processor time of all its stages divided by the cores", work_s),
    ):
        ratios = whole.clock_s / limit_s, begun.clock_s / limit_s
        yield f"- {what}: {ratios[0]:.2f}, once it is started {ratios[1]:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--music", type=Path, help="a folder of real music to make the library of")
    parser.add_argument("--tracks", type=int, default=60)
    parser.add_argument("--peer-tracks", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--formats", default="mp3", help="mp3,flac,ogg,m4a,opus,wav")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", help=f"instead of all: {','.join(ROWS)}")
    parser.add_argument("--keep", type=Path, help="make or reuse the library in this folder")
    parser.add_argument("--page", type=Path, help="put the table into this page, between its marks")
    parser.add_argument("--essentia-python")
    parser.add_argument("--audiomuse-python")
    parser.add_argument("--audiomuse", type=Path)
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
        lines = list(format_table(measure(options, folder), options.tracks))
    lines += ["", describe_library(options) + f"; {describe_machine()}."]
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    if options.page:
        fill_page(options.page, text)


def describe_library(options: argparse.Namespace) -> str:
    music = "real" if options.music else "synthetic"
    return (
        f"{options.tracks} {music} tracks of {options.seconds:g} s ({options.formats}),"
        f" {options.peer_tracks} of them for other programs; medians of {options.rounds} rounds,"
        " milliseconds a track"
    )


def fill_page(page: Path, table: str) -> None:
    """Put the table into a page in place of an older one."""
    before, mark, rest = page.read_text("utf-8").partition(f"{PAGE_START}\n")
    _, end, after = rest.partition(PAGE_END)
    if not mark or not end:
        raise SystemExit(f"{page} has no place for the table: {PAGE_START} … {PAGE_END}")
    page.write_text(f"{before}{mark}{table}{end}{after}", "utf-8")


if __name__ == "__main__":
    main()
