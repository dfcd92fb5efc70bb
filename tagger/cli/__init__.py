"""The command line: it parses, prints and exits. Other packages do the work."""

import traceback
from collections.abc import Sequence

import click

from tagger.cli.calibrate import calibrate
from tagger.cli.classify import classify
from tagger.cli.config import completion, config
from tagger.cli.demo import demo
from tagger.cli.normalize import normalize
from tagger.cli.report import report, runs
from tagger.cli.scan import apply, scan
from tagger.cli.schedule import schedule
from tagger.cli.show import show
from tagger.cli.terminal import escape_unprintable, print_line
from tagger.cli.train import evaluate, train
from tagger.cli.undo import undo
from tagger.cli.watch import add, watch
from tagger.errors import SettingsError, TaggerError
from tagger.version import __version__


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
)
@click.version_option(__version__, prog_name="tagger", message="%(prog)s %(version)s")
@click.pass_context
def commands(context: click.Context) -> int:
    """Listen to a music library and write each track's genre into its tags."""
    if context.invoked_subcommand:
        return 0
    print_line(context.get_help(), err=True)
    return SettingsError.exit_code


for command in (
    scan, watch, add, apply, normalize, show, classify, undo, runs, report, schedule, config, demo,
    train, evaluate, calibrate, completion,
):  # fmt: skip
    commands.add_command(command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code (README, "Exit codes")."""
    try:
        code: int = commands.main(argv, prog_name="tagger", standalone_mode=False) or 0
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and error.ctx:
            print_line(f"{error.ctx.get_usage()}\n", err=True)
        message = " ".join(error.format_message().split())  # click lists choices on lines
        print_line(f"tagger: {escape_unprintable(message)}", err=True)
        return error.exit_code
    except TaggerError as error:
        print_line(f"tagger: {escape_unprintable(str(error))}", err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    except Exception:  # noqa: BLE001 - Python's own exit code, 1, would say that some tracks failed
        traceback.print_exc()
        return 3
    return code
