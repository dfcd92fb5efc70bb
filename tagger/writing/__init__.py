"""Files and state at work together: replaced tags are journaled, and what a kill left is mended."""

from tagger.writing.hands import Hands
from tagger.writing.writer import LINKED, Rewrite, Writer, open_writer

__all__ = ["LINKED", "Hands", "Rewrite", "Writer", "open_writer"]
