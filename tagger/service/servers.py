"""Tell media servers which folders changed, by their own interfaces; owns python-mpd2.

docs/servers.md has the sources of these interfaces. Passwords and keys go into headers and bodies,
never into URLs, and no message shows them.
"""

import hashlib
import os
import re
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2
import mpd

from tagger.addresses import KEY_KINDS, MediaServer, PathMapping, ServerKind
from tagger.errors import NotifyError, SettingsError
from tagger.options import read_text
from tagger.paths import AnyPath, to_one_line
from tagger.service.web import TIMEOUT_S, ask, ask_for_json, open_client

MAX_MPD_FOLDERS = 30
"""The queue of MPD takes 32 updates. The whole library is one."""

MAX_LYRION_FOLDERS = 10
"""Each is a scan of its own, with a part that always takes its time."""

MAX_PLEX_FOLDERS = 100

KODI_USER = "kodi"
"""The user that Kodi's settings propose."""

KODI_WAIT_S = 60.0
KODI_INTERVAL_S = 2.0
"""A request during a scan of Kodi would stop that scan. So tagger waits until Kodi is done."""

NOT_PLAIN = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
"""Characters that no server can be told: control characters, and bytes that are not UTF-8."""


@dataclass(frozen=True, slots=True)
class Change:
    """The folders in which a run wrote, and whether the files kept their modification time."""

    folders: tuple[str, ...]
    keeps_mtime: bool = False


def describe_change(folders: Iterable[AnyPath], *, keeps_mtime: bool) -> Change:
    """Return a Change. A folder that no server can be told is named by the next one above it."""
    names = set(map(_find_plain_folder, map(os.fspath, folders)))
    return Change(tuple(sorted(names, key=lambda name: name.split("/"))), keeps_mtime)


def _find_plain_folder(folder: str) -> str:
    if found := NOT_PLAIN.search(folder):
        return folder[: folder.rfind("/", 0, found.start())] or "/"
    return folder


def tell_server(server: MediaServer, change: Change) -> Sequence[str]:
    """Tell a server of a change, and return the folders that it does not know.

    Raises NotifyError, and SettingsError if a file with a password cannot be read.
    """
    known = replace(server, secret=find_secret(server))
    try:
        return PROTOCOLS[server.kind].tell(known, change)
    except NotifyError as error:
        text = str(error)
        raise NotifyError(text.replace(known.secret, "***") if known.secret else text) from None


def check_server(server: MediaServer) -> None:
    """Raise SettingsError if a password, a key or a user is missing or cannot be sent."""
    protocol, variable = PROTOCOLS[server.kind], name_secret(server.kind)
    secret = find_secret(server)
    if protocol.needs_secret and not secret:
        raise SettingsError(
            f"--notify {server.kind} needs the {protocol.secret}: set {variable}, or set"
            f" {variable}_FILE to the path of a file that has it"
        )
    if (protocol.needs_user or (protocol.has_user and secret)) and not server.user:
        raise SettingsError(
            f"--notify {server.kind} needs the user: {server.kind}=http://USER@HOST:PORT"
        )
    if not secret.isprintable() or (server.kind in KEY_KINDS and not secret.isascii()):
        raise SettingsError(f"{variable}: the {protocol.secret} has characters that cannot be sent")


def find_secret(server: MediaServer, environment: Mapping[str, str] = os.environ) -> str:
    """Return the password, key or token of a server; "" if there is none.

    It stands in the URL, in an environment variable, or in a file that a variable names.
    """
    variable = name_secret(server.kind)
    if found := server.secret or environment.get(variable):
        return found
    if path := environment.get(f"{variable}_FILE"):
        return read_text(Path(path)).strip()
    return ""


def name_secret(kind: ServerKind) -> str:
    """Return the name of the environment variable with the password, key or token of a server."""
    return f"TAGGER_{kind}_{PROTOCOLS[kind].secret}".upper()


def _name(server: MediaServer) -> str:
    return f"--notify {server.kind}={server.url}"


def _translate(server: MediaServer, folder: str) -> str:
    """Return a server's name of a folder. Without a mapping for it both have the same name."""
    names = (mapping.translate(folder) for mapping in server.mappings)
    return next((name for name in names if name is not None), folder)


def _find_mappings(
    server: MediaServer, change: Change
) -> tuple[list[tuple[PathMapping, str]], list[str]]:
    """Return the mapping of each folder with what follows it, and the folders without one."""
    found, unknown = [], []
    for folder in change.folders:
        cuts = ((mapping, mapping.cut(folder)) for mapping in server.mappings)
        fitting = [(mapping, rest) for mapping, rest in cuts if rest is not None]
        found += fitting[:1]
        unknown += [] if fitting else [folder]
    return found, unknown


def _tell_navidrome(server: MediaServer, change: Change) -> Sequence[str]:
    """Call startScan of the Subsonic API, with targets if the server's libraries are named.

    A quick scan takes only files that are newer than at the last scan.
    """
    salt = secrets.token_hex(8)
    form: dict[str, Any] = {
        "u": server.user,
        "t": hashlib.md5(f"{server.secret}{salt}".encode(), usedforsecurity=False).hexdigest(),
        "s": salt,
        "v": "1.16.1",
        "c": "tagger",
        "f": "json",
        "fullScan": "true" if change.keeps_mtime else "false",
    }
    targets, unknown = _find_targets(server, change)
    if server.mappings and not targets:
        return unknown
    if targets:
        form["target"] = targets
    with open_client(base_url=server.url) as client:
        found = ask_for_json(client, _name(server), "POST", "/rest/startScan", data=form)
    answer = found.get("subsonic-response")
    if not isinstance(answer, dict):
        raise NotifyError(f"{_name(server)}: its answer is not that of Navidrome")
    if answer.get("status") != "ok":
        raise NotifyError(f"{_name(server)}: it answered: {_find_message(answer)}")
    return unknown


def _find_targets(server: MediaServer, change: Change) -> tuple[list[str], list[str]]:
    """Return targets for Navidrome, such as `1:Artist/Album`, and the folders without one."""
    found, unknown = _find_mappings(server, change)
    targets = []
    for mapping, rest in found:
        library, _, top = mapping.there.partition(":")
        targets.append(f"{library}:{f'{top}{rest}'.strip('/')}")
    return targets, unknown if server.mappings else []


def _tell_jellyfin(server: MediaServer, change: Change) -> Sequence[str]:
    updates = [
        {"Path": _translate(server, folder), "UpdateType": "Modified"} for folder in change.folders
    ]
    headers = {"Authorization": f'MediaBrowser Token="{quote(server.secret, safe="")}"'}
    with open_client(base_url=server.url, headers=headers) as client:
        answer = ask(
            client, _name(server), "POST", "/Library/Media/Updated", json={"Updates": updates}
        )
    if answer.status_code != httpx2.codes.NO_CONTENT:
        raise NotifyError(f"{_name(server)}: its answer is not that of Jellyfin")
    return ()


def _tell_plex(server: MediaServer, change: Change) -> Sequence[str]:
    headers = {"Accept": "application/json"}
    if server.secret:
        headers["X-Plex-Token"] = server.secret
    with open_client(base_url=server.url, headers=headers) as client:
        found = ask_for_json(client, _name(server), "GET", "/library/sections")
        try:
            sections = [
                (_normalize(place["path"]), str(each["key"]))
                for each in found["MediaContainer"].get("Directory", [])
                if each["type"] == "artist"
                for place in each["Location"]
            ]
        except (KeyError, TypeError, AttributeError) as error:
            raise NotifyError(f"{_name(server)}: its answer is not that of Plex") from error
        folders, unknown = _sort_into_sections(server, change, sections)
        for key, names in folders.items():
            paths = names if len(names) <= MAX_PLEX_FOLDERS else [None]
            for path in paths:
                options = {"params": {"path": path}} if path else {}
                ask(client, _name(server), "GET", f"/library/sections/{key}/refresh", **options)
    return unknown


def _sort_into_sections(
    server: MediaServer, change: Change, sections: Sequence[tuple[str, str]]
) -> tuple[Mapping[str, list[str | None]], list[str]]:
    """Return Plex's names of folders by the key of their section, and the folders without one.

    sections: the folders of each section, and its key.
    """
    found: defaultdict[str, list[str | None]] = defaultdict(list)
    unknown = []
    for folder in change.folders:
        name = _translate(server, folder)
        tops = [each for each in sections if _normalize(name).startswith(each[0])]
        if tops:
            found[max(tops, key=lambda top: len(top[0]))[1]].append(name)
        else:
            unknown.append(folder)
    return found, unknown


def _normalize(path: str) -> str:
    """Return a path that a server names, so that the paths of all folders in it begin with it."""
    return path.replace("\\", "/").rstrip("/") + "/"


def _tell_kodi(server: MediaServer, change: Change) -> Sequence[str]:
    """Have one folder scanned, or the whole library if there are more."""
    auth = (server.user or KODI_USER, server.secret) if server.user or server.secret else None
    folder = ""
    if len(change.folders) == 1:
        folder = _translate(server, change.folders[0])
        mark = "\\" if "\\" in folder else "/"
        folder = folder.rstrip(mark) + mark
    with open_client(base_url=server.url, auth=auth) as client:
        give_up_at = time.monotonic() + KODI_WAIT_S
        while _is_kodi_scanning(client, server):
            if time.monotonic() > give_up_at:
                raise NotifyError(f"{_name(server)}: it is busy with a scan; ask it to scan later")
            time.sleep(KODI_INTERVAL_S)
        # by position: newer versions write the name of the second parameter in another way
        _call_kodi(client, server, "AudioLibrary.Scan", [folder, False])
    return ()


def _is_kodi_scanning(client: httpx2.Client, server: MediaServer) -> bool:
    name = "Library.IsScanningMusic"
    found = _call_kodi(client, server, "XBMC.GetInfoBooleans", [[name]])
    return isinstance(found, dict) and found.get(name) is True


def _call_kodi(
    client: httpx2.Client, server: MediaServer, method: str, parameters: Sequence[object]
) -> Any:
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
    found = ask_for_json(client, _name(server), "POST", "/jsonrpc", json=request)
    if "result" not in found:
        raise NotifyError(f"{_name(server)}: {method}: it answered: {_find_message(found)}")
    return found["result"]


def _tell_lyrion(server: MediaServer, change: Change) -> Sequence[str]:
    """Have each folder scanned, or the whole library if there are many."""
    commands = [
        ["rescan", "full", _make_file_url(_translate(server, folder))] for folder in change.folders
    ]
    auth = (server.user, server.secret) if server.user else None
    with open_client(base_url=server.url, auth=auth) as client:
        for command in commands if len(commands) <= MAX_LYRION_FOLDERS else [["rescan"]]:
            request = {"id": 1, "method": "slim.request", "params": [0, command]}
            found = ask_for_json(client, _name(server), "POST", "/jsonrpc.js", json=request)
            if "result" not in found:
                raise NotifyError(f"{_name(server)}: it does not understand the request")
    return ()


def _make_file_url(path: str) -> str:
    path = path.replace("\\", "/")
    return f"file://{quote(path if path.startswith('/') else f'/{path}', safe='/:')}"


def _tell_mpd(server: MediaServer, change: Change) -> Sequence[str]:
    """Have each folder updated, or the whole library if there are many.

    An update reads files whose modification time is another one; a rescan reads all.
    """
    found, unknown = _find_mappings(server, change)
    names = [f"{mapping.there}{rest}".strip("/") for mapping, rest in found]
    if len(names) > MAX_MPD_FOLDERS or "" in names:
        names = [""]
    client = mpd.MPDClient()
    client.timeout = TIMEOUT_S
    try:
        _connect_mpd(client, server.url)
        if server.secret:
            client.password(server.secret)
        for name in names:
            (client.rescan if change.keeps_mtime else client.update)(*filter(None, [name]))
    except (mpd.MPDError, OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise NotifyError(f"{_name(server)}: {to_one_line(reason)}") from error
    finally:
        client.disconnect()
    return unknown


def _connect_mpd(client: Any, url: str) -> None:
    if url.startswith("/"):
        client.connect(url)
    else:
        parts = urlsplit(url)
        client.connect(parts.hostname, parts.port)


def _find_message(answer: Mapping[str, Any]) -> str:
    """Return the server's own words for its error."""
    error = answer.get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return to_one_line(str(message))[:200] if message else "an error without a reason"


@dataclass(frozen=True, slots=True)
class Protocol:
    """How to tell one kind of server, and what it asks for. secret: what its secret is called."""

    tell: Callable[[MediaServer, Change], Sequence[str]]
    secret: str
    needs_secret: bool = False
    has_user: bool = False
    needs_user: bool = False


PROTOCOLS: Mapping[ServerKind, Protocol] = {
    ServerKind.NAVIDROME: Protocol(_tell_navidrome, "password", needs_secret=True, needs_user=True),
    ServerKind.JELLYFIN: Protocol(_tell_jellyfin, "key", needs_secret=True),
    ServerKind.PLEX: Protocol(_tell_plex, "token"),
    ServerKind.KODI: Protocol(_tell_kodi, "password"),
    ServerKind.MPD: Protocol(_tell_mpd, "password"),
    ServerKind.LYRION: Protocol(_tell_lyrion, "password", has_user=True),
}
