"""What a person sees on stderr until the first results are there, and between them."""

import math
import sys
import time

from rich.text import Text

from tagger.cli.console import PatientConsole
from tagger.cli.progress import LINE_EVERY_S
from tagger.cli.signals import Stopper
from tagger.cli.text import megabytes


class Loading:
    """`status`, a context manager, is a live line on a terminal; elsewhere lines come at times."""

    def __init__(self, stopper: Stopper) -> None:
        self.console = PatientConsole(file=sys.stderr)
        self.status = self.console.status("Loading the model")
        self.stopper = stopper
        self.told = -math.inf

    def tell(self, text: str) -> None:
        self.told = time.monotonic()
        self.console.print(Text(f"tagger: {text}"), soft_wrap=True)

    def doing(self, text: str) -> None:
        """Say what is being done now. Raises where the user asked to stop."""
        self.stopper.check()
        self.status.update(text[:1].upper() + text[1:])
        if not self.console.is_terminal and time.monotonic() - self.told >= LINE_EVERY_S:
            self.tell(text)

    def fetching(self, done: int, total: int) -> None:
        is_whole = done >= total
        self.doing(
            "loading the model" if is_whole else f"downloading the model, {megabytes(done, total)}"
        )
