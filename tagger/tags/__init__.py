"""The tags of music files: read, and replaced whole or not at all; owns mutagen."""

from tagger.tags.containers import EXTENSIONS
from tagger.tags.fields import read_tags, write_raw, write_tags
from tagger.tags.leftovers import clear_leftovers
from tagger.tags.others import other_fields
from tagger.tags.replace import copy_name, replace_tags

__all__ = [
    "EXTENSIONS",
    "clear_leftovers",
    "copy_name",
    "other_fields",
    "read_tags",
    "replace_tags",
    "write_raw",
    "write_tags",
]
