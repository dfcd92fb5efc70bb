"""Samples to Predictions on this machine: batches, replicas, errors of the network."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

import torch

from tagger.errors import ModelError, WorkerError
from tagger.inference.dataset import Sample, TrackDataset, WindowRequest, choose_jobs, load_tracks
from tagger.inference.devices import (
    ComputeMode,
    ModelReplica,
    choose_devices,
    choose_mode,
    get_default_batch_size,
    is_out_of_memory,
    make_replicas,
)
from tagger.inference.engine import InferenceRequest
from tagger.isolation import get_call_limits
from tagger.models.checkpoint import Classifier, load_classifier
from tagger.models.extractor import MAX_SHORT_INPUT_S, ModelInputs, WindowExtractor
from tagger.models.runtime import return_freed_memory, use_one_thread
from tagger.records import Failure, Prediction, Track, WindowScores
from tagger.settings import Settings

BATCHES_AHEAD = 1
"""Batches that threads calculate while the results of the one before are used."""

MAX_CONSECUTIVE_FAILURES = 5
"""After so many tracks on end that the network breaks down on, the network is at fault."""

DEFAULT_MODE = ComputeMode()

P = ParamSpec("P")
T = TypeVar("T")

SampleOrFailure = Sample | Failure


@dataclass(frozen=True, slots=True)
class PendingBatch:
    """A batch that is being calculated.

    items: its tracks, the samples among them without their inputs; those stand in `inputs`, joined.
    pieces: the logits of their windows, in order.
    """

    items: Sequence[SampleOrFailure]
    inputs: ModelInputs
    pieces: Sequence[Future[torch.Tensor]]


class SynchronousExecutor(Executor):
    """Calls a function when it is submitted, in the same thread."""

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - whoever asks for the result is told
            future.set_exception(error)
        return future


class Predictor:
    """A classifier on its devices; one forward pass takes windows of one shape, from any track.

    is_slow: it is long windows on a CPU, with which one or two decoding processes keep up.
    """

    def __init__(
        self,
        classifier: Classifier,
        devices: Sequence[torch.device],
        mode: ComputeMode = DEFAULT_MODE,
        *,
        batch_size: int | None = None,
        timeline: bool = False,
    ) -> None:
        """Take `batch_size` windows at once on each device, or as many as suit it.

        `timeline` asks for the scores of each window beside those of the whole track.
        """
        self.classifier = classifier
        self.timeline = timeline
        self.breakdowns = 0
        input_s = classifier.extractor.input_s
        self.is_slow = devices[0].type == "cpu" and input_s > MAX_SHORT_INPUT_S
        self.batch_size = batch_size or get_default_batch_size(devices[0], input_s)
        lanes = list(make_replicas(classifier.model, devices, mode, input_s=input_s))
        self.side_by_side = len(lanes)
        # One network on all cores of a CPU runs in the caller's thread: threads of its own would
        # compete with those that torch has here already.
        alone = self.side_by_side == 1 and devices[0].type == "cpu"
        self.ahead = 0 if alone else BATCHES_AHEAD
        self.pool: Executor = (
            SynchronousExecutor() if alone else ThreadPoolExecutor(self.side_by_side)
        )
        self.pins = devices[0].type == "cuda"
        self.free: SimpleQueue[ModelReplica] = SimpleQueue()
        for lane in lanes:
            self.free.put(lane)

    def predict(self, items: Iterable[SampleOrFailure]) -> Iterator[Prediction | Failure]:
        """Yield a result for each sample, in order.

        Tracks share a batch only where their windows have one shape: nothing is ever padded to
        fit a neighbour, so that a score does not depend on what else is in the library.
        Raises torch.OutOfMemoryError where a single window is too much, ModelError where the
        network breaks down whatever it is given.
        """
        running: deque[PendingBatch] = deque()
        try:
            for batch in self._batches(items):
                running.append(self._start(batch))
                if len(running) > self.ahead:
                    yield from self._finish(running.popleft())
            while running:
                yield from self._finish(running.popleft())
        finally:
            for batch_left in running:
                for piece in batch_left.pieces:
                    piece.cancel()

    def _batches(self, items: Iterable[SampleOrFailure]) -> Iterator[list[SampleOrFailure]]:
        batch: list[SampleOrFailure] = []
        shape = None
        windows = 0
        for item in items:
            if isinstance(item, Sample):
                if windows and item.shape != shape:
                    yield batch
                    batch, windows = [], 0
                shape = item.shape
                windows += item.windows
            batch.append(item)
            full = (self.batch_size or 1) * self.side_by_side
            if not windows or max(windows, len(batch)) >= full:  # failures wait for nobody either
                yield batch
                batch, windows = [], 0
        yield batch

    def _start(self, items: Sequence[SampleOrFailure]) -> PendingBatch:
        samples = [item for item in items if isinstance(item, Sample)]
        if not samples:
            return PendingBatch(items, {}, ())
        with use_one_thread():
            inputs = {
                name: torch.cat([sample.inputs[name] for sample in samples])
                for name in samples[0].inputs
            }
            if self.pins:
                inputs = {name: tensor.pin_memory() for name, tensor in inputs.items()}
        windows = sum(sample.windows for sample in samples)
        share = -(-windows // self.side_by_side)  # rounded up
        size = min(self.batch_size or self._measured(inputs), share)
        return PendingBatch(
            [replace(item, inputs={}) if isinstance(item, Sample) else item for item in items],
            inputs,
            [
                self.pool.submit(self._forward, _slice_inputs(inputs, at, at + size))
                for at in range(0, windows, size)
            ],
        )

    def _measured(self, inputs: ModelInputs) -> int:
        """Find the size of a batch with the first window that there is."""
        lane = self.free.get()
        self.batch_size = lane.fitting(_slice_inputs(inputs, 0, 1))
        self.free.put(lane)
        return self.batch_size

    def _forward(self, inputs: ModelInputs) -> torch.Tensor:
        """Return the logits (windows, labels); halve what the memory does not hold at once."""
        windows = len(next(iter(inputs.values())))
        lane = self.free.get()
        try:
            return lane.logits(inputs)
        except RuntimeError as error:
            if windows == 1 or not is_out_of_memory(error):
                raise
        finally:
            self.free.put(lane)
        if lane.device.type == "cuda":
            torch.cuda.empty_cache()
        half = windows // 2
        self.batch_size = min(self.batch_size or half, half)
        halves = (_slice_inputs(inputs, 0, half), _slice_inputs(inputs, half, windows))
        return torch.cat([self._forward(part) for part in halves])

    def _finish(self, running: PendingBatch) -> Iterator[Prediction | Failure]:
        try:
            heard = [piece.result() for piece in running.pieces]
        except torch.OutOfMemoryError:
            raise
        except Exception:  # noqa: BLE001 - a stranger's network; below it is told whose fault it is
            heard = []
        logits = torch.cat(heard) if heard else None
        done = 0
        for item in running.items:
            if isinstance(item, Failure):
                yield item
                continue
            mine = slice(done, done + item.windows)
            done += item.windows
            if logits is not None:
                yield self._result(item, logits[mine])
            else:
                yield self._alone(item, _slice_inputs(running.inputs, mine.start, mine.stop))

    def _alone(self, sample: Sample, inputs: ModelInputs) -> Prediction | Failure:
        """Try a track of a batch that the network broke down on by itself."""
        try:
            logits = self._forward(inputs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            self.breakdowns += 1
            reason = f"the network breaks down on it: {(str(error) or repr(error)).splitlines()[0]}"
            if self.breakdowns >= MAX_CONSECUTIVE_FAILURES:
                raise ModelError(f"{self.classifier.identity}: {reason}") from error
            return Failure(sample.track, reason, permanent=False)
        return self._result(sample, logits)

    def _result(self, sample: Sample, logits: torch.Tensor) -> Prediction | Failure:
        """Pool the logits (windows, labels) of one track by their mean."""
        self.breakdowns = 0
        pooled = logits.mean(0)
        if not pooled.isfinite().all():
            reason = "the model's scores for it are not finite numbers"
            return Failure(sample.track, reason, permanent=False)  # another precision may do
        scores = self.classifier.scores
        window_s = self.classifier.extractor.window_s
        stretches = zip(sample.starts_s, logits, strict=True) if self.timeline else ()
        return Prediction(
            sample.track,
            scores(pooled),
            self.classifier.identity,
            sample.duration_s,
            tuple(
                WindowScores(start_s, min(start_s + window_s, sample.duration_s), scores(each))
                for start_s, each in stretches
            ),
        )


def _slice_inputs(inputs: ModelInputs, start: int, end: int) -> ModelInputs:
    return {name: tensor[start:end] for name, tensor in inputs.items()}


def predict_tracks(
    tracks: Iterable[Track], hearing: InferenceRequest
) -> Iterator[Prediction | Failure]:
    """Hear the tracks; a `Listen`. A decoding process that dies is a WorkerError."""
    settings = hearing.settings
    with translate_torch_errors(settings):
        predictor = open_predictor(hearing)
        dataset = open_dataset(predictor.classifier.extractor, hearing)
        jobs = choose_jobs(settings.jobs, slow=predictor.is_slow, gentle=settings.gentle)
        yield from predictor.predict(load_tracks(dataset, tracks, jobs=jobs))


def open_predictor(hearing: InferenceRequest) -> Predictor:
    """Load the model onto the devices that were asked for. Raises ModelError."""
    settings = hearing.settings
    devices = choose_devices(settings.device)
    classifier = load_classifier(hearing.source, settings)
    predictor = Predictor(
        classifier,
        devices,
        choose_mode(settings, devices, classifier.model),
        batch_size=settings.batch_size,
        timeline=hearing.timeline,
    )
    if predictor.is_slow:
        return_freed_memory()
    return predictor


def open_dataset(extractor: WindowExtractor, hearing: InferenceRequest) -> TrackDataset:
    settings = hearing.settings
    wanted = WindowRequest(settings.windows, hearing.shortest_s)
    return TrackDataset(extractor, wanted, get_call_limits(settings))


@contextmanager
def translate_torch_errors(settings: Settings) -> Iterator[None]:
    """Turn what torch raises while it decodes and predicts into our errors."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ModelError("the device's memory is too small for a single window") from error
    # What torch makes of a worker that died, or that could not start a process of its own.
    except (RuntimeError, ConnectionError, EOFError, WorkerError) as error:
        last = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
        hint = " (try without --compile)" if settings.compile else ""
        raise WorkerError(f"decoding or the network broke down: {last}{hint}") from error
