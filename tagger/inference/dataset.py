"""Tracks to network inputs in worker processes; a bad file is a value and costs no one else."""

import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset

from tagger.audio import read_windows
from tagger.errors import TrackError, WorkerError
from tagger.models.checkpoint import Extractor, Inputs
from tagger.records import Failure, Track


@dataclass(frozen=True, slots=True)
class Sample:
    """The windows of one track as network inputs; the first axis of each tensor counts them."""

    track: Track
    duration_s: float
    inputs: Inputs

    @property
    def windows(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def shape(self) -> tuple[tuple[str, torch.Size], ...]:
        """What two samples must have in common to share a batch without any padding."""
        return tuple((name, tensor.shape[1:]) for name, tensor in self.inputs.items())


class TrackDataset(Dataset[Sample | Failure]):
    """Looked up by Track, not by number: so the tracks can stream through the loader's sampler."""

    def __init__(self, extractor: Extractor, *, windows: int) -> None:
        self.extractor = extractor
        self.windows = windows

    def __getitem__(self, track: Track) -> Sample | Failure:
        try:
            recording = read_windows(
                track.path,
                rate_hz=self.extractor.rate_hz,
                window_s=self.extractor.window_s,
                count=self.windows,
            )
        except TrackError as error:
            return Failure(track, str(error), lasting=error.lasting)
        return Sample(track, recording.duration_s, self.extractor(recording.windows))


def load_tracks(
    dataset: TrackDataset, tracks: Iterable[Track], *, jobs: int
) -> Iterator[Sample | Failure]:
    """Decode in `jobs` processes, ahead of the network by a few tracks, in the order given.

    Raises WorkerError where one of the processes dies.
    """
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=tracks,
        num_workers=jobs,
        worker_init_fn=_start_worker,
    )
    try:
        yield from loader
    except RuntimeError as error:
        raise WorkerError(f"a decoding process died: {error}") from error


def choose_jobs(jobs: int | None) -> int:
    """Return the number of decoding processes; `auto` leaves one core to the network."""
    return jobs or max(1, len(os.sched_getaffinity(0)) - 1)


def _start_worker(_number: int) -> None:
    """Leave signals that end the run to the main process, and one thread to each worker."""
    os.setsid()  # out of reach of the terminal's Ctrl-C and of a TERM to the whole group
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
