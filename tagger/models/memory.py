"""How the C library hands out memory to a network whose layers take hundreds of megabytes each."""

import ctypes
import os

LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"
"""torch's own switch for them (Linux); it looks at it when it first takes memory."""

M_MMAP_THRESHOLD = -3
LARGE = 1 << 20


def use_large_pages() -> None:
    """Have torch take large blocks in large pages; call it before weights are loaded."""
    os.environ.setdefault(LARGE_PAGES, "1")


def return_memory() -> None:
    """Have freed layers given back to the system at once, for the rest of the process.

    glibc takes the size of a freed block as a hint to keep all up to that size for later: with
    DistilHuBERT 0.13 GB that lie idle whenever the next window's largest layers come. What is given
    back has to be cleared when it is taken again, so a window takes up to a tenth longer. Small
    layers would lose more than they gain.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it
    if mallopt:
        mallopt(M_MMAP_THRESHOLD, LARGE)
