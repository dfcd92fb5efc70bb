"""What all tests share: no state or setting of the person who runs them, and a small library."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tagger.settings import OPTIONS
from tagger.settings_sources import name_variable
from tests.builders import build_audio
from tests.ray_nodes import make_ray_config, start_ray_nodes

SLOW_TIMEOUT_S = 900

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as many processes as cores run tests already

settings.register_profile("quick", max_examples=10, deadline=None)
settings.register_profile("thorough", max_examples=80, deadline=None)
settings.load_profile("quick")


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "have every scan done by a Ray cluster of several nodes (with -n 0)"
    parser.addoption("--engine", choices=["local", "ray"], default="local", help=text)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give slow tests more time before pytest-timeout ends them."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT_S))


@pytest.fixture(scope="session")
def engine_config(request: pytest.FixtureRequest) -> Iterator[str]:
    """Give the settings that choose the engine, as they would stand in a user's file."""
    if request.config.getoption("--engine") == "local":
        yield ""
        return
    from tagger.inference.ray.cluster import connect

    with start_ray_nodes() as cluster, connect(cluster.address):  # once, for workers that stay warm
        yield make_ray_config(cluster.address)


def use_home(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Set the variables so that the program keeps its files in this folder, without the Hub."""
    for name in ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        patch.setenv(name, str(folder))
    for name in map(name_variable, OPTIONS):
        patch.delenv(name, raising=False)
    patch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine_config: str) -> Path:
    """Keep the tests away from the user's own state, settings and models."""
    folder = tmp_path / "home"
    use_home(monkeypatch, folder)
    if engine_config:
        (folder / "tagger").mkdir(parents=True)
        (folder / "tagger" / "config.toml").write_text(engine_config)
    return folder


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Build a folder with three short tracks without any genre."""
    folder = tmp_path / "library"
    folder.mkdir()
    for number, name in enumerate(["a.flac", "b.mp3", "c.ogg"]):
        build_audio(folder / name, seconds=4, frequency_hz=110 * (number + 1), seed=number)
    return folder
