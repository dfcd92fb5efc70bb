"""The errors that a user may see. Each class knows the exit code of the program.

Every error takes one string, so that pickling it for another process works.
"""

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar


class TaggerError(Exception):
    """The run cannot go on."""

    exit_code: ClassVar[int] = 3


class SettingsError(TaggerError):
    """The command line or the configuration is wrong."""

    exit_code = 2


class LibraryError(TaggerError):
    """A folder or file that the user named does not exist or cannot be listed."""


class ModelError(TaggerError):
    """The model cannot be loaded, or is no audio classifier."""


class StateError(TaggerError):
    """The state file cannot be opened, read or written."""


class ReportError(TaggerError):
    """The report cannot be read or written."""


class ScheduleError(TaggerError):
    """The nightly job cannot be installed or removed."""


class WatchError(TaggerError):
    """A library cannot be watched, or nobody watches it."""


class NotifyError(TaggerError):
    """The run succeeded, but the user's command after it failed."""


class DiskFullError(TaggerError):
    """No space is left for a track or for the state file."""


class WorkerError(TaggerError):
    """A decoding process died."""


class LostWorkerError(WorkerError):
    """A process died during a call, perhaps with its whole machine. The cause is unknown."""


class ClusterError(TaggerError):
    """The Ray cluster cannot be reached, or has no room for the work."""


class MissingExtraError(TaggerError):
    """A library that only some commands need is not installed."""


DISTRIBUTION = "tagger-music"
"""The name that pip knows. On PyPI `tagger` is another program."""


def make_missing_extra_error(what: str, extra: str) -> MissingExtraError:
    """Return the error that says which extra `what` needs. extra: one name, or several as `a,b`."""
    return MissingExtraError(f"{what} needs: pip install '{DISTRIBUTION}[{extra}]'")


class LockedError(TaggerError):
    """Another run uses the state file."""

    exit_code = 4


class InterruptedRunError(TaggerError):
    """The user pressed Ctrl-C. Finished work is kept."""

    exit_code = 130


class TerminatedRunError(TaggerError):
    """The system asked the program to end (SIGTERM). Finished work is kept."""

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
    IN_USE = "in-use"
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
    NOT_ASKED = "not-asked"
    BY_RULE = "by-rule"
    NO_GENRE = "no-genre"
    HARD_LINKS = "hard-links"
    TIME_IS_UP = "time-is-up"
    CHANGED_SINCE = "changed-since"


class WriteReason(StrEnum):
    """Why a track was written, where no model says so. The report has it in its column `kind`."""

    RENAMED = "renamed"


@dataclass(frozen=True, slots=True)
class FailureHelp:
    """The heading for failures of one kind, and what a person can do about them."""

    title: str
    cure: str


FAILURE_HELP: Mapping[FailureKind, FailureHelp] = MappingProxyType(
    {
        FailureKind.TOO_SHORT: FailureHelp(
            "Too short", "Nothing to do: tagger needs at least one second of sound."
        ),
        FailureKind.SILENT: FailureHelp(
            "Silent",
            "Play the file. If music comes elsewhere in it, try more --windows.",
        ),
        FailureKind.TRUNCATED: FailureHelp(
            "Cut off or empty", "A part of the file is missing: copy, download or rip it again."
        ),
        FailureKind.DAMAGED: FailureHelp(
            "Damaged",
            "Play the file to its end. If it plays, `ffmpeg -i OLD -c copy NEW` may repair it.",
        ),
        FailureKind.WRONG_CONTENT: FailureHelp(
            "Not what its name says",
            "Run `ffprobe FILE` to see what it is; rename it with that suffix, or remove it.",
        ),
        FailureKind.CANNOT_DECODE: FailureHelp(
            "Cannot be decoded",
            "Convert the file to a common format, or leave it out with --exclude.",
        ),
        FailureKind.CANNOT_TAG: FailureHelp(
            "Tags cannot be written", "The reason in the report says what prevents it."
        ),
        FailureKind.CHANGED: FailureHelp(
            "Changed during the run",
            "Nothing to do: the next run tries again. After `tagger apply`, make a new dry run.",
        ),
        FailureKind.IN_USE: FailureHelp(
            "Being written by another program", "Nothing to do: the next run tries again."
        ),
        FailureKind.UNFINISHED: FailureHelp(
            "Half-written",
            "Run tagger again: it repairs what it can. If the failure stays, its reason says more.",
        ),
        FailureKind.NO_ACCESS: FailureHelp(
            "No access",
            "Let the user that runs tagger read the file and write into its folder.",
        ),
        FailureKind.SERVER: FailureHelp(
            "The server does not answer", "Nothing to do: the next run tries again."
        ),
        FailureKind.OVER_LIMIT: FailureHelp(
            "Too much time or memory", "Raise the limit that the reason names, and add --force."
        ),
        FailureKind.CRASHED: FailureHelp(
            "Crashes the decoder",
            "Play the file to its end. If it plays, `ffmpeg -i OLD -c copy NEW` may repair it.",
        ),
        FailureKind.OTHER: FailureHelp(
            "Other reasons", "The reason in the report says more; --force tries again."
        ),
    }
)


class TrackError(TaggerError):
    """One file is at fault. The run goes on without it.

    kind: the reason for programs, and for the help in the report. Pickling keeps it.
    """

    permanent: ClassVar[bool] = True
    """Whether another try is pointless until the file changes."""
    default_kind: ClassVar[FailureKind] = FailureKind.OTHER

    def __init__(self, reason: str, kind: FailureKind | None = None) -> None:
        super().__init__(reason)
        self.kind = kind or self.default_kind


class DecodeError(TrackError):
    """The file holds no sound that tagger can decode and classify."""

    default_kind = FailureKind.CANNOT_DECODE


class TagError(TrackError):
    """The tags of the file cannot be read, or cannot be written without harm."""

    default_kind = FailureKind.CANNOT_TAG


class AccessError(TrackError):
    """The operating system or a server refused. The next run may succeed."""

    permanent = False
    default_kind = FailureKind.NO_ACCESS


class UnfinishedError(AccessError):
    """A file is half-written, or its copy was left beside it. The next run repairs it."""

    default_kind = FailureKind.UNFINISHED


DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT}


def translate_os_error(error: OSError, step: str) -> TaggerError:
    """Return tagger's error for an error of the system; a full disk ends the run."""
    reason = f"{step}: {error.strerror or error}"
    return DiskFullError(reason) if error.errno in DISK_FULL_ERRNOS else AccessError(reason)
