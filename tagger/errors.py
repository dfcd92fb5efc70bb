"""The errors that a user may see; each class knows the exit code it ends the program with.

Every error takes one string, so that it survives the way through a worker process.
"""

from typing import ClassVar


class TaggerError(Exception):
    """The run could not go on."""

    exit_code: ClassVar[int] = 3


class SettingsError(TaggerError):
    """Wrong usage, or a configuration that makes no sense."""

    exit_code = 2


class LibraryError(TaggerError):
    """A folder or file named by the user is not there or cannot be listed."""


class ModelError(TaggerError):
    """The model cannot be loaded, or is no audio classifier."""


class StateError(TaggerError):
    """The state file cannot be opened, read or written."""


class ReportError(TaggerError):
    """The report cannot be written."""


class ScheduleError(TaggerError):
    """The nightly job cannot be set up or taken down."""


class NotifyError(TaggerError):
    """The run went well, but the user's command after it did not."""


class DiskFullError(TaggerError):
    """No space is left where a track or the state has to be written."""


class WorkerError(TaggerError):
    """A process that decodes died."""


class LostWorkerError(WorkerError):
    """A process died, maybe with its whole machine, in the middle of a call; nobody knows where."""


class ClusterError(TaggerError):
    """The cluster that is to do the work cannot be reached, or has no room for it."""


class MissingExtraError(TaggerError):
    """A library is not installed that only some commands need."""


class LockedError(TaggerError):
    """Another run holds the state file."""

    exit_code = 4


class InterruptedRunError(TaggerError):
    """The user pressed Ctrl-C; what was finished is kept."""

    exit_code = 130


class TerminatedRunError(TaggerError):
    """The system asked the program to end; what was finished is kept."""

    exit_code = 143


class TrackError(TaggerError):
    """One file is at fault; the run goes on without it."""

    lasting: ClassVar[bool] = True
    """Whether trying again is pointless until the file changes."""


class DecodeError(TrackError):
    """The file holds no sound that can be decoded and classified."""


class TagError(TrackError):
    """The tags of the file cannot be read, or not be written without harm."""


class AccessError(TrackError):
    """The operating system refused: the cause lies beside the file, and may be gone tomorrow."""

    lasting = False


class UnfinishedError(AccessError):
    """A file is half-written, or a copy of it is left beside it; the next run mends that."""
