"""Scans on a Ray cluster of several nodes: the same result as on one machine, whatever dies."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

# Not "ray": tagger's package sets variables that Ray reads when it is imported. Without them, Ray
# prints the deaths of workers on stdout, between the lines that these tests read.
pytest.importorskip("tagger.inference.ray.cluster", reason="needs ray, from the extra `dev`")

from tagger.audio import hash_streams
from tagger.cli import main
from tagger.inference.ray import workers
from tagger.inference.ray.cluster import connect
from tagger.inference.ray.workers import PredictorActor
from tagger.records import Track
from tagger.tags import read_tags
from tests.builders import build_audio
from tests.checkpoints import save
from tests.front_door import ANY, Scan, run_without_torch, set_genre
from tests.integration.test_scan import DECODED, build_bad_files
from tests.ray_nodes import NODES, make_node_options, start_ray_nodes

pytestmark = [pytest.mark.extra, pytest.mark.xdist_group("ray")]  # one cluster, in one worker


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with start_ray_nodes() as nodes, connect(nodes.address):
        yield nodes


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Build a song of every kind, to be copied."""
    folder = tmp_path_factory.mktemp("songs")
    return [
        build_audio(folder / f"song{ending}", seconds=4, seed=number)
        for number, ending in enumerate(DECODED)
    ]


def fill(folder: Path, songs: list[Path], count: int) -> list[Path]:
    """Copy songs into albums of ten."""
    paths = []
    for number in range(count):
        song = songs[number % len(songs)]
        album = folder / f"album {number // 10:02}"
        album.mkdir(parents=True, exist_ok=True)
        paths.append(Path(shutil.copy(song, album / f"{number:03}{song.suffix}")))
    return paths


def make_ray_options(cluster: Any, *more: str | Path) -> tuple[str | Path, ...]:
    return ("--engine", "ray", "--ray-address", cluster.address, *ANY, *more)


@dataclass(frozen=True, slots=True)
class ClusterLibrary:
    """A library, its state file, the cluster that scans it, and a tiny model."""

    cluster: Any
    model: Path
    songs: list[Path]
    folder: Path
    state: Path
    capsys: pytest.CaptureFixture[str]

    def fill(self, count: int) -> list[Path]:
        return fill(self.folder, self.songs, count)

    def scan(self, *more: str | Path) -> Scan:
        options = make_ray_options(self.cluster, "--state", self.state, "-m", self.model, *more)
        return Scan(self.capsys, self.folder, *options)

    def journal(self) -> list[tuple[str, int | None]]:
        return read_journal(self.state)


@pytest.fixture
def music(
    cluster: Any, songs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> ClusterLibrary:
    folder, state = tmp_path / "music", tmp_path / "state.sqlite"
    model = save(tmp_path / "hubert", "hubert")
    return ClusterLibrary(cluster, model, songs, folder, state, capsys)


def make_paths_relative(rows: list[dict[str, str]], folder: Path) -> list[dict[str, str]]:
    return [row | {"path": str(Path(row["path"]).relative_to(folder))} for row in rows]


def read_journal(state: Path) -> list[tuple[str, int | None]]:
    with closing(sqlite3.connect(state)) as connection:
        found = connection.execute("SELECT path, size FROM journal ORDER BY path").fetchall()
    return [(os.fsdecode(path), size) for path, size in found]


def assert_all_written_once(scan: Scan, music: ClusterLibrary, paths: list[Path]) -> None:
    """Check that each file is written once, and has a row, a journal entry and no leftovers."""
    assert scan.actions == {"written": len(paths)}
    assert {row["path"] for row in scan.rows} == set(map(str, paths))
    assert [path for path, size in music.journal() if size] == sorted(map(str, paths))
    assert len(music.journal()) == len(paths)
    for path in paths:
        assert read_tags(path).genres == (scan.row(path.name)["genre"],)
        assert {each.name for each in path.parent.iterdir()} <= {each.name for each in paths}


OF_ONE_RUN = {"run_id", "seconds", "report"}


@pytest.mark.slow
def test_rows_and_tags_are_those_of_one_machine(
    cluster: Any, songs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = {}
    for name, args in (("local", ANY), ("ray", make_ray_options(cluster, "--ray-predictors", "2"))):
        folder = tmp_path / name
        paths = fill(folder, songs, 24)
        twin = paths[0].with_name(f"twin{paths[0].suffix}")
        twin.hardlink_to(paths[0])
        names = {*paths, twin}
        set_genre(paths[3], "Polka")
        build_bad_files(folder)
        state = ("--state", tmp_path / f"{name}.sqlite", "--hardlinks", "in-place")
        scan = Scan(capsys, folder, *state, *args)
        assert scan.code == 1
        assert paths[0].samefile(twin)
        assert set(folder.glob("*/*")) == names
        found = {path.relative_to(folder): read_tags(path) for path in paths}
        again = Scan(capsys, folder, *state, *args)
        assert again.code == 0
        scans[name] = (
            {name: value for name, value in scan.summary.items() if name not in OF_ONE_RUN},
            make_paths_relative(scan.rows, folder),
            found,
            make_paths_relative(again.rows, folder),
        )
    assert scans["ray"] == scans["local"]
    actions = Counter(row["action"] for row in scans["ray"][1])
    assert actions == {"written": 23, "kept": 1, "failed": 6, "unchanged": 1}  # the twin


@pytest.mark.slow
def test_a_node_killed_in_the_middle_of_a_run(
    music: ClusterLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "STALL_TIMEOUT_S", 5.0)
    cluster, report = music.cluster, tmp_path / "report.csv"
    paths = music.fill(150)
    hashes = {path: hash_streams(path) for path in paths[::37]}
    node = cluster.add_node(**make_node_options(3))
    cluster.wait_for_nodes()
    rows_at_kill = [0]
    ended = Event()

    def kill() -> None:
        while rows_at_kill[0] < 30 and not ended.wait(0.05):
            rows_at_kill[0] = report.read_bytes().count(b"\n") if report.exists() else 0
        cluster.remove_node(node, allow_graceful=False)

    killer = Thread(target=kill)
    killer.start()
    # Ray spreads the predictors: two die at once, and the others hold every core that is left.
    predictors = ("--ray-predictors", str(NODES + 2), "--ray-predictor-cpus", "1")
    scan = music.scan("--report", report, *predictors)
    ended.set()
    killer.join()
    assert scan.code == 0, scan.err
    assert 30 <= rows_at_kill[0] < 110
    assert_all_written_once(scan, music, paths)
    assert {path: hash_streams(path) for path in hashes} == hashes
    again = music.scan("--report", report)
    assert again.actions == {"unchanged": 150}


@pytest.mark.slow
def test_a_track_that_kills_its_process_twice_is_a_failed_row(
    music: ClusterLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = music.fill(12)
    deadly, unlucky = paths[5].name, paths[10].name
    has_crashed = tmp_path / "has-crashed"

    def decode(_version: str, dataset: Any, track: Track) -> Any:
        is_unlucky = track.path.name == unlucky and not has_crashed.exists()
        if is_unlucky:
            has_crashed.touch()
        if is_unlucky or track.path.name == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return True, dataset[track]

    monkeypatch.setattr(workers, "decode_track", decode)
    scan = music.scan()
    assert scan.code == 1
    assert scan.actions == {"written": 11, "failed": 1}
    assert "died twice" in scan.row(deadly)["error"]
    assert has_crashed.exists()
    assert scan.row(unlucky)["action"] == "written"
    assert [path for path, _ in music.journal()] == sorted(
        str(path) for path in paths if path.name != deadly
    )


@pytest.mark.slow
def test_a_predictor_that_dies_costs_only_the_track_that_kills_it(
    music: ClusterLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = music.fill(12)
    deadly = paths[5].name

    class CrashingActor(PredictorActor):
        def predict(self, *items: Any) -> Any:
            if any(item.track.path.name == deadly for item in items):
                os.kill(os.getpid(), signal.SIGKILL)
            return super().predict(*items)

    monkeypatch.setattr(workers, "PredictorActor", CrashingActor)
    scan = music.scan("--ray-predictors", "1")
    assert scan.code == 1
    assert scan.actions == {"written": 11, "failed": 1}
    assert "died twice" in scan.row(deadly)["error"]


def test_known_scores_are_written_without_a_cluster(
    library: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Scan(capsys, library, "-n", *ANY).actions == {"would-write": 3}
    options = ["--engine", "ray", "--ray-address", "127.0.0.1:1"]
    command = [sys.executable, "-m", "tagger", "scan", str(library), *ANY, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(read_journal(home / "tagger" / "state.sqlite")) == 3


def test_without_ray_one_line_names_the_extra(
    library: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for name in [name for name in sys.modules if name.startswith("tagger.inference.ray")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["scan", str(library), "--engine", "ray"]) == 3
    assert (
        capsys.readouterr().err == "tagger: --engine ray needs: pip install 'tagger-music[ray]'\n"
    )


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:6379", "127.0.0.1:99999"])
def test_a_cluster_that_is_not_there(library: Path, address: str) -> None:
    """Run in a process of its own: this one is connected to a cluster already."""
    command = [sys.executable, "-m", "tagger", "scan", str(library), "--engine", "ray"]
    done = subprocess.run(
        [*command, "--ray-address", address], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith(f"tagger: cannot reach Ray at {address}: ")
    assert "Traceback" not in done.stderr


def test_a_run_with_nothing_to_do_needs_no_cluster(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Scan(capsys, library, *ANY).actions == {"written": 3}
    nowhere = ("--engine", "ray", "--ray-address", "127.0.0.1:1")
    done = run_without_torch("scan", library, *ANY, *nowhere)
    assert done.returncode == 0, done.stderr
    assert "unchanged" in done.stdout


@pytest.mark.slow
def test_more_predictors_than_the_cluster_has_cores_for(
    cluster: Any, library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = Scan(capsys, library, *make_ray_options(cluster, "--ray-predictors", str(NODES)))
    assert scan.code == 3
    assert "leave none of the cluster's" in scan.err
