"""Where the network runs: one function per engine, each with the same shape."""

from collections.abc import Iterable, Iterator
from typing import Protocol, assert_never

from tagger.models import Source
from tagger.records import Failure, Prediction, Track
from tagger.settings import Engine, Settings


class Listen(Protocol):
    """Yields what a model hears in tracks, in the order given.

    `shortest_s`: less sound than this is a Failure; `timeline`: each window's scores as well.
    """

    def __call__(
        self,
        tracks: Iterable[Track],
        source: Source,
        settings: Settings,
        *,
        shortest_s: float = ...,
        timeline: bool = ...,
    ) -> Iterator[Prediction | Failure]: ...


def open_engine(engine: Engine) -> Listen:
    """Return the engine, importing what it needs only now."""
    match engine:
        case Engine.LOCAL:
            from tagger.engines.local import listen

            return listen
    assert_never(engine)
