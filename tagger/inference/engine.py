"""Where the network runs: on this machine, or on the nodes of a cluster."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import assert_never

from tagger.audio import MIN_DURATION_S
from tagger.errors import MissingExtraError
from tagger.models import ModelSource
from tagger.records import Failure, Prediction, Track
from tagger.settings import EngineKind, Settings


def never_stop() -> None:
    """Let a run go on."""


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """By what model, and how, tracks are to be heard.

    source: the model, which `fetch` has seen to. shortest_s: less sound than this is a Failure.
    timeline: each window's scores are wanted as well. check: raises what is to end the run; called
    where it may take minutes until there is a result.
    """

    source: ModelSource
    settings: Settings
    shortest_s: float = MIN_DURATION_S
    timeline: bool = False
    check: Callable[[], None] = never_stop


PredictTracks = Callable[[Iterable[Track], InferenceRequest], Iterator[Prediction | Failure]]
"""Yields what a model hears in each track, or why it heard nothing, in the order given.

Raises ModelError where the model cannot be loaded, the device is not there or its memory is too
small, WorkerError where the processes that do the work do not stay alive.
"""


@contextmanager
def open_engine(settings: Settings) -> Iterator[PredictTracks]:
    """Give the engine that was asked for. Raises MissingExtraError."""
    match settings.engine:
        case EngineKind.LOCAL:
            yield _predict_locally
        case EngineKind.RAY:
            with _open_ray(settings) as listen:
                yield listen
        case _:
            assert_never(settings.engine)


def _predict_locally(
    tracks: Iterable[Track], hearing: InferenceRequest
) -> Iterator[Prediction | Failure]:
    from tagger.inference.predict import predict_tracks  # with it comes torch

    yield from predict_tracks(tracks, hearing)


@contextmanager
def _open_ray(settings: Settings) -> Iterator[PredictTracks]:
    try:
        from tagger.inference.ray.cluster import RayCluster
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise MissingExtraError("--engine ray needs: pip install 'tagger[ray]'") from error
    with RayCluster(settings) as cluster:
        yield cluster.listen
