"""A library in parts, and the report of all of them."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tagger.crawl import Scope, crawl
from tagger.records import Shard, Track
from tagger.report.csv import read_report
from tests.builders import build_audio
from tests.front_door import ANY, Command, Scan

SUFFIXES = {".mp3"}


def fill(folder: Path) -> None:
    for number in range(400):
        album = folder / f"album {number // 10}"
        album.mkdir(parents=True, exist_ok=True)
        (album / f"caf\udce9 {number}.mp3").write_bytes(b"")


def parts(folder: Path, total: int, *, whole: bool = False) -> Iterator[set[Path]]:
    for number in range(1, total + 1):
        scope = Scope(SUFFIXES, shard=Shard(number, total), whole_folders=whole)
        found = crawl([folder], scope)
        yield {Path(each.path).relative_to(folder) for each in found if isinstance(each, Track)}


@pytest.mark.parametrize("whole", [False, True])
def test_each_file_is_in_one_part_wherever_the_library_lies(tmp_path: Path, *, whole: bool) -> None:
    first, second = tmp_path / "a", tmp_path / "b" / "c"
    fill(first)
    fill(second)
    shards = list(parts(first, 4, whole=whole))
    assert shards == list(parts(second, 4, whole=whole))
    assert sum(map(len, shards)) == len(set.union(*shards)) == 400
    assert all(50 <= len(shard) <= 150 for shard in shards)
    albums = [{path.parent for path in shard} for shard in shards]
    assert (sum(map(len, albums)) == 40) == whole


def test_a_library_in_two_parts_and_one_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = tmp_path / "library"
    library.mkdir()
    song = build_audio(tmp_path / "song.flac", seconds=4)
    for number in range(12):
        shutil.copy(song, library / f"{number}.flac")
    states = [tmp_path / f"{number}.sqlite" for number in (1, 2)]
    written = []
    for number, state in enumerate(states, 1):
        scan = Scan(capsys, library, *ANY, "--shard", f"{number}/2", "--state", state)
        written.append(scan.summary["written"])
    assert sum(written) == 12
    assert all(written)
    both, page = tmp_path / "both.csv", tmp_path / "page.html"
    merge = ("report", "--state", states[0], "--merge", states[1])
    report = Command(capsys, *merge, "--csv", both, "--html", page)
    assert report.summary["written"] == 12
    assert len({row.path for row in read_report(both)}) == 12
    assert "12 tracks, and what became" in page.read_text("utf-8")
    assert Command(capsys, *merge, "--run", "x").code == 2


@pytest.mark.parametrize("shard", ["0/2", "3/2", "2", "a/b", "1/0"])
def test_what_is_no_part(library: Path, capsys: pytest.CaptureFixture[str], shard: str) -> None:
    assert Scan(capsys, library, "--shard", shard).code == 2
