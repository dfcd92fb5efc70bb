"""Calls on files of unknown origin, in separate processes with limits; owns subprocess.

A broken file can crash a decoder, make it hang, or make it ask for all memory. With these processes
such a file costs one small process and one row of the report. The processes only read. Only the
process that holds the lock of the state file writes into music files.

A fork server makes the processes: it has imported what the calls need. A fork of it takes
milliseconds, where a new interpreter and its imports take 0.3 s of processor time.
"""

import atexit
import os
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
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
"""A process that is over its time limit may take this much longer until its alarm ends it."""
SERVER_EXIT_GRACE_S = 1.0
PROCESS_START_TIMEOUT_S = 60.0

CRASH_SIGNALS = {
    signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGSYS,
    signal.SIGTRAP,
}  # fmt: skip
"""The signals that end a process because of its own fault. Other signals come from outside."""

RAISE_LIMIT_HINT = "a larger --max-{} with --force tries again"
FORK_SERVER_COMMAND = (
    "import tagger.audio, tagger.tags; from tagger.isolation import serve_forks; serve_forks({})"
)
ONE_THREAD_ENV = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
MALLOC_ENV = {
    "MALLOC_MMAP_THRESHOLD_": str(4 * BYTES_PER_MIB),
    "MALLOC_TRIM_THRESHOLD_": str(8 * BYTES_PER_MIB),
}
"""Make glibc return freed memory to the system: a process that waits for its next file is small.

With lower thresholds, a sixth of the decoding time went into clearing the same pages again.
"""
OOM_SCORE_FILE = Path("/proc/self/oom_score_adj")
OOM_SCORE = "500"
"""If memory runs out, Linux ends such a process rather than the run."""


@dataclass(frozen=True, slots=True)
class CallLimits:
    """The time and the memory that one call may take."""

    seconds: int
    memory_mib: int


def get_call_limits(settings: Settings) -> CallLimits:
    return CallLimits(settings.max_seconds, settings.max_memory)


@dataclass(slots=True)
class IsolatedCaller:
    """Calls functions in processes that it starts on demand. Any number of threads may call."""

    limits: CallLimits
    idle: list["CallProcess"] = field(default_factory=list)

    def __reduce__(self) -> tuple[Callable[[CallLimits], "IsolatedCaller"], tuple[CallLimits]]:
        """Unpickle as the caller of the other process. The child processes stay here."""
        return get_process_caller, (self.limits,)

    def close(self) -> None:
        while self.idle:
            self.idle.pop().end()

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what the function returns, or raise the TaggerError that it raises.

        Function, arguments and result are pickled. Raises DecodeError if the call crashes, exceeds
        a limit; AccessError if it ends in an unexpected error, if the system does not end the
        process, or if a server took the time. A crash counts only in a new process: an earlier file
        may have damaged the memory of an older one.
        """
        try:
            child = self.idle.pop()
        except IndexError:
            child = self._start()
        result = child.call(function, args, kwargs, self.limits)
        if result.state is ProcessState.BROKEN and child.calls > 1:
            child = self._start()
            result = child.call(function, args, kwargs, self.limits)
        if result.state is ProcessState.READY:
            self.idle.append(child)
        if result.error:
            has_remote_path = any(is_remote(argument) for argument in args)
            if has_remote_path and result.state is ProcessState.TIMED_OUT:
                # The server was slow. It may be faster in the next run.
                raise AccessError(str(result.error), FailureKind.SERVER)
            raise result.error
        value: T = result.value
        return value

    def _start(self) -> "CallProcess":
        """Start a process. Raises WorkerError if it cannot be started."""
        try:
            return get_fork_server().start_process(self.limits.memory_mib)
        except (BrokenPipeError, ConnectionResetError):  # something ended the server
            get_fork_server.cache_clear()
            return get_fork_server().start_process(self.limits.memory_mib)


@cache
def get_process_caller(limits: CallLimits) -> IsolatedCaller:
    """Return the one caller of this process with these limits."""
    return IsolatedCaller(limits)


class ProcessState(Enum):
    """The state of a process after a call."""

    READY = auto()
    BROKEN = auto()  # by this call or by an earlier one
    TIMED_OUT = auto()


@dataclass(frozen=True, slots=True)
class CallResult:
    """The value or the error of a call. Pickling keeps the kind of a TrackError."""

    value: Any = None
    error: TaggerError | None = None
    state: ProcessState = ProcessState.READY


@dataclass(slots=True)
class ForkServer:
    """A process of which the processes for calls are forks. Forks of our own process share it."""

    process: subprocess.Popen[bytes]
    requests: socket.socket

    def start_process(self, memory_mib: int) -> "CallProcess":
        """Start a process for calls.

        Raises WorkerError if it cannot be started, BrokenPipeError if the server has ended.
        """
        try:
            ours, theirs = Pipe()
            exit_codes, exit_code_writer = Pipe(duplex=False)
        except OSError as error:
            raise WorkerError(f"cannot start a process to read files: {error.strerror}") from error
        with theirs, exit_code_writer:
            # One byte a request: requests of several processes do not mix.
            descriptors = [theirs.fileno(), exit_code_writer.fileno()]
            socket.send_fds(self.requests, [b"+"], descriptors)
        process = CallProcess(ours, exit_codes)
        process.prepare(memory_mib)
        return process

    def end(self) -> None:
        """Let the server end with its last fork. It then has the processor time of all forks."""
        self.requests.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(SERVER_EXIT_GRACE_S)
        self.process.kill()
        self.process.wait()


@cache
def get_fork_server() -> ForkServer:
    """Return the fork server, started with the first call. Raises WorkerError."""
    search_path = os.pathsep.join(filter(None, sys.path))
    try:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(  # noqa: S603 - our own code
                # -P: no modules of the current folder
                [sys.executable, "-P", "-c", FORK_SERVER_COMMAND.format(theirs.fileno())],
                env=os.environ | ONE_THREAD_ENV | MALLOC_ENV | {"PYTHONPATH": search_path},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # the terminal's Ctrl-C does not reach it
            )
    except OSError as error:
        raise WorkerError(f"cannot start a process to read files: {error.strerror}") from error
    server = ForkServer(process, ours)
    atexit.register(server.end)
    return server


@dataclass(slots=True)
class CallProcess:
    """A process that runs calls, one after the other."""

    pipe: Connection
    exit_codes: Connection
    """Gets the exit code from the fork server; a signal is a negative number."""
    pid: int = 0
    calls: int = 0

    def prepare(self, memory_mib: int) -> None:
        """Hand over limit and environment, and wait until it is ready. Raises WorkerError."""
        with suppress(EOFError, ConnectionError):
            self.pipe.send((memory_mib, dict(os.environ)))
            if self.pipe.poll(PROCESS_START_TIMEOUT_S):
                self.pid = self.pipe.recv()
        if not self.pid:
            self.end()
            raise WorkerError("a process to read files does not start (is --max-memory too small?)")

    def call(
        self, function: Callable[..., Any], args: Any, kwargs: Any, limits: CallLimits
    ) -> CallResult:
        """Run a call. The process has ended afterwards, unless its state is READY."""
        self.calls += 1
        result: CallResult
        try:
            self.pipe.send((limits.seconds, function, args, kwargs))
            has_result = self.pipe.poll(limits.seconds + EXIT_GRACE_S)
            result = self.pipe.recv() if has_result else _make_hang_result(limits)
        except (EOFError, ConnectionError):
            result = self._explain_exit(limits)
        except BaseException:
            self.end()
            raise
        if result.state is not ProcessState.READY:
            self.end()
        return result

    def _explain_exit(self, limits: CallLimits) -> CallResult:
        """Return the result of a call in which the process ended, by its exit code."""
        code = self.wait()
        if code is None:
            return _make_hang_result(limits)
        if code == -signal.SIGALRM:
            hint = RAISE_LIMIT_HINT.format("seconds")
            reason = f"reading it takes more than {limits.seconds} s ({hint})"
            error = DecodeError(reason, FailureKind.OVER_LIMIT)
            return CallResult(error=error, state=ProcessState.TIMED_OUT)
        if -code in CRASH_SIGNALS:
            reason = f"it crashes the decoder ({signal.Signals(-code).name})"
            error = DecodeError(reason, FailureKind.CRASHED)
            return CallResult(error=error, state=ProcessState.BROKEN)
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        reason = f"the process that read it was ended ({cause}), as happens when memory runs out"
        return CallResult(error=AccessError(reason, FailureKind.OTHER), state=ProcessState.BROKEN)

    def wait(self) -> int | None:
        """Return the exit code, or None while the process waits for a disk that does not answer."""
        try:
            return self.exit_codes.recv() if self.exit_codes.poll(EXIT_GRACE_S) else None
        except EOFError:
            return -signal.SIGKILL  # of the fork server, and perhaps of this process

    def end(self) -> None:
        self.pipe.close()
        if self.pid and not self.exit_codes.poll():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait()
        self.exit_codes.close()


def _make_hang_result(limits: CallLimits) -> CallResult:
    reason = f"no answer in {limits.seconds} s, not even to a signal: does its disk respond?"
    return CallResult(
        error=AccessError(reason, FailureKind.NO_ACCESS), state=ProcessState.TIMED_OUT
    )


def serve_forks(descriptor: int) -> None:
    """Fork processes that run calls: the main function of a ForkServer.

    It returns when every process that holds the other end has closed it, and no fork is left.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when the run closes the socket
    child_ended, wakeup = socket.socketpair()
    wakeup.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
    requests = socket.socket(fileno=descriptor)
    watched = [requests, child_ended]
    exit_code_writers: dict[int, Connection] = {}
    while requests in watched or exit_code_writers:
        ready, _, _ = select.select(watched, [], [])
        if child_ended in ready:
            child_ended.recv(1024)
            _send_exit_codes(exit_code_writers)
        if requests in ready:
            message, descriptors, _, _ = socket.recv_fds(requests, 1, 2)
            if not message:
                watched.remove(requests)
                continue
            calls, exit_code_writer = (Connection(each) for each in descriptors)
            others: list[Connection | socket.socket] = [*watched, wakeup, exit_code_writer]
            others += exit_code_writers.values()
            with calls, suppress(OSError):  # no fork: the other end sees that the pipe is closed
                exit_code_writers[_fork(calls, others)] = exit_code_writer


def _fork(calls: Connection, others: Iterable[Connection | socket.socket]) -> int:
    """Fork a process that runs calls and has no use for what else is open. Raises OSError."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for each in others:
            each.close()
        os.setsid()
        serve_calls(calls)
        code = 0
    finally:
        os._exit(code)


def _send_exit_codes(writers: dict[int, Connection]) -> None:
    while writers:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with writers.pop(pid) as writer, suppress(OSError):  # nobody waits for it any more
            writer.send(os.waitstatus_to_exitcode(status))


def serve_calls(pipe: Connection) -> None:
    """Run calls until the other end of the pipe closes: the main function of a CallProcess."""
    keep_niceness_in_new_session()
    memory_mib, environment = pipe.recv()
    os.environ.update(environment)  # the fork server has that of its start
    if sys.platform == "linux":
        _, hard_limit = resource.getrlimit(resource.RLIMIT_AS)
        limit = memory_mib * BYTES_PER_MIB
        if hard_limit != resource.RLIM_INFINITY:
            limit = min(limit, hard_limit)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard_limit))
        with suppress(OSError):
            OOM_SCORE_FILE.write_text(OOM_SCORE)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the alarm ends it, whatever it is doing
    pipe.send(os.getpid())
    while True:
        try:
            seconds, function, args, kwargs = pipe.recv()
        except EOFError:
            return
        signal.alarm(seconds)
        result = _make_call(function, args, kwargs, memory_mib)
        signal.alarm(0)
        pipe.send(result)


def _make_call(function: Callable[..., Any], args: Any, kwargs: Any, memory_mib: int) -> CallResult:
    try:
        return CallResult(function(*args, **kwargs))
    except TaggerError as error:
        return CallResult(error=error)
    except MemoryError:
        hint = RAISE_LIMIT_HINT.format("memory")
        reason = f"reading it takes more than {memory_mib} MiB of memory ({hint})"
        return CallResult(
            error=DecodeError(reason, FailureKind.OVER_LIMIT), state=ProcessState.BROKEN
        )
    except Exception as error:  # noqa: BLE001 - one bad file must not end the run
        reason = f"unexpected error while it was read: {error!r}"
        # Perhaps a fault of tagger or of a library: the next version may read the file.
        return CallResult(error=AccessError(reason, FailureKind.OTHER))
