"""Other processes in tests. A test that fails or times out leaves none behind."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

EXIT_TIMEOUT_S = 20
FORK_TIMEOUT_S = 60


@contextmanager
def run_in_background(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a command, with text in its pipes. At the end, terminate it, and kill what is left."""
    with subprocess.Popen(command, text=True, start_new_session=True, **options) as process:
        try:
            yield process
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(EXIT_TIMEOUT_S)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def run_in_fork(function: Callable[[], object]) -> int:
    """Call a function in a fork of this process, and return the wait status of the fork.

    An alarm kills a fork that hangs.
    """
    pid = os.fork()
    if not pid:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # pytest-timeout has a handler
            signal.alarm(FORK_TIMEOUT_S)
            function()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return status
