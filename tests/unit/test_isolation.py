"""A call on a file that crashes, hangs or devours memory costs that file alone."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tagger.errors import AccessError, DecodeError, TagError, WorkerError
from tagger.isolation import BYTES_PER_MIB, CallLimits, IsolatedCaller, get_process_caller


@pytest.fixture
def isolated() -> Iterator[IsolatedCaller]:
    with closing(IsolatedCaller(CallLimits(seconds=2, memory_mib=512))) as isolated:
        yield isolated


def identity(value: object) -> tuple[int, object]:
    return os.getpid(), value


def refuse() -> None:
    raise TagError("broken")


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def abort() -> None:
    os.abort()


def hang() -> None:
    while True:
        time.sleep(60)


def spin() -> None:
    while True:
        pass


def devour() -> int:
    return len(bytearray(1024 * BYTES_PER_MIB))


def stumble() -> None:
    raise KeyError("unforeseen")


def send_signal(number: int) -> str:
    os.kill(os.getpid(), number)
    return "still there"


def die_of_memory() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crash_unless_new(seen: Path) -> str:
    """Crash in the process that wrote `seen`, as one does whose heap an earlier file spoilt."""
    if seen.read_text() == str(os.getpid()):
        crash()
    return "well"


def write_process_number(seen: Path) -> None:
    seen.write_text(str(os.getpid()))


def test_calls_run_in_another_process_and_share_it(isolated: IsolatedCaller) -> None:
    first, second = isolated.call(identity, "a"), isolated.call(identity, {"b": 1})
    assert first[0] == second[0] != os.getpid()
    assert (first[1], second[1]) == ("a", {"b": 1})


def test_our_own_errors_come_back_as_they_are(isolated: IsolatedCaller) -> None:
    with pytest.raises(TagError, match="broken"):
        isolated.call(refuse)
    isolated.call(identity, 1)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (crash, "crashes the decoder .SIGSEGV"),
        (abort, "crashes the decoder .SIGABRT"),
        (hang, "more than 2 s"),
        (spin, "more than 2 s"),
        (devour, "more than 512 MiB"),
        (stumble, "unexpected error.*KeyError"),
    ],
)
def test_what_befalls_a_call_is_a_failure_of_the_file_and_the_next_is_well(
    isolated: IsolatedCaller, function: Callable[[], None], words: str
) -> None:
    with pytest.raises(DecodeError, match=words) as caught:
        isolated.call(function)
    assert caught.value.permanent
    assert isolated.call(identity, 1)[1] == 1


def test_a_stop_for_all_processes_is_no_fault_of_the_file(isolated: IsolatedCaller) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        assert isolated.call(send_signal, number) == "still there"


def test_a_process_that_the_system_killed_may_be_tried_again_tomorrow(
    isolated: IsolatedCaller,
) -> None:
    with pytest.raises(AccessError, match="memory") as caught:
        isolated.call(die_of_memory)
    assert not caught.value.permanent


def test_a_file_is_not_blamed_for_what_an_earlier_one_did_to_the_process(
    isolated: IsolatedCaller, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    isolated.call(write_process_number, seen)
    assert isolated.call(crash_unless_new, seen) == "well"


def test_no_process_outlives_the_guard_or_its_owner(isolated: IsolatedCaller) -> None:
    (number, _), child = isolated.call(identity, 1), isolated.idle[0]
    child.pipe.close()  # as when the owner is killed
    assert child.process.wait(5) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_limits_too_small_for_anything_are_no_lasting_fault_of_a_file() -> None:
    with (
        closing(IsolatedCaller(CallLimits(seconds=2, memory_mib=20))) as isolated,
        pytest.raises((AccessError, WorkerError), match="memory") as caught,
    ):
        isolated.call(identity, 1)
    assert not getattr(caught.value, "lasting", False)


def test_a_limit_of_the_system_that_is_lower_is_kept() -> None:
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (900 << 20, 900 << 20))\n"
        "from contextlib import closing; from tagger.isolation import CallLimits, IsolatedCaller\n"
        "with closing(IsolatedCaller(CallLimits(2, 2048))) as isolated: print(isolated.call(abs, -3))"
    )
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout == "3\n", result.stderr


def test_a_guard_that_is_sent_to_a_process_is_the_one_guard_there(isolated: IsolatedCaller) -> None:
    isolated.call(identity, 1)
    sent, again = pickle.loads(pickle.dumps((isolated, isolated)))
    other = pickle.loads(pickle.dumps(IsolatedCaller(CallLimits(seconds=3, memory_mib=512))))
    assert sent is again is get_process_caller(isolated.limits)
    assert sent.limits == isolated.limits
    assert sent is not isolated
    assert not sent.idle
    assert other is not sent
