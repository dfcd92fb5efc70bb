"""The barest ways to do the unavoidable part of a stage, as tasks that the suite runs."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import CORES, MIB, walk
from tests.benchmarks.stages import (
    Task,
    choose_mode,
    find_tracks,
    load_bundled,
    load_window_plan,
    spread,
    spread_threads,
)

MAX_COLUMNS = 512
"""Matrices of a product have no more columns, so that they stay in the processor's cache."""


def walking(library: Path) -> Task:
    return partial(walk, library)


def read_twice(path: Path) -> None:
    buffer = bytearray(MIB)
    for _ in range(2):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def reading(library: Path) -> Task:
    pool = ThreadPoolExecutor(CORES)
    return lambda: list(pool.map(read_twice, library.iterdir()))


def copy_whole(path: Path) -> None:
    """Copy a file, wait for the disk, and rename the copy over the file."""
    copy = path.with_name(f".{path.name}.part")
    shutil.copyfile(path, copy)
    with copy.open("rb") as file:
        os.fsync(file.fileno())
    copy.replace(path)


def copying(library: Path) -> Task:
    pool = ThreadPoolExecutor(CORES)
    return lambda: list(pool.map(copy_whole, library.iterdir()))


def decode_bare(plan: Mapping[str, Any], path: Path) -> object:
    """Decode the same windows by PyAV, look at no sample, and resample nothing."""
    import av

    from tagger.audio import plan_windows

    frames = 0
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        duration_s = float(container.duration or 0) / av.time_base
        for start_s in plan_windows(duration_s, plan["window_s"], plan["count"]):
            container.seek(round(start_s * av.time_base))
            for frame in container.decode(stream):
                frames += 1
                if (frame.time or 0) + frame.samples / frame.rate >= start_s + plan["window_s"]:
                    break
    return frames


def decoding_bare(library: Path) -> Task:
    return spread(partial(decode_bare, load_window_plan()), sorted(library.iterdir()))


def decoding_whole(library: Path) -> Task:
    """Decode whole files by the command ffmpeg, one file on each core."""
    ffmpeg = ["ffmpeg", "-v", "error", "-nostdin", "-threads", "1", "-i"]
    pool = ThreadPoolExecutor(CORES)

    def decode(path: Path) -> None:
        subprocess.run([*ffmpeg, str(path), "-map", "0:a", "-f", "null", "-"], check=True)

    return lambda: list(pool.map(decode, library.iterdir()))


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix (rows, inner) times a matrix (inner, columns)."""

    rows: int
    inner: int
    columns: int


def list_musicnn_products() -> Iterator[Product]:
    """Yield the products of musicnn for one window, as the paper has the layers."""
    from tagger.models.musicnn.configuration import MusicnnArchitecture

    config = MusicnnArchitecture()
    frames, bands = config.patch_frames, config.num_mel_bins
    size = len(config.timbral_bands) * config.timbral_filters
    size += len(config.temporal_frames) * config.temporal_filters
    pooled = 2 * (size + config.midend_layers * config.midend_filters)
    for tags in config.towers.values():
        for height in config.timbral_bands:
            taps, positions = height * config.timbral_frames, bands - height + 1
            yield Product(config.timbral_filters, taps, positions * frames)
        for taps in config.temporal_frames:
            yield Product(config.temporal_filters, taps, bands * frames)
        for layer in range(config.midend_layers):
            channels = config.midend_filters if layer else size
            yield Product(config.midend_filters, channels * config.midend_frames, frames)
        yield Product(config.embedding_size, pooled, 1)
        yield Product(len(tags), config.embedding_size, 1)


def list_yamnet_products() -> Iterator[Product]:
    """Yield the products of YAMNet for one window; the depthwise convolutions are none."""
    from tagger.models.musicnn_yamnet.configuration import MusicnnYamnetArchitecture
    from tagger.models.yamnet.configuration import YamnetArchitecture

    config, whole = YamnetArchitecture(), MusicnnYamnetArchitecture()
    patches = 1 + (yamnet_frames() - config.patch_frames) // config.patch_hop
    height, width = config.patch_frames // 2, config.num_mel_bins // 2
    yield Product(config.first_filters, 9, patches * height * width)
    channels = config.first_filters
    for filters, stride in config.blocks:
        height, width = -(-height // stride), -(-width // stride)
        yield Product(filters, channels, patches * height * width)
        channels = filters
    yield Product(whole.audioset_classes, channels, 1)


def yamnet_frames() -> int:
    """Return the frames of a window."""
    from tagger.models.musicnn_yamnet.configuration import MusicnnYamnetArchitecture
    from tagger.models.yamnet.modeling import FRAME_LENGTH, HOP_LENGTH

    return 1 + (MusicnnYamnetArchitecture().window_samples - FRAME_LENGTH) // HOP_LENGTH


def multiplying(list_products: Callable[[], Iterator[Product]], library: Path) -> Task:
    """Multiply matrices of these sizes for all windows, and do nothing with the results."""
    import torch

    classifier, settings = load_bundled()
    _, mode = choose_mode(classifier, settings)
    windows = classifier.extractor.window_count
    calls: list[tuple[Any, Any]] = []
    for each in list_products():
        left = torch.ones(each.rows, each.inner, dtype=mode.dtype)
        columns = each.columns * windows
        right = torch.ones(each.inner, min(columns, MAX_COLUMNS), dtype=mode.dtype)
        calls += [(left, right)] * -(-columns // MAX_COLUMNS)

    def run(_number: int) -> None:
        with torch.inference_mode():
            for left, right in calls:
                torch.mm(left, right)

    return spread_threads(run, range(len(find_tracks(library))))


def transforming(library: Path) -> Task:
    """Transform frames of the sizes of both networks, and multiply them by as large filters."""
    import torch

    from tagger.models.musicnn.configuration import MusicnnArchitecture
    from tagger.models.yamnet.configuration import YamnetArchitecture

    windows, length = load_window_plan()["count"], 512
    musicnn, yamnet = MusicnnArchitecture(), YamnetArchitecture()
    sizes = ((musicnn.patch_frames, musicnn), (yamnet_frames(), yamnet))
    parts = [
        (torch.ones(windows * frames, length), torch.ones(length // 2 + 1, config.num_mel_bins))
        for frames, config in sizes
    ]

    def run(_number: int) -> None:
        with torch.inference_mode():
            for frames, filters in parts:
                torch.mm(torch.fft.rfft(frames).real, filters)

    return spread_threads(run, range(len(find_tracks(library))))
