"""A call that crashes, hangs or takes too much memory costs only its own file."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tagger.errors import AccessError, DecodeError, FailureKind, TagError, WorkerError
from tagger.isolation import (
    BYTES_PER_MIB,
    CallLimits,
    IsolatedCaller,
    get_fork_server,
    get_process_caller,
)
from tagger.paths import RemotePath


@pytest.fixture
def isolated() -> Iterator[IsolatedCaller]:
    with closing(IsolatedCaller(CallLimits(seconds=2, memory_mib=512))) as isolated:
        yield isolated


def get_pid(value: object) -> tuple[int, object]:
    return os.getpid(), value


def raise_tag_error() -> None:
    raise TagError("broken", FailureKind.DAMAGED)


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def abort() -> None:
    os.abort()


def hang(_: object = None) -> None:
    while True:
        time.sleep(60)


def spin() -> None:
    while True:
        pass


def take_memory() -> int:
    return len(bytearray(1024 * BYTES_PER_MIB))


def raise_key_error() -> None:
    raise KeyError("unexpected")


def send_signal(number: int) -> str:
    os.kill(os.getpid(), number)
    return "still there"


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crash_unless_new(pid_file: Path) -> str:
    """Crash in the process that wrote the file, as if an earlier call had damaged its memory."""
    if pid_file.read_text() == str(os.getpid()):
        crash()
    return "well"


def write_pid(pid_file: Path) -> None:
    pid_file.write_text(str(os.getpid()))


def test_calls_run_in_another_process_and_share_it(isolated: IsolatedCaller) -> None:
    first, second = isolated.call(get_pid, "a"), isolated.call(get_pid, {"b": 1})
    assert first[0] == second[0] != os.getpid()
    assert (first[1], second[1]) == ("a", {"b": 1})


def test_our_own_errors_come_back_with_their_kind(isolated: IsolatedCaller) -> None:
    with pytest.raises(TagError, match="broken") as caught:
        isolated.call(raise_tag_error)
    assert caught.value.kind is FailureKind.DAMAGED
    isolated.call(get_pid, 1)


@pytest.mark.parametrize(
    ("function", "words", "kind"),
    [
        (crash, "crashes the decoder .SIGSEGV", FailureKind.CRASHED),
        (abort, "crashes the decoder .SIGABRT", FailureKind.CRASHED),
        (hang, "more than 2 s", FailureKind.OVER_LIMIT),
        (spin, "more than 2 s", FailureKind.OVER_LIMIT),
        (take_memory, "more than 512 MiB", FailureKind.OVER_LIMIT),
    ],
)
def test_a_call_that_fails_costs_only_its_own_file(
    isolated: IsolatedCaller, function: Callable[[], None], words: str, kind: FailureKind
) -> None:
    with pytest.raises(DecodeError, match=words) as caught:
        isolated.call(function)
    assert caught.value.permanent
    assert caught.value.kind is kind
    assert isolated.call(get_pid, 1)[1] == 1


def test_a_file_with_an_unexpected_error_is_tried_again(isolated: IsolatedCaller) -> None:
    with pytest.raises(AccessError, match=r"unexpected error.*KeyError") as caught:
        isolated.call(raise_key_error)
    assert not caught.value.permanent
    assert isolated.call(get_pid, 1)[1] == 1


def test_a_stop_signal_to_all_processes_does_not_end_a_call(isolated: IsolatedCaller) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        assert isolated.call(send_signal, number) == "still there"


def test_a_file_whose_process_the_system_killed_is_tried_again(
    isolated: IsolatedCaller,
) -> None:
    with pytest.raises(AccessError, match="memory") as caught:
        isolated.call(be_killed)
    assert not caught.value.permanent
    assert caught.value.kind is FailureKind.OTHER


def test_a_slow_server_is_tried_again(isolated: IsolatedCaller) -> None:
    with pytest.raises(AccessError, match="more than 2 s") as caught:
        isolated.call(hang, RemotePath("s3://bucket/song.flac"))
    assert caught.value.kind is FailureKind.SERVER


def test_a_crash_in_a_process_that_an_earlier_file_damaged_does_not_count(
    isolated: IsolatedCaller, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    isolated.call(write_pid, pid_file)
    assert isolated.call(crash_unless_new, pid_file) == "well"


def test_a_process_ends_with_the_process_that_started_it(isolated: IsolatedCaller) -> None:
    (pid, _), child = isolated.call(get_pid, 1), isolated.idle[0]
    child.pipe.close()  # as if the parent was killed
    assert child.wait() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_fork_server_that_something_ended_is_replaced(isolated: IsolatedCaller) -> None:
    server = get_fork_server()
    server.process.kill()
    server.process.wait()
    assert isolated.call(get_pid, 1)[1] == 1
    assert get_fork_server() is not server


def test_no_process_outlives_a_run_that_was_killed() -> None:
    script = (
        "import os, signal\n"
        "from tagger.isolation import CallLimits, IsolatedCaller, get_fork_server\n"
        "pid = IsolatedCaller(CallLimits(2, 2048)).call(os.getpid)\n"
        "print(pid, get_fork_server().process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    pids = [int(pid) for pid in result.stdout.split()]
    assert len(pids) == 2
    for _ in range(100):
        if not any(map(is_running, pids)):
            return
        time.sleep(0.1)
    pytest.fail("a process is still there")


def is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_file_is_tried_again_after_limits_too_small_for_any_call() -> None:
    with (
        closing(IsolatedCaller(CallLimits(seconds=2, memory_mib=20))) as isolated,
        pytest.raises((AccessError, WorkerError), match="memory") as caught,
    ):
        isolated.call(get_pid, 1)
    assert not getattr(caught.value, "permanent", False)


def test_a_lower_memory_limit_of_the_system_stays() -> None:
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (900 << 20, 900 << 20))\n"
        "from contextlib import closing; from tagger.isolation import CallLimits, IsolatedCaller\n"
        "with closing(IsolatedCaller(CallLimits(2, 2048))) as caller: print(caller.call(abs, -3))"
    )
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.stdout == "3\n", result.stderr


def test_an_unpickled_caller_is_the_one_of_its_process(isolated: IsolatedCaller) -> None:
    isolated.call(get_pid, 1)
    sent, again = pickle.loads(pickle.dumps((isolated, isolated)))
    other = pickle.loads(pickle.dumps(IsolatedCaller(CallLimits(seconds=3, memory_mib=512))))
    assert sent is again is get_process_caller(isolated.limits)
    assert sent.limits == isolated.limits
    assert sent is not isolated
    assert not sent.idle
    assert other is not sent
