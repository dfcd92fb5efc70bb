"""Other processes in tests. A test that fails or times out leaves none behind."""

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from tempfile import TemporaryFile
from typing import IO, Any

EXIT_TIMEOUT_S = 20
FORK_TIMEOUT_S = 300


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


def capture_fork(
    function: Callable[[], int], stdin: IO[bytes] | None = None
) -> subprocess.CompletedProcess[str]:
    """Call a function in a fork of this process, which ends with the returned exit code.

    A fork has imported torch and transformers already. A new process takes six seconds of processor
    time for that.
    """
    with TemporaryFile() as out, TemporaryFile() as err:

        def call() -> None:
            for number, file in enumerate([stdin, out, err]):
                if file:
                    os.dup2(file.fileno(), number)
            sys.stdin = os.fdopen(0, closefd=False)
            sys.stdout, sys.stderr = (os.fdopen(each, "w", closefd=False) for each in (1, 2))
            code = 1
            try:
                code = function()
            except BaseException:  # noqa: BLE001 - as Python ends a process
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

        code = os.waitstatus_to_exitcode(run_in_fork(call))
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
        return subprocess.CompletedProcess([], code, *texts)
