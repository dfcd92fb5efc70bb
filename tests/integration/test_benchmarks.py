"""The benchmarks run, and the guard against slower commits can fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.limits import list_musicnn_products, list_yamnet_products
from tests.benchmarks.stages import load_bundled
from tests.benchmarks.suite import GRAPHS, LIMITS, ROWS, SCAN, STARTED

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "tests/benchmarks"

TINY_MUSIC = ("--tracks", "2", "--seconds", "4", "--formats", "flac", "--rounds", "1")

IMITATION = """
import os, sys, time
if sys.argv[1] == "scan":
    while time.process_time() < {seconds}:
        pass
"""


ORPHAN = """
import os, subprocess, sys
from tests.benchmarks.measure import run_command

burn = "import time\\nwhile time.process_time() < 0.3: pass"
popen = f"subprocess.Popen([sys.executable, '-c', {burn!r}], start_new_session=True)"
command = [sys.executable, "-c", f"import subprocess, sys; {popen}"]
print(run_command(command, os.environ, watch_memory=False).processor_s)
"""


def run_benchmark(script: str, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / script), *map(str, words)]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=ROOT, env=os.environ
    )


def make_version(folder: Path, *, seconds: float) -> Path:
    """Write a program that takes the commands of tagger, and some processor time for a scan."""
    (folder / "tagger").mkdir(parents=True)
    (folder / "tagger/__init__.py").touch()
    (folder / "tagger/__main__.py").write_text(IMITATION.format(seconds=seconds))
    return folder


def test_the_guard_fails_for_a_slower_version_alone(tmp_path: Path) -> None:
    fast = make_version(tmp_path / "fast", seconds=0.1)
    slow = make_version(tmp_path / "slow", seconds=0.4)
    few = (*TINY_MUSIC, "--files", "10")
    compared = run_benchmark("compare.py", fast, slow, *few)
    assert compared.returncode == 1, compared.stderr
    slower = [
        line.split("|")[1].strip() for line in compared.stdout.splitlines() if "SLOWER" in line
    ]
    assert set(slower) >= {
        "dry scan",
        "scan that writes",
        "re-run",
        "first run, files with a genre",
    }
    compared = run_benchmark("compare.py", slow, fast, *few, "--tolerance", "1")
    assert compared.returncode == 0, compared.stdout + compared.stderr


def test_the_guard_says_that_a_command_failed(tmp_path: Path) -> None:
    broken = make_version(tmp_path / "broken", seconds=0)
    (broken / "tagger/__main__.py").write_text("raise SystemExit(3)")
    compared = run_benchmark("compare.py", broken, broken, *TINY_MUSIC, "--files", "10")
    assert compared.returncode == 2
    assert "--version" in compared.stderr
    unknown = run_benchmark("compare.py", "no-such-commit", broken, *TINY_MUSIC)
    assert unknown.returncode == 2
    assert "neither a commit nor a folder" in unknown.stderr


def test_processor_time_of_orphans_counts() -> None:
    command = [sys.executable, "-c", ORPHAN]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    counted = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert float(counted.stdout) > 0.3


def test_the_products_have_the_sizes_of_the_weights() -> None:
    networks = load_bundled()[0].model.get_submodule("networks")
    weights = {
        part: sum(
            weight.numel()
            for name, weight in networks.named_parameters()
            if name.startswith(part) and weight.ndim > 1 and "depthwise" not in name
        )
        for part in ("musicnn", "yamnet")
    }
    products = {"musicnn": list_musicnn_products(), "yamnet": list_yamnet_products()}
    assert weights == {
        part: sum(each.rows * each.inner for each in listed) for part, listed in products.items()
    }


@pytest.mark.slow
def test_the_guard_runs_two_commits() -> None:
    compared = run_benchmark(
        "compare.py", "HEAD", "HEAD", *TINY_MUSIC, "--files", "10", "--tolerance", "100"
    )
    assert compared.returncode == 0, compared.stdout + compared.stderr
    assert "| classify one song |" in compared.stdout


@pytest.mark.slow
def test_the_suite_measures_every_row(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    shutil.copy(ROOT / "docs/performance.md", page)
    measured = run_benchmark("suite.py", *TINY_MUSIC, "--peer-tracks", "1", "--page", page)
    assert measured.returncode == 0, measured.stderr
    rows = [[cell.strip() for cell in line.split("|")] for line in measured.stdout.splitlines()]
    names = {row[1] for row in rows if len(row) == 10}
    assert names >= {*ROWS, STARTED[SCAN]} - {*LIMITS, *GRAPHS}
    assert "essentia is left out" in measured.stderr
    assert measured.stdout in page.read_text("utf-8")
