"""Ctrl-C and TERM end a run between two tracks; a second one ends it at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tagger.errors import InterruptedRunError, TaggerError, TerminatedRunError

ENDS: dict[int, type[TaggerError]] = {
    signal.SIGINT: InterruptedRunError,
    signal.SIGTERM: TerminatedRunError,
}


STOPPED = "stopped; the next run goes on from here"


class Stopper:
    """Remembers that the run was asked to stop."""

    def __init__(self, words: str, *, at_once: bool = False) -> None:
        self.error: TaggerError | None = None
        self.words = words
        self.at_once = at_once

    def check(self) -> None:
        """Raise InterruptedRunError or TerminatedRunError if a signal came."""
        if self.error:
            raise self.error

    def stop(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal."""
        if self.error:
            raise self.error
        self.error = ENDS[number](self.words)
        if self.at_once:
            raise self.error


@contextmanager
def stopping_on_signals(words: str = STOPPED, *, at_once: bool = False) -> Iterator[Stopper]:
    """Watch for signals; `at_once` is for what leaves nothing half done wherever it ends.

    words: what is said then.
    """
    stopper = Stopper(words, at_once=at_once)
    before = {number: signal.signal(number, stopper.stop) for number in ENDS}
    try:
        yield stopper
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
