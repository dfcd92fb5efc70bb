"""Made-up runs and reports for the tests that show them, written by the functions of a scan."""

import os
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

from tagger.errors import FailureKind
from tagger.paths import AnyPath
from tagger.records import Action, Album, Outcome, Score, Tags, Track
from tagger.report.csv import format_row, open_report
from tagger.state import RunKind, open_state

GENRES = ("Rock", "Jazz", "Metal", "Hip-Hop", "Electronic", "Classical", "Folk", "Blues")
HOSTILE = (
    "<img src=x onerror=alert(1)> & <script>alert(1)</script> \"quoted\" 'single' \\ line\n"
    "break </script> {{ 7*7 }}"
)
REASONS = (
    (FailureKind.TOO_SHORT, "too short: 0.50 s of sound, 1 s is needed"),
    (FailureKind.TRUNCATED, "truncated: 1000 bytes are missing at its end"),
    (FailureKind.NO_ACCESS, "cannot open: Permission denied"),
)


def write_run(folder: Path, outcomes: Iterable[Outcome], albums: Mapping[AnyPath, Album]) -> Path:
    """Write the report of a run and a state file that knows it; return the state file."""
    state_file, report = folder / "state.sqlite", folder / "report.csv"
    with open_state(state_file) as state, open_report(report) as add:
        state.runs.start("made-up", RunKind.SCAN, dry_run=False, model="m@1", report=report)
        for outcome in outcomes:
            add(format_row(outcome))
            if outcome.track.path in albums:
                tags = Tags(outcome.existing, album=albums[outcome.track.path])
                state.save_tags(outcome.track, tags)
        state.runs.finish("made-up", {})
    return state_file


def outcome(path: str, action: Action, **rest: object) -> Outcome:
    track = Track(Path(os.sep, path), size=1, mtime_ns=1, inode=crc32(path.encode()))
    scores: Any = rest.get("scores")
    score = scores[0].probability if scores else None
    return Outcome(track, action, score=score, **rest)  # type: ignore[arg-type]


def many_outcomes(count: int) -> Iterator[Outcome]:
    """Yield tracks of all kinds, always the same ones; the second has a hostile name."""
    chance = random.Random(0)
    for number in range(count):
        name = HOSTILE.replace("/", "|") if number == 1 else f"{number % 10:02} A song"
        path = f"music/Artist {number // 200}/Album {number // 10}/{name}.mp3"
        best, second = GENRES[number // 10 % 8], chance.choice(GENRES[:4])
        if chance.random() < 0.2 or best == second:
            best, second = chance.sample(GENRES, 2)
        lead = chance.uniform(0.3, 1)
        scores = (Score(best, lead), Score(second, 1 - lead))
        heard = {"genres": (best,), "scores": scores, "duration_s": 200.5, "model": "m@1"}
        match number % 10:
            case 0 | 2 | 3 | 4:
                yield outcome(path, Action.WRITTEN, **heard)
            case 1:
                yield outcome(path, Action.WRITTEN, **heard | {"genres": (HOSTILE,)})
            case 5 | 6:
                yield outcome(path, Action.UNCHANGED, existing=(best,), **heard)
            case 7:
                yield outcome(path, Action.KEPT, existing=(chance.choice(GENRES),), **heard)
            case 8:
                yield outcome(path, Action.LOW_SCORE, **heard | {"genres": ()})
            case _:
                kind, reason = REASONS[number // 10 % 3]
                yield outcome(path, Action.FAILED, error=reason, kind=kind)
