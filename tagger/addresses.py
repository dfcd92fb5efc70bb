"""Addresses of servers. They may hold passwords, which they never show as text."""

import os
import re
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import SplitResult, unquote, urlsplit

SHOWN_SCHEMES = {"http", "https"}
"""The host of such a URL is no secret. Other services have a token in its place."""

NAVIDROME_LIBRARY = re.compile(r"\d+(:.*)?")

MPD_PORT = 6600


class ServerKind(StrEnum):
    """A media server that can be told of changed folders."""

    NAVIDROME = "navidrome"
    JELLYFIN = "jellyfin"
    PLEX = "plex"
    KODI = "kodi"
    MPD = "mpd"
    LYRION = "lyrion"


KEY_KINDS = {ServerKind.JELLYFIN, ServerKind.PLEX}
"""Servers with a key and no user: the key stands in the URL where others have the user."""


@dataclass(frozen=True, slots=True)
class SecretUrl:
    """A URL of which the path, or more, is a secret. As text it shows no more than the host."""

    value: str = field(repr=False)

    def __str__(self) -> str:
        parts = urlsplit(self.value)
        host = _join_host(parts) if parts.scheme in SHOWN_SCHEMES else ""
        return f"{parts.scheme}://{host}/…" if host else f"{parts.scheme}://…"


@dataclass(frozen=True, slots=True)
class PathMapping:
    """A folder as tagger names it, and as a server does."""

    here: str
    there: str

    def __str__(self) -> str:
        return f"#{self.here}={self.there}" if self.there else f"#{self.here}"

    def translate(self, folder: str) -> str | None:
        """Return the server's name of a folder in `here`, or None for other folders."""
        rest = self.cut(folder)
        if rest is None:
            return None
        if "\\" in self.there:
            return self.there.rstrip("\\") + rest.replace("/", "\\")
        return (self.there.rstrip("/") + rest) or "/"

    def cut(self, folder: str) -> str | None:
        """Return what follows `here` in the path of a folder, or None for other folders."""
        top = self.here.rstrip("/")
        return folder[len(top) :] if f"{folder}/".startswith(f"{top}/") else None


@dataclass(frozen=True, slots=True)
class MediaServer:
    """A media server as --notify names it.

    url: without user, password and mappings; of MPD also the path of its socket. secret: a
    password, key or token, if the URL has one. mappings: the longest `here` first.
    """

    kind: ServerKind
    url: str
    user: str = ""
    secret: str = field(default="", repr=False)
    mappings: tuple[PathMapping, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}={self.url}{''.join(map(str, self.mappings))}"


def parse_secret_url(text: str) -> SecretUrl:
    """Return the URL that a text is. Raises ValueError with a text that shows no secret."""
    if re.match(r"[a-z][a-z0-9+.-]*://[^\s/]", text, re.IGNORECASE) and text.isprintable():
        try:
            url = SecretUrl(text)
            str(url)  # raises for a wrong port and the like
        except ValueError:
            pass
        else:
            return url
    raise ValueError("must be a URL")


def parse_ping_url(text: str) -> SecretUrl:
    """Return the URL of a monitoring service. Raises ValueError as `parse_secret_url`."""
    url = parse_secret_url(text)
    if urlsplit(text).scheme not in SHOWN_SCHEMES:
        raise ValueError("must be a URL that begins with http:// or https://")
    return url


def parse_server(text: str) -> MediaServer:
    """Read `KIND=URL` with mappings `#HERE=THERE` behind it.

    Raises ValueError with a text that shows no secret.
    """
    name, _, address = text.partition("=")
    if name not in set(ServerKind):
        raise ValueError(f"must be SERVER=URL, with one of {', '.join(ServerKind)} for SERVER")
    kind = ServerKind(name)
    url, *mappings = address.split("#")
    found = tuple(
        sorted((_parse_mapping(each) for each in mappings), key=lambda m: len(m.here), reverse=True)
    )
    if kind is ServerKind.NAVIDROME and not all(
        NAVIDROME_LIBRARY.fullmatch(each.there) for each in found
    ):
        raise ValueError("must have the number of a library behind the folder: #/srv/music=1")
    if kind is ServerKind.MPD:
        return _parse_mpd(url, found)
    if not all(each.there for each in found):
        raise ValueError("must say what the server calls the folder: #/srv/music=/music")
    parts = _split_url(kind, url)
    if parts.scheme not in SHOWN_SCHEMES or not parts.hostname:
        raise ValueError(f"must be {kind}=http://HOST:PORT")
    if parts.query:
        raise ValueError("must not have a ? in the URL")
    user, secret = unquote(parts.username or ""), unquote(parts.password or "")
    if kind in KEY_KINDS:
        user, secret = "", secret or user
    place = f"{parts.scheme}://{_join_host(parts)}{parts.path.rstrip('/')}"
    return MediaServer(kind, place, user, secret, found)


def _parse_mpd(url: str, mappings: tuple[PathMapping, ...]) -> MediaServer:
    if not mappings:
        raise ValueError(
            "must name the music folder of MPD as tagger sees it: mpd=mpd://HOST:6600#/srv/music"
        )
    if url.startswith("/"):
        return MediaServer(ServerKind.MPD, url, mappings=mappings)
    parts = _split_url(ServerKind.MPD, url)
    if parts.scheme != "mpd" or not parts.hostname or parts.path.strip("/"):
        raise ValueError("must be mpd=mpd://HOST:6600#/srv/music, or have the path of MPD's socket")
    secret = unquote(parts.password or parts.username or "")
    place = f"mpd://{_join_host(parts)}" + ("" if parts.port else f":{MPD_PORT}")
    return MediaServer(ServerKind.MPD, place, secret=secret, mappings=mappings)


def _split_url(kind: ServerKind, url: str) -> SplitResult:
    """Split a URL. Python's own errors may show a part of it."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for a wrong one
    except ValueError:
        raise ValueError(f"must have a URL behind {kind}=") from None
    if not url.isprintable() or " " in url:
        raise ValueError(f"must have a URL without spaces behind {kind}=")
    return parts


def _parse_mapping(text: str) -> PathMapping:
    here, _, there = text.partition("=")
    if "://" in here:
        return PathMapping(here, there)
    here = os.path.expanduser(here)  # noqa: PTH111 - Path's raises for an unknown user
    if not here.startswith("/"):
        raise ValueError("must have an absolute folder behind #: #/srv/music=/music")
    return PathMapping(os.path.realpath(here), there)  # as the crawl names it


def _join_host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{parts.port}" if parts.port else host
