"""Models: `sources` finds one and completes its files, `loading` loads it."""

from tagger.models.sources import ModelSource, download_missing, find_base_model, find_model

__all__ = ["ModelSource", "download_missing", "find_base_model", "find_model"]
