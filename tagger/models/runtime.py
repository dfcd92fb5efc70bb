"""Process-wide settings of torch: threads and memory."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

LARGE_PAGES_ENV = "THP_MEM_ALLOC_ENABLE"
"""torch's own switch for them (Linux); it looks at it when it first takes memory."""

MALLOPT_MMAP_THRESHOLD = -3
MMAP_THRESHOLD_BYTES = 1 << 20


def use_large_pages() -> None:
    """Have torch take large blocks in large pages; call it before weights are loaded."""
    os.environ.setdefault(LARGE_PAGES_ENV, "1")


def return_freed_memory() -> None:
    """Have freed layers given back to the system at once, for the rest of the process.

    glibc takes the size of a freed block as a hint to keep all up to that size for later: with
    DistilHuBERT 0.13 GB that lie idle whenever the next window's largest layers come. What is given
    back has to be cleared when it is taken again, so a window takes up to a tenth longer. Small
    layers would lose more than they gain.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it
    if mallopt:
        mallopt(MALLOPT_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)


@contextmanager
def use_one_thread() -> Iterator[None]:
    """Have torch work in this thread alone.

    Copies gain nothing from more, and those wait by spinning: sixteen took most of sixteen cores
    away from decoding. And sums come in one order, where more may round differently each time.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
