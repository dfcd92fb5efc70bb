"""Functions that read files, and behave as a native library does with a hostile file.

The name of the file says how. They run in the isolated process, which imports them by name.
"""

import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil

from tagger import audio, tags
from tagger.records import FileReading


def misbehave(path: Path) -> None:
    """Crash, abort, hang or use up memory, as the first word of the file's name says."""
    match path.name.partition("-")[0].lstrip("."):
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "abort":
            os.abort()
        case "hang":
            time.sleep(600)
        case "bomb":
            bytearray(1 << 31)
        case "murder":
            kill_loader_workers()


def kill_loader_workers() -> None:
    """Kill the forks of the run. The parent of this process is the fork server, the run's child."""
    run = psutil.Process(os.getppid()).parent()
    assert run
    for child in run.children():
        if child.cmdline() == run.cmdline():
            child.kill()


def read_windows(path: Path, **options: Any) -> audio.Recording:
    misbehave(path)
    return audio.read_windows(path, **options)


def read_file(path: Path, **options: Any) -> FileReading:
    misbehave(path)
    return tags.read_file(path, **options)


def read_files(paths: list[Path], **options: Any) -> list[FileReading]:
    return [read_file(path, **options) for path in paths]


def hash_streams(path: Path, **options: Any) -> dict[str, str]:
    misbehave(path)
    return audio.hash_streams(path, **options)
