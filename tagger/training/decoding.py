"""Clips as decoded windows on disk, so that memory does not grow with the data set."""

import hashlib
import io
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

from tagger.audio import Samples, read_windows
from tagger.errors import DecodeError, DiskFullError, ReportError
from tagger.inference.dataset import IsolatedDataset, choose_jobs, load_tracks
from tagger.isolation import get_call_limits
from tagger.models.classifier import WindowFeatureExtractor
from tagger.paths import display_path, write_file_whole
from tagger.records import Failure, Track
from tagger.settings import Settings
from tagger.training.fingerprints import Fingerprint, compute_fingerprint

FINGERPRINT_DURATION_S = 30.0
"""The fingerprint covers this much of the middle of a clip."""

FINGERPRINT_RATE_HZ = 16_000

CROP_SOURCE_S = 120.0
"""Random crops are cut from this much of the middle of a track."""

CACHE_FORMAT = 1
"""Raise this number when another decoder, resampler or fingerprint changes what the cache holds."""


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """Which windows of a clip are decoded: at most `count`, each `window_s` long."""

    rate_hz: int
    window_s: float
    count: int

    def __str__(self) -> str:
        # A part of the file names in the cache. Version 0.1.0 wrote these very words.
        return f"Plan(rate_hz={self.rate_hz}, window_s={self.window_s}, count={self.count})"


@dataclass(frozen=True, slots=True)
class DecodedClip:
    """The windows of a clip.

    file: an .npy file with a float32 array (windows, samples) at the rate of the plan.
    fingerprint: that of the middle of the clip, as `compute_fingerprint` makes it. It has no words
    where the middle is silent or damaged.
    """

    track: Track
    file: Path
    windows: int
    fingerprint: Fingerprint


class DecodingDataset(IsolatedDataset[DecodedClip]):
    """Turns tracks into decoded windows, in files that stay in the folder `cache`."""

    def __init__(self, plan: DecodePlan, cache: Path, settings: Settings) -> None:
        super().__init__(get_call_limits(settings))
        self.plan = plan
        self.cache = cache

    def load(self, track: Track) -> DecodedClip:
        path = self._name_file(track, self.plan, ".npy")
        windows = _load_or_create(path, lambda: np.stack(self._read(track, self.plan)))
        return DecodedClip(track, path, len(windows), self._load_fingerprint(track))

    def _load_fingerprint(self, track: Track) -> Fingerprint:
        middle = DecodePlan(FINGERPRINT_RATE_HZ, FINGERPRINT_DURATION_S, 1)
        try:
            fingerprint = _load_or_create(
                self._name_file(track, middle, ".print.npy"),
                lambda: compute_fingerprint(self._read(track, middle)[0], FINGERPRINT_RATE_HZ),
            )
        except DecodeError:
            return np.zeros(0, np.uint32)
        return np.array(fingerprint)

    def _name_file(self, track: Track, plan: DecodePlan, suffix: str) -> Path:
        """Return the file in the cache for what is decoded of a track by this plan."""
        file = (os.fsencode(track.path), track.size, track.mtime_ns, track.inode)
        key = hashlib.sha256(f"{CACHE_FORMAT} {file} {plan}".encode()).hexdigest()
        return self.cache / f"{key}{suffix}"

    def _read(self, track: Track, plan: DecodePlan) -> Sequence[Samples]:
        return self.isolated.call(
            read_windows,
            track.path,
            rate_hz=plan.rate_hz,
            window_s=plan.window_s,
            count=plan.count,
        ).windows


def _load_or_create(path: Path, create: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """Load an array. Create and save it if there is no file, or a power cut left a damaged one.

    Raises DiskFullError.
    """
    with suppress(OSError, ValueError, EOFError):
        return cast("NDArray[Any]", np.load(path, mmap_mode="r"))
    content = io.BytesIO()
    np.save(content, create())
    try:
        write_file_whole(path, content.getvalue())
    except OSError as error:
        raise DiskFullError(
            f"cannot keep decoded sound in {display_path(path.parent)}: {error.strerror}"
        ) from error
    return cast("NDArray[Any]", np.load(path, mmap_mode="r"))


def decode_clips(
    tracks: Iterable[Track], plan: DecodePlan, cache: Path, settings: Settings
) -> Iterator[DecodedClip | Failure]:
    """Decode tracks in other processes, in the order given. Reuse the files in `cache`.

    Raises ReportError if the folder cannot be made, DiskFullError if the disk is full.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(f"cannot make {display_path(cache)}: {error.strerror}") from error
    dataset = DecodingDataset(plan, cache, settings)
    jobs = choose_jobs(settings.jobs, slow=False, max_memory_mib=settings.max_memory)
    yield from load_tracks(dataset, tracks, jobs=jobs)


@dataclass(frozen=True, slots=True)
class Segment:
    """One example: a window of a clip, and the number of the clip's label."""

    file: Path
    window: int
    label: int


class SegmentDataset(Dataset[dict[str, Any]]):
    """Segments as inputs of a network, without the batch axis, and `labels`.

    crop_s: cut this much from a random place of the window, from another place in each epoch. The
    place depends on seed, epoch and segment only, so that a training can be resumed.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        extractor: WindowFeatureExtractor,
        *,
        crop_s: float | None = None,
        seed: int = 0,
    ) -> None:
        self.segments = segments
        self.extractor = extractor
        self.crop_size = None if crop_s is None else round(crop_s * extractor.rate_hz)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch. accelerate calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.segments)

    def __getitem__(self, index: int) -> dict[str, Any]:
        segment = self.segments[index]
        samples = np.load(segment.file, mmap_mode="r")[segment.window]
        if self.crop_size is not None and samples.size > self.crop_size:
            random = np.random.default_rng((self.seed, self.epoch, index))
            start = int(random.integers(samples.size - self.crop_size + 1))
            samples = samples[start : start + self.crop_size]
        inputs = self.extractor([np.array(samples)])
        return {name: tensor[0] for name, tensor in inputs.items()} | {"labels": segment.label}


class SegmentCollator:
    """Makes a batch of examples. The feature extractor pads inputs of different lengths."""

    def __init__(self, extractor: WindowFeatureExtractor) -> None:
        self.pad = extractor.feature_extractor.pad  # type: ignore[attr-defined]

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return each input of the network with a first axis for the examples, and labels (n,)."""
        labels = torch.tensor([example["labels"] for example in examples])
        inputs = [{k: v for k, v in example.items() if k != "labels"} for example in examples]
        shapes = {tuple(tensor.shape for tensor in values.values()) for values in inputs}
        if len(shapes) == 1:
            batch = {name: torch.stack([values[name] for values in inputs]) for name in inputs[0]}
        else:
            batch = dict(self.pad(inputs, padding=True, return_tensors="pt"))
        return batch | {"labels": labels}
