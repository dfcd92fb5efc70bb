"""`tagger classify` as a user calls it: tables, JSON, standard input, timelines, any model."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from transformers import pipeline

from tagger.cli import main
from tests.builders import build_audio, write_text
from tests.checkpoints import save
from tests.front_door import run_without_torch
from tests.processes import capture_fork, run_in_background


@pytest.fixture(scope="module")
def hubert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "tiny-hubert", "hubert")


@pytest.fixture
def song(tmp_path: Path) -> Path:
    return build_audio(tmp_path / "song.flac", seconds=7)


def classify(capsys: pytest.CaptureFixture[str], *args: str | Path) -> list[dict[str, Any]]:
    capsys.readouterr()
    main(["classify", "--json", *map(str, args)])
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return rows


def test_the_table_shows_the_best_labels_with_bars_and_no_file_changes(
    song: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = song.read_bytes()
    assert main(["classify", str(song), "--top-k", "3"]) == 0
    out, _ = capsys.readouterr()
    title, *rows = out.splitlines()
    assert (title.split()[-2], title.split()[-1].split("@")[0]) == ("0:07", "musicnn-yamnet")
    assert len(rows) == 3
    scores = [float(row.split()[-1]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    bars = [row.count("█") for row in rows]
    assert bars == [pytest.approx(32 * score, abs=1) for score in scores]
    assert song.read_bytes() == before


def test_yamnet_names_the_sounds_of_a_recording(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 32_000)
    soundfile.write(tmp_path / "noise.wav", noise, 16_000)
    (row,) = classify(capsys, tmp_path / "noise.wav", "-m", "yamnet")
    assert row["model"].startswith("yamnet@")
    assert row["scores"][0]["label"] == "White noise"


def test_moods_and_voices_are_shown_where_they_are_wanted(
    song: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = classify(capsys, song, "--moods")
    assert {score["label"] for score in row["moods"]} == {"Happy", "Tense", "Sad", "Calm"}
    names = {"Instrumental", "Female vocals", "Male vocals"}
    assert {score["label"] for score in row["voices"]} == names
    for name in ("moods", "voices"):
        assert sum(score["score"] for score in row[name]) == pytest.approx(1)
    assert main(["classify", str(song), "--moods"]) == 0
    assert {" Mood", " Voice"} < set(capsys.readouterr().out.splitlines())
    assert main(["classify", str(song), "--moods", "-m", "yamnet"]) == 2
    assert "--moods needs the bundled model; yamnet has no moods" in capsys.readouterr().err


def test_json_has_the_keys_that_scripts_rely_on(
    song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = write_text(tmp_path / "bad.mp3")
    os.mkfifo(pipe := tmp_path / "pipe.mp3")
    first, second, third, fourth = classify(capsys, song, bad, tmp_path, pipe, "--top-k", "2")
    assert list(first) == ["path", "model", "duration_s", "scores"]
    assert (first["path"], first["duration_s"]) == (str(song), 7)
    assert [list(score) for score in first["scores"]] == [["label", "score"]] * 2
    assert first["scores"][0]["score"] >= first["scores"][1]["score"]
    assert list(second) == ["path", "model", "duration_s", "error"]
    assert second["model"] == first["model"]
    assert "is a folder" in third["error"]
    assert fourth["error"] == "is no regular file (- reads from standard input)"


def test_a_file_that_fails_is_reported_and_exits_with_1(
    song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "no\x1b[31msong.mp3"
    assert main(["classify", str(missing), str(song)]) == 1
    out, err = capsys.readouterr()
    assert "no\\x1b[31msong.mp3: cannot open: No such file" in out
    assert str(song) in out
    assert "Traceback" not in err


def test_no_model_is_loaded_if_no_file_can_be_opened(tmp_path: Path) -> None:
    done = run_without_torch("classify", tmp_path / "none.mp3")
    assert done.returncode == 1, done.stderr
    assert "cannot open" in done.stdout


def test_the_scores_are_those_of_the_pipeline(
    hubert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.1, 16_000 * 3).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    (row,) = classify(capsys, tmp_path / "a.wav", "-m", hubert, "--precision", "fp32")
    expected = pipeline("audio-classification", str(hubert))(samples, top_k=None)
    ours = {score["label"]: score["score"] for score in row["scores"]}
    assert ours == pytest.approx({each["label"]: each["score"] for each in expected}, abs=1e-4)
    assert [score["label"] for score in row["scores"]] == [each["label"] for each in expected]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".ogg"])
def test_standard_input_can_be_classified(
    song: Path, hubert: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = build_audio(song.with_suffix(suffix), seconds=3)
    with path.open("rb") as file:
        done = capture_fork(lambda: main(["classify", "--json", "-m", str(hubert), "-"]), file)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert row["path"] == "-"
    assert row["duration_s"] == pytest.approx(3, abs=0.2)
    (same,) = classify(capsys, "-m", hubert, path)
    # libsndfile reads a WAV with a name, FFmpeg one without: the difference is rounding.
    scores, expected = ({s["label"]: s["score"] for s in each["scores"]} for each in (row, same))
    assert scores == pytest.approx(expected, abs=1e-3)


def test_a_timeline_shows_where_the_song_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rate_hz = 16_000
    time_s = np.arange(rate_hz * 12) / rate_hz
    tone = 0.2 * np.sin(2 * np.pi * 220 * time_s)
    noise = np.random.default_rng(0).normal(0, 0.3, tone.size)
    soundfile.write(tmp_path / "a.wav", np.concatenate([tone, noise]), rate_hz)
    options = ("-m", "musicnn", "--timeline", "--window-seconds", "3")
    (row,) = classify(capsys, tmp_path / "a.wav", *options)
    parts = row["timeline"]
    assert [part["start_s"] for part in parts] == [3.0 * number for number in range(8)]
    assert [part["end_s"] for part in parts] == [3.0 * number for number in range(1, 9)]
    tops = [part["scores"][0]["label"] for part in parts]
    assert len(set(tops[:4])) == len(set(tops[4:])) == 1
    assert tops[0] != tops[-1]
    assert main(["classify", str(tmp_path / "a.wav"), *options]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows[1:9]] == [f"0:{3 * number:02}" for number in range(8)]


def test_a_word_may_be_shorter_than_the_minimum_for_a_genre(
    hubert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    word, click = tmp_path / "word.wav", tmp_path / "click.wav"
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000)
    soundfile.write(word, noise[:8000], 16_000)
    soundfile.write(click, noise[:800], 16_000)
    result, refused = classify(capsys, word, click, "-m", hubert)
    assert result["scores"][0]["label"] in {"rock", "jazz", "hiphop"}
    assert refused["error"] == "too short: 0.05 s of sound, 0.1 s is needed"


@pytest.mark.slow
def test_labels_are_the_models_own_unless_a_map_is_given(
    hubert: Path, song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (plain,) = classify(capsys, song, "-m", hubert)
    assert {score["label"] for score in plain["scores"]} == {"rock", "jazz", "hiphop"}
    names = tmp_path / "names.toml"
    names.write_text('rock = "Loud"\nhiphop = "Loud"\n', "utf-8")
    (mapped,) = classify(capsys, song, "-m", hubert, "--genre-map", names)
    scores = {score["label"]: score["score"] for score in plain["scores"]}
    assert {score["label"]: score["score"] for score in mapped["scores"]} == pytest.approx(
        {"Loud": scores["rock"] + scores["hiphop"], "Jazz": scores["jazz"]}
    )
    names.write_text('rock = ""\njazz = ""\nhiphop = ""\ntechno = ""\n', "utf-8")
    assert (
        main(["classify", str(song), "-m", str(hubert), "--timeline", "--genre-map", str(names)])
        == 0
    )
    assert "does not know: techno (it knows rock, jazz, hiphop)" in capsys.readouterr().err


def test_zero_shot_with_labels_of_the_user(
    song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save(tmp_path / "clap", "clap-fused")
    (row,) = classify(capsys, song, "-m", model, "--labels", "Techno, birdsong,Žižkov brass")
    assert {score["label"] for score in row["scores"]} == {"Techno", "birdsong", "Žižkov brass"}
    assert sum(score["score"] for score in row["scores"]) == pytest.approx(1)
    (again,) = classify(capsys, song, "-m", model, "--labels", "Techno, birdsong,Žižkov brass")
    assert again == row


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["classify"], 2, "Missing argument"),
        (["classify", ""], 2, "a FILE is empty"),
        (["classify", "--jobs", "1000000", "a.mp3"], 2, "must be 256 or less"),
        (["classify", "--labels", "one", "a.mp3"], 2, "must be two labels or more"),
        (["classify", "--labels", "a,b,A", "a.mp3"], 2, "must not name 'a' twice"),
        (["classify", "--window-seconds", "0", "a.mp3"], 2, "between 0.1 and 3600"),
        (["classify", "-m", "./none", "a.mp3"], 3, "there is no model folder"),
        (["classify", "--labels", "a,b", "a.mp3"], 2, "--labels needs a CLAP model"),
    ],
)
def test_wrong_usage(
    args: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == code
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_ends_it_and_removes_its_files(number: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tagger", "classify", "-"]
    env = os.environ | {"TMPDIR": str(tmp_path)}
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
    with run_in_background(command, env=env, **pipes) as process:
        while not list(tmp_path.glob("tagger-*")):  # pytest-timeout ends it if there is none
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(20) == 128 + number
        assert process.stderr
        assert process.stderr.read() == "tagger: stopped\n"
    assert not list(tmp_path.glob("tagger-*"))


@pytest.mark.slow
@pytest.mark.parametrize("args", [["--json"], []])
def test_a_full_disk_for_stdout_is_reported_in_one_line(tmp_path: Path, args: list[str]) -> None:
    missing = tmp_path / "none.mp3"  # a row like any other, and no model is loaded for it
    command = [sys.executable, "-m", "tagger", "classify", str(missing), *args]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=300
        )
    assert (done.returncode, done.stderr) == (3, "tagger: cannot print: No space left on device\n")


@pytest.mark.slow
def test_more_jobs_than_cores_print_no_warning(song: Path) -> None:
    done = capture_fork(lambda: main(["classify", str(song), "--jobs", "8"]))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_standard_input_is_wrong_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert main(["classify", "-"]) == 2
    assert "closed or a terminal" in capsys.readouterr().err
