"""Devices, precision, batch sizes, threads and memory: how torch runs the network."""

import copy
import ctypes
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from tagger.errors import ModelError
from tagger.models.classifier import MAX_SHORT_INPUT_S, ModelInputs
from tagger.pacing import count_usable_cores, halve_cores
from tagger.settings import Precision, Settings

AUTOCAST_DTYPES = {
    Precision.FP32: None,
    Precision.BF16: torch.bfloat16,
    Precision.FP16: torch.float16,
}

CPU_BATCH_WINDOWS = 8
"""Short windows in a batch on one core; the bundled model gains nothing from more."""

# The next value is an estimate. The three after it suited an H200: in batches of 256 it predicts
# 8,200 of the bundled model's windows a second, five times what sixteen cores decode.
MPS_BATCH_S = 192.0
"""Seconds of sound in a batch on a Mac's GPU, whose memory use cannot be measured."""

MAX_GPU_BATCH_WINDOWS = 256
MAX_GPU_BATCH_BYTES = 128 << 20
"""Limits of a batch on a GPU (windows, bytes of inputs), however much memory there is."""

MAX_GPU_MEMORY_SHARE = 0.5
"""The share of a GPU's free memory that a batch may take, judged by the memory of one window."""

MIN_BF16_CAPABILITY = (8, 0)
"""The first GPUs that calculate in bf16 (Ampere); older ones emulate it, slower than fp32."""

CPU_BF16_FEATURE = "amx_bf16"
"""The CPU feature of a matrix unit that multiplies in bf16 (Intel, from Sapphire Rapids on).

AVX-512 has bf16 products too, but they gain little over its fp32 products.
"""

FAST_HALF_PRECISION_ATTRIBUTE = "has_fast_half_precision"
"""The attribute of a network that has its own code for half precision."""

OUT_OF_MEMORY_PHRASES = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "ALLOC_FAILED",
)
"""How torch says that memory ran out, where it does not raise OutOfMemoryError."""

MALLOPT_TRIM_THRESHOLD, MALLOPT_MMAP_THRESHOLD = -1, -3
"""Options of glibc's malloc: how much free memory it keeps, and how large a block it keeps."""
MMAP_THRESHOLD_BYTES = 1 << 20
MAX_MMAP_THRESHOLD_BYTES = 32 << 20  # glibc refuses more
KEPT_BYTES = 256 << 20


def choose_devices(name: str) -> tuple[torch.device, ...]:
    """Return the devices of a name: `cuda` is all GPUs; `auto` is cuda, else mps, else cpu.

    Raises ModelError where there is none.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    counts = {"cuda": gpus, "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    kind, _, number = name.partition(":")
    if kind == "auto":
        kind = next(each for each, count in counts.items() if count)
    if int(number or 0) >= counts[kind]:
        raise ModelError(f"there is no device {name} here (--device cpu always works)")
    if kind != "cuda":
        return (torch.device(kind),)
    return tuple(torch.device(kind, index) for index in ([int(number)] if number else range(gpus)))


@dataclass(frozen=True, slots=True)
class ComputeMode:
    """How a network runs.

    dtype: what to autocast to; None means fp32. gentle: use half of torch's threads.
    """

    dtype: torch.dtype | None = None
    compiled: bool = False
    gentle: bool = False


def choose_compute_mode(
    settings: Settings, devices: Sequence[torch.device], model: torch.nn.Module
) -> ComputeMode:
    """Return how a network runs on these devices; `auto` is bf16 where all are faster in it."""
    precision = settings.precision
    if precision is Precision.AUTO:
        is_faster = all(has_bf16(device) or is_fast_in_bf16(model, device) for device in devices)
        precision = Precision.BF16 if is_faster else Precision.FP32
    return ComputeMode(AUTOCAST_DTYPES[precision], settings.compile, settings.gentle)


def has_bf16(device: torch.device) -> bool:
    """Tell whether a device is a GPU that calculates faster in bf16 than in fp32."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= MIN_BF16_CAPABILITY


def is_fast_in_bf16(model: torch.nn.Module, device: torch.device) -> bool:
    """Tell whether a network is much faster in bf16 than in fp32 on this CPU.

    musicnn took 15 ms a window where fp32 took 37, before fp32 became a third faster. DistilHuBERT
    is 1.25 times as fast, which does not justify rounding.
    """
    if device.type != "cpu" or not hasattr(
        torch.cpu, "get_capabilities"
    ):  # older torch does not tell
        return False
    return hasattr(model, FAST_HALF_PRECISION_ATTRIBUTE) and bool(
        torch.cpu.get_capabilities().get(CPU_BF16_FEATURE)
    )


@dataclass(frozen=True, slots=True)
class ModelReplica:
    """A network on one device; it runs one forward pass at a time, on `threads` threads."""

    model: torch.nn.Module
    device: torch.device
    dtype: torch.dtype | None
    threads: int

    @torch.inference_mode()
    def compute_logits(self, inputs: ModelInputs) -> torch.Tensor:
        """Run the network; return float32 logits (windows, all labels) on the CPU.

        The bundled model has logits for styles, moods and voices behind those of the labels.
        """
        torch.set_num_threads(self.threads)
        moved = {name: tensor.to(self.device, non_blocking=True) for name, tensor in inputs.items()}
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            output = self.model(**moved)
        logits: torch.Tensor = output.logits.float()
        if (attributes := getattr(output, "attribute_logits", None)) is not None:
            logits = torch.cat([logits, attributes.float()], 1)
        return logits.cpu()

    def measure_batch_size(self, window: ModelInputs) -> int:
        """Return how many windows fit into a batch on this GPU, judged by one; CUDA only.

        window: the inputs of one window; the first axis of each tensor is 1. Raises
        torch.OutOfMemoryError, and whatever the network raises.
        """
        free_bytes, _ = torch.cuda.mem_get_info(self.device)
        allocated_before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        self.compute_logits(window)
        window_bytes = torch.cuda.max_memory_allocated(self.device) - allocated_before
        input_bytes = sum(tensor.nbytes for tensor in window.values())
        limits = (
            MAX_GPU_BATCH_WINDOWS,
            MAX_GPU_BATCH_BYTES // input_bytes,
            int(MAX_GPU_MEMORY_SHARE * free_bytes) // max(1, window_bytes),
        )
        return max(1, min(limits))


def make_replicas(
    model: torch.nn.Module, devices: Sequence[torch.device], mode: ComputeMode, *, input_s: float
) -> Iterator[ModelReplica]:
    """Yield a replica for each GPU, or for each core of a CPU where the inputs are short.

    Cores with a replica each wait for each other once a batch. torch's own threads wait several
    times a layer, which costs most on a busy machine. Long inputs would need their memory once a
    core, so they get one replica on all cores.
    """
    threads = min(torch.get_num_threads(), count_usable_cores())  # torch sees no quota
    cores = halve_cores(threads) if mode.gentle else threads
    if mode.dtype is None:
        torch.backends.cudnn.allow_tf32 = False  # TF32 has ten bits of fraction, fp32 has 23
    models = [model, *(copy.deepcopy(model) for _ in devices[1:])]
    for each, device in zip(models, devices, strict=True):
        torch.nn.Module.to(each, device)
        if mode.compiled:
            _compile_model(each)
    if devices[0].type == "cpu" and input_s <= MAX_SHORT_INPUT_S:
        for _ in range(cores):
            yield ModelReplica(model, devices[0], mode.dtype, threads=1)
        return
    for each, device in zip(models, devices, strict=True):
        yield ModelReplica(each, device, mode.dtype, threads=cores)


def _compile_model(model: torch.nn.Module) -> None:
    """Compile the network at its first call, without torch's messages about it."""
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"torch\.")
    model.compile()


def get_default_batch_size(device: torch.device, input_s: float) -> int | None:
    """Return the windows of a batch on one replica.

    None on CUDA, where `ModelReplica.measure_batch_size` finds it.
    """
    match device.type:
        case "cuda":
            return None
        case "mps":
            return max(1, int(MPS_BATCH_S / input_s))
    return CPU_BATCH_WINDOWS if input_s <= MAX_SHORT_INPUT_S else 1


def is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(
        phrase in str(error) for phrase in OUT_OF_MEMORY_PHRASES
    )


def return_freed_memory() -> None:
    """Make this process return the memory of freed layers to the system at once.

    glibc keeps all freed blocks up to the size of the largest one freed so far. With DistilHuBERT
    this is 0.13 GB that lies idle when the largest layers of the next window come. The system
    clears the memory that is taken again, so a window takes up to a tenth longer. Small layers
    would lose more than they gain.
    """
    _set_malloc_option(MALLOPT_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)


def keep_freed_memory() -> None:
    """Make this process keep the memory of freed layers for the next ones.

    Else glibc returns it to the system after most layers, which clears it before it is taken again:
    8 MB for each window of the bundled model, a tenth of its time.
    """
    _set_malloc_option(MALLOPT_MMAP_THRESHOLD, MAX_MMAP_THRESHOLD_BYTES)
    _set_malloc_option(MALLOPT_TRIM_THRESHOLD, KEPT_BYTES)


def _set_malloc_option(option: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # only glibc has it
    if mallopt:
        mallopt(option, value)
