"""Read and write the tags of music files, byte by byte, in each container; owns mutagen."""

from tagger.tags.containers import EXTENSIONS, UNKNOWN_SOUND_EXTENSIONS
from tagger.tags.fields import (
    read_hidden_genres,
    read_other_fields,
    read_tags,
    write_raw,
    write_tags,
)

__all__ = [
    "EXTENSIONS",
    "UNKNOWN_SOUND_EXTENSIONS",
    "read_hidden_genres",
    "read_other_fields",
    "read_tags",
    "write_raw",
    "write_tags",
]
