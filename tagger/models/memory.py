"""How the C library hands out memory to a network whose layers take hundreds of megabytes each."""

import ctypes
import os

LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"
"""torch's own switch for them (Linux); it looks at it when it first takes memory."""

M_MMAP_THRESHOLD = -3
LARGE = 1 << 20


def suit_large_layers() -> None:
    """Give freed layers back at once, and take new ones in large pages; call it before loading.

    glibc takes the size of a freed block as a hint to keep all up to that size for later: with
    DistilHuBERT 0.1 GB that lay idle whenever the next window's largest layers came. What is given
    back must be cleared by the system when it is taken again, which large pages make quick: they
    save more than that costs. Small layers would lose by both.
    """
    os.environ.setdefault(LARGE_PAGES, "1")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it
    if mallopt:
        mallopt(M_MMAP_THRESHOLD, LARGE)
