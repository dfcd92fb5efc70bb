"""Marks of parametrised tests."""

from collections.abc import Iterable
from typing import Any

import pytest


def others_slow(rows: Iterable[tuple[Any, ...]], count: int = 1) -> list[Any]:
    """Return rows of arguments: the first `count` by default, the others in the slow tests."""
    return [
        pytest.param(*row, marks=[] if number < count else [pytest.mark.slow])
        for number, row in enumerate(rows)
    ]
