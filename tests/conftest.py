"""What all tests share: no state or setting of the person who runs them, and a small library."""

from pathlib import Path

import pytest

from tests.builders import build_audio


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the tests away from the user's own state, settings and models."""
    folder = tmp_path / "home"
    for name in ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folder


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Build a folder with three short tracks without any genre."""
    folder = tmp_path / "library"
    folder.mkdir()
    for number, name in enumerate(["a.flac", "b.mp3", "c.ogg"]):
        build_audio(folder / name, seconds=4, frequency_hz=110 * (number + 2), seed=number)
    return folder
