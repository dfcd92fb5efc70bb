"""A terminal, or a pipe whose reader may go away."""

from rich.console import Console

from tagger.cli.text import ignore_broken_pipe


class PatientConsole(Console):
    """Goes on when nobody reads any more; rich would end the program, with the code of failures."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        ignore_broken_pipe(self.file)
