"""One file replaced whole or not at all: copy, edit, verify, rename, journal, recovery."""

from tagger.writing.writer import PlannedWrite, Writer, open_writer

__all__ = ["PlannedWrite", "Writer", "open_writer"]
