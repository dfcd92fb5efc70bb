"""The same stages on the nodes of a Ray cluster; the run itself, with its state, stays here.

Ray's tasks and actors are used and not Ray Data, its layer for tables: that one cannot tell which
row a worker died of, tries it again for ever or gives up on the table, and takes no rows that are
still being found.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Self

from tagger.engines import Hearing
from tagger.engines.ray.cluster import (
    Shares,
    connected,
    errors_told,
    nodes,
    share_out,
)
from tagger.errors import SettingsError
from tagger.records import Failure, Prediction, Track
from tagger.settings import Settings


class RayCluster:
    """An engine on a cluster, connected to when there is something to do."""

    def __init__(self, settings: Settings) -> None:
        """Raise SettingsError for a device that is one of this machine alone."""
        if ":" in settings.device:
            raise SettingsError("--device cuda:N is for one machine: Ray hands out its GPUs")
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
            yield from listening.listen(tracks)
