"""Checkpoints: found cheaply, fetched where they are missing; `checkpoint` loads them."""

from tagger.models.names import Source, fetch, find_base, find_source

__all__ = ["Source", "fetch", "find_base", "find_source"]
