"""Fuzz of what tagger reads and writes, with mutated real files; run by hand.

    python -m tests.robustness.fuzz SEEDS_FOLDER --seconds 3600 --jobs 2 --seed 1 --out FINDINGS

The seeds are short real files, a few in every container, with rich tags: excerpts of music by
ffmpeg and mpcenc, and those of mutagen's tests. A case is a number: with the same seeds and --seed
it is the same file anywhere. Batches of cases run in child processes with limits on time and
memory, so that a crash or a hang is a finding as well: anything but a result or a TrackError is.
The first files of each kind are saved under --out, each with a line in findings.jsonl.
`--only NUMBER` runs one case right here.
"""

import argparse
import faulthandler
import json
import multiprocessing as mp
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from multiprocessing.connection import Connection, wait
from pathlib import Path
from random import Random

from tagger.tags import EXTENSIONS
from tests.robustness.calls import CALLS, Verdict, judge
from tests.robustness.mutate import mutate

FORK = mp.get_context("fork")
CALL_LIMIT_S = 20.0
MEMORY_LIMIT = 1 << 30
BATCH = 100
SAVED_PER_KIND = 5


@dataclass(frozen=True, slots=True)
class Step:
    """One call on one case."""

    case: int
    call: str
    seed: str


@dataclass(slots=True)
class Worker:
    """A child at work on some cases, and how far it is."""

    process: mp.process.BaseProcess
    pipe: Connection
    folder: Path
    last: int
    step: Step
    since: float = field(default_factory=time.monotonic)


def build_case(seeds: Sequence[Path], seed: int, case: int) -> tuple[Path, str, bytes]:
    """Return the seed file of a case, the suffix to give it (seldom a wrong one) and its bytes."""
    chance = Random(f"{seed}:{case}")
    kinds = sorted({path.suffix.lower() for path in seeds})
    suffix = chance.choice(kinds)
    alike = [path for path in seeds if path.suffix.lower() == suffix]
    path, other = chance.choice(alike), chance.choice(alike if chance.random() < 0.7 else seeds)
    data = mutate(content(path), content(other), chance)
    return path, chance.choice(kinds) if chance.random() < 0.02 else suffix, data


@cache
def content(path: Path) -> bytes:
    return path.read_bytes()


def work(seeds: Sequence[Path], seed: int, cases: range, folder: Path, pipe: Connection) -> None:
    """Run cases in a child, telling of each call before and after it."""
    os.dup2(os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT), 2)
    faulthandler.enable(2)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_LIMIT
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for case in cases:
        source, suffix, data = build_case(seeds, seed, case)
        path = folder / f"song{suffix}"
        for call in [*CALLS][: None if case % 3 == 0 else -1]:
            path.write_bytes(data)
            pipe.send(Step(case, call, source.name))
            pipe.send(judge(path, call))
        path.unlink()


class Fuzz:
    """A run over seeds: the workers, what was counted and what was found."""

    def __init__(self, seeds: Sequence[Path], seed: int, out: Path, scratch: Path) -> None:
        self.seeds, self.seed, self.out, self.scratch = seeds, seed, out, scratch
        self.numbers = count()
        self.workers: list[Worker] = []
        self.calls: Counter[tuple[str, str, str]] = Counter()
        self.signs: Counter[tuple[str, str]] = Counter()

    def run(self, seconds: float, jobs: int, first: int) -> None:
        starts, end = count(first, BATCH), time.monotonic() + seconds
        while time.monotonic() < end or self.workers:
            while len(self.workers) < jobs and time.monotonic() < end:
                start = next(starts)
                self.start(range(start, start + BATCH))
            wait([worker.pipe for worker in self.workers], timeout=1)
            for worker in list(self.workers):
                self.attend(worker)

    def start(self, cases: range) -> None:
        folder = self.scratch / str(next(self.numbers))
        folder.mkdir()
        ours, theirs = FORK.Pipe(duplex=False)
        args = (self.seeds, self.seed, cases, folder, theirs)
        process = FORK.Process(target=work, args=args, daemon=True)
        process.start()
        theirs.close()
        self.workers.append(Worker(process, ours, folder, cases[-1], Step(cases[0], "", "")))

    def attend(self, worker: Worker) -> None:
        """Hear what a worker has to tell; end it where a call takes too long."""
        try:
            while worker.pipe.poll():
                self.note(worker, worker.pipe.recv())
        except EOFError:
            worker.process.join()
            self.bury(worker, f"exit {worker.process.exitcode}")
        else:
            if time.monotonic() - worker.since > CALL_LIMIT_S:
                os.kill(worker.process.pid or 0, signal.SIGABRT)  # faulthandler then says where
                worker.process.join(2)
                worker.process.kill()
                worker.process.join()
                self.bury(worker, "hang")

    def note(self, worker: Worker, message: Step | Verdict) -> None:
        worker.since = time.monotonic()
        if isinstance(message, Step):
            worker.step = message
            return
        suffix, call = Path(worker.step.seed).suffix.lower(), worker.step.call
        self.calls[suffix, call, message.kind] += 1
        if message.kind not in ("", "refused"):
            self.record(worker.step, message)

    def bury(self, worker: Worker, kind: str) -> None:
        """Clear up after a worker; if it died, record that and go on behind the deadly case."""
        log = worker.folder.with_suffix(".log")
        if kind != "exit 0":
            text = log.read_text("utf-8", "replace")
            frames = [line.strip() for line in text.splitlines() if line.startswith("  File")]
            verdict = Verdict(kind, f"{worker.step.call} {' < '.join(frames[:2])}", text[-4000:])
            self.note(worker, verdict)
            if worker.step.case < worker.last:
                self.start(range(worker.step.case + 1, worker.last + 1))
        worker.pipe.close()
        self.workers.remove(worker)
        log.unlink()
        shutil.rmtree(worker.folder)

    def record(self, step: Step, verdict: Verdict) -> None:
        self.signs[verdict.kind, verdict.sign] += 1
        number = self.signs[verdict.kind, verdict.sign]
        if number > SAVED_PER_KIND:
            return
        _, suffix, data = build_case(self.seeds, self.seed, step.case)
        (self.out / f"{self.seed}-{step.case}-{step.call}{suffix}").write_bytes(data)
        line = {"case": step.case, "call": step.call, "seed": step.seed, "kind": verdict.kind,
                "sign": verdict.sign, "details": verdict.details}  # fmt: skip
        with (self.out / "findings.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{verdict.kind}: case {step.case} ({step.seed}) {verdict.sign}", flush=True)

    def table(self) -> str:
        """Return the cases of each container, their refusals by call, and the findings."""
        head = f"{'':8}{'cases':>8}" + "".join(f"{f'{call} refused':>24}" for call in CALLS)
        lines = [head]
        for suffix in sorted({suffix for suffix, _, _ in self.calls}):
            shares = []
            for call in CALLS:
                kinds = {k: n for (s, c, k), n in self.calls.items() if (s, c) == (suffix, call)}
                shares.append(f"{kinds.get('refused', 0)}/{sum(kinds.values())}")
            cases = shares[0].partition("/")[2]
            lines.append(f"{suffix:8}{cases:>8}" + "".join(f"{share:>24}" for share in shares))
        found = (f"{n:6}  {kind}: {sign}" for (kind, sign), n in self.signs.most_common())
        return "\n".join([*lines, "findings:", *found])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("seeds", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", type=int, help="run this case alone, in this process")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    seeds = sorted(path for path in args.seeds.iterdir() if path.suffix.lower() in EXTENSIONS)
    args.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # else the children would live on
    with tempfile.TemporaryDirectory() as scratch:
        if args.only is not None:
            _, suffix, data = build_case(seeds, args.seed, args.only)
            path = Path(scratch, f"song{suffix}")
            for call in CALLS:
                path.write_bytes(data)
                print(call, judge(path, call))
            return 0
        fuzz = Fuzz(seeds, args.seed, args.out, Path(scratch))
        fuzz.run(args.seconds, args.jobs, args.first)
        print(fuzz.table())
    return 1 if fuzz.signs else 0


if __name__ == "__main__":
    sys.exit(main())
