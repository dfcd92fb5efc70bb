"""Where a network runs, in which precision, and how much of it at once."""

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from tagger.errors import ModelError
from tagger.models.extractor import MAX_SHORT_INPUT_S, ModelInputs
from tagger.pacing import halve_cores
from tagger.settings import Precision, Settings

AUTOCAST_DTYPES = {
    Precision.FP32: None,
    Precision.BF16: torch.bfloat16,
    Precision.FP16: torch.float16,
}

CPU_BATCH_WINDOWS = 8
"""Short windows at once on a core; more gain nothing with the bundled model."""

# Of the next four the first is an estimate. The others suited an H200, which hears a batch of 256
# of the bundled model's windows at 8,200 a second, five times what sixteen cores decode.
MPS_BATCH_S = 192.0
"""Seconds of sound at once on a Mac's GPU, whose memory cannot be asked what a window takes."""

MAX_GPU_BATCH_WINDOWS = 256
MAX_GPU_BATCH_BYTES = 128 << 20
"""Windows at once on a GPU, and the size of their inputs, however much memory it has."""

MAX_GPU_MEMORY_SHARE = 0.5
"""How much of a GPU's free memory a batch may take, going by what one window took."""

MIN_BF16_CAPABILITY = (8, 0)
"""The first GPUs that calculate in bf16 (Ampere); older ones imitate it, slower than fp32."""

CPU_BF16_FEATURE = "amx_bf16"
"""What a processor has whose matrix unit multiplies in bf16 (Intel, from Sapphire Rapids on).

AVX-512 has products in bf16 too, which gain little beside its own in fp32.
"""

HALF_PRECISION_ATTRIBUTE = "quick_in_half"
"""How a network says that it has a way of its own to calculate in half precision."""

OUT_OF_MEMORY_PHRASES = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "ALLOC_FAILED",
)
"""How torch says that memory ran out, where it does not raise OutOfMemoryError."""


def choose_devices(name: str) -> tuple[torch.device, ...]:
    """Return the devices of that name: for `cuda` all GPUs; `auto` is that, then mps, then cpu.

    Raises ModelError where there is none.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = {"cuda": gpus, "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    kind, _, number = name.partition(":")
    if kind == "auto":
        kind = next(each for each, count in there.items() if count)
    if int(number or 0) >= there[kind]:
        raise ModelError(f"there is no device {name} here (--device cpu always works)")
    if kind != "cuda":
        return (torch.device(kind),)
    return tuple(torch.device(kind, index) for index in ([int(number)] if number else range(gpus)))


@dataclass(frozen=True, slots=True)
class ComputeMode:
    """How a network is run: what to autocast to, None for fp32, and whether to compile it.

    gentle: on half of the threads that torch would take.
    """

    dtype: torch.dtype | None = None
    compiled: bool = False
    gentle: bool = False


def choose_mode(
    settings: Settings, devices: Sequence[torch.device], model: torch.nn.Module
) -> ComputeMode:
    precision = settings.precision
    if precision is Precision.AUTO:
        gains = all(has_bf16(device) or is_quick_in_bf16(model, device) for device in devices)
        precision = Precision.BF16 if gains else Precision.FP32
    return ComputeMode(AUTOCAST_DTYPES[precision], settings.compile, settings.gentle)


def has_bf16(device: torch.device) -> bool:
    """Tell whether a GPU calculates in bf16 faster than in fp32."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= MIN_BF16_CAPABILITY


def is_quick_in_bf16(model: torch.nn.Module, device: torch.device) -> bool:
    """Tell whether a network is much faster in bf16 on this processor.

    The bundled one is, by 2.4; DistilHuBERT by 1.25, which is no reason to round.
    """
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # older ones do not tell
        return False
    return hasattr(model, HALF_PRECISION_ATTRIBUTE) and bool(
        torch.cpu.get_capabilities().get(CPU_BF16_FEATURE)
    )


@dataclass(frozen=True, slots=True)
class ModelReplica:
    """A place where one forward pass runs at a time, on so many threads."""

    model: torch.nn.Module
    device: torch.device
    dtype: torch.dtype | None
    threads: int

    @torch.inference_mode()
    def logits(self, inputs: ModelInputs) -> torch.Tensor:
        """Run the network; returns float32 logits (windows, labels) on the CPU."""
        torch.set_num_threads(self.threads)
        moved = {name: tensor.to(self.device, non_blocking=True) for name, tensor in inputs.items()}
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            logits: torch.Tensor = self.model(**moved).logits
        return logits.float().cpu()

    def fitting(self, window: ModelInputs) -> int:
        """Return how many windows like this one a GPU takes at once."""
        free, _ = torch.cuda.mem_get_info(self.device)
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        self.logits(window)
        taken = torch.cuda.max_memory_allocated(self.device) - before
        sent = sum(tensor.nbytes for tensor in window.values())
        fitting = (
            MAX_GPU_BATCH_WINDOWS,
            MAX_GPU_BATCH_BYTES // sent,
            int(MAX_GPU_MEMORY_SHARE * free) // max(1, taken),
        )
        return max(1, min(fitting))


def make_replicas(
    model: torch.nn.Module, devices: Sequence[torch.device], mode: ComputeMode, *, input_s: float
) -> Iterator[ModelReplica]:
    """Yield a lane for each GPU, or for each core of a CPU where the windows are short.

    Cores that calculate alone need one meeting a batch where torch's own threads need several a
    layer, which cost most on a busy machine. Long windows would take their memory once a core.
    """
    threads = torch.get_num_threads()
    cores = halve_cores(threads) if mode.gentle else threads
    if mode.dtype is None:
        torch.backends.cudnn.allow_tf32 = False  # its ten bits of fraction are no fp32
    replicas = [model, *(copy.deepcopy(model) for _ in devices[1:])]
    for replica, device in zip(replicas, devices, strict=True):
        torch.nn.Module.to(replica, device)
        if mode.compiled:
            _compile_model(replica)
    if devices[0].type == "cpu" and input_s <= MAX_SHORT_INPUT_S:
        for _ in range(cores):
            yield ModelReplica(model, devices[0], mode.dtype, threads=1)
        return
    for replica, device in zip(replicas, devices, strict=True):
        yield ModelReplica(replica, device, mode.dtype, threads=cores)


def _compile_model(model: torch.nn.Module) -> None:
    """Have the network compiled when it is first called, without word of how torch gets on."""
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"torch\.")
    model.compile()


def get_default_batch_size(device: torch.device, input_s: float) -> int | None:
    """Return how many windows a lane takes at once; None where that shows with the first one."""
    match device.type:
        case "cuda":
            return None
        case "mps":
            return max(1, int(MPS_BATCH_S / input_s))
    return CPU_BATCH_WINDOWS if input_s <= MAX_SHORT_INPUT_S else 1


def is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in str(error) for words in OUT_OF_MEMORY_PHRASES
    )
