"""`tagger completion`."""

import click
from click.shell_completion import get_completion_class

from tagger.cli.text import show

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> int:
    """Print what makes SHELL complete the commands and options of tagger.

    For bash, in ~/.bashrc: eval "$(tagger completion bash)"
    """
    kind = get_completion_class(shell)
    assert kind is not None
    program = context.find_root().command
    show(kind(program, {}, "tagger", "_TAGGER_COMPLETE").source())
    return 0
