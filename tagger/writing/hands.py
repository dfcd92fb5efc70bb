"""Who replaces the tags of files: threads of this process, or whoever else can be handed a call."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

from tagger.priority import cores

P = ParamSpec("P")
T = TypeVar("T")

FEWEST_THREADS = 2
CORES_A_THREAD = 4
"""Writing takes a seventh of the time of listening; a thread mostly waits for its process."""


class Hands(Protocol):
    """Carries out calls beside the run that hands them out.

    A call may be pickled, and may happen on another machine that sees the same files. Where the
    process that was at it died, its future raises LostWorkerError; no call is made a second time
    without being submitted again.
    """

    @property
    def outlive(self) -> bool:
        """Tell whether a call may go on for a while when this process has ended."""
        ...

    def get_ready(self) -> None:
        """Do what has to be done before the first call. Raises TaggerError where it cannot be."""
        ...

    @property
    def most(self) -> int:
        """Return how many files at once may be between journal and rename."""
        ...

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a function called. Raises TaggerError where nobody can be had for that."""
        ...

    def await_end(self, future: Future[T]) -> None:
        """Wait until a call that was submitted is over, however it ends."""
        ...


class Threads(ThreadPoolExecutor):
    """Hands that are threads of this process."""

    outlive = False

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.most = 2 * count

    def get_ready(self) -> None:
        """Be ready at once."""

    def await_end(self, future: Future[T]) -> None:
        wait([future])


@dataclass(frozen=True, slots=True)
class Crew:
    """All hands of a run: its own threads, and those that it sends, which may be the same."""

    own: Hands
    sent: Hands

    @property
    def most(self) -> int:
        """Return how many files at once may be between journal and rename."""
        return max(self.own.most, self.sent.most)


@contextmanager
def open_threads(*, gentle: bool) -> Iterator[Hands]:
    count = 1 if gentle else max(FEWEST_THREADS, cores() // CORES_A_THREAD)
    with Threads(count) as threads:
        yield threads
