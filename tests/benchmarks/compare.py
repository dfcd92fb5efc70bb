"""Compare the speed of two commits: a guard against a change that makes tagger slower.

    python tests/benchmarks/compare.py A B [--music FOLDER] [--rounds N] [--tracks N] [--files N]

A and B are branches, tags or hashes, or folders that hold the package. Only the command line is
used. Each commit is unpacked into a temporary folder. The same commands run with both, in turns,
on copies of the same music. A first round, which is not timed, warms up and measures the memory.
The times are those of all processes that a command started, waited for to the end.

The exit code is 1 if B is slower: if the median of the ratios B/A of a row is above 1 by more than
--tolerance, and no round of this row was faster. The ratios are those of processor time, and with
--clock of the clock too, on a machine that does nothing else. 2 means that a command failed.
"""

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from tests.benchmarks.measure import (
    Cost,
    describe_machine,
    make_environment,
    make_small_files,
    make_tracks,
    run_command,
)

SLOWER, FAILED = 1, 2


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two versions: its code, and where its runs keep their files."""

    tree: Path
    work: Path

    def copy_music(self, music: Path) -> None:
        """Make the place of a round, with a copy of the music and nothing else."""
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(music / "tracks", self.work / "tracks")

    def run(self, words: Sequence[object], *, watch_memory: bool) -> Cost:
        environment = make_environment(self.work / "home", self.tree)
        command = [sys.executable, "-P", "-m", "tagger", *words]
        return run_command(command, environment, watch_memory=watch_memory)


def list_commands(music: Path, work: Path) -> dict[str, list[object]]:
    """Return the commands of a round in their order: the re-run needs the scan before it."""
    scan = ["scan", work / "tracks", "-q", "--min-score", "0", "--state"]
    return {
        "tagger --version": ["--version"],
        "classify one song": ["classify", min((work / "tracks").iterdir())],
        "dry scan": [*scan, work / "dry.sqlite", "-n"],
        "scan that writes": [*scan, work / "scan.sqlite"],
        "re-run": [*scan, work / "scan.sqlite"],
        "first run, files with a genre": [
            "scan",
            music / "files",
            "-q",
            "--state",
            work / "files.sqlite",
        ],
    }


def unpack(name: str, folder: Path) -> Path:
    """Return the folder with the code of a commit, unpacked, or of a folder, as it is."""
    git = ["git", "-C", str(ROOT)]
    commit = [*git, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"]
    found = subprocess.run(commit, check=False, capture_output=True, text=True)
    if not found.returncode:
        archive = [*git, "archive", found.stdout.strip(), "tagger"]
        packed = subprocess.run(archive, check=True, capture_output=True).stdout
        with tarfile.open(fileobj=BytesIO(packed)) as tar:
            tar.extractall(folder, filter="data")
        return folder
    if Path(name, "tagger/__init__.py").is_file():
        return Path(name).resolve()
    sys.stderr.write(f"{name} is neither a commit nor a folder that holds a version\n")
    raise SystemExit(FAILED)


def measure(sides: Sequence[Side], music: Path, rounds: int) -> dict[str, list[list[Cost]]]:
    """Return the costs of each row, round by round, those of A and B; the first was watched."""
    costs: dict[str, list[list[Cost]]] = {}
    for number in range(rounds + 1):
        for side in sides:
            side.copy_music(music)
        turns = list(zip(*(list_commands(music, each.work).items() for each in sides), strict=True))
        for pair in turns:
            both = list(zip(sides, pair, strict=True))
            pair_costs = {
                side: side.run(words, watch_memory=not number)
                for side, (_, words) in (both if number % 2 else reversed(both))
            }
            costs.setdefault(pair[0][0], []).append([pair_costs[side] for side in sides])
        sys.stderr.write(f"round {number} of {rounds}\n")
    return costs


def divide(pairs: Sequence[Sequence[float]]) -> list[float]:
    """Return the ratios B/A of the rounds; a clock may count too little to divide by."""
    return [b / max(a, 1e-6) for a, b in pairs]


def is_slower(ratios: Sequence[float], tolerance: float) -> bool:
    """Tell whether B is slower by more than the tolerance, and was in every single round."""
    return median(ratios) > 1 + tolerance and min(ratios) > 1


def format_table(
    costs: Mapping[str, Sequence[Sequence[Cost]]], tolerance: float, *, judge_clock: bool
) -> Iterator[tuple[str, bool]]:
    """Yield the lines of a Markdown table, each with whether B is slower in it."""
    yield "| | processor, A | B | B/A, rounds | clock, A | B | B/A, rounds | memory B/A | |", False
    yield "|---|---|---|---|---|---|---|---|---|", False
    for name, (watched, *timed) in costs.items():
        cells, slower = [], False
        for attribute in ("processor_s", "clock_s"):
            pairs = [[getattr(cost, attribute) for cost in pair] for pair in timed]
            ratios = divide(pairs)
            middle = " | ".join(f"{median(side):.3f} s" for side in zip(*pairs, strict=True))
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            cells.append(f"{middle} | {median(ratios):.2f}, {spread}")
            if attribute == "processor_s" or judge_clock:
                slower |= is_slower(ratios, tolerance)
        (memory,) = divide([[cost.peak_mib for cost in watched]])
        verdict = "SLOWER" if slower else ""
        yield f"| {name} | {' | '.join(cells)} | {memory:.2f} | {verdict} |", slower


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("a", metavar="A", help="a commit, or a folder that holds a version")
    parser.add_argument("b", metavar="B")
    parser.add_argument("--music", type=Path, help="a folder of real music to make the tracks of")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tracks", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=120, help="the length of a track")
    parser.add_argument("--formats", default="mp3,flac,ogg,m4a")
    parser.add_argument("--files", type=int, default=3000, help="small files with a genre")
    parser.add_argument("--tolerance", type=float, default=0.1)
    parser.add_argument("--clock", action="store_true", help="judge the clock too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sides = [
            Side(unpack(commit, folder / f"code of {which}"), folder / f"work of {which}")
            for which, commit in (("A", options.a), ("B", options.b))
        ]
        music = folder / "music"
        make_tracks(
            music / "tracks",
            options.tracks,
            options.seconds,
            formats=options.formats,
            music=options.music,
        )
        make_small_files(music / "files", options.files, with_genre=True)
        try:
            costs = measure(sides, music, options.rounds)
        except subprocess.CalledProcessError as error:
            sys.stderr.write(f"{error}\n")
            return FAILED
    sys.stdout.write(f"A {options.a}, B {options.b}; {describe_machine()}\n\n")
    is_any_slower = False
    for line, slower in format_table(costs, options.tolerance, judge_clock=options.clock):
        sys.stdout.write(line + "\n")
        is_any_slower |= slower
    return SLOWER if is_any_slower else 0


if __name__ == "__main__":
    sys.exit(main())
