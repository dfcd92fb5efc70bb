"""A page to try models on single songs, and to play samples of a data set; owns gradio."""

import random
from collections.abc import Callable, Sequence
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
from tagger.settings import Settings
from tagger.settings_sources import load_settings
from tagger.training.clips import Clip, Dataset

UPLOAD_CLEANUP_INTERVAL_S, UPLOAD_LIFETIME_S = 600, 3600

MAX_TIMELINE_GENRES = 5

SAMPLE_DURATION_S = 30.0
SAMPLE_RATE_HZ = 44_100

OFFERED_MODELS = (
    *BUNDLED_MODELS,
    "sanchit-gandhi/distilhubert-finetuned-gtzan",
    "MIT/ast-finetuned-speech-commands-v2",
    "sanchit-gandhi/whisper-medium-fleurs-lang-id",
    "laion/clap-htsat-unfused",
)
"""The models in the list of the page. A visitor can type the id of any other model of the Hub."""

DemoResult = tuple[str, dict[str, float], pd.DataFrame | None]
GradioAudio = tuple[int, "np.ndarray[Any, np.dtype[np.int16]]"]


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """The largest file, and the longest song, that a visitor may upload."""

    size_mb: int = 100
    minutes: float = 60.0


class DemoClassifier:
    """Classifies one song at a time, in another process: a DataLoader needs a main thread."""

    def __init__(self, settings: Settings, limits: UploadLimits) -> None:
        """Prepare the process. It is spawned, because a fork copies the locks of threads."""
        self.settings = replace(settings, genre_map=dict(settings.genre_map))  # can be pickled
        self.limits = limits
        self.pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))

    def classify(self, path: str | None, model: str, labels: str) -> DemoResult:
        """Return a sentence, the scores by label and the timeline of a song.

        A TaggerError becomes the sentence. labels: the visitor's labels for a zero-shot model,
        separated by commas; empty for the labels of the model.
        """
        if not path:
            return "First drop or record a song.", {}, None
        try:
            settings = apply_choice(self.settings, model.strip(), labels.strip())
            is_own_model = settings.model == self.settings.model
            prediction = self.pool.submit(
                classify_song,
                Path(path),
                settings,
                minutes=self.limits.minutes,
                may_be_folder=is_own_model,
            ).result()
        except TaggerError as error:
            return f"This did not work: {error}", {}, None
        except BrokenProcessPool:
            return "The process of the model ended: start the demo again.", {}, None
        best = prediction.scores[: settings.top_k]
        if not best:
            return f"The genre map leaves out all labels of {prediction.model}.", {}, None
        seconds = f"{prediction.duration_s:.0f} s of sound"
        text = f"{best[0].genre}: {best[0].probability:.0%}, from {seconds} ({prediction.model})"
        scores = {score.genre: score.probability for score in best}
        return text, scores, _make_timeline(prediction, list(scores)[:MAX_TIMELINE_GENRES])


def apply_choice(settings: Settings, model: str, labels: str) -> Settings:
    """Return the settings with a visitor's choice. Raises SettingsError.

    What a visitor types is never the name of a file of this machine: labels are passed on as a
    list, for a text could be the path of a file with labels. The trust in a model's code and
    pickles was given to the model that the demo was started with, and to no other.
    """
    if model and model != settings.model:
        settings = replace(
            settings, model=model, revision=None, trust_remote_code=False, allow_pickle=False
        )
    if labels != _format_labels(settings):
        choice = {"labels": labels.split(",")} if labels else {}
        settings = replace(settings, labels=load_settings(choice, config_options=()).labels)
    return settings


def _format_labels(settings: Settings) -> str:
    return ",".join(label.name for label in settings.labels)


def _make_timeline(prediction: Prediction, genres: Sequence[str]) -> pd.DataFrame:
    points = [
        (round((window.start_s + window.end_s) / 2, 2), score.probability, score.genre)
        for window in prediction.timeline
        for score in window.scores
        if score.genre in genres
    ]
    return pd.DataFrame(points, columns=["seconds", "score", "label"])


def choose_sample(
    dataset: Dataset, label: str, settings: Settings
) -> tuple[GradioAudio | None, str]:
    """Return half a minute of a random clip with this label, and the labels of the clip.

    An empty label stands for any.
    """
    clips = [clip for clip in dataset.clips if not label or label in clip.labels]
    with closing(IsolatedCaller(get_call_limits(settings))) as isolated:
        for clip in random.sample(clips, len(clips)):
            with suppress(TrackError):
                return _decode_sample(clip, isolated), ", ".join(clip.labels)
    return None, "No clip of this label can be played."


def _decode_sample(clip: Clip, isolated: IsolatedCaller) -> GradioAudio:
    recording = isolated.call(
        read_windows, clip.track.path, rate_hz=SAMPLE_RATE_HZ, window_s=SAMPLE_DURATION_S, count=1
    )
    samples = np.clip(recording.windows[0], -1, 1) * np.iinfo(np.int16).max
    return SAMPLE_RATE_HZ, samples.astype(np.int16)


def build_page(classifier: DemoClassifier, dataset: Dataset | None) -> gradio.Blocks:
    page: gradio.Blocks
    with gradio.Blocks(
        title="tagger",
        analytics_enabled=False,
        delete_cache=(UPLOAD_CLEANUP_INTERVAL_S, UPLOAD_LIFETIME_S),
    ) as page:
        gradio.Markdown("# What does it sound like?")
        with gradio.Tab("Listen"):
            _add_classify_tab(classifier)
        if dataset:
            with gradio.Tab("Samples"):
                _add_samples_tab(dataset, classifier.settings)
    return page


def _add_classify_tab(classifier: DemoClassifier) -> None:
    settings = classifier.settings
    models = list(dict.fromkeys((settings.model, *OFFERED_MODELS)))
    with gradio.Row():
        with gradio.Column():
            song = gradio.Audio(
                sources=["upload", "microphone"],
                type="filepath",
                label="A song, or a recording",
                buttons=["download"],  # no button that uploads it to a public place
            )
            model = gradio.Dropdown(
                models,
                value=settings.model,
                allow_custom_value=True,
                label="Model: an id of the Hugging Face Hub",
            )
            labels = gradio.Textbox(
                label="Your own labels, for CLAP (techno, chamber music, …)",
                value=_format_labels(settings),
            )
            button = gradio.Button("Listen", variant="primary")
        with gradio.Column():
            answer = gradio.Textbox(label="Result", interactive=False)
            scores = gradio.Label(num_top_classes=settings.top_k, label="Scores")
    timeline = gradio.LinePlot(
        x="seconds", y="score", color="label", y_lim=[0, 1], label="Scores over time"
    )
    button.click(
        classifier.classify,
        [song, model, labels],
        [answer, scores, timeline],
        concurrency_limit=1,
    )


def _add_samples_tab(dataset: Dataset, settings: Settings) -> None:
    gradio.Markdown(f"{len(dataset.clips)} clips of {len(dataset.labels)} labels")
    label = gradio.Dropdown([("any", ""), *dataset.labels], value="", label="Label")
    button = gradio.Button("Play a clip")
    sound = gradio.Audio(label="Sample", interactive=False, autoplay=True, buttons=["download"])
    clip_labels = gradio.Textbox(label="Its labels", interactive=False)
    button.click(lambda label: choose_sample(dataset, label, settings), label, [sound, clip_labels])


def serve_page(
    page: gradio.Blocks,
    limits: UploadLimits,
    on_ready: Callable[[str], None],
    *,
    host: str,
    port: int | None,
) -> None:
    """Serve the page until Ctrl-C. `on_ready` gets its address.

    Raises OSError if another program uses the port.
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
    on_ready(address)
    page.block_thread()
