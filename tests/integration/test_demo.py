"""`tagger demo`, in a browser: what somebody drops there, and what it says to that."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tagger.cli import main
from tagger.demo import DemoClassifier, UploadLimits
from tagger.settings import load_settings
from tests.browser import needs_browser, visiting
from tests.builders import build_audio, write_text

SECONDS = 90_000  # for the browser to wait, in milliseconds: a model is loaded first


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Run the demo with two labelled clips, and give its address."""
    for label in ("jazz", "rock"):
        (tmp_path / "clips" / label).mkdir(parents=True)
        build_audio(tmp_path / "clips" / label / "a.wav", seconds=3, seed=len(label))
    command = [sys.executable, "-m", "tagger", "demo", "--max-minutes", "0.2", "--max-size", "1"]
    command += ["--dataset", str(tmp_path / "clips")]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "GRADIO_TEMP_DIR": str(tmp_path / "temp")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found
        yield found[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in {0, 130}


def drop(page: Page, path: Path) -> None:
    page.set_input_files("input[type=file]", path)
    expect(page.get_by_text("0:00").first).to_be_visible(timeout=SECONDS)


def listen(page: Page) -> None:
    page.get_by_role("button", name="Listen", exact=True).click()


@needs_browser
def test_a_song_and_what_is_none(address: str, tmp_path: Path) -> None:
    song = build_audio(tmp_path / "song.mp3", seconds=10)
    with visiting(address) as visit:
        page = visit.page
        said = page.get_by_label("What it says")
        listen(page)
        expect(said).to_have_value(re.compile("first"), timeout=SECONDS)
        drop(page, song)
        listen(page)
        expect(said).to_have_value(re.compile(r"\d+%, over 10 s of sound"), timeout=SECONDS)
        expect(page.locator(".label-wrap, [data-testid=label-output-value]").first).to_be_visible()
        expect(page.get_by_text("Through the song")).to_be_visible()
        page.get_by_label("Model").fill("/no/such/folder")
        page.get_by_label("Model").press("Enter")
        listen(page)
        expect(said).to_have_value(re.compile("That did not work"), timeout=SECONDS)
        page.get_by_role("tab", name="Samples").click()
        page.get_by_role("button", name="Play one").click()
        expect(page.get_by_label("It is")).to_have_value(
            re.compile("Jazz|Rock", re.IGNORECASE), timeout=SECONDS
        )
        assert all(url.startswith((address, "data:", "blob:")) for url in visit.requests)


@needs_browser
def test_garbage_gets_a_friendly_word(address: str, tmp_path: Path) -> None:
    garbage = write_text(tmp_path / "song.mp3")
    with visiting(address) as visit:
        visit.page.set_input_files("input[type=file]", garbage)
        visit.page.wait_for_timeout(1500)
        listen(visit.page)
        said = visit.page.get_by_label("What it says")
        expect(said).to_have_value(re.compile("^That did not work: "), timeout=SECONDS)
        assert "Traceback" not in said.input_value()


@pytest.fixture(scope="module")
def ear() -> DemoClassifier:
    return DemoClassifier(load_settings({"top-k": 3}), UploadLimits(minutes=0.2))


def test_an_answer_has_the_scores_and_the_way_through_the_song(
    ear: DemoClassifier, tmp_path: Path
) -> None:
    text, scores, timeline = ear.hear(str(build_audio(tmp_path / "a.flac", seconds=10)), "", "")
    assert timeline is not None
    assert "over 10 s" in text
    assert text.startswith(next(iter(scores)))
    assert len(scores) == 3
    assert set(timeline["label"]) == set(scores)
    assert timeline["seconds"].between(0, 10).all()
    assert timeline["score"].between(0, 1).all()


@pytest.mark.parametrize(
    ("seconds", "asked", "reason"),
    [
        (0.05, ("", ""), "too short"),
        (13, ("", ""), "longer than 0.2 minutes"),
        (4, ("no/such-model-1", ""), "no/such-model-1"),
        (4, ("", "techno,ambient"), "labels"),
    ],
)
def test_what_cannot_be_answered_is_told(
    ear: DemoClassifier, tmp_path: Path, seconds: float, asked: tuple[str, str], reason: str
) -> None:
    song = build_audio(tmp_path / "a.flac", seconds=seconds)
    text, scores, timeline = ear.hear(str(song), *asked)
    assert text.startswith("That did not work: ")
    assert reason in text
    assert (scores, timeline) == ({}, None)


def test_without_the_extra_the_cure_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "tagger.demo")
    assert main(["demo"]) == 3
    assert "pip install 'tagger[demo]'" in capsys.readouterr().err
