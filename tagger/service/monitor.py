"""Tell a monitoring service and people how a run ended; owns apprise."""

import logging
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tagger.addresses import SecretUrl
from tagger.errors import LockedError, NotifyError, SettingsError, make_missing_extra_error
from tagger.service.web import ask, open_client

START = "start"
END_SIGNALS = {0: "", LockedError.exit_code: "log"}
"""What follows the URL by exit code, if it is not `fail`. `log` is neither success nor failure."""

ALERT_TITLES = {
    1: "tagger: some tracks failed",
    2: "tagger: the run could not start",
    3: "tagger: the run failed",
}
"""The exit codes of which people hear."""


def ping(url: SecretUrl, signal: str, text: str = "") -> None:
    """Send a ping as healthchecks.io defines it: a POST to URL/signal. Raises NotifyError."""
    parts = urlsplit(url.value)
    path = "/".join(filter(None, [parts.path.rstrip("/"), signal]))
    with open_client() as client:
        ask(
            client,
            f"--ping-url {url}",
            "POST",
            urlunsplit(parts._replace(path=path, fragment="")),
            content=text.encode("utf-8", "backslashreplace"),
            headers={"Content-Type": "text/plain; charset=utf-8"},
        )


def ping_end(url: SecretUrl, exit_code: int, text: str) -> None:
    """Send the ping for the end of a run. Raises NotifyError."""
    ping(url, END_SIGNALS.get(exit_code, "fail"), text)


@dataclass(frozen=True, slots=True)
class Alert:
    """One place to which messages go."""

    url: SecretUrl
    sender: Any

    def send(self, exit_code: int, text: str) -> None:
        """Send a message about a run that ended badly. Raises NotifyError."""
        from apprise import NotifyFormat

        with _silence():
            is_sent = self.sender.notify(
                title=ALERT_TITLES[exit_code],
                body=text,
                body_format=NotifyFormat.TEXT,  # else a mail takes it for HTML
            )
        if not is_sent:
            raise NotifyError(f"--alert {self.url}: the message could not be sent")


def prepare_alert(url: SecretUrl) -> Alert:
    """Return an Alert. Raises SettingsError for an unknown service, and MissingExtraError."""
    try:
        from apprise import Apprise
    except ModuleNotFoundError as error:
        if error.name != "apprise":
            raise
        raise make_missing_extra_error("--alert", "alert") from error
    sender = Apprise()
    with _silence():
        is_known = sender.add(url.value)
    if not is_known:
        raise SettingsError(f"--alert {url}: Apprise knows no such service, or misses a part of it")
    return Alert(url, sender)


def _silence() -> Any:
    """Return a context in which apprise logs nowhere. What it logs may show the whole URL."""
    from apprise import LogCapture

    return LogCapture(level=logging.ERROR)
