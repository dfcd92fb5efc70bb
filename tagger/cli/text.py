"""Text of unknown origin on a terminal."""

from collections.abc import Sequence

from tagger.records import Outcome, displayed


def count_of(tracks: int) -> str:
    return f"{tracks} track" if tracks == 1 else f"{tracks} tracks"


def printable(text: str) -> str:
    """Escape what a terminal would obey instead of show: control codes, line breaks, surrogates."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def told(outcomes: Sequence[Outcome], *, of: int) -> list[str]:
    """Return a line for each of the first outcomes that went wrong, out of so many."""
    lines = [printable(f"  {displayed(each.track.path)}: {each.error}") for each in outcomes]
    return [*lines, "  …"] if of > len(outcomes) else lines
