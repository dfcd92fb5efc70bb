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

from tagger.errors import AccessError, DecodeError, TaggerError, WorkerError
from tagger.paths import RemotePath
from tagger.priority import stay_nice_in_own_session
from tagger.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")

MIB = 1 << 20
GRACE_S = 5.0
"""How long after its time a process may take to be ended by its own alarm clock."""
START_S = 60.0
STARTED = True
"""What a process says once it can be asked."""

CRASHES = {
    signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGSYS,
    signal.SIGTRAP,
}  # fmt: skip
"""What ends a process for what it did, not for what somebody wanted."""

AGAIN = "a larger --max-{} with --force tries again"
SERVE = "from tagger.isolation import serve; serve({descriptor}, memory_mib={memory_mib})"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
SMALL = {"MALLOC_MMAP_THRESHOLD_": str(4 * MIB), "MALLOC_TRIM_THRESHOLD_": str(8 * MIB)}
"""Has glibc give back what was freed: a process that waits for its next file keeps little.

With less kept, a sixth of the time to decode a track went into clearing the same pages again.
"""
OOM_SCORE = Path("/proc/self/oom_score_adj")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call may take."""

    seconds: int
    memory_mib: int


def limits_of(settings: Settings) -> Limits:
    return Limits(settings.max_seconds, settings.max_memory)


@dataclass(slots=True)
class Guard:
    """Calls functions in processes that it starts on demand; any number of threads may call."""

    limits: Limits
    idle: list["Child"] = field(default_factory=list)

    def __reduce__(self) -> tuple[Callable[[Limits], "Guard"], tuple[Limits]]:
        """Become, where it is unpickled, the guard of that process: its children stay here."""
        return own_guard, (self.limits,)

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
        if answer.fate is Fate.BROKEN and child.calls > 1:
            child = self._start()
            answer = child.ask(function, args, kwargs, self.limits)
        if answer.fate is Fate.ALIVE:
            self.idle.append(child)
        if answer.error:
            is_far = any(isinstance(each, RemotePath) for each in args)
            if is_far and answer.fate is Fate.TOO_SLOW:  # the server was, and may be quicker later
                raise AccessError(str(answer.error))
            raise answer.error
        result: T = answer.result
        return result

    def _start(self) -> "Child":
        """Start a process. Raises WorkerError where the system does not let it get to work."""
        search_path = os.pathsep.join(filter(None, sys.path))
        try:
            ours, theirs = Pipe()
            with theirs:
                command = SERVE.format(
                    descriptor=theirs.fileno(), memory_mib=self.limits.memory_mib
                )
                process = subprocess.Popen(  # noqa: S603 - ourselves
                    [sys.executable, "-P", "-c", command],  # -P: no module from where we stand
                    env=os.environ | ONE_THREAD | SMALL | {"PYTHONPATH": search_path},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,  # out of reach of the terminal's Ctrl-C
                )
        except OSError as error:
            raise WorkerError(f"cannot start a process to read: {error.strerror}") from error
        child = Child(process, ours)
        child.await_start()
        return child


@cache
def own_guard(limits: Limits) -> Guard:
    """Return the one guard of this process with these limits; its children live as long."""
    return Guard(limits)


class Fate(Enum):
    """What a call did to the process."""

    ALIVE = auto()
    BROKEN = auto()  # by this call, or by what an earlier one left behind
    TOO_SLOW = auto()


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a call."""

    result: Any = None
    error: TaggerError | None = None
    fate: Fate = Fate.ALIVE


@dataclass(slots=True)
class Child:
    """A process that answers calls."""

    process: subprocess.Popen[bytes]
    pipe: Connection
    calls: int = 0

    def await_start(self) -> None:
        try:
            started = self.pipe.poll(START_S) and self.pipe.recv() is STARTED
        except (EOFError, ConnectionError):
            started = False
        if not started:
            self.end()
            raise WorkerError("a process to read does not start (is --max-memory too small?)")

    def ask(self, function: Callable[..., Any], args: Any, kwargs: Any, limits: Limits) -> Answer:
        """Return the answer; the process is gone afterwards unless its fate is ALIVE."""
        self.calls += 1
        try:
            self.pipe.send((limits.seconds, function, args, kwargs))
            answered = self.pipe.poll(limits.seconds + GRACE_S)
            answer = self.pipe.recv() if answered else _hanging(limits)
        except (EOFError, ConnectionError):
            answer = self._last_words(limits)
        except BaseException:
            self.end()
            raise
        if answer.fate is not Fate.ALIVE:
            self.end()
        return answer

    def _last_words(self, limits: Limits) -> Answer:
        """Tell from its exit code why the process ended in the middle of a call."""
        try:
            code = self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            return _hanging(limits)
        if code == -signal.SIGALRM:
            reason = f"reading it takes more than {limits.seconds} s ({AGAIN.format('seconds')})"
            return Answer(error=DecodeError(reason), fate=Fate.TOO_SLOW)
        if -code in CRASHES:
            reason = f"it crashes the decoder ({signal.Signals(-code).name})"
            return Answer(error=DecodeError(reason), fate=Fate.BROKEN)
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        reason = f"the process that read it was ended ({how}), as happens when memory runs out"
        return Answer(error=AccessError(reason), fate=Fate.BROKEN)

    def end(self) -> None:
        self.pipe.close()
        self.process.kill()
        with suppress(subprocess.TimeoutExpired):  # it waits for a disk that does not answer
            self.process.wait(GRACE_S)


def _hanging(limits: Limits) -> Answer:
    reason = f"no answer in {limits.seconds} s, not even to a signal: does its disk respond?"
    return Answer(error=AccessError(reason), fate=Fate.TOO_SLOW)


def serve(descriptor: int, *, memory_mib: int) -> None:
    """Answer calls until nobody is there to ask: what runs in the process of a Child."""
    stay_nice_in_own_session()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        wanted = memory_mib * MIB
        limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))
        with suppress(OSError):
            OOM_SCORE.write_text("500")  # if memory runs out, rather this process than the run
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when there is nobody to ask any more
    # The alarm ends the process whatever it is doing, and without anybody's help.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with Connection(descriptor) as pipe:
        pipe.send(STARTED)
        while True:
            try:
                seconds, function, args, kwargs = pipe.recv()
            except EOFError:
                return
            signal.alarm(seconds)
            answer = _answer(function, args, kwargs, memory_mib)
            signal.alarm(0)
            pipe.send(answer)


def _answer(function: Callable[..., Any], args: Any, kwargs: Any, memory_mib: int) -> Answer:
    try:
        return Answer(function(*args, **kwargs))
    except TaggerError as error:
        return Answer(error=error)
    except MemoryError:
        reason = f"reading it takes more than {memory_mib} MiB of memory ({AGAIN.format('memory')})"
        return Answer(error=DecodeError(reason), fate=Fate.BROKEN)
    except Exception as error:  # noqa: BLE001 - one file's accident must not end the run
        return Answer(error=DecodeError(f"unexpected error while it was read: {error!r}"))
