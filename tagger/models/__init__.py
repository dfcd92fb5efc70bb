"""Checkpoints: `identify` names one cheaply, `checkpoint.load_classifier` loads it."""

from tagger.models.names import identify

__all__ = ["identify"]
