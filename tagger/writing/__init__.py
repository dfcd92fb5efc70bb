"""Files and state at work together: replaced tags are journaled, and what a kill left is mended."""

from tagger.writing.writer import LINKED, Rewrite, Writer, open_writer

__all__ = ["LINKED", "Rewrite", "Writer", "open_writer"]
