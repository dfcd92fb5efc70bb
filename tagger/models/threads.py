"""How many threads torch works in."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
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
