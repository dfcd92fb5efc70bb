"""Where the network runs: one function per engine, each with the same shape."""

from collections.abc import Callable, Iterable, Iterator
from typing import assert_never

from tagger.models import Source
from tagger.records import Failure, Prediction, Track
from tagger.settings import Engine, Settings

Listen = Callable[[Iterable[Track], Source, Settings], Iterator[Prediction | Failure]]


def open_engine(engine: Engine) -> Listen:
    """Return the engine, importing what it needs only now."""
    match engine:
        case Engine.LOCAL:
            from tagger.engines.local import listen

            return listen
    assert_never(engine)
