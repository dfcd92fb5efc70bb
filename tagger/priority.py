"""How much of a machine a run may take, and how it gives way to others; owns psutil."""

import os
import time
from contextlib import suppress
from pathlib import Path

LOWEST = 19
"""The highest niceness there is: whoever wants a processor as well gets nearly all of it."""

AUTOGROUP = Path("/proc/self/autogroup")

AGAIN_S = 0.12
TRIES = 20
"""Linux lets users who are not root set the niceness of sessions ten times a second, all together.
"""


def give_way() -> None:
    """Put this process, and all that it starts from now on, behind all others, for good.

    Processors by niceness, disks by the idle class of Linux. What a system does not have or allow
    is left as it is.
    """
    import psutil

    process = psutil.Process()
    with suppress(OSError, psutil.Error):
        process.nice(LOWEST)
    if psutil.LINUX:
        with suppress(OSError, psutil.Error):
            process.ionice(psutil.IOPRIO_CLASS_IDLE)


def stay_nice_in_own_session() -> None:
    """Keep the niceness in a session that was made for this process.

    Linux may share processors between sessions first (autogroup), and a new one gets a full share.
    """
    niceness = os.nice(0)
    if niceness <= 0:
        return
    with suppress(FileNotFoundError, PermissionError):
        for _ in range(TRIES):
            try:
                AUTOGROUP.write_text(str(niceness))
            except BlockingIOError:
                time.sleep(AGAIN_S)
            else:
                return


def cores() -> int:
    """Return how many cores this process may use; containers allow fewer than there are."""
    allowed = getattr(os, "sched_getaffinity", None)  # Linux
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def half(count: int) -> int:
    """Return how many of so many cores a gentle run uses: half of them, one at least."""
    return max(1, count // 2)
