"""The tags of music files: read, and replaced whole or not at all; owns mutagen."""

from tagger.tags.containers import EXTENSIONS
from tagger.tags.fields import other_fields, read_tags, write_raw, write_tags
from tagger.tags.replace import replace_tags

__all__ = ["EXTENSIONS", "other_fields", "read_tags", "replace_tags", "write_raw", "write_tags"]
