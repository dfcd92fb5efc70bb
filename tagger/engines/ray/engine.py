"""The same stages on the nodes of a Ray cluster; the run itself, with its state, stays here.

Ray's tasks and actors are used and not Ray Data, its layer for tables: that one cannot tell which
row a worker died of, tries it again for ever or gives up on the table, and takes no rows that are
still being found.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack, closing
from functools import partial
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

import ray
from ray.exceptions import RayError

from tagger import __version__
from tagger.engines import Hearing
from tagger.engines.ray.cluster import (
    STALL_S,
    Shares,
    check_version,
    connected,
    errors_told,
    nodes,
    root,
    share_out,
    told,
)
from tagger.errors import SettingsError
from tagger.records import Failure, Prediction, Track
from tagger.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")

FEWEST_WRITES = 8


class RayCluster:
    """A worksite on a cluster, connected to when there is something to do; also its Hands."""

    outlive = True

    def __init__(self, settings: Settings) -> None:
        """Raise SettingsError for a device that is one of this machine alone."""
        if ":" in settings.device:
            raise SettingsError("--device cuda:N is for one machine: Ray hands out its GPUs")
        self.settings = settings
        self.shares: Shares | None = None
        self.stack = ExitStack()
        self.calling = ray.remote(call).options(num_cpus=1, max_retries=0)
        self.see_to_room: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stack.close()

    def connect(self) -> Shares:
        """Be a driver of the cluster and share it out, once. Raises ClusterError."""
        if self.shares is None:
            self.stack.enter_context(connected(self.settings.ray_address))
            self.shares = share_out(nodes(), self.settings)
        return self.shares

    def listen(self, tracks: Iterable[Track], hearing: Hearing) -> Iterator[Prediction | Failure]:
        """Hear the tracks; a `Listen`. Raises ClusterError where the cluster is not to be had."""
        shares = self.connect()
        from tagger.engines.ray.listening import Listening  # with it comes torch

        with errors_told(), closing(Listening(hearing, shares)) as listening:
            self.stack.callback(listening.close)  # sooner than a generator that nobody ends
            self.see_to_room = listening.predictors.make_room
            yield from listening.listen(tracks)

    def get_ready(self) -> None:
        self.connect()

    @property
    def most(self) -> int:
        return max(FEWEST_WRITES, 2 * self.shares.left) if self.shares else FEWEST_WRITES

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        with errors_told():
            remote = self.calling.remote(__version__, function, args, kwargs)
            remote.future().add_done_callback(partial(_pass_on, future))
        return future

    def await_end(self, future: Future[T]) -> None:
        while not wait([future], STALL_S).done:
            with errors_told():
                self.see_to_room()


def call(version: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Call a function: what a worker does that is handed one. Raises ClusterError."""
    check_version(version)
    return function(*args, **kwargs)


def _pass_on(future: Future[T], done: Future[T]) -> None:
    """Tell a future what came of the call: what it returned, raised, or was lost with."""
    error = done.exception()
    if error is None:
        future.set_result(done.result())
        return
    cause = root(error)
    future.set_exception(told(cause) if isinstance(cause, RayError) else cause)
