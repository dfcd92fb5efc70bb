"""Checkpoints: found cheaply, fetched where they are missing; `checkpoint` loads them."""

from tagger.models.sources import ModelSource, download_missing, find_base_model, find_model

__all__ = ["ModelSource", "download_missing", "find_base_model", "find_model"]
