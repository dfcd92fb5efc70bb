"""`tagger demo` in a browser: what a visitor uploads, and what the page answers."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tagger import classify
from tagger.cli import main
from tagger.inference.engine import InferenceRequest, LocalEngine
from tagger.models import find_model
from tagger.settings_sources import load_settings
from tests.browser import needs_browser, visiting
from tests.builders import build_audio, music, write_text
from tests.checkpoints import save
from tests.conftest import use_home
from tests.processes import run_in_background

TIMEOUT_MS = 300_000  # for the browser: the model is loaded first, perhaps beside other load


@dataclass(frozen=True, slots=True)
class DemoServer:
    """A demo that runs, and the folder of its clips."""

    address: str
    clips: Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    """Run the demo with two labelled clips.

    The script sets the handler of SIGINT itself: under `nohup pytest &`, programs ignore SIGINT.
    """
    folder = tmp_path_factory.mktemp("demo")
    clips = folder / "clips"
    for label in ("jazz", "rock"):
        (clips / label).mkdir(parents=True)
        build_audio(clips / label / "a.wav", seconds=3, seed=len(label))
    script = (
        "import signal, sys; from tagger.cli import main;"
        " signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "demo", "--max-minutes", "0.2", "--max-size", "1"]
    command += ["--dataset", str(clips)]
    with pytest.MonkeyPatch.context() as patch:
        use_home(patch, folder / "home")
        more = {"PYTHONUNBUFFERED": "1", "GRADIO_TEMP_DIR": str(folder / "temp")}
        environment = os.environ | more
    with run_in_background(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        url = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert url
        yield DemoServer(url[0], clips)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in {0, 130}


needs_gradio = pytest.mark.skipif(not find_spec("gradio"), reason="needs the extra `demo`")
shares_server = pytest.mark.xdist_group("demo server")
shares_classifier = pytest.mark.xdist_group("demo classifier")


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
@shares_server
@pytest.mark.timeout(900)
def test_a_song_is_classified_and_mistakes_are_explained(
    server: DemoServer, tmp_path: Path
) -> None:
    song = build_audio(tmp_path / "song.mp3", seconds=10)
    with visiting(server.address) as visit:
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
        assert all(url.startswith((server.address, "data:", "blob:")) for url in visit.requests)


@needs_browser
@shares_server
@pytest.mark.timeout(900)
def test_a_file_without_sound_is_refused_politely(server: DemoServer, tmp_path: Path) -> None:
    text_file = write_text(tmp_path / "song.mp3")
    with visiting(server.address) as visit:
        visit.page.set_input_files("input[type=file]", text_file)
        visit.page.wait_for_timeout(1500)
        click_listen(visit.page)
        answer = visit.page.get_by_label("Result")
        expect(answer).to_have_value(re.compile("^This did not work: "), timeout=TIMEOUT_MS)
        assert "Traceback" not in answer.input_value()


@pytest.fixture(scope="module")
def classifier() -> Iterator[Any]:
    from tagger.demo import DemoClassifier, UploadLimits

    classifier = DemoClassifier(load_settings({"top-k": 3}), UploadLimits(minutes=0.2))
    with classifier.pool:  # its threads must not live on in other tests
        yield classifier


@needs_gradio
@shares_classifier
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
@shares_classifier
@pytest.mark.extra
def test_a_line_of_the_timeline_has_every_window(classifier: Any, tmp_path: Path) -> None:
    def begin_with_noise(seconds: float, rate_hz: int) -> NDArray[np.float32]:
        samples = music(seconds, rate_hz, frequency_hz=220, seed=0)
        half = samples.shape[1] // 2
        samples[:, :half] = np.random.default_rng(0).uniform(-0.1, 0.1, half)
        return samples

    song = build_audio(tmp_path / "a.flac", seconds=10, sound=begin_with_noise)
    _, scores, timeline = classifier.classify(str(song), "", "")
    assert dict(timeline["label"].value_counts()) == dict.fromkeys(scores, 3)


@needs_gradio
@shares_classifier
@pytest.mark.extra
def test_a_genre_map_without_labels_is_explained(
    classifier: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = find_model(classifier.settings).labels
    no_names = dict.fromkeys(map(str.casefold, labels), "")
    monkeypatch.setattr(classifier, "settings", replace(classifier.settings, genre_map=no_names))
    answer = classifier.classify(str(build_audio(tmp_path / "a.flac", seconds=4)), "", "")
    assert answer[0].startswith("The genre map leaves out all labels of musicnn-yamnet")
    assert answer[1:] == ({}, None)


def test_the_model_stays_loaded_until_a_visitor_chooses_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tagger.inference.predict import load_predictor

    loaded: list[str] = []

    def load(request: InferenceRequest) -> Any:
        loaded.append(request.settings.model)
        return load_predictor(request)

    monkeypatch.setattr(classify, "SONG_ENGINE", LocalEngine())
    monkeypatch.setattr("tagger.inference.predict.load_predictor", load)
    song = build_audio(tmp_path / "a.flac", seconds=4)
    for model in ("musicnn", "musicnn", "yamnet"):
        settings = load_settings({"model": model, "jobs": 1})
        classify.classify_song(song, settings, minutes=1, may_be_folder=True)
    assert loaded == ["musicnn", "yamnet"]


@needs_gradio
@shares_classifier
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


@needs_gradio
@pytest.mark.extra
def test_a_visitor_reads_no_file_of_the_server_as_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tagger.demo import DemoClassifier, UploadLimits

    secret = tmp_path / "home" / "labels.txt"
    secret.parent.mkdir(exist_ok=True)
    secret.write_text("secret one\nsecret two\n")
    monkeypatch.chdir(secret.parent)
    settings = load_settings({"model": str(save(tmp_path / "clap", "clap"))})
    song = str(build_audio(tmp_path / "a.flac", seconds=2))
    classifier = DemoClassifier(settings, UploadLimits())
    hostile = (f"{secret}", f"file://{secret}", f"{secret},", "~/labels.txt", f"@{secret}")
    with classifier.pool:
        for typed in hostile:
            text, scores, _ = classifier.classify(song, "", typed)
            assert "secret" not in f"{text}{scores}", typed
        text, scores, _ = classifier.classify(song, "", "labels.txt, techno")
        assert set(scores) == {"labels.txt", "techno"}


@needs_gradio
@shares_classifier
@pytest.mark.extra
def test_a_visitor_reaches_no_folder_of_the_server_as_a_model(
    classifier: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save(tmp_path / "owner" / "model", "hubert")
    (tmp_path / "owner" / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    song = str(build_audio(tmp_path / "a.flac", seconds=2))
    answers = {
        name: classifier.classify(song, name, "")[0].replace(name, "NAME")
        for name in ("owner/model", "owner/empty", "owner/nothing")
    }
    assert "not in the cache" in answers["owner/model"]
    assert len(set(answers.values())) == 1  # nobody learns which folders there are
    paths = {
        name: classifier.classify(song, name, "")[0].replace(name, "NAME")
        for name in (str(model), "/", "/nothing", ".", "../..", "~", "~root", f"file://{model}")
    }
    assert len(set(paths.values())) == 1, paths
    assert "nor the id of a model" in paths["/"]


@needs_gradio
@pytest.mark.extra
def test_trust_in_a_model_does_not_go_to_the_models_of_visitors(tmp_path: Path) -> None:
    from tagger.demo import apply_choice

    own = {"model": str(tmp_path), "revision": "main"}
    flags = {"trust-remote-code": True, "allow-pickle": True}
    settings = load_settings({**own, **flags, "labels": ["techno=The sound of {}.", "ambient"]})
    assert apply_choice(settings, str(tmp_path), "techno,ambient") == settings
    chosen = apply_choice(settings, "owner/model", "")
    assert (chosen.model, chosen.revision, chosen.labels) == ("owner/model", None, ())
    assert not chosen.trust_remote_code
    assert not chosen.allow_pickle


@needs_gradio
@shares_server
@pytest.mark.extra
def test_a_visitor_names_no_file_of_the_server_as_a_song(server: DemoServer) -> None:
    import httpx

    song = str(server.clips / "rock" / "a.wav")
    file = {"path": song, "meta": {"_type": "gradio.FileData"}}
    answer = httpx.post(f"{server.address}/gradio_api/run/classify", json={"data": [file, "", ""]})
    assert (answer.status_code, answer.json()) == (500, {"error": None})


def test_without_gradio_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "tagger.demo", raising=False)
    assert main(["demo"]) == 3
    assert "pip install 'tagger-music[demo]'" in capsys.readouterr().err
