"""The choice of devices, precision and batch sizes; the GPUs are fakes."""

import platform
import subprocess
import sys

import pytest
import torch

from tagger.errors import ModelError
from tagger.inference.devices import (
    ComputeMode,
    ModelReplica,
    choose_compute_mode,
    choose_devices,
    get_default_batch_size,
    make_replicas,
)
from tagger.models.musicnn import CHECKPOINT
from tagger.models.pretrained import MusicnnConfig, MusicnnForAudioClassification
from tagger.settings_sources import load_settings

CPU = torch.device("cpu")
NETWORK = torch.nn.Linear(1, 1)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that there are two GPUs, the second too old for bf16."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda device: (9, 0) if device.index == 0 else (7, 5)
    )


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("auto", ["cuda:0", "cuda:1"]),
        ("cuda", ["cuda:0", "cuda:1"]),
        ("cuda:1", ["cuda:1"]),
        ("cpu", ["cpu"]),
    ],
)
def test_all_gpus_are_used_or_the_one_that_is_named(name: str, expected: list[str]) -> None:
    assert list(map(str, choose_devices(name))) == expected


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("name", ["cuda:2", "cuda:256", "cuda:99999999999"])
def test_a_missing_gpu_is_an_error(name: str) -> None:
    with pytest.raises(ModelError, match=f"there is no device {name} here"):
        choose_devices(name)


def test_without_a_gpu_auto_is_the_cpu_and_cuda_an_error() -> None:
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("there is a GPU")
    assert choose_devices("auto") == (CPU,)
    for name in ("cuda", "cuda:0", "mps"):
        with pytest.raises(ModelError, match="--device cpu always works"):
            choose_devices(name)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("precision", "device", "dtype"),
    [
        ("auto", "cuda:0", torch.bfloat16),
        ("auto", "cuda:1", None),
        ("auto", "cuda", None),  # one of them emulates bf16
        ("bf16", "cpu", torch.bfloat16),
        ("fp16", "cuda", torch.float16),
        ("fp32", "cuda:0", None),
    ],
)
def test_auto_precision_is_bf16_where_all_gpus_calculate_in_it(
    precision: str, device: str, dtype: torch.dtype | None
) -> None:
    settings = load_settings({"precision": precision})
    assert choose_compute_mode(settings, choose_devices(device), NETWORK) == ComputeMode(dtype)


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [({"amx_bf16": True}, torch.bfloat16), ({"avx512_bf16": True}, None), ({}, None)],
)
def test_auto_precision_is_bf16_on_a_cpu_with_a_matrix_unit(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], dtype: torch.dtype | None
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    with torch.device("meta"):
        bundled = MusicnnForAudioClassification(MusicnnConfig.from_pretrained(CHECKPOINT))
    assert choose_compute_mode(load_settings({}), (CPU,), bundled) == ComputeMode(dtype)
    assert choose_compute_mode(load_settings({}), (CPU,), NETWORK) == ComputeMode(None)


def make_all_replicas(devices: list[torch.device], input_s: float) -> list[ModelReplica]:
    return list(make_replicas(torch.nn.Linear(1, 1), devices, ComputeMode(), input_s=input_s))


def test_short_inputs_get_a_replica_for_each_core_and_long_ones_all_cores() -> None:
    cores = torch.get_num_threads()
    assert [replica.threads for replica in make_all_replicas([CPU], 3.0)] == [1] * cores
    assert [replica.threads for replica in make_all_replicas([CPU], 30.0)] == [cores]
    assert (get_default_batch_size(CPU, 3.0), get_default_batch_size(CPU, 30.0)) == (8, 1)


def test_each_device_has_its_own_copy_of_the_model() -> None:
    first, second = make_all_replicas([CPU, CPU], 30.0)
    assert first.model is not second.model
    assert torch.equal(*(each.model.get_parameter("weight") for each in (first, second)))


COUNT_PAGE_FAULTS = """
import resource, torch
from tagger.inference.devices import keep_freed_memory
{prepare}
for number in range(11):
    layers = [torch.zeros(1 << 20) for _ in range(8)]
    del layers
    if not number:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have no mallopt")
def test_freed_layers_are_kept_for_the_next_ones() -> None:
    faults = []
    for prepare in ("", "keep_freed_memory()"):
        code = COUNT_PAGE_FAULTS.format(prepare=prepare)
        output = subprocess.check_output([sys.executable, "-c", code])
        faults.append(int(output))
    returned, kept = faults
    assert kept < returned / 3  # now and then one of the eight layers gets a new place
