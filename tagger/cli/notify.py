"""Tell others of a run: the user's command, media servers, a monitoring service, people."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from tagger.addresses import MediaServer
from tagger.cli.progress import RunProgress
from tagger.cli.terminal import escape_unprintable, print_line
from tagger.errors import (
    InterruptedRunError,
    NotifyError,
    SettingsError,
    TaggerError,
    TerminatedRunError,
)
from tagger.service.notify import run_notify_command
from tagger.settings import Settings


@dataclass(slots=True)
class RunEnd:
    """How a run ended, as a monitoring service is told. lines: the summary, and the error."""

    exit_code: int = 3
    lines: list[str] = field(default_factory=list)


@contextmanager
def report_end(settings: Settings) -> Iterator[RunEnd]:
    """Give a RunEnd, and tell the monitoring service and people of it, whatever ends the run.

    If they cannot be told, that is a warning: the run is not at fault.
    """
    end = RunEnd()
    if not settings.ping_url and not settings.alert:
        yield end
        return
    from tagger.service.monitor import ALERT_TITLES, START, Alert, ping, ping_end, prepare_alert

    alerts: list[Alert] = []
    try:
        if settings.ping_url:
            _warn(partial(ping, settings.ping_url, START))
        alerts += map(prepare_alert, settings.alert)
        yield end
    except TaggerError as error:
        end.exit_code = error.exit_code
        end.lines.append(f"tagger: {error}")
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            end.exit_code = InterruptedRunError.exit_code
        end.lines.append(f"tagger: {type(error).__name__}")
        raise
    finally:
        text = _escape_lines(end.lines)
        if settings.ping_url:
            _warn(partial(ping_end, settings.ping_url, end.exit_code, text))
        for alert in alerts if end.exit_code in ALERT_TITLES else ():
            _warn(partial(alert.send, end.exit_code, text))


def _escape_lines(lines: list[str]) -> str:
    """Return lines as one text in which nothing but the line breaks is unprintable."""
    return "\n".join(escape_unprintable(line) for each in lines for line in each.splitlines())


def _warn(step: Callable[[], None]) -> None:
    try:
        step()
    except TaggerError as error:
        print_line(f"tagger: {escape_unprintable(str(error))}", err=True)


def check_servers(settings: Settings) -> None:
    """Raise SettingsError if a password for --notify is missing: before the run, not behind it."""
    if settings.notify:
        from tagger.service.servers import check_server

        for server in settings.notify:
            check_server(server)


def tell_of_changes(settings: Settings, progress: RunProgress) -> None:
    """Run the user's command and tell the media servers, if the run wrote into files.

    Raises NotifyError with all that failed, after everybody was told.
    """
    changed = progress.written_folders
    steps: list[Callable[[], None]] = [
        lambda: run_notify_command(settings.notify_cmd, changed, progress.report)
    ]
    if changed and settings.notify:
        steps += [partial(_tell_server, server, settings, progress) for server in settings.notify]
    do_all(*steps)


def _tell_server(server: MediaServer, settings: Settings, progress: RunProgress) -> None:
    from tagger.service.servers import describe_change, tell_server

    change = describe_change(progress.written_folders, keeps_mtime=settings.preserve_mtime)
    unknown = tell_server(server, change)
    if settings.verbose:
        count = len(change.folders) - len(unknown)
        progress.lines.print(f"{server} was told of {count} folder{'' if count == 1 else 's'}")
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        print_line(
            escape_unprintable(
                f"tagger: --notify {server}: it has no library with {unknown[0]}{more} (#HERE=THERE"
                " behind the URL says what it calls a folder)"
            ),
            err=True,
        )


def tell_of_changes_before_error(settings: Settings, progress: RunProgress) -> None:
    """Tell of the changes of a run that could not go on. The error of the run matters more."""
    try:
        tell_of_changes(settings, progress)
    except (NotifyError, SettingsError) as error:
        print_line(f"tagger: {escape_unprintable(str(error))}", err=True)


def do_all(*steps: Callable[[], None]) -> None:
    """Do the last steps of a run, each whether or not the one before it failed.

    Raises the error of the first step that failed, with the reasons of all.
    """
    errors = []
    for step in steps:
        try:
            step()
        except (InterruptedRunError, TerminatedRunError):
            raise  # somebody does not want to wait for the other steps
        except TaggerError as error:
            errors.append(error)
    if errors:
        raise type(errors[0])("; ".join(map(str, errors))) from errors[0]
