"""Text of unknown origin on a terminal."""

import os
import sys
from collections.abc import Sequence
from typing import IO

import click

from tagger.errors import ReportError
from tagger.paths import displayed
from tagger.records import Outcome

SHOWN_LABELS = 20


def count_of(tracks: int) -> str:
    return f"{tracks} track" if tracks == 1 else f"{tracks} tracks"


def size_of(count: int) -> str:
    """Return a number of bytes as people read it, in powers of a thousand."""
    size, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:  # noqa: PLR2004
            break
        size, unit = size / 1000, larger
    return f"{size:.{0 if unit == 'bytes' else 1}f} {unit}"


def megabytes(done: int, total: int) -> str:
    return f"{done // 1_000_000} of {total // 1_000_000} MB"


def doubt(unknown: Sequence[str], labels: Sequence[str]) -> str:
    """Return the warning of a genre map that names labels which the model lacks."""
    names, known = (
        printable(", ".join(each[:SHOWN_LABELS]) + ", …" * (len(each) > SHOWN_LABELS))
        for each in (unknown, labels)
    )
    return f"the genre map names what the model does not know: {names} (it knows {known})"


def printable(text: str) -> str:
    """Escape what a terminal would obey instead of show: control codes, line breaks, surrogates."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def told(outcomes: Sequence[Outcome], *, of: int) -> list[str]:
    """Return a line for each of the first outcomes that went wrong, out of so many."""
    lines = [printable(f"  {displayed(each.track.path)}: {each.error}") for each in outcomes]
    return [*lines, "  …"] if of > len(outcomes) else lines


def show(text: str, *, err: bool = False) -> None:
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
