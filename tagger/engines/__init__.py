"""Where the network runs: on this machine, or on the nodes of a cluster."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import assert_never

from tagger.audio import SHORTEST_S
from tagger.errors import MissingExtraError
from tagger.models import Source
from tagger.records import Failure, Prediction, Track
from tagger.settings import Engine, Settings


def unchecked() -> None:
    """Let a run go on."""


@dataclass(frozen=True, slots=True)
class Hearing:
    """By what model, and how, tracks are to be heard.

    source: the model, which `fetch` has seen to. shortest_s: less sound than this is a Failure.
    timeline: each window's scores are wanted as well. check: raises what is to end the run; called
    where it may take minutes until there is a result.
    """

    source: Source
    settings: Settings
    shortest_s: float = SHORTEST_S
    timeline: bool = False
    check: Callable[[], None] = unchecked


Listen = Callable[[Iterable[Track], Hearing], Iterator[Prediction | Failure]]
"""Yields what a model hears in each track, or why it heard nothing, in the order given.

Raises ModelError where the model cannot be loaded, the device is not there or its memory is too
small, WorkerError where the processes that do the work do not stay alive.
"""


@contextmanager
def open_engine(settings: Settings) -> Iterator[Listen]:
    """Give the engine that was asked for. Raises MissingExtraError."""
    match settings.engine:
        case Engine.LOCAL:
            yield _listen_here
        case Engine.RAY:
            with _ray(settings) as listen:
                yield listen
        case _:
            assert_never(settings.engine)


def _listen_here(tracks: Iterable[Track], hearing: Hearing) -> Iterator[Prediction | Failure]:
    from tagger.engines.local import listen  # with it comes torch

    yield from listen(tracks, hearing)


@contextmanager
def _ray(settings: Settings) -> Iterator[Listen]:
    try:
        from tagger.engines.ray.engine import RayCluster
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise MissingExtraError("--engine ray needs: pip install 'tagger[ray]'") from error
    with RayCluster(settings) as cluster:
        yield cluster.listen
