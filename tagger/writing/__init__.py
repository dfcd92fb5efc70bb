"""Files and state at work together: replaced tags are journaled, and what a kill left is mended."""

from tagger.writing.writer import PlannedWrite, Writer, open_writer

__all__ = ["PlannedWrite", "Writer", "open_writer"]
