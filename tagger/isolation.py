"""Calls on files of unknown origin, in a process of their own with limits; owns subprocess.

A broken file can crash a decoder, hang it, or make it ask for all memory there is. Here that costs
one small process and one row of the report. These processes only read: what writes into a music
file is the process that holds the lock.
"""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cache
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from tagger.errors import AccessError, DecodeError, FailureKind, TaggerError, WorkerError
from tagger.pacing import keep_niceness_in_new_session
from tagger.paths import is_remote
from tagger.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")

BYTES_PER_MIB = 1 << 20
EXIT_GRACE_S = 5.0
"""How long after its time a process may take to be ended by its own alarm clock."""
PROCESS_START_TIMEOUT_S = 60.0
READY_MESSAGE = True
"""What a process says once it can be asked."""

CRASH_SIGNALS = {
    signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGSYS,
    signal.SIGTRAP,
}  # fmt: skip
"""What ends a process for what it did, not for what somebody wanted."""

RAISE_LIMIT_HINT = "a larger --max-{} with --force tries again"
WORKER_COMMAND = (
    "from tagger.isolation import serve_calls; serve_calls({descriptor}, memory_mib={memory_mib})"
)
ONE_THREAD_ENV = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
MALLOC_ENV = {
    "MALLOC_MMAP_THRESHOLD_": str(4 * BYTES_PER_MIB),
    "MALLOC_TRIM_THRESHOLD_": str(8 * BYTES_PER_MIB),
}
"""Has glibc give back what was freed: a process that waits for its next file keeps little.

With less kept, a sixth of the time to decode a track went into clearing the same pages again.
"""
OOM_SCORE_FILE = Path("/proc/self/oom_score_adj")


@dataclass(frozen=True, slots=True)
class CallLimits:
    """What one call may take."""

    seconds: int
    memory_mib: int


def get_call_limits(settings: Settings) -> CallLimits:
    return CallLimits(settings.max_seconds, settings.max_memory)


@dataclass(slots=True)
class IsolatedCaller:
    """Calls functions in processes that it starts on demand; any number of threads may call."""

    limits: CallLimits
    idle: list["CallProcess"] = field(default_factory=list)

    def __reduce__(self) -> tuple[Callable[[CallLimits], "IsolatedCaller"], tuple[CallLimits]]:
        """Unpickle as the caller of the other process; the child processes stay here."""
        return get_process_caller, (self.limits,)

    def close(self) -> None:
        while self.idle:
            self.idle.pop().end()

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what the function returns, or raise the TaggerError that it raises.

        Function, arguments and result are pickled. Raises DecodeError where the call crashes, takes
        too long or too much memory, or ends in an error that nobody foresaw; AccessError where the
        system does not let go of the process, or where a server took the time. What a process did
        before is not held against a file: a crash counts only in a process that is new.
        """
        try:
            child = self.idle.pop()
        except IndexError:
            child = self._start()
        answer = child.ask(function, args, kwargs, self.limits)
        if answer.fate is ProcessFate.BROKEN and child.calls > 1:
            child = self._start()
            answer = child.ask(function, args, kwargs, self.limits)
        if answer.fate is ProcessFate.ALIVE:
            self.idle.append(child)
        if answer.error:
            is_far = any(is_remote(each) for each in args)
            if (
                is_far and answer.fate is ProcessFate.TOO_SLOW
            ):  # the server was, and may be quicker later
                raise AccessError(str(answer.error), FailureKind.SERVER)
            raise answer.error
        result: T = answer.result
        return result

    def _start(self) -> "CallProcess":
        """Start a process. Raises WorkerError where the system does not let it get to work."""
        search_path = os.pathsep.join(filter(None, sys.path))
        try:
            ours, theirs = Pipe()
            with theirs:
                command = WORKER_COMMAND.format(
                    descriptor=theirs.fileno(), memory_mib=self.limits.memory_mib
                )
                process = subprocess.Popen(  # noqa: S603 - ourselves
                    [sys.executable, "-P", "-c", command],  # -P: no module from where we stand
                    env=os.environ | ONE_THREAD_ENV | MALLOC_ENV | {"PYTHONPATH": search_path},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,  # out of reach of the terminal's Ctrl-C
                )
        except OSError as error:
            raise WorkerError(f"cannot start a process to read: {error.strerror}") from error
        child = CallProcess(process, ours)
        child.await_start()
        return child


@cache
def get_process_caller(limits: CallLimits) -> IsolatedCaller:
    """Return the one caller of this process with these limits."""
    return IsolatedCaller(limits)


class ProcessFate(Enum):
    """What a call did to the process."""

    ALIVE = auto()
    BROKEN = auto()  # by this call, or by what an earlier one left behind
    TOO_SLOW = auto()


@dataclass(frozen=True, slots=True)
class CallResult:
    """What came of a call."""

    result: Any = None
    error: TaggerError | None = None
    fate: ProcessFate = ProcessFate.ALIVE


@dataclass(slots=True)
class CallProcess:
    """A process that answers calls."""

    process: subprocess.Popen[bytes]
    pipe: Connection
    calls: int = 0

    def await_start(self) -> None:
        try:
            started = self.pipe.poll(PROCESS_START_TIMEOUT_S) and self.pipe.recv() is READY_MESSAGE
        except (EOFError, ConnectionError):
            started = False
        if not started:
            self.end()
            raise WorkerError("a process to read does not start (is --max-memory too small?)")

    def ask(
        self, function: Callable[..., Any], args: Any, kwargs: Any, limits: CallLimits
    ) -> CallResult:
        """Return the answer; the process is gone afterwards unless its fate is ALIVE."""
        self.calls += 1
        try:
            self.pipe.send((limits.seconds, function, args, kwargs))
            answered = self.pipe.poll(limits.seconds + EXIT_GRACE_S)
            answer = self.pipe.recv() if answered else _make_hang_result(limits)
        except (EOFError, ConnectionError):
            answer = self._last_words(limits)
        except BaseException:
            self.end()
            raise
        if answer.fate is not ProcessFate.ALIVE:
            self.end()
        return answer

    def _last_words(self, limits: CallLimits) -> CallResult:
        """Tell from its exit code why the process ended in the middle of a call."""
        try:
            code = self.process.wait(EXIT_GRACE_S)
        except subprocess.TimeoutExpired:
            return _make_hang_result(limits)
        if code == -signal.SIGALRM:
            reason = f"reading it takes more than {limits.seconds} s ({RAISE_LIMIT_HINT.format('seconds')})"
            return CallResult(error=DecodeError(reason), fate=ProcessFate.TOO_SLOW)
        if -code in CRASH_SIGNALS:
            reason = f"it crashes the decoder ({signal.Signals(-code).name})"
            return CallResult(error=DecodeError(reason), fate=ProcessFate.BROKEN)
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        reason = f"the process that read it was ended ({how}), as happens when memory runs out"
        return CallResult(error=AccessError(reason), fate=ProcessFate.BROKEN)

    def end(self) -> None:
        self.pipe.close()
        self.process.kill()
        with suppress(subprocess.TimeoutExpired):  # it waits for a disk that does not answer
            self.process.wait(EXIT_GRACE_S)


def _make_hang_result(limits: CallLimits) -> CallResult:
    reason = f"no answer in {limits.seconds} s, not even to a signal: does its disk respond?"
    return CallResult(error=AccessError(reason), fate=ProcessFate.TOO_SLOW)


def serve_calls(descriptor: int, *, memory_mib: int) -> None:
    """Answer calls until nobody is there to ask: what runs in the process of a Child."""
    keep_niceness_in_new_session()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        wanted = memory_mib * BYTES_PER_MIB
        limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))
        with suppress(OSError):
            OOM_SCORE_FILE.write_text("500")  # if memory runs out, rather this process than the run
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when there is nobody to ask any more
    # The alarm ends the process whatever it is doing, and without anybody's help.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with Connection(descriptor) as pipe:
        pipe.send(READY_MESSAGE)
        while True:
            try:
                seconds, function, args, kwargs = pipe.recv()
            except EOFError:
                return
            signal.alarm(seconds)
            answer = _make_call(function, args, kwargs, memory_mib)
            signal.alarm(0)
            pipe.send(answer)


def _make_call(function: Callable[..., Any], args: Any, kwargs: Any, memory_mib: int) -> CallResult:
    try:
        return CallResult(function(*args, **kwargs))
    except TaggerError as error:
        return CallResult(error=error)
    except MemoryError:
        reason = f"reading it takes more than {memory_mib} MiB of memory ({RAISE_LIMIT_HINT.format('memory')})"
        return CallResult(error=DecodeError(reason), fate=ProcessFate.BROKEN)
    except Exception as error:  # noqa: BLE001 - one file's accident must not end the run
        return CallResult(error=DecodeError(f"unexpected error while it was read: {error!r}"))
