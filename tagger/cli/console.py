"""A terminal, or a pipe whose reader may go away."""

from typing import Any

from rich.console import Console

from tagger.cli.text import ignore_broken_pipe
from tagger.errors import ReportError


class PatientConsole(Console):
    """Goes on when nobody reads any more; rich would end the program, with the code of failures."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print. Raises ReportError where the disk that it goes to is full."""
        try:
            super().print(*objects, **options)
        except OSError as error:
            raise ReportError(f"cannot print: {error.strerror}") from error

    def on_broken_pipe(self) -> None:
        self.quiet = True
        ignore_broken_pipe(self.file)
