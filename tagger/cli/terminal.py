"""Text for a terminal, and signals that end a run."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import IO

import click

from tagger.errors import InterruptedRunError, ReportError, TaggerError, TerminatedRunError
from tagger.paths import display_path
from tagger.records import Outcome

MAX_SHOWN_LABELS = 20


def format_track_count(tracks: int) -> str:
    return f"{tracks} track" if tracks == 1 else f"{tracks} tracks"


def format_size(count: int) -> str:
    """Return a number of bytes as people read it, in powers of a thousand."""
    size, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:  # noqa: PLR2004
            break
        size, unit = size / 1000, larger
    return f"{size:.{0 if unit == 'bytes' else 1}f} {unit}"


def format_megabytes(done: int, total: int) -> str:
    return f"{done // 1_000_000} of {total // 1_000_000} MB"


def format_unknown_labels(unknown: Sequence[str], labels: Sequence[str]) -> str:
    """Return the warning of a genre map that names labels which the model lacks."""
    names, known = (
        escape_unprintable(
            ", ".join(each[:MAX_SHOWN_LABELS]) + ", …" * (len(each) > MAX_SHOWN_LABELS)
        )
        for each in (unknown, labels)
    )
    return f"the genre map names what the model does not know: {names} (it knows {known})"


def escape_unprintable(text: str) -> str:
    """Escape what a terminal would obey instead of show: control codes, line breaks, surrogates."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def format_failures(outcomes: Sequence[Outcome], *, of: int) -> list[str]:
    """Return a line for each of the first outcomes that went wrong, out of so many."""
    lines = [
        escape_unprintable(f"  {display_path(each.track.path)}: {each.error}") for each in outcomes
    ]
    return [*lines, "  …"] if of > len(outcomes) else lines


def print_line(text: str, *, err: bool = False) -> None:
    """Print a line; a reader that went away is no failure of the run."""
    try:
        click.echo(text, err=err)
    except BrokenPipeError:
        ignore_broken_pipe(sys.stderr if err else sys.stdout)
    except OSError as error:
        if err:
            return  # there is nowhere left to say so
        raise ReportError(f"cannot print: {error.strerror}") from error


def ignore_broken_pipe(stream: IO[str]) -> None:
    """Let what is still to be printed there go nowhere, as Python's documentation has it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


SIGNAL_ERRORS: dict[int, type[TaggerError]] = {
    signal.SIGINT: InterruptedRunError,
    signal.SIGTERM: TerminatedRunError,
}


STOPPED_MESSAGE = "stopped; the next run goes on from here"


class StopSignal:
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
        self.error = SIGNAL_ERRORS[number](self.words)
        if self.at_once:
            raise self.error


@contextmanager
def catch_stop_signals(
    words: str = STOPPED_MESSAGE, *, at_once: bool = False
) -> Iterator[StopSignal]:
    """Watch for signals; `at_once` is for what leaves nothing half done wherever it ends.

    words: what is said then.
    """
    stopper = StopSignal(words, at_once=at_once)
    before = {number: signal.signal(number, stopper.stop) for number in SIGNAL_ERRORS}
    try:
        yield stopper
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
