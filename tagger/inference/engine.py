"""Engines: where the network runs, on this machine or on the nodes of a Ray cluster."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, assert_never

from tagger.audio import MIN_DURATION_S
from tagger.errors import make_missing_extra_error
from tagger.models import ModelSource
from tagger.records import Failure, Prediction, Track
from tagger.settings import EngineKind, Settings


def never_stop() -> None:
    """Let the run go on."""


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """The model that predicts tracks, and how it does so.

    source: the model; `download_missing` has completed its files. min_duration_s: a track with less
    sound is a Failure. timeline: whether a Prediction has the scores of each window too. check:
    raises the error that ends the run; engines call it where they wait for minutes.
    """

    source: ModelSource
    settings: Settings
    min_duration_s: float = MIN_DURATION_S
    timeline: bool = False
    check: Callable[[], None] = never_stop


PredictTracks = Callable[[Iterable[Track], InferenceRequest], Iterator[Prediction | Failure]]
"""Yields the prediction of each track, or why there is none, in the order given.

Raises ModelError where the model cannot be loaded, the device is missing or its memory is too
small. Raises WorkerError where the processes that do the work keep dying.
"""


@contextmanager
def open_engine(settings: Settings) -> Iterator[PredictTracks]:
    """Open the engine that the settings name. Raises MissingExtraError."""
    match settings.engine:
        case EngineKind.LOCAL:
            yield LocalEngine().predict_tracks
        case EngineKind.RAY:
            with _open_ray_engine(settings) as predict_tracks:
                yield predict_tracks
        case _:
            assert_never(settings.engine)


class LocalEngine:
    """Predicts tracks on this machine. The model stays loaded for the next call that needs it."""

    def __init__(self) -> None:
        self._loaded_for: object = None
        self._predictor: Any = None

    def predict_tracks(
        self, tracks: Iterable[Track], request: InferenceRequest
    ) -> Iterator[Prediction | Failure]:
        """Predict tracks, as `PredictTracks` says."""
        from tagger.inference.predict import load_predictor, predict_tracks  # imports torch

        wanted = (request.source.identity, request.settings, request.timeline)
        if wanted != self._loaded_for:
            self._loaded_for = self._predictor = None  # memory may not hold two models
            self._predictor = load_predictor(request)
            self._loaded_for = wanted
        yield from predict_tracks(tracks, request, self._predictor)


@contextmanager
def _open_ray_engine(settings: Settings) -> Iterator[PredictTracks]:
    try:
        from tagger.inference.ray.cluster import RayCluster
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise make_missing_extra_error("--engine ray", "ray") from error
    with RayCluster(settings) as cluster:
        yield cluster.predict_tracks


@contextmanager
def keep_signal_handlers(*numbers: signal.Signals) -> Iterator[None]:
    """Put back the handlers of these signals that a library replaces meanwhile.

    Only the main thread has handlers: in another thread no library replaces one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
