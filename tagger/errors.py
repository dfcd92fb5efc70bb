"""The errors that a user may see; each class knows the exit code it ends the program with.

Every error takes one string, so that it survives the way through a worker process.
"""

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
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


class FailureKind(StrEnum):
    """Why a track failed. The report has the value in its column `kind`."""

    TOO_SHORT = "too-short"
    SILENT = "silent"
    TRUNCATED = "truncated"
    DAMAGED = "damaged"
    WRONG_CONTENT = "wrong-content"
    CANNOT_DECODE = "cannot-decode"
    CANNOT_TAG = "cannot-tag"
    CHANGED = "changed"
    UNFINISHED = "unfinished"
    NO_ACCESS = "no-access"
    SERVER = "server"
    OVER_LIMIT = "over-limit"
    CRASHED = "crashed"
    OTHER = "other"


class KeepReason(StrEnum):
    """Why a track was kept. The report has the value in its column `kind`."""

    HAS_GENRE = "has-genre"
    REMOVED_BY_HAND = "removed-by-hand"
    UNDONE = "undone"
    NOT_WANTED = "not-wanted"
    HARD_LINKS = "hard-links"
    TIME_IS_UP = "time-is-up"
    CHANGED_SINCE = "changed-since"


@dataclass(frozen=True, slots=True)
class FailureHelp:
    """A heading for failures of one kind, and what a person can do about them."""

    title: str
    cure: str


FAILURE_HELP: Mapping[FailureKind, FailureHelp] = MappingProxyType(
    {
        FailureKind.TOO_SHORT: FailureHelp(
            "Too short", "Nothing to do: tagger needs one second of sound to tell a genre."
        ),
        FailureKind.SILENT: FailureHelp(
            "Silent",
            "Play the file. If it has music elsewhere, more --windows find it; else nothing to do.",
        ),
        FailureKind.TRUNCATED: FailureHelp(
            "Cut off or empty", "Fetch or rip the file again: a part of it is missing."
        ),
        FailureKind.DAMAGED: FailureHelp(
            "Damaged",
            "Play the file to its end. If it plays, `ffmpeg -i OLD -c copy NEW` repairs it.",
        ),
        FailureKind.WRONG_CONTENT: FailureHelp(
            "Not what its name says",
            "Rename the file to what it is (`ffprobe` tells), or move it out of the library.",
        ),
        FailureKind.CANNOT_DECODE: FailureHelp(
            "Cannot be decoded",
            "Convert the file to a common format, or leave it out with --exclude.",
        ),
        FailureKind.CANNOT_TAG: FailureHelp(
            "Tags cannot be written", "The reason says what stands in the way."
        ),
        FailureKind.CHANGED: FailureHelp(
            "Changed during the run", "Nothing to do: the next run tries again."
        ),
        FailureKind.UNFINISHED: FailureHelp(
            "Half-written", "Run tagger again: it finishes or removes what an earlier run left."
        ),
        FailureKind.NO_ACCESS: FailureHelp(
            "No access", "Let the user that runs tagger read the file and write into its folder."
        ),
        FailureKind.SERVER: FailureHelp(
            "The server does not answer", "Nothing to do: the next run tries again."
        ),
        FailureKind.OVER_LIMIT: FailureHelp(
            "Too much time or memory", "Raise the limit that the reason names, and add --force."
        ),
        FailureKind.CRASHED: FailureHelp(
            "Crashes the decoder",
            "Play the file to its end. If it plays, `ffmpeg -i OLD -c copy NEW` repairs it.",
        ),
        FailureKind.OTHER: FailureHelp(
            "Other reasons", "The reason says more; `tagger scan --force` tries again."
        ),
    }
)


class TrackError(TaggerError):
    """One file is at fault; the run goes on without it.

    kind: why, for programs and for the help that a person gets. It survives pickling.
    """

    permanent: ClassVar[bool] = True
    """Whether another try is pointless until the file changes."""
    default_kind: ClassVar[FailureKind] = FailureKind.OTHER

    def __init__(self, reason: str, kind: FailureKind | None = None) -> None:
        super().__init__(reason)
        self.kind = kind or self.default_kind


class DecodeError(TrackError):
    """The file holds no sound that can be decoded and classified."""

    default_kind = FailureKind.CANNOT_DECODE


class TagError(TrackError):
    """The tags of the file cannot be read, or cannot be written without harm."""

    default_kind = FailureKind.CANNOT_TAG


class AccessError(TrackError):
    """The operating system or a server refused; the next run may succeed."""

    permanent = False
    default_kind = FailureKind.NO_ACCESS


class UnfinishedError(AccessError):
    """A file is half-written, or a copy is left beside it; the next run repairs it."""

    default_kind = FailureKind.UNFINISHED


DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT}


def translate_os_error(error: OSError, step: str) -> TaggerError:
    """Return tagger's error for an error of the system; a full disk ends the run."""
    reason = f"{step}: {error.strerror or error}"
    return DiskFullError(reason) if error.errno in DISK_FULL_ERRNOS else AccessError(reason)
