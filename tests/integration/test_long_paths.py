"""Paths as long as the system allows, and longer."""

import os
from pathlib import Path

import pytest

from tests.front_door import ANY, Scan

LIMIT = 4095
"""The longest path in bytes that a call may name on Linux."""


def dig(root: Path, *, length: int) -> int:
    """Make folders until the path of the last one is that long; return an open descriptor of it."""
    folder, depth = os.open(root, os.O_RDONLY), len(os.fsencode(root))
    while depth < length:
        name = "d" * min(200, length - depth - 1)
        os.mkdir(name, dir_fd=folder)
        deeper = os.open(name, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder, depth = deeper, depth + 1 + len(name)
    return folder


def put(folder: int, song: Path) -> None:
    file = os.open("s.flac", os.O_WRONLY | os.O_CREAT, dir_fd=folder)
    os.write(file, song.read_bytes())
    os.close(file)
    os.close(folder)


@pytest.mark.parametrize(
    ("length", "reason"),
    [
        (LIMIT - 7, "File name too long"),  # room for the song, none for its copy
        (LIMIT + 300, "cannot list the folder: File name too long"),
    ],
)
def test_what_is_too_deep_is_a_row_and_the_rest_is_tagged(
    library: Path, length: int, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(dig(library, length=length), library / "a.flac")
    scan = Scan(capsys, library, *ANY)
    assert scan.code == 1
    assert scan.actions["written"] == 3
    (failed,) = [row for row in scan.rows if row["action"] == "failed"]
    assert reason in failed["error"]


def test_a_path_of_thousands_of_bytes_is_written(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(dig(library, length=LIMIT - 250), library / "a.flac")
    scan = Scan(capsys, library, "-v", *ANY)
    assert scan.actions == {"written": 4}
