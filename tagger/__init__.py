"""Listens to a music library and writes each track's genre into the file's own tags.

Scripts use the names in `__all__` (docs/python-and-beets.md). They stay as they are from version to
version; the modules of the package may change.
"""

from tagger.api import listen, make_settings, read_settings, scan
from tagger.errors import LockedError, SettingsError, TaggerError
from tagger.records import Action, Attributes, Failure, Outcome, Prediction, Score, Track
from tagger.settings import Settings
from tagger.version import __version__

__all__ = [
    "Action",
    "Attributes",
    "Failure",
    "LockedError",
    "Outcome",
    "Prediction",
    "Score",
    "Settings",
    "SettingsError",
    "TaggerError",
    "Track",
    "__version__",
    "listen",
    "make_settings",
    "read_settings",
    "scan",
]
