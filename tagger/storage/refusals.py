"""What servers and the libraries that talk to them refuse, in our words."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tagger.errors import AccessError, TaggerError

FILE_CHANGED = "changed while tagger was at work: left as it is"
"""What has become of a file that is not the one any more that somebody looked at."""

MAX_MESSAGE_LENGTH = 300


@contextmanager
def translate_storage_errors(doing: str) -> Iterator[None]:
    """Raise AccessError for whatever a foreign library raises: each has errors of its own."""
    try:
        yield
    except TaggerError:
        raise
    except Exception as error:
        raise AccessError(f"{doing}: {describe_storage_error(error)}") from error


def describe_storage_error(error: BaseException) -> str:
    """Return in one line what a foreign error says."""
    said = get_response(error).get("Error", {})
    code, message = said.get("Code", ""), said.get("Message", "")
    if message:
        text = f"{message} ({code})" if code and not code.isdecimal() else message
    else:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    line = " ".join(text.split())
    return line if len(line) <= MAX_MESSAGE_LENGTH else f"{line[:MAX_MESSAGE_LENGTH]}…"


def get_response(error: BaseException) -> Any:
    """Return what a server answered, as botocore keeps it; nothing where it never did."""
    return getattr(error, "response", None) or {}


def get_http_status(error: BaseException) -> int:
    """Return the HTTP status of an answer, 0 where there was none."""
    status: int = get_response(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status
