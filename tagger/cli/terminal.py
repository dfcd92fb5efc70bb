"""Text for a terminal, and the signals that end a run."""

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


def escape_unprintable(text: str) -> str:
    """Escape control codes, surrogates and other characters that are not shown as text."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def format_track_count(tracks: int) -> str:
    return f"{tracks} track" if tracks == 1 else f"{tracks} tracks"


def format_size(count: int) -> str:
    """Return a number of bytes in decimal units."""
    size, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:  # noqa: PLR2004 - the step between two units
            break
        size, unit = size / 1000, larger
    return f"{size:.{0 if unit == 'bytes' else 1}f} {unit}"


def format_megabytes(done: int, total: int) -> str:
    return f"{done // 1_000_000} of {total // 1_000_000} MB"


def format_unknown_labels(unknown: Sequence[str], labels: Sequence[str]) -> str:
    """Return the warning about a genre map with labels that the model does not have."""
    names, known = map(_format_labels, (unknown, labels))
    return f"--genre-map has labels that the model does not know: {names} (it knows {known})"


def format_unknown_genres(unknown: Sequence[str], genres: Sequence[str]) -> str:
    """Return the warning about bounds of genres that tagger never writes with this model."""
    names, known = map(_format_labels, (unknown, genres))
    return f"min-score has genres that the model never gives: {names} (it gives {known})"


def _format_labels(labels: Sequence[str]) -> str:
    more = ", …" if len(labels) > MAX_SHOWN_LABELS else ""
    return escape_unprintable(", ".join(labels[:MAX_SHOWN_LABELS]) + more)


def format_failures(outcomes: Sequence[Outcome], *, total: int) -> list[str]:
    """Return a line for each outcome, and one more line if `total` is larger."""
    lines = [
        escape_unprintable(f"  {display_path(outcome.track.path)}: {outcome.error}")
        for outcome in outcomes
    ]
    return [*lines, "  …"] if total > len(outcomes) else lines


def print_line(text: str, *, err: bool = False) -> None:
    """Print a line; it is no failure if the reader of a pipe went away."""
    try:
        click.echo(text, err=err)
    except BrokenPipeError:
        ignore_broken_pipe(sys.stderr if err else sys.stdout)
    except OSError as error:
        if err:
            return  # no other stream is left for a message
        raise ReportError(f"cannot print: {error.strerror}") from error


def ignore_broken_pipe(stream: IO[str]) -> None:
    """Discard all further output of a stream, as the documentation of Python's signals does."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


SIGNAL_ERRORS: dict[int, type[TaggerError]] = {
    signal.SIGINT: InterruptedRunError,
    signal.SIGTERM: TerminatedRunError,
}

STOPPED_MESSAGE = "stopped; the next run goes on from here"


class StopSignal:
    """Remembers that the user asked to stop the run."""

    def __init__(self, message: str, *, at_once: bool = False) -> None:
        self.error: TaggerError | None = None
        self.message = message
        self.at_once = at_once

    def check(self) -> None:
        """Raise InterruptedRunError or TerminatedRunError if a signal came."""
        if self.error:
            raise self.error

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Remember the first signal; raise at once for a second one."""
        if self.error:
            raise self.error
        self.error = SIGNAL_ERRORS[number](self.message)
        if self.at_once:
            raise self.error


@contextmanager
def catch_stop_signals(
    message: str = STOPPED_MESSAGE, *, at_once: bool = False
) -> Iterator[StopSignal]:
    """Handle SIGINT and SIGTERM.

    message: what the user reads then. at_once: raise in the middle of the work, for commands that
    never leave anything half done.
    """
    stop_signal = StopSignal(message, at_once=at_once)
    before = {number: signal.signal(number, stop_signal.handle) for number in SIGNAL_ERRORS}
    try:
        yield stop_signal
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
