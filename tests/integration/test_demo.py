"""`tagger demo` in a browser: what a visitor uploads, and what the page answers."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tagger.cli import main
from tagger.settings import load_settings
from tests.browser import needs_browser, visiting
from tests.builders import build_audio, write_text
from tests.processes import run_in_background

TIMEOUT_MS = 300_000  # for the browser: the model is loaded first, perhaps beside other load


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Run the demo with two labelled clips, and give its address.

    The script sets the handler of SIGINT itself: under `nohup pytest &`, programs ignore SIGINT.
    """
    for label in ("jazz", "rock"):
        (tmp_path / "clips" / label).mkdir(parents=True)
        build_audio(tmp_path / "clips" / label / "a.wav", seconds=3, seed=len(label))
    script = (
        "import signal, sys; from tagger.cli import main;"
        " signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "demo", "--max-minutes", "0.2", "--max-size", "1"]
    command += ["--dataset", str(tmp_path / "clips")]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "GRADIO_TEMP_DIR": str(tmp_path / "temp")}
    with run_in_background(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        url = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert url
        yield url[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in {0, 130}


needs_gradio = pytest.mark.skipif(not find_spec("gradio"), reason="needs the extra `demo`")


def expect(locator: Any) -> Any:
    """Wait for something on a page, as Playwright does. Not every machine with tests has it."""
    from playwright.sync_api import expect

    return expect(locator)


def upload(page: Any, path: Path) -> None:
    page.set_input_files("input[type=file]", path)
    expect(page.get_by_text("0:00").first).to_be_visible(timeout=TIMEOUT_MS)


def click_listen(page: Any) -> None:
    page.get_by_role("button", name="Listen", exact=True).click()


@needs_browser
@pytest.mark.timeout(900)
def test_a_song_is_classified_and_mistakes_are_explained(address: str, tmp_path: Path) -> None:
    song = build_audio(tmp_path / "song.mp3", seconds=10)
    with visiting(address) as visit:
        page = visit.page
        answer = page.get_by_label("Result")
        click_listen(page)
        expect(answer).to_have_value(re.compile("^First drop or record a song"), timeout=TIMEOUT_MS)
        upload(page, song)
        click_listen(page)
        expect(answer).to_have_value(re.compile(r"\d+%, from 10 s of sound"), timeout=TIMEOUT_MS)
        expect(page.locator(".label-wrap, [data-testid=label-output-value]").first).to_be_visible()
        expect(page.get_by_text("Scores over time")).to_be_visible()
        page.get_by_label("Model").fill("/no/such/folder")
        page.get_by_label("Model").press("Enter")
        click_listen(page)
        expect(answer).to_have_value(re.compile("This did not work"), timeout=TIMEOUT_MS)
        page.get_by_role("tab", name="Samples").click()
        page.get_by_role("button", name="Play a clip").click()
        expect(page.get_by_label("Its labels")).to_have_value(
            re.compile("Jazz|Rock", re.IGNORECASE), timeout=TIMEOUT_MS
        )
        assert all(url.startswith((address, "data:", "blob:")) for url in visit.requests)


@needs_browser
@pytest.mark.timeout(900)
def test_a_file_without_sound_is_refused_politely(address: str, tmp_path: Path) -> None:
    text_file = write_text(tmp_path / "song.mp3")
    with visiting(address) as visit:
        visit.page.set_input_files("input[type=file]", text_file)
        visit.page.wait_for_timeout(1500)
        click_listen(visit.page)
        answer = visit.page.get_by_label("Result")
        expect(answer).to_have_value(re.compile("^This did not work: "), timeout=TIMEOUT_MS)
        assert "Traceback" not in answer.input_value()


@pytest.fixture(scope="module")
def classifier() -> Any:
    from tagger.demo import DemoClassifier, UploadLimits

    return DemoClassifier(load_settings({"top-k": 3}), UploadLimits(minutes=0.2))


@needs_gradio
@pytest.mark.extra
def test_an_answer_has_the_scores_and_the_timeline(classifier: Any, tmp_path: Path) -> None:
    text, scores, timeline = classifier.classify(
        str(build_audio(tmp_path / "a.flac", seconds=10)), "", ""
    )
    assert timeline is not None
    assert "from 10 s" in text
    assert text.startswith(next(iter(scores)))
    assert len(scores) == 3
    assert set(timeline["label"]) == set(scores)
    assert timeline["seconds"].between(0, 10).all()
    assert timeline["score"].between(0, 1).all()


@needs_gradio
@pytest.mark.extra
@pytest.mark.parametrize(
    ("seconds", "choice", "reason"),
    [
        (0.05, ("", ""), "too short"),
        (13, ("", ""), "longer than 0.2 minutes"),
        (4, ("no/such-model-1", ""), "no/such-model-1"),
        (4, ("", "techno,ambient"), "labels"),
    ],
)
def test_an_answer_says_why_it_did_not_work(
    classifier: Any, tmp_path: Path, seconds: float, choice: tuple[str, str], reason: str
) -> None:
    song = build_audio(tmp_path / "a.flac", seconds=seconds)
    text, scores, timeline = classifier.classify(str(song), *choice)
    assert text.startswith("This did not work: ")
    assert reason in text
    assert (scores, timeline) == ({}, None)


def test_without_gradio_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "tagger.demo", raising=False)
    assert main(["demo"]) == 3
    assert "pip install 'tagger[demo]'" in capsys.readouterr().err
