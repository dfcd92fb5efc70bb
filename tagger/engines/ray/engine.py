"""The same stages on the nodes of a Ray cluster; the run itself, with its state, stays here.

Ray's tasks and actors are used and not Ray Data, its layer for tables: that one cannot tell which
row a worker died of, tries it again for ever or gives up on the table, and takes no rows that are
still being found.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing
from functools import partial
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

import ray

from tagger.engines import Hearing
from tagger.engines.ray.cluster import Shares, connected, nodes, share_out, told
from tagger.records import Failure, Prediction, Track
from tagger.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")

FEWEST_WRITES = 8


class RayCluster:
    """A worksite on a cluster, connected to when there is something to do; also its Hands."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.shares: Shares | None = None
        self.stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stack.close()

    def _connect(self) -> Shares:
        if self.shares is None:
            self.stack.enter_context(connected(self.settings.ray_address))
            self.shares = share_out(nodes(), self.settings)
            self.call = ray.remote(call).options(num_cpus=1, max_retries=0)
        return self.shares

    def listen(self, tracks: Iterable[Track], hearing: Hearing) -> Iterator[Prediction | Failure]:
        """Hear the tracks; a `Listen`. Raises ClusterError where the cluster is not to be had."""
        shares = self._connect()
        from tagger.engines.ray.listening import Listening  # with it comes torch

        with closing(Listening(hearing, shares)) as listening:
            self.stack.callback(listening.close)  # sooner than a generator that nobody ends
            yield from listening.listen(tracks)

    outlive = True

    @property
    def most(self) -> int:
        return max(FEWEST_WRITES, 2 * self._connect().left)

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        self._connect()
        future: Future[T] = Future()
        remote = self.call.remote(function, args, kwargs)
        remote.future().add_done_callback(partial(_pass_on, future))
        return future


def call(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Call a function: what a worker does that is handed one."""
    return function(*args, **kwargs)


def _pass_on(future: Future[T], done: Future[T]) -> None:
    """Tell a future what came of the call, in our own errors."""
    error = done.exception()
    if error is None:
        future.set_result(done.result())
    else:
        future.set_exception(told(error))
