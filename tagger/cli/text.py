"""Text of unknown origin on a terminal."""


def printable(text: str) -> str:
    """Escape what a terminal would obey instead of show: control codes, line breaks, surrogates."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
