"""Samples to Predictions: owns device, precision and batch size."""

import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

from tagger.errors import ModelError
from tagger.inference.dataset import Sample
from tagger.models.checkpoint import Classifier
from tagger.records import Failure, Prediction
from tagger.settings import Precision

AUTO_BATCH = {"cpu": 16, "mps": 64, "cuda": 256}
"""Windows at once; more gain nothing with the bundled model, and memory stays small."""

DTYPES = {Precision.FP32: None, Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}


def choose_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is cuda, then mps, then cpu. Raises ModelError."""
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, found in there.items() if found))
    device = torch.device(name)
    if not there[device.type] or (device.index or 0) >= max(1, torch.cuda.device_count()):
        raise ModelError(f"there is no device {name} here (--device cpu always works)")
    return device


def choose_precision(precision: Precision, device: torch.device) -> torch.dtype | None:
    """Return what to autocast to, or None for fp32."""
    if precision is not Precision.AUTO:
        return DTYPES[precision]
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return None


class Predictor:
    """A classifier on its device; one forward pass takes windows of one shape, from any track."""

    def __init__(
        self,
        classifier: Classifier,
        *,
        device: torch.device,
        dtype: torch.dtype | None,
        batch_size: int | None,
    ) -> None:
        self.classifier = classifier
        self.device = device
        self.dtype = dtype
        self.batch_size = batch_size or AUTO_BATCH[device.type]
        # On a CPU each core takes windows of its own and calculates alone. That needs one meeting a
        # batch where torch's own threads need several a layer, which cost most on a busy machine.
        cores = torch.get_num_threads() if device.type == "cpu" else 1
        self.pool = ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,))
        self.cores = cores
        torch.nn.Module.to(classifier.model, device)

    def predict(self, samples: Iterable[Sample | Failure]) -> Iterator[Prediction | Failure]:
        """Yield a result for each sample, in order.

        Tracks share a batch only where their windows have one shape: nothing is ever padded to
        fit a neighbour, so that a score does not depend on what else is in the library.
        """
        batch: list[Sample] = []
        for sample in samples:
            if isinstance(sample, Failure):
                yield from self._flush(batch)
                yield sample
                continue
            if batch and batch[0].shape != sample.shape:
                yield from self._flush(batch)
            batch.append(sample)
            if sum(item.windows for item in batch) >= self.batch_size:
                yield from self._flush(batch)
        yield from self._flush(batch)

    def _flush(self, batch: list[Sample]) -> Iterator[Prediction | Failure]:
        if not batch:
            return
        logits = self._logits(batch).split([sample.windows for sample in batch])
        for sample, windows in zip(batch, logits, strict=True):
            pooled = windows.mean(0)
            if not pooled.isfinite().all():
                reason = "the model's scores for it are not finite numbers"
                yield Failure(sample.track, reason, lasting=False)  # another precision may do
                continue
            yield Prediction(
                sample.track,
                self.classifier.scores(pooled),
                self.classifier.identity,
                sample.duration_s,
            )
        batch.clear()

    def _logits(self, batch: list[Sample]) -> torch.Tensor:
        """Run the batch in pieces of at most `batch_size` windows; (windows, labels) on the CPU."""
        names = batch[0].inputs
        joined = {name: torch.cat([sample.inputs[name] for sample in batch]) for name in names}
        count = sum(sample.windows for sample in batch)
        size = min(self.batch_size, math.ceil(count / self.cores))
        pieces = [
            {name: tensor[start : start + size] for name, tensor in joined.items()}
            for start in range(0, count, size)
        ]
        return torch.cat(list(self.pool.map(self._forward, pieces)))

    @torch.inference_mode()
    def _forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        moved = {name: tensor.to(self.device) for name, tensor in inputs.items()}
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            return self.classifier.logits(moved)
