"""Predict tracks on this machine: batches, replicas, and errors of the network."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

import torch

from tagger.errors import ModelError, WorkerError
from tagger.inference.dataset import (
    TrackDataset,
    TrackInputs,
    WindowRequest,
    choose_jobs,
    load_tracks,
)
from tagger.inference.devices import (
    ComputeMode,
    ModelReplica,
    choose_compute_mode,
    choose_devices,
    get_default_batch_size,
    is_out_of_memory,
    keep_freed_memory,
    make_replicas,
    return_freed_memory,
)
from tagger.inference.engine import InferenceRequest
from tagger.isolation import get_call_limits
from tagger.models.classifier import (
    MAX_SHORT_INPUT_S,
    Classifier,
    ModelInputs,
    WindowFeatureExtractor,
    use_one_thread,
)
from tagger.models.loading import load_classifier
from tagger.records import Failure, Prediction, Track, WindowScores
from tagger.settings import Settings

MAX_PENDING_BATCHES = 1
"""Batches that threads calculate while the caller uses the results of the batch before."""

MAX_CONSECUTIVE_FAILURES = 5
"""When the network fails on this many tracks in a row, the network is at fault, not the tracks."""

DEFAULT_MODE = ComputeMode()

P = ParamSpec("P")
T = TypeVar("T")

InputsOrFailure = TrackInputs | Failure


@dataclass(frozen=True, slots=True)
class PendingBatch:
    """A batch that is being calculated.

    items: its tracks in order, without inputs of their own. inputs: those of all of them,
    concatenated. logits: those of their windows, in order, in one or more parts.
    """

    items: Sequence[InputsOrFailure]
    inputs: ModelInputs
    logits: Sequence[Future[torch.Tensor]]


class SynchronousExecutor(Executor):
    """Calls a function when it is submitted, in the same thread."""

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - `future.result()` raises it
            future.set_exception(error)
        return future


class Predictor:
    """A classifier on its devices. A forward pass takes windows of one shape, from any tracks.

    is_slow: the network takes long windows on a CPU; one or two decoding processes keep up with it.
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
        """Copy the classifier's network to the devices.

        batch_size: windows in a batch on each device; None means as many as suit the device.
        timeline: predictions have the scores of each window beside those of the whole track.
        """
        self.classifier = classifier
        self.timeline = timeline
        self.consecutive_failures = 0
        input_s = classifier.extractor.input_s
        self.is_slow = devices[0].type == "cpu" and input_s > MAX_SHORT_INPUT_S
        self.batch_size = batch_size or get_default_batch_size(devices[0], input_s)
        replicas = list(make_replicas(classifier.model, devices, mode, input_s=input_s))
        self.replica_count = len(replicas)
        # One network on all cores of a CPU runs in the caller's thread: other threads would compete
        # with the threads that torch has there already.
        is_synchronous = self.replica_count == 1 and devices[0].type == "cpu"
        self.max_pending = 0 if is_synchronous else MAX_PENDING_BATCHES
        self.executor: Executor = (
            SynchronousExecutor() if is_synchronous else ThreadPoolExecutor(self.replica_count)
        )
        self.pin_memory = devices[0].type == "cuda"
        self.idle_replicas: SimpleQueue[ModelReplica] = SimpleQueue()
        for replica in replicas:
            self.idle_replicas.put(replica)

    def predict(self, items: Iterable[InputsOrFailure]) -> Iterator[Prediction | Failure]:
        """Yield a result for each item, in order.

        Tracks share a batch only where their windows have one shape. Nothing is padded to fit
        another track, so a score does not depend on the rest of the library. Raises
        torch.OutOfMemoryError where memory does not hold a single window, ModelError where the
        network fails on any input.
        """
        pending: deque[PendingBatch] = deque()
        try:
            for batch in self._group_items(items):
                pending.append(self._submit_batch(batch))
                if len(pending) > self.max_pending:
                    yield from self._collect_batch(pending.popleft())
            while pending:
                yield from self._collect_batch(pending.popleft())
        finally:
            for abandoned in pending:
                for future in abandoned.logits:
                    future.cancel()

    def _group_items(self, items: Iterable[InputsOrFailure]) -> Iterator[list[InputsOrFailure]]:
        """Yield the items in batches; windows of one batch have one shape."""
        batch: list[InputsOrFailure] = []
        shapes = None
        windows = 0
        for item in items:
            if isinstance(item, TrackInputs):
                if windows and item.window_shapes != shapes:
                    yield batch
                    batch, windows = [], 0
                shapes = item.window_shapes
                windows += item.window_count
            batch.append(item)
            full = (self.batch_size or 1) * self.replica_count
            if not windows or max(windows, len(batch)) >= full:  # a failure alone need not wait
                yield batch
                batch, windows = [], 0
        yield batch

    def _submit_batch(self, items: Sequence[InputsOrFailure]) -> PendingBatch:
        tracks = [item for item in items if isinstance(item, TrackInputs)]
        if not tracks:
            return PendingBatch(items, {}, ())
        with use_one_thread():
            inputs = {
                name: torch.cat([track.inputs[name] for track in tracks])
                for name in tracks[0].inputs
            }
            if self.pin_memory:
                inputs = {name: tensor.pin_memory() for name, tensor in inputs.items()}
        windows = sum(track.window_count for track in tracks)
        windows_per_replica = -(-windows // self.replica_count)  # rounded up
        size = min(self.batch_size or self._measure_batch_size(inputs), windows_per_replica)
        return PendingBatch(
            [replace(item, inputs={}) if isinstance(item, TrackInputs) else item for item in items],
            inputs,
            [
                self.executor.submit(self._compute_logits, _slice_inputs(inputs, at, at + size))
                for at in range(0, windows, size)
            ],
        )

    def _measure_batch_size(self, inputs: ModelInputs) -> int:
        """Set the batch size by the memory that the first window takes.

        Where the network fails on this window, return 1, and leave the size to the next batch.
        Raises torch.OutOfMemoryError.
        """
        replica = self.idle_replicas.get()
        try:
            self.batch_size = replica.measure_batch_size(_slice_inputs(inputs, 0, 1))
        except torch.OutOfMemoryError:
            raise
        except Exception:  # noqa: BLE001 - networks raise anything; which track shows later
            return 1
        finally:
            self.idle_replicas.put(replica)
        return self.batch_size

    def _compute_logits(self, inputs: ModelInputs) -> torch.Tensor:
        """Return the logits (windows, all labels); halve a batch that does not fit into memory."""
        windows = len(next(iter(inputs.values())))
        replica = self.idle_replicas.get()
        try:
            return replica.compute_logits(inputs)
        except RuntimeError as error:
            if windows == 1 or not is_out_of_memory(error):
                raise
        finally:
            self.idle_replicas.put(replica)
        if replica.device.type == "cuda":
            torch.cuda.empty_cache()
        half = windows // 2
        self.batch_size = min(self.batch_size or half, half)
        halves = (_slice_inputs(inputs, 0, half), _slice_inputs(inputs, half, windows))
        return torch.cat([self._compute_logits(part) for part in halves])

    def _collect_batch(self, batch: PendingBatch) -> Iterator[Prediction | Failure]:
        """Yield the results of a batch; predict its tracks one by one where the network failed."""
        try:
            parts = [future.result() for future in batch.logits]
        except torch.OutOfMemoryError:
            raise
        except Exception:  # noqa: BLE001 - networks raise anything; which track it was shows below
            parts = []
        logits = torch.cat(parts) if parts else None
        start = 0
        for item in batch.items:
            if isinstance(item, Failure):
                yield item
                continue
            end = start + item.window_count
            if logits is not None:
                yield self._make_result(item, logits[start:end])
            else:
                yield self._predict_alone(item, _slice_inputs(batch.inputs, start, end))
            start = end

    def _predict_alone(self, item: TrackInputs, inputs: ModelInputs) -> Prediction | Failure:
        """Predict one track of a batch that the network failed on."""
        try:
            logits = self._compute_logits(inputs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            self.consecutive_failures += 1
            reason = f"the network breaks down on it: {(str(error) or repr(error)).splitlines()[0]}"
            if self.consecutive_failures >= MAX_CONSECUTIVE_FAILURES:
                raise ModelError(f"{self.classifier.identity}: {reason}") from error
            return Failure(item.track, reason, permanent=False)
        return self._make_result(item, logits)

    def _make_result(self, item: TrackInputs, logits: torch.Tensor) -> Prediction | Failure:
        """Pool the logits (windows, all labels) of one track."""
        self.consecutive_failures = 0
        pooled = self.classifier.pool(logits)
        if not pooled.isfinite().all():
            reason = "the model's scores for it are not finite numbers"
            return Failure(item.track, reason, permanent=False)  # another precision may do
        make_scores = self.classifier.make_scores
        window_s = self.classifier.extractor.window_s
        windows = zip(item.starts_s, logits, strict=True) if self.timeline else ()
        return Prediction(
            item.track,
            make_scores(pooled),
            self.classifier.identity,
            item.duration_s,
            tuple(
                WindowScores(start_s, min(start_s + window_s, item.duration_s), make_scores(row))
                for start_s, row in windows
            ),
            self.classifier.make_attributes(pooled),
        )


def _slice_inputs(inputs: ModelInputs, start: int, end: int) -> ModelInputs:
    return {name: tensor[start:end] for name, tensor in inputs.items()}


def predict_tracks(
    tracks: Iterable[Track], request: InferenceRequest, predictor: Predictor
) -> Iterator[Prediction | Failure]:
    """Predict tracks on this machine, as `PredictTracks` says.

    predictor: what `load_predictor` made for this request. A decoding process that dies is a
    WorkerError.
    """
    settings = request.settings
    with translate_torch_errors(settings):
        dataset = make_track_dataset(predictor.classifier.extractor, request)
        jobs = choose_jobs(
            settings.jobs,
            slow=predictor.is_slow,
            max_memory_mib=settings.max_memory,
            gentle=settings.gentle,
        )
        yield from predictor.predict(load_tracks(dataset, tracks, jobs=jobs))


def load_predictor(request: InferenceRequest) -> Predictor:
    """Load the model onto the devices that the settings name. Raises ModelError."""
    settings = request.settings
    with translate_torch_errors(settings):
        devices = choose_devices(settings.device)
        classifier = load_classifier(request.source, settings)
        predictor = Predictor(
            classifier,
            devices,
            choose_compute_mode(settings, devices, classifier.model),
            batch_size=settings.batch_size,
            timeline=request.timeline,
        )
    if predictor.is_slow:
        return_freed_memory()
    elif devices[0].type == "cpu":
        keep_freed_memory()
    return predictor


def make_track_dataset(
    extractor: WindowFeatureExtractor, request: InferenceRequest
) -> TrackDataset:
    """Return the data set that decodes tracks as the request asks, within its limits."""
    settings = request.settings
    window_request = WindowRequest(settings.windows, request.min_duration_s)
    return TrackDataset(extractor, window_request, get_call_limits(settings))


@contextmanager
def translate_torch_errors(settings: Settings) -> Iterator[None]:
    """Turn the errors that torch raises while it decodes and predicts into ours."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ModelError("the device's memory is too small for a single window") from error
    # The other types are torch's for a worker that died or could not start its decoding process.
    except (RuntimeError, ConnectionError, EOFError, WorkerError) as error:
        last = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
        hint = " (try without --compile)" if settings.compile else ""
        raise WorkerError(f"decoding or the network broke down: {last}{hint}") from error
