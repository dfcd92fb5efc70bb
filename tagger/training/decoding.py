"""Clips as decoded windows on the disk, so that memory does not grow with the data set."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from tagger.audio import read_windows
from tagger.errors import DiskFullError, ReportError
from tagger.inference.dataset import IsolatedDataset, choose_jobs, load_tracks
from tagger.isolation import get_call_limits
from tagger.models.checkpoint import WindowExtractor
from tagger.paths import display_path
from tagger.records import Failure, Track
from tagger.settings import Settings
from tagger.training.fingerprints import compute_fingerprint

FINGERPRINT_DURATION_S = 30.0
"""How much of a clip's middle the search for the same recording goes by."""

CROP_SOURCE_S = 120.0
"""Random crops come out of so much in the middle of a track."""

CACHE_FORMAT = 1
"""To be raised whenever another decoder, resampler or fingerprint would fill the cache."""

FINGERPRINT_RATE_HZ = 16_000

Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """Which windows of a clip are decoded: at most `count` of `window_s` each."""

    rate_hz: int
    window_s: float
    count: int


@dataclass(frozen=True, slots=True)
class DecodedClip:
    """A clip's windows: a file with a float32 array (windows, samples) at the plan's rate.

    fingerprint: of the clip's middle, as `recordings.fingerprint` makes it.
    """

    track: Track
    file: Path
    windows: int
    fingerprint: NDArray[np.uint32]


class DecodingDataset(IsolatedDataset[DecodedClip]):
    """Tracks to decoded windows, in files that stay in `cache`."""

    def __init__(self, plan: DecodePlan, cache: Path, settings: Settings) -> None:
        super().__init__(get_call_limits(settings))
        self.plan = plan
        self.cache = cache

    def load(self, track: Track) -> DecodedClip:
        plan = self.plan
        file = (os.fsencode(track.path), track.size, track.mtime_ns, track.inode)
        name = hashlib.sha256(f"{CACHE_FORMAT} {file} {plan}".encode()).hexdigest()
        windows, prints = self.cache / f"{name}.npy", self.cache / f"{name}.print.npy"
        count = len(_load_or_make(windows, lambda: np.stack(self._read(track, plan))))
        middle = DecodePlan(FINGERPRINT_RATE_HZ, FINGERPRINT_DURATION_S, 1)
        found = _load_or_make(
            prints, lambda: compute_fingerprint(self._read(track, middle)[0], FINGERPRINT_RATE_HZ)
        )
        return DecodedClip(track, windows, count, np.array(found))

    def _read(self, track: Track, plan: DecodePlan) -> Sequence[Samples]:
        return self.isolated.call(
            read_windows,
            track.path,
            rate_hz=plan.rate_hz,
            window_s=plan.window_s,
            count=plan.count,
        ).windows


def _load_or_make(path: Path, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """Return the array in a file, making it where there is none, or what a power cut left of it."""
    with suppress(OSError, ValueError, EOFError):
        return cast("NDArray[Any]", np.load(path, mmap_mode="r"))
    _save_array(path, make())
    return cast("NDArray[Any]", np.load(path, mmap_mode="r"))


def _save_array(path: Path, values: NDArray[Any]) -> None:
    """Write an array, whole or not at all. Raises DiskFullError."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            np.save(file, values)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DiskFullError(
            f"cannot keep decoded sound in {display_path(path.parent)}: {error.strerror}"
        ) from error


def decode_clips(
    tracks: Iterable[Track], plan: DecodePlan, cache: Path, settings: Settings
) -> Iterator[DecodedClip | Failure]:
    """Decode tracks in other processes, in the order given; what `cache` has is not done again.

    Raises ReportError where `cache` cannot be made, DiskFullError where it gets too full.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(f"cannot make {display_path(cache)}: {error.strerror}") from error
    dataset = DecodingDataset(plan, cache, settings)
    jobs = choose_jobs(settings.jobs, slow=False)
    yield from load_tracks(dataset, tracks, jobs=jobs)


@dataclass(frozen=True, slots=True)
class Segment:
    """One example: a window of a clip, and the number of the clip's label."""

    file: Path
    window: int
    label: int


class SegmentDataset(Dataset[dict[str, Any]]):
    """Segments as a network's inputs, without the axis of the batch, and `labels`.

    `crop_s`: take as much from anywhere in the window, elsewhere in each epoch. What is drawn
    depends on seed, epoch and segment alone, so that a training can be resumed.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        extractor: WindowExtractor,
        *,
        crop_s: float | None = None,
        seed: int = 0,
    ) -> None:
        self.segments = segments
        self.extractor = extractor
        self.crop = None if crop_s is None else round(crop_s * extractor.rate_hz)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Note the epoch; accelerate calls this before each."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.segments)

    def __getitem__(self, index: int) -> dict[str, Any]:
        segment = self.segments[index]
        samples = np.load(segment.file, mmap_mode="r")[segment.window]
        if self.crop is not None and samples.size > self.crop:
            chance = np.random.default_rng((self.seed, self.epoch, index))
            start = int(chance.integers(samples.size - self.crop + 1))
            samples = samples[start : start + self.crop]
        inputs = self.extractor([np.array(samples)])
        return {name: tensor[0] for name, tensor in inputs.items()} | {"labels": segment.label}


class SegmentCollator:
    """Examples to a batch; where inputs differ in length the feature extractor pads them."""

    def __init__(self, extractor: WindowExtractor) -> None:
        self.pad = extractor.feature_extractor.pad  # type: ignore[attr-defined]

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        labels = torch.tensor([example["labels"] for example in examples])
        inputs = [{k: v for k, v in example.items() if k != "labels"} for example in examples]
        shapes = {tuple(tensor.shape for tensor in each.values()) for each in inputs}
        if len(shapes) == 1:
            batch = {name: torch.stack([each[name] for each in inputs]) for name in inputs[0]}
        else:
            batch = dict(self.pad(inputs, padding=True, return_tensors="pt"))
        return batch | {"labels": labels}
