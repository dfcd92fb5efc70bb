"""Engines: where the network runs, on this machine or on the nodes of a Ray cluster."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import assert_never

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
            yield _predict_locally
        case EngineKind.RAY:
            with _open_ray_engine(settings) as predict_tracks:
                yield predict_tracks
        case _:
            assert_never(settings.engine)


def _predict_locally(
    tracks: Iterable[Track], request: InferenceRequest
) -> Iterator[Prediction | Failure]:
    from tagger.inference.predict import predict_tracks  # imports torch

    yield from predict_tracks(tracks, request)


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
