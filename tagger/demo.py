"""A page to try models on single songs, and to listen to samples of a data set; owns gradio."""

import random
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import gradio
import numpy as np
import pandas as pd

from tagger.audio import read_windows
from tagger.classify import classify_song
from tagger.errors import TaggerError, TrackError
from tagger.isolation import IsolatedCaller, get_call_limits
from tagger.models.sources import BUNDLED_MODELS
from tagger.records import Prediction
from tagger.settings import Settings, load_settings
from tagger.training.clips import Clip, Dataset

UPLOAD_LIFETIME_S = (600, 3600)
"""Every so many seconds, uploads older than so many are deleted."""

MAX_TIMELINE_GENRES = 5
"""So many genres have a line in the timeline."""

SAMPLE_DURATION_S = 30.0
SAMPLE_RATE_HZ = 44_100

OFFERED_MODELS = (
    *BUNDLED_MODELS,
    "sanchit-gandhi/distilhubert-finetuned-gtzan",
    "MIT/ast-finetuned-speech-commands-v2",
    "sanchit-gandhi/whisper-medium-fleurs-lang-id",
    "laion/clap-htsat-unfused",
)
"""What the list of models offers; any other can be typed."""

DemoResult = tuple[str, dict[str, float], pd.DataFrame | None]
GradioAudio = tuple[int, "np.ndarray[Any, np.dtype[np.int16]]"]


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What a visitor may send: bytes, and minutes of sound."""

    size_mb: int = 100
    minutes: float = 60.0


class DemoClassifier:
    """Listens in a process of its own, one song at a time: loaders of data want a main thread."""

    def __init__(self, settings: Settings, limits: UploadLimits) -> None:
        """Make it ready; the process begins anew, for a fork would copy the locks of threads."""
        self.settings = replace(settings, genre_map=dict(settings.genre_map))  # can be pickled
        self.limits = limits
        self.pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))

    def hear(self, path: str | None, model: str, labels: str) -> DemoResult:
        """Return a sentence, the scores by label and the timeline of a song; never raises our own.

        labels: the visitor's own, for a zero-shot model, commas between; empty for the model's.
        """
        if not path:
            return "Drop a song, or record one, first.", {}, None
        try:
            settings = _apply_choice(self.settings, model, labels)
            heard = self.pool.submit(
                classify_song, Path(path), settings, self.limits.minutes
            ).result()
        except TaggerError as error:
            return f"That did not work: {error}", {}, None
        except BrokenProcessPool:
            return (
                "That did not work, nor will anything until the demo is started anew.",
                {},
                None,
            )
        scores = {score.genre: score.probability for score in heard.scores}
        best, likely = next(iter(scores.items()))
        text = f"{best}: {likely:.0%}, over {heard.duration_s:.0f} s of sound ({heard.model})"
        return text, scores, _make_timeline(heard)


def _apply_choice(settings: Settings, model: str, labels: str) -> Settings:
    """Return the settings with a visitor's choice. Raises SettingsError."""
    chosen = {"model": model.strip(), "labels": labels.strip()}
    asked = load_settings(
        {name: value for name, value in chosen.items() if value}, config_options=()
    )
    return replace(settings, model=asked.model, labels=asked.labels)


def _make_timeline(heard: Prediction) -> pd.DataFrame:
    wanted = [score.genre for score in heard.scores[:MAX_TIMELINE_GENRES]]
    points = [
        (round((stretch.start_s + stretch.end_s) / 2, 2), score.probability, score.genre)
        for stretch in heard.timeline
        for score in stretch.scores
        if score.genre in wanted
    ]
    return pd.DataFrame(points, columns=["seconds", "score", "label"])


def choose_sample(
    dataset: Dataset, label: str, settings: Settings
) -> tuple[GradioAudio | None, str]:
    """Return half a minute of a clip of a label (of any, without one), and what it is."""
    clips = [clip for clip in dataset.clips if not label or label in clip.labels]
    with closing(IsolatedCaller(get_call_limits(settings))) as isolated:
        for clip in random.sample(clips, len(clips)):
            with suppress(TrackError):
                return _decode_sample(clip, isolated), ", ".join(clip.labels)
    return None, "No clip of it can be played."


def _decode_sample(clip: Clip, isolated: IsolatedCaller) -> GradioAudio:
    recording = isolated.call(
        read_windows, clip.track.path, rate_hz=SAMPLE_RATE_HZ, window_s=SAMPLE_DURATION_S, count=1
    )
    samples = np.clip(recording.windows[0], -1, 1) * np.iinfo(np.int16).max
    return SAMPLE_RATE_HZ, samples.astype(np.int16)


def build_page(ear: DemoClassifier, dataset: Dataset | None) -> gradio.Blocks:
    page: gradio.Blocks
    with gradio.Blocks(
        title="tagger", analytics_enabled=False, delete_cache=UPLOAD_LIFETIME_S
    ) as page:
        gradio.Markdown("# What does it sound like?")
        with gradio.Tab("Listen"):
            _add_classify_tab(ear)
        if dataset:
            with gradio.Tab("Samples"):
                _add_samples_tab(dataset, ear.settings)
    return page


def _add_classify_tab(ear: DemoClassifier) -> None:
    settings = ear.settings
    models = list(dict.fromkeys((settings.model, *OFFERED_MODELS)))
    with gradio.Row():
        with gradio.Column():
            song = gradio.Audio(
                sources=["upload", "microphone"],
                type="filepath",
                label="A song, or a recording",
                buttons=["download"],  # and none that shares it with the world
            )
            model = gradio.Dropdown(
                models,
                value=settings.model,
                allow_custom_value=True,
                label="Model: a folder, or an id of the Hugging Face Hub",
            )
            labels = gradio.Textbox(
                label="Labels of your own, for CLAP (techno, chamber music, …)",
                value=",".join(label.name for label in settings.labels),
            )
            button = gradio.Button("Listen", variant="primary")
        with gradio.Column():
            said = gradio.Textbox(label="What it says", interactive=False)
            scores = gradio.Label(num_top_classes=settings.top_k, label="Scores")
    timeline = gradio.LinePlot(
        x="seconds", y="score", color="label", y_lim=[0, 1], label="Through the song"
    )
    button.click(
        ear.hear,
        [song, model, labels],
        [said, scores, timeline],
        concurrency_limit=1,
    )


def _add_samples_tab(dataset: Dataset, settings: Settings) -> None:
    gradio.Markdown(f"{len(dataset.clips)} clips of {len(dataset.labels)} labels")
    label = gradio.Dropdown([("any", ""), *dataset.labels], value="", label="Label")
    button = gradio.Button("Play one")
    sound = gradio.Audio(label="Sample", interactive=False, autoplay=True, buttons=["download"])
    said = gradio.Textbox(label="It is", interactive=False)
    button.click(lambda label: choose_sample(dataset, label, settings), label, [sound, said])


def serve_page(
    page: gradio.Blocks,
    limits: UploadLimits,
    opened: Callable[[str], None],
    *,
    host: str,
    port: int | None,
) -> None:
    """Show the page until somebody presses Ctrl-C; `opened` is told its address.

    Raises OSError where the port is taken.
    """
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        max_file_size=f"{limits.size_mb}mb",
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        footer_links=[],
        theme=gradio.themes.Base(font="system-ui", font_mono="monospace"),
    )
    opened(address)
    page.block_thread()
