"""Ask servers over HTTP; owns httpx2. No error shows a password, a key or a whole address."""

import time
from typing import Any

import httpx2

from tagger.errors import NotifyError
from tagger.paths import to_one_line
from tagger.version import __version__

TIMEOUT_S = 10.0
"""How long a connection may take, and each part of an answer."""

RETRY_PAUSE_S = 1.0
"""After a connection that failed. httpx2 can retry too, but then it uses no proxy."""

REFUSALS = {401, 403}

SHOWABLE_ERRORS = (httpx2.ConnectError, httpx2.ReadError, httpx2.RemoteProtocolError)
"""Their texts come from the system or from the server. Texts of others may show the request."""


def open_client(**options: Any) -> httpx2.Client:
    """Return a client with the time limit; options: as of httpx2.Client."""
    return httpx2.Client(timeout=TIMEOUT_S, **options)


def ask(client: httpx2.Client, name: str, method: str, url: str, **options: Any) -> httpx2.Response:
    """Send a request, once more if there is no connection, and return the answer.

    name: what messages call the server. options: as of httpx2.Client.request. Raises NotifyError,
    also for an answer other than success.
    """
    headers = {"User-Agent": f"tagger/{__version__}", **options.pop("headers", {})}
    try:
        answer = _send(client, method, url, headers=headers, **options)
    except httpx2.TimeoutException as error:
        raise NotifyError(f"{name}: no answer within {TIMEOUT_S:.0f} s") from error
    except httpx2.HTTPError as error:
        step = "no connection" if isinstance(error, httpx2.ConnectError) else "no usable answer"
        is_shown = isinstance(error, SHOWABLE_ERRORS) and str(error)
        reason = to_one_line(str(error)) if is_shown else type(error).__name__
        raise NotifyError(f"{name}: {step}: {reason}") from error
    except httpx2.InvalidURL as error:
        raise NotifyError(f"{name}: the URL is not valid") from error
    if answer.status_code in REFUSALS:
        raise NotifyError(f"{name}: it refuses the password or key ({answer.status_code})")
    if not answer.is_success:
        status = to_one_line(f"{answer.status_code} {answer.reason_phrase}")
        raise NotifyError(f"{name}: it answered {status} (is this its address?)")
    return answer


def _send(client: httpx2.Client, method: str, url: str, **options: Any) -> httpx2.Response:
    try:
        return client.request(method, url, **options)
    except (httpx2.ConnectError, httpx2.ConnectTimeout):
        time.sleep(RETRY_PAUSE_S)
        return client.request(method, url, **options)


def ask_for_json(
    client: httpx2.Client, name: str, method: str, url: str, **options: Any
) -> dict[str, Any]:
    """Send a request as `ask` does, and return the JSON object of the answer."""
    answer = ask(client, name, method, url, **options)
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise NotifyError(f"{name}: its answer is no JSON object (is this its address?)")
    return found
