"""Listens to a music library and writes each track's genre into the file's own tags."""

__version__ = "0.1.0"
