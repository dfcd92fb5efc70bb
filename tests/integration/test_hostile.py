"""Files that crash the reader, hang it or use up its memory: one failed row each."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tagger.inference import dataset
from tagger.scanning import tag_reader
from tagger.tags import read_tags
from tagger.writing import writer
from tests import hostile
from tests.builders import build_audio
from tests.front_door import ANY, Scan, run_without_torch

REASONS = {
    "crash": "crashes the decoder (SIGSEGV)",
    "abort": "crashes the decoder (SIGABRT)",
    "hang": "takes more than 2 s",
    "bomb": "takes more than 1024 MiB of memory",
}
LIMITS = ("--max-seconds", "2", "--max-memory", "1024")


@pytest.fixture
def mixed(library: Path) -> Path:
    """Put hostile files between the good ones."""
    for word in REASONS:
        for good in ("a", "c"):
            shutil.copy(library / "a.flac", library / f"{word}-{good}.flac")
    return library


@pytest.mark.parametrize(
    ("module", "names"),
    [
        pytest.param(dataset, ["read_windows"], id="decoding"),
        pytest.param(
            tag_reader,
            ["read_file", "read_files"],
            id="reading tags",
            marks=pytest.mark.slow,
        ),
        pytest.param(writer, ["hash_streams"], id="comparing", marks=pytest.mark.slow),
    ],
)
def test_a_hostile_file_is_a_row_and_the_rest_is_tagged(
    mixed: Path,
    module: object,
    names: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = {path: path.read_bytes() for path in mixed.iterdir()}
    for name in names:
        monkeypatch.setattr(module, name, getattr(hostile, name))
    scan = Scan(capsys, mixed, *LIMITS, *ANY)
    assert scan.code == 1
    assert scan.actions == {"written": 3, "failed": 8}
    for path, content in before.items():
        row = scan.row(path.name)
        reason = REASONS.get(path.name.partition("-")[0], "")
        assert reason in row["error"]
        assert (path.read_bytes() == content) == bool(reason)
        assert read_tags(path).genres == (() if reason else (row["genre"],))
    assert set(mixed.iterdir()) == set(before)

    again = run_without_torch("scan", mixed, *LIMITS, *ANY)  # nothing is predicted again
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_a_hostile_file_is_tried_again_once_it_changed(
    mixed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "read_windows", hostile.read_windows)
        Scan(capsys, mixed, *LIMITS, *ANY)
    os.utime(mixed / "crash-a.flac")
    assert Scan(capsys, mixed, *ANY).row("crash-a.flac")["action"] == "written"


@pytest.mark.slow
def test_a_killed_loader_worker_ends_the_run_with_a_clear_message(
    library: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(library / "a.flac", library / "murder-.flac")
    monkeypatch.setattr(dataset, "read_windows", hostile.read_windows)
    scan = Scan(capsys, library, *ANY)
    assert scan.code == 3
    assert scan.err.splitlines()[-1].startswith("tagger: decoding or the network broke down")


@pytest.mark.slow
def test_a_run_killed_while_it_predicts_leaves_no_lock(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = build_audio(tmp_path / "source.flac", seconds=4)
    folder = tmp_path / "m"
    folder.mkdir()
    for index in range(30):
        shutil.copy(source, folder / f"{index:02}.flac")
    command = [sys.executable, "-m", "tagger", "scan", str(folder), "-v", *ANY, "--batch-size", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        for line in process.stderr:
            if line.startswith("written"):
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
        scan = Scan(capsys, folder, *ANY)
        assert scan.code == 0
        assert sum(scan.actions.values()) == 30
