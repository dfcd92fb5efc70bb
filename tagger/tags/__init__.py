"""Read and write the tags of music files, byte by byte, in each container; owns mutagen."""

from tagger.tags.containers import EXTENSIONS, UNKNOWN_SOUND_EXTENSIONS
from tagger.tags.fields import (
    RAW_BYTES_SUFFIX,
    list_extra_names,
    list_shown_names,
    read_file,
    read_files,
    read_genres_elsewhere,
    read_hidden_genres,
    read_other_fields,
    read_tags,
    write_raw,
    write_tags,
)

__all__ = [
    "EXTENSIONS",
    "RAW_BYTES_SUFFIX",
    "UNKNOWN_SOUND_EXTENSIONS",
    "list_extra_names",
    "list_shown_names",
    "read_file",
    "read_files",
    "read_genres_elsewhere",
    "read_hidden_genres",
    "read_other_fields",
    "read_tags",
    "write_raw",
    "write_tags",
]
