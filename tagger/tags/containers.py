"""The table of containers: which suffix stands for which way to a file's tag."""

from collections.abc import Callable
from typing import BinaryIO

from tagger.errors import TagError
from tagger.tags.formats.ape import open_ape
from tagger.tags.formats.asf import open_asf
from tagger.tags.formats.flac import open_flac
from tagger.tags.formats.id3_chunks import open_aiff, open_wav
from tagger.tags.formats.id3_files import open_dsf, open_mp3, open_tta
from tagger.tags.formats.mp4 import open_mp4
from tagger.tags.formats.ogg import open_ogg
from tagger.tags.items import Tag

OPENERS: dict[str, Callable[[BinaryIO], Tag]] = {
    ".mp3": open_mp3,
    ".wav": open_wav,
    ".aif": open_aiff,
    ".aifc": open_aiff,
    ".aiff": open_aiff,
    ".dsf": open_dsf,
    ".tta": open_tta,
    ".flac": open_flac,
    ".oga": open_ogg,
    ".ogg": open_ogg,
    ".opus": open_ogg,
    ".spx": open_ogg,
    ".m4a": open_mp4,
    ".m4b": open_mp4,
    ".mp4": open_mp4,
    ".wma": open_asf,
    ".ape": open_ape,
    ".wv": open_ape,
    ".mpc": open_ape,
}

EXTENSIONS = frozenset(OPENERS)
"""The suffixes of the files that tagger knows, in lower case."""


def open_tag(suffix: str, file: BinaryIO) -> Tag:
    """Return the tag of an open file with this suffix. Raises TagError for one unknown."""
    opener = OPENERS.get(suffix.lower())
    if opener is None:
        raise TagError(f"tagger knows no files named *{suffix}")
    return opener(file)
