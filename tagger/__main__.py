"""The process of the program `tagger`."""

import atexit
import gc
import sys

from tagger.cli import main

GARBAGE_THRESHOLD = 100_000
"""New objects after which Python looks for unused ones. Its default is 700."""


def run() -> int:
    """Run the program, and spare Python most of its searches for unused objects.

    torch makes 160,000 objects that stay to the end. Python would look through them again and again
    while they are made, and at the exit: half a second in all.
    """
    gc.set_threshold(GARBAGE_THRESHOLD)
    atexit.register(gc.freeze)
    return main()


if __name__ == "__main__":  # and not in the processes that the demo starts
    sys.exit(run())
