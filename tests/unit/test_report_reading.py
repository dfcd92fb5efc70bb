"""A report is read back, also after a spreadsheet saved it."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagger.errors import DiskFullError, FailureKind, KeepReason, ReportError, SettingsError
from tagger.paths import make_write_error
from tagger.records import Action, Score
from tagger.report.csv import (
    HEADER,
    OLD_COLUMNS,
    ReportRow,
    copy_reports,
    format_row,
    parse_row,
    read_report,
)
from tests.reports import outcome

LINE = '"/m/a, b.mp3",would-write,Rock;Jazz,0.9000,,Rock=0.900;R&B=0.100,12.50,m@1,,\r\n'
READ = ReportRow(
    "/m/a, b.mp3",
    Action.WOULD_WRITE,
    ("Rock", "Jazz"),
    0.9,
    (),
    (Score("Rock", 0.9), Score("R&B", 0.1)),
    12.5,
    "m@1",
)
HEAD = ",".join(HEADER) + "\r\n"

names = st.text(st.characters(exclude_categories=["C"], exclude_characters=";"), min_size=1).map(
    str.strip
)


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "report.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_a_row_as_it_was_written(tmp_path: Path) -> None:
    assert list(read_report(write(tmp_path, HEAD + LINE))) == [READ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_as_a_spreadsheet_saves_it(tmp_path: Path, delimiter: str, encoding: str) -> None:
    cells = ["/m/a, b.mp3", "would-write", '"Rock; Jazz"', "0,9", "", '"Rock=0.900;R&B=0.100"']
    line = delimiter.join([*cells, "12,5", "m@1", ""])
    for columns, rest in ((OLD_COLUMNS, ["", ""]), (HEADER, ["", "", ""])):
        rows = delimiter.join([line, *rest]) + "\n" + delimiter * 8 + "\n \n"
        text = delimiter.join([*columns, "my notes"]) + "\n" + rows
        assert list(read_report(write(tmp_path, text, encoding))) == [READ]


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        ("too-short", FailureKind.TOO_SHORT),
        (" has-genre", KeepReason.HAS_GENRE),
        ("a kind of a newer version", None),
        ("", None),
    ],
)
def test_the_kind_of_a_row(tmp_path: Path, cell: str, kind: object) -> None:
    (row,) = read_report(write(tmp_path, f"{HEAD}/m/a.mp3,failed,,,,,,,why,{cell}\r\n"))
    assert row.kind is kind


def test_a_row_of_the_version_without_kinds() -> None:
    assert parse_row("/m/a.mp3,failed,,,,,,,why\r\n").error == "why"


@given(genres=st.lists(names.filter(bool), max_size=3), existing=names.filter(bool))
def test_what_a_run_writes_reads_back(genres: list[str], existing: str) -> None:
    from tempfile import TemporaryDirectory

    text = format_row(
        outcome("a.mp3", Action.KEPT, genres=tuple(genres), existing=(existing,), error="=why")
    )
    with TemporaryDirectory() as folder:
        (found,) = read_report(write(Path(folder), HEAD + text))
    assert found.genres == tuple(genres)
    assert found.existing == (existing,)
    assert found.error == "=why"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "it has no column path"),
        ("path,genre\n", "it has no column action"),
        (HEAD + LINE.replace("would-write", "maybe"), "line 2: 'maybe' is not a valid Action"),
        (HEAD + LINE + LINE.replace("12.50", "long"), "line 3: could not convert"),
        (HEAD + "/m/a.mp3,kept\r\n", "line 2: it ends before 'genre'"),
    ],
)
def test_what_is_no_report(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ReportError, match=complaint):
        list(read_report(write(tmp_path, text)))


def test_text_that_is_not_utf_8(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="CSV UTF-8"):
        list(read_report(write(tmp_path, HEAD + LINE.replace("Jazz", "Café"), "cp1252")))


def test_reports_with_and_without_kinds_are_merged(tmp_path: Path) -> None:
    old, new, merged = (tmp_path / name for name in ("old.csv", "new.csv", "merged.csv"))
    new.write_text(HEAD + "/m/new.mp3,failed,,,,,,,why,silent,Ska\r\n")
    header = ";".join([*OLD_COLUMNS, "my notes"])
    old.write_text(f"\ufeff{header}\n/m/old.mp3;failed;;;'=1;;;;a;note\n/m/k.mp3;kept;;;;;;;;\n")
    copy_reports([old, new], merged)
    assert merged.read_text().splitlines() == [
        HEAD.strip(),
        "/m/old.mp3,failed,,,'=1,,,,a,other,,,",
        "/m/k.mp3,kept,,,,,,,,,,,",
        "/m/new.mp3,failed,,,,,,,why,silent,Ska,,",
    ]
    copy_reports([old, new], merged)  # a report of tagger may be written over


def test_a_copy_is_the_same_and_spares_other_files(tmp_path: Path) -> None:
    report = write(tmp_path, HEAD + LINE)
    copy_reports([report], tmp_path / "new" / "copy.csv")
    assert (tmp_path / "new" / "copy.csv").read_bytes() == report.read_bytes()
    copy_reports([report, tmp_path / "new" / "copy.csv"], tmp_path / "both.csv")
    assert list(read_report(tmp_path / "both.csv")) == [READ, READ]
    with pytest.raises(SettingsError, match="to be copied"):
        copy_reports([report], report)
    assert list(read_report(report)) == [READ]
    with pytest.raises(ReportError, match="No such file"):
        copy_reports([report, tmp_path / "gone.csv"], tmp_path / "b.csv")
    assert not (tmp_path / "b.csv").exists()


@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.ENOSPC, DiskFullError), (errno.EDQUOT, DiskFullError), (errno.EACCES, ReportError)],
)
def test_a_used_up_quota_is_a_full_disk(code: int, kind: type[Exception]) -> None:
    error = make_write_error("report", Path("a.csv"), OSError(code, os.strerror(code)))
    assert type(error) is kind
