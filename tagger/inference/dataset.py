"""Tracks to network inputs in worker processes; a bad file is a value and costs no one else.

Each worker has a smaller process of its own that decodes: a file that crashes it takes no worker,
no batch and no other track along.
"""

import os
import signal
import warnings
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar, cast

import torch
from torch.utils.data import DataLoader, Dataset

from tagger.audio import MIN_DURATION_S, read_windows
from tagger.errors import TaggerError, TrackError
from tagger.isolation import CallLimits, IsolatedCaller
from tagger.models.extractor import ModelInputs, WindowExtractor
from tagger.models.runtime import use_one_thread
from tagger.pacing import count_usable_cores, halve_cores, keep_niceness_in_new_session
from tagger.records import Failure, Track

T_co = TypeVar("T_co", covariant=True)

MAX_JOBS_FOR_SLOW_MODEL = 2
"""Processes that keep up with any network whose inputs are long, on a CPU."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The windows of one track as network inputs; the first axis of each tensor counts them."""

    track: Track
    duration_s: float
    starts_s: tuple[float, ...]
    inputs: ModelInputs

    def owned(self) -> "Sample":
        """Return a copy outside the workers' shared memory, which costs a file descriptor each."""
        inputs = {name: tensor.clone() for name, tensor in self.inputs.items()}
        return replace(self, inputs=inputs)

    @property
    def windows(self) -> int:
        return len(self.starts_s)

    @property
    def shape(self) -> tuple[tuple[str, torch.Size], ...]:
        """What two samples must have in common to share a batch without any padding."""
        return tuple((name, tensor.shape[1:]) for name, tensor in self.inputs.items())


@dataclass(frozen=True, slots=True)
class WindowRequest:
    """What is to be heard of a track: so many windows at most, or as many as suit the model."""

    windows: int | None = None
    shortest_s: float = MIN_DURATION_S


class IsolatedDataset(Dataset[T_co | Failure]):
    """Looked up by Track, not by number: so the tracks can stream through the loader's sampler."""

    def __init__(self, limits: CallLimits) -> None:
        self.isolated = IsolatedCaller(
            limits
        )  # empty until the first call, which a loader worker makes

    def __getitem__(self, track: Track) -> T_co | Failure:
        try:
            return self.load(track)
        except TrackError as error:
            return Failure.from_error(track, error)
        except TaggerError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever leaves a worker ends the whole run
            reason = f"unexpected error while it was decoded: {error!r}"
            return Failure(track, reason, permanent=False)

    @abstractmethod
    def load(self, track: Track) -> T_co:
        """Return what is wanted of a track; reads it through `isolated`. Raises TrackError."""


class TrackDataset(IsolatedDataset[Sample]):
    """Tracks to network inputs."""

    def __init__(
        self, extractor: WindowExtractor, wanted: WindowRequest, limits: CallLimits
    ) -> None:
        super().__init__(limits)
        self.extractor = extractor
        self.wanted = wanted

    def load(self, track: Track) -> Sample:
        recording = self.isolated.call(
            read_windows,
            track.path,
            rate_hz=self.extractor.rate_hz,
            window_s=self.extractor.window_s,
            count=self.wanted.windows or self.extractor.windows,
            shortest_s=self.wanted.shortest_s,
        )
        inputs = self.extractor(recording.windows)
        return Sample(track, recording.duration_s, recording.starts_s, inputs)


def load_tracks(
    dataset: IsolatedDataset[T_co], tracks: Iterable[Track], *, jobs: int
) -> Iterator[T_co | Failure]:
    """Decode in `jobs` processes, ahead of the network by a few tracks, in the order given."""
    with warnings.catch_warnings(action="ignore"):  # of more jobs than cores, which is asked for
        loader = DataLoader(
            dataset,
            batch_size=None,
            sampler=tracks,
            num_workers=jobs,
            worker_init_fn=start_worker,
        )
        samples = iter(loader)
    # torch would raise in whatever this thread is doing when a worker dies, be it a commit. Without
    # its handler the loader notices it where it waits for the worker.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for sample in samples:
        with use_one_thread():
            owned = sample.owned() if isinstance(sample, Sample) else sample
        yield cast("T_co | Failure", owned)


def choose_jobs(jobs: int | None, *, slow: bool, gentle: bool = False) -> int:
    """Return the number of decoding processes; `auto` leaves one core to the network.

    Before a slow network more than two would only wait for it, and each takes 0.2 GB. A gentle run
    has half of the cores.
    """
    if jobs:
        return jobs
    allowed = halve_cores(count_usable_cores()) if gentle else count_usable_cores()
    return max(1, min(allowed - 1, MAX_JOBS_FOR_SLOW_MODEL if slow else allowed))


def start_worker(_number: int) -> None:
    """Leave signals that end the run to the main process, and one thread to each worker."""
    os.setsid()  # out of reach of the terminal's Ctrl-C and of a TERM to the whole group
    keep_niceness_in_new_session()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
