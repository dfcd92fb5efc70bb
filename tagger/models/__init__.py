"""Checkpoints: `find_source` names one cheaply, `checkpoint.load_classifier` loads it."""

from tagger.models.names import Source, find_source

__all__ = ["Source", "find_source"]
