"""Load tracks as network inputs in worker processes.

Each worker has a smaller process that decodes. A file that crashes the decoder costs that process
and one Failure; the worker, its batch and all other tracks go on.
"""

import os
import signal
import sys
import warnings
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar, cast

import torch
from torch.utils.data import DataLoader, Dataset

from tagger.audio import MIN_DURATION_S, read_windows
from tagger.errors import TaggerError, TrackError
from tagger.inference.engine import keep_signal_handlers
from tagger.isolation import BYTES_PER_MIB, CallLimits, IsolatedCaller, get_fork_server
from tagger.models.classifier import ModelInputs, WindowFeatureExtractor, use_one_thread
from tagger.pacing import (
    count_usable_cores,
    halve_cores,
    keep_niceness_in_new_session,
    measure_usable_memory,
)
from tagger.records import Failure, Track

T_co = TypeVar("T_co", covariant=True)

MAX_JOBS_FOR_SLOW_MODEL = 2
"""Decoding processes that keep up with any network with long inputs on a CPU."""

START_METHOD = "fork" if sys.platform == "linux" else None
"""How workers start. The process of the demo is spawned, and would spawn its workers too. A spawned
worker imports torch again, which takes five seconds for each song."""


@dataclass(frozen=True, slots=True)
class TrackInputs:
    """The windows of one track as network inputs; the first axis of each tensor counts windows."""

    track: Track
    duration_s: float
    starts_s: tuple[float, ...]
    inputs: ModelInputs

    def copy_to_own_memory(self) -> "TrackInputs":
        """Return a copy outside the workers' shared memory, which costs a file descriptor each."""
        inputs = {name: tensor.clone() for name, tensor in self.inputs.items()}
        return replace(self, inputs=inputs)

    @property
    def window_count(self) -> int:
        return len(self.starts_s)

    @property
    def window_shapes(self) -> tuple[tuple[str, torch.Size], ...]:
        """The shape of each input of one window; tracks that share a batch have the same."""
        return tuple((name, tensor.shape[1:]) for name, tensor in self.inputs.items())


@dataclass(frozen=True, slots=True)
class WindowRequest:
    """Which windows of a track to read. count: None means as many as suit the model."""

    count: int | None = None
    min_duration_s: float = MIN_DURATION_S


class IsolatedDataset(Dataset[T_co | Failure]):
    """A data set indexed by Track, not by number: tracks can stream through the loader's sampler.

    A track that cannot be loaded is a Failure, because an error that leaves a worker ends the run.
    """

    def __init__(self, limits: CallLimits) -> None:
        self.isolated = IsolatedCaller(limits)  # a worker of the loader starts its own processes

    def __getitem__(self, track: Track) -> T_co | Failure:
        try:
            return self.load(track)
        except TrackError as error:
            return Failure.from_error(track, error)
        except TaggerError:
            raise
        except Exception as error:  # noqa: BLE001 - an error that leaves a worker ends the run
            reason = f"unexpected error while it was decoded: {error!r}"
            return Failure(track, reason, permanent=False)

    @abstractmethod
    def load(self, track: Track) -> T_co:
        """Return the item of a track; read the file through `isolated`. Raises TrackError."""


class TrackDataset(IsolatedDataset[TrackInputs]):
    """Tracks as network inputs."""

    def __init__(
        self, extractor: WindowFeatureExtractor, request: WindowRequest, limits: CallLimits
    ) -> None:
        super().__init__(limits)
        self.extractor = extractor
        self.request = request

    def load(self, track: Track) -> TrackInputs:
        recording = self.isolated.call(
            read_windows,
            track.path,
            rate_hz=self.extractor.rate_hz,
            window_s=self.extractor.window_s,
            count=self.request.count or self.extractor.window_count,
            shortest_s=self.request.min_duration_s,
        )
        inputs = self.extractor(recording.windows)
        return TrackInputs(track, recording.duration_s, recording.starts_s, inputs)


def load_tracks(
    dataset: IsolatedDataset[T_co], tracks: Iterable[Track], *, jobs: int
) -> Iterator[T_co | Failure]:
    """Load tracks in `jobs` processes, a few tracks ahead of the network, in the order given."""
    get_fork_server()  # the workers of the loader are forks of this process, and share it
    # When a worker dies, torch's signal handler raises in the main thread wherever that is, even
    # inside a commit. Without the handler, the loader notices the death when it waits for a worker.
    with (
        keep_signal_handlers(signal.SIGCHLD),
        warnings.catch_warnings(action="ignore"),  # the user may ask for more jobs than cores
    ):
        loader = DataLoader(
            dataset,
            batch_size=None,
            sampler=tracks,
            num_workers=jobs,
            worker_init_fn=start_worker,
            multiprocessing_context=START_METHOD,
        )
        iterator = iter(loader)
    for loaded in iterator:
        with use_one_thread():
            item = loaded.copy_to_own_memory() if isinstance(loaded, TrackInputs) else loaded
        yield cast("T_co | Failure", item)


def choose_jobs(jobs: int | None, *, slow: bool, max_memory_mib: int, gentle: bool = False) -> int:
    """Return the number of decoding processes; `auto` (None) leaves one core to the network.

    slow: the network is slow. More than two processes would only wait for it, and each takes
    0.2 GB. max_memory_mib: what one process may take; all together get no more than there is.
    gentle: use half of the cores.
    """
    if jobs:
        return jobs
    cores = halve_cores(count_usable_cores()) if gentle else count_usable_cores()
    by_memory = measure_usable_memory() // (max_memory_mib * BYTES_PER_MIB)
    return max(1, min(cores - 1, by_memory, MAX_JOBS_FOR_SLOW_MODEL if slow else cores))


def start_worker(_worker_id: int) -> None:
    """Prepare a worker process: one thread, and signals that end the run go to the main process."""
    os.setsid()  # the terminal's Ctrl-C and a TERM to the whole process group do not arrive here
    keep_niceness_in_new_session()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
