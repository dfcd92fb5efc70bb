"""Files and state at work together: replaced tags are journaled, and what a kill left is mended."""

from tagger.writing.writer import HAS_HARD_LINKS, PlannedWrite, Writer, open_writer

__all__ = ["HAS_HARD_LINKS", "PlannedWrite", "Writer", "open_writer"]
