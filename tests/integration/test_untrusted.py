"""Text from files and names never becomes terminal codes, a formula or markup."""

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tagger.cli import main
from tagger.records import Action, Outcome, Score, Track
from tagger.report.csv import format_row
from tagger.tags import read_tags
from tests.builders import add_genre, build_audio, write_text
from tests.front_door import ANY, Scan

NAMES = ["\x1b[31mred.flac", "two\nlines.flac", "[bold]x[red].flac", "back\x9b2J\u202e.flac"]


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """Build a library whose names and genres contain codes, markup and formulas."""
    folder = tmp_path / "m"
    folder.mkdir()
    for name in NAMES:
        build_audio(folder / name, seconds=2)
        write_text(folder / f"bad{name}")
    add_genre(folder / NAMES[0], "\x1b]0;title\x07[red]", "=1+1")
    return folder


COMMANDS = (
    ("scan", "-n", "-v", *ANY),
    ("scan", "-v", "--existing", "replace", *ANY),
    ("scan", "-v"),
    ("undo", "-v"),
    ("runs",),
    ("scan", "--state", "/dev/null/\x1b[31m"),
    ("scan", "-\x1b[31m"),
    ("undo", "--run", "\x1b[31m"),
)


def run_commands(folder: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[str]:
    for command in COMMANDS:
        main([*command, *([] if command == ("runs",) else [str(folder)])])
        yield from capfd.readouterr()


def test_the_terminal_gets_no_codes_and_no_markup(
    strange: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = "".join(run_commands(strange, capfd))
    assert "\\x1b[31mred.flac" in text
    assert "two\\nlines.flac" in text
    assert "[bold]x[red].flac" in text
    assert not [c for c in text if not c.isprintable() and c != "\n"]


def test_a_formula_in_a_tag_is_text_in_the_report_and_unharmed_in_the_tag(
    strange: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = Scan(capsys, strange, *ANY)
    assert scan.row(NAMES[0])["existing_genre"] == "\x1b]0;title\x07[red];'=1+1"
    assert read_tags(strange / NAMES[0]).genres == ("\x1b]0;title\x07[red]", "=1+1")


@pytest.mark.parametrize(
    ("genre", "cell"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\uff1d1", "'\uff1d1"),
        ("R&B;=1", "R&B;'=1"),
        ("Hip-Hop", "Hip-Hop"),
        ('Say "x", y', 'Say "x", y'),
    ],
)
def test_no_cell_begins_like_a_formula(genre: str, cell: str) -> None:
    track = Track(Path(os.sep, "a.mp3"), 1, 1, 1)
    text = format_row(Outcome(track, Action.WRITTEN, (genre,), (genre,), (Score(genre, 0.5),)))
    cells = next(csv.reader(io.StringIO(text, newline="")))
    assert cells[2] == cells[4] == cell
    assert cells[5] == f"{cell}=0.500"
