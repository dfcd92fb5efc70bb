"""The program as a user has it: a command line, what it prints, the report, the tags on disk."""

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mutagen
import pytest

from tagger.cli import main
from tagger.records import Tags
from tests.replacing import retag

ANY = ("--min-score", "0")  # the tests' chords are no genre that a model could be sure of


class Command:
    """One command in this process: exit code, what it printed, its summary."""

    def __init__(self, capsys: pytest.CaptureFixture[str], name: str, *args: str | Path) -> None:
        capsys.readouterr()
        self.code = main([name, "--json", *map(str, args)])
        self.out, self.err = capsys.readouterr()
        self.summary = json.loads(self.out) if self.out else {}


class Scan(Command):
    """One `tagger scan`, with its report."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *args: str | Path) -> None:
        super().__init__(capsys, "scan", *args)
        self.rows = read_report(self.summary["report"]) if self.out else []

    @property
    def actions(self) -> Counter[str]:
        return Counter(row["action"] for row in self.rows)

    def row(self, name: str) -> dict[str, str]:
        (found,) = [row for row in self.rows if Path(row["path"]).name == name]
        return found


def read_report(path: str | Path) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def set_genre(path: Path, *genres: str, keep: Tags | None = None) -> None:
    """Give a file a genre as a person would, with whatever tagger wrote beside it left there."""
    tags = keep or Tags()
    edited = Tags(genres, tags.written, tags.scores, tags.model)
    retag(path, edited)


def set_album(path: Path, title: str, artist: str = "Artist", *, various: bool = False) -> None:
    audio: Any = mutagen.File(path, easy=True)
    if audio.tags is None:
        audio.add_tags()
    audio["album"], audio["artist"] = title, artist
    if various:
        audio["compilation"] = "1"
    audio.save()


def run_without_torch(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own, and fail if it imports what is heavy."""
    return _run_without(["torch", "transformers", "fsspec", "boto3", "aiohttp"], args)


def run_without_transformers(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """Do the same for a command that needs torch, but nothing that torch rarely needs."""
    return _run_without(["transformers", "torch._dynamo", "fsspec", "boto3", "aiohttp"], args)


def _run_without(
    heavy: Sequence[str], args: Sequence[str | Path]
) -> subprocess.CompletedProcess[str]:
    script = (
        "import sys; from tagger.cli import main; code = main(sys.argv[1:]);"
        f"heavy = {{*{heavy}}} & sys.modules.keys();"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    command = [sys.executable, "-c", script, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def as_anyone(*args: str | Path) -> list[str]:
    """Return the command line of the program, run with no power to read what others may not."""
    command = [sys.executable, "-m", "tagger", *map(str, args)]
    if os.geteuid() != 0:
        return command
    powers = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}", *command]
