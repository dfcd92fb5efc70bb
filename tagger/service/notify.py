"""Tell others what a run did: the user's command after it."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tagger.errors import NotifyError
from tagger.paths import AnyPath

NOTIFY_TIMEOUT_S = 600

STDERR_DESCRIPTOR = 2
"""The output of --notify-cmd goes there: standard output has only the summary of the run."""


def run_notify_command(command: str, changed: Mapping[AnyPath, int], report: Path | None) -> None:
    """Run the user's command, if there is one and the run wrote files.

    changed: how many files were written in each folder. A shell runs the command. Its input has a
    line for each folder; TAGGER_WRITTEN is the number of files, TAGGER_REPORT the path of the
    report. A folder with a line break in its path is named by the next folder above without one.
    Raises NotifyError if it fails, without the command: it may hold a secret.
    """
    if not command or not changed:
        return
    env = {"TAGGER_WRITTEN": str(sum(changed.values())), "TAGGER_REPORT": os.fspath(report or "")}
    folders = sorted(
        set(map(_cut_at_line_break, map(os.fsencode, changed))), key=lambda name: name.split(b"/")
    )
    lines = b"".join(folder + b"\n" for folder in folders)
    try:
        subprocess.run(  # noqa: S602 - the command is the user's own
            command,
            shell=True,
            check=True,
            input=lines,
            stdout=STDERR_DESCRIPTOR,
            env=os.environ | env,
            timeout=NOTIFY_TIMEOUT_S,
        )
    except subprocess.CalledProcessError as error:
        raise NotifyError(f"--notify-cmd ended with code {error.returncode}") from error
    except subprocess.TimeoutExpired as error:
        raise NotifyError(f"--notify-cmd took more than {NOTIFY_TIMEOUT_S} s") from error
    except OSError as error:
        raise NotifyError(f"--notify-cmd cannot be started: {error.strerror}") from error


def _cut_at_line_break(folder: bytes) -> bytes:
    """Return a folder, or the one above its first part with a line break.

    The command would take such a path for two, and the second may be any folder of the machine.
    """
    first, line_break, _ = folder.partition(b"\n")
    return os.path.dirname(first) if line_break else folder  # noqa: PTH120 - of bytes
