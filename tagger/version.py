"""The version of tagger, for all modules; `tagger.__version__` is the same."""

__version__ = "0.1.0"
