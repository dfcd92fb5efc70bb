"""Text of unknown origin on a terminal."""


def count_of(tracks: int) -> str:
    return f"{tracks} track" if tracks == 1 else f"{tracks} tracks"


def printable(text: str) -> str:
    """Escape what a terminal would obey instead of show: control codes, line breaks, surrogates."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
