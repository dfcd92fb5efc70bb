"""One file replaced whole or not at all: copy, edit, verify, rename, journal, recovery."""

from tagger.writing.writer import HAS_HARD_LINKS, PlannedWrite, Writer, open_writer

__all__ = ["HAS_HARD_LINKS", "PlannedWrite", "Writer", "open_writer"]
