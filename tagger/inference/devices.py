"""Where a network runs, in which precision, and how much of it at once."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from tagger.errors import ModelError
from tagger.models.extractor import SHORT_S, Inputs
from tagger.settings import Precision

DTYPES = {Precision.FP32: None, Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}

SHORT_BATCH = 8
"""Short windows at once on a core; more gain nothing with the bundled model."""

MPS_BATCH_S = 192.0
"""Seconds of sound at once on a Mac's GPU, whose memory cannot be asked what a window takes."""

GPU_BATCH = 256
"""Windows at once on a GPU, however much memory it has."""

GPU_SHARE = 0.5
"""How much of a GPU's free memory a batch may take, going by what one window took."""

NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
"""How torch says that memory ran out, where it does not raise OutOfMemoryError."""


def choose_devices(name: str) -> tuple[torch.device, ...]:
    """Return the devices of that name: for `cuda` all GPUs; `auto` is that, then mps, then cpu.

    Raises ModelError where there is none.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = {"cuda": gpus, "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    if name == "auto":
        name = next(kind for kind, count in there.items() if count)
    device = torch.device(name)
    if (device.index or 0) >= there[device.type]:
        raise ModelError(f"there is no device {name} here (--device cpu always works)")
    if name == "cuda":
        return tuple(torch.device(name, index) for index in range(gpus))
    return (device,)


def choose_precision(precision: Precision, device: torch.device) -> torch.dtype | None:
    """Return what to autocast to, or None for fp32."""
    if precision is not Precision.AUTO:
        return DTYPES[precision]
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return None


@dataclass(frozen=True, slots=True)
class Lane:
    """A place where one forward pass runs at a time, on so many threads."""

    model: torch.nn.Module
    device: torch.device
    dtype: torch.dtype | None
    threads: int

    @torch.inference_mode()
    def logits(self, inputs: Inputs) -> torch.Tensor:
        """Run the network; returns float32 logits (windows, labels) on the CPU."""
        torch.set_num_threads(self.threads)
        moved = {name: self._moved(tensor) for name, tensor in inputs.items()}
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            logits: torch.Tensor = self.model(**moved).logits
        return logits.float().cpu()

    def fitting(self, window: Inputs) -> int:
        """Return how many windows like this one a GPU takes at once."""
        free, _ = torch.cuda.mem_get_info(self.device)
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        self.logits(window)
        taken = torch.cuda.max_memory_allocated(self.device) - before
        return max(1, min(GPU_BATCH, int(GPU_SHARE * free) // max(1, taken)))

    def _moved(self, tensor: torch.Tensor) -> torch.Tensor:
        pinned = tensor.pin_memory() if self.device.type == "cuda" else tensor
        return pinned.to(self.device, non_blocking=True)


def open_lanes(
    model: torch.nn.Module,
    devices: Sequence[torch.device],
    dtype: torch.dtype | None,
    *,
    window_s: float,
) -> Iterator[Lane]:
    """Yield a lane for each GPU, or for each core of a CPU where the windows are short.

    Cores that calculate alone need one meeting a batch where torch's own threads need several a
    layer, which cost most on a busy machine. Long windows would take their memory once a core.
    """
    cores = torch.get_num_threads()
    if devices[0].type == "cpu" and window_s <= SHORT_S:
        for _ in range(cores):
            yield Lane(model, devices[0], dtype, threads=1)
        return
    for number, device in enumerate(devices):
        replica = copy.deepcopy(model) if number else model
        yield Lane(torch.nn.Module.to(replica, device), device, dtype, threads=cores)


def usual_batch(device: torch.device, window_s: float) -> int | None:
    """Return how many windows a lane takes at once; None where that shows with the first one."""
    match device.type:
        case "cuda":
            return None
        case "mps":
            return max(1, int(MPS_BATCH_S / window_s))
    return SHORT_BATCH if window_s <= SHORT_S else 1


def is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in str(error) for words in NO_MEMORY
    )
