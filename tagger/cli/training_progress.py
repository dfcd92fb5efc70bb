"""How a training goes, as a person sees it on stderr."""

import sys
import time

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from tagger.cli.console import PatientConsole
from tagger.cli.progress import LINE_EVERY_S
from tagger.cli.signals import Stopper
from tagger.training.measures import Epoch

MB = 1_000_000


class TrainingProgress:
    """`bar`, a context manager, is live on a terminal; elsewhere lines come at times.

    Each epoch is a line on both.
    """

    def __init__(self, stopper: Stopper) -> None:
        self.stopper = stopper
        self.console = PatientConsole(file=sys.stderr)
        self.told = time.monotonic()
        self.what = ""
        self.has_epochs = False
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("", total=None)

    def rest(self) -> None:
        """Take the bar down until something begins, for what is printed elsewhere."""
        self.bar.stop()

    def begin(self, what: str, of: int | None = None) -> None:
        self.what = what
        self.bar.start()
        self.bar.reset(self.task, total=of, description=what[:1].upper() + what[1:])

    def decoded(self, done: int, of: int) -> None:
        self._at("decoding", done, of)

    def fetching(self, done: int, total: int) -> None:
        self._at("downloading the model (MB)", done // MB, total // MB)

    def uploading(self, done: int, total: int) -> None:
        self._at("uploading (MB)", done // MB, total // MB)

    def embedded(self, done: int, of: int) -> None:
        self._at("listening", done, of)

    def stepped(self, done: int, of: int) -> None:
        self._at("training", done, of)

    def measured(self, done: int, of: int) -> None:
        self._at("measuring", done, of)

    def epoch(self, epoch: Epoch) -> None:
        if not self.has_epochs:
            self.console.print("epoch  training loss  validation loss  accuracy")
            self.has_epochs = True
        losses = f"{epoch.train_loss:13.3f}  {epoch.validation_loss:15.3f}"
        self.console.print(f"{epoch.number:5}  {losses}  {epoch.accuracy:8.1%}")

    def _at(self, what: str, done: int, of: int) -> None:
        self.stopper.check()
        if what != self.what:
            self.begin(what, of)
        self.bar.update(self.task, completed=done)
        if not self.console.is_terminal and time.monotonic() - self.told >= LINE_EVERY_S:
            self._line(f"{what}, {done} of {of}")

    def _line(self, text: str) -> None:
        self.told = time.monotonic()
        self.console.print(Text(f"tagger: {text}"), soft_wrap=True)
