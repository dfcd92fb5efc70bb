"""Stand-ins for media servers and a monitoring service, made from the sources in docs/servers.md.

They refuse what the real ones refuse, and remember what they were asked for.
"""

import base64
import hashlib
import json
import re
import shlex
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

USER, PASSWORD = "admin", "p@ss w#rd"
KEY = "0123456789abcdef"


@dataclass(frozen=True)
class Request:
    """A request as a server got it."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def credentials(self) -> str:
        """The user and the password of basic authentication."""
        scheme, _, value = self.headers.get("Authorization", "").partition(" ")
        return base64.b64decode(value).decode() if scheme == "Basic" else ""


Answer = tuple[int, object]


@dataclass
class StandIn:
    """A server on this machine. told: what it was told to do, in its own words."""

    url: str = ""
    told: list[Any] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    is_busy: list[bool] = field(default_factory=list)
    """What Kodi says of itself, one answer after the other; then that it is not busy."""

    @property
    def host(self) -> str:
        return self.url.partition("://")[2]


@contextmanager
def serve(answer: Callable[[StandIn, Request], Answer]) -> Iterator[StandIn]:
    """Serve HTTP. An answer is a status, and an object for JSON or bytes."""
    stand_in = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def do_request(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            query = parse_qs(parts.query)
            request = Request(self.command, unquote(parts.path), query, self.headers, body)
            stand_in.requests.append(request)
            status, content = answer(stand_in, request)
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_request  # noqa: N815 - the names that http.server calls

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stand_in.url = f"http://127.0.0.1:{server.server_address[1]}"
    with _run(server):
        yield stand_in


@contextmanager
def _run(server: ThreadingTCPServer | ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def navidrome(server: StandIn, request: Request) -> Answer:
    """Answer as its server/subsonic/middlewares.go and library_scanning.go."""
    form = request.query | parse_qs(request.body.decode())
    first = {name: values[0] for name, values in form.items()}

    def fail(code: int, message: str) -> Answer:
        error = {"code": code, "message": message}
        return 200, {"subsonic-response": {"status": "failed", "error": error}}

    if request.path.removesuffix(".view") != "/rest/startScan" or first.get("f") != "json":
        return 404, b"not found"
    if not {"u", "v", "c"} <= first.keys():
        return fail(10, "missing parameter")
    token = hashlib.md5(f"{PASSWORD}{first.get('s', '')}".encode()).hexdigest()
    if first["u"] != USER or first.get("t") != token:
        return fail(40, "Wrong username or password")
    targets = form.get("target", [])
    for target in targets:
        if not re.fullmatch(r"\d+:.*", target):
            return fail(0, f"Invalid target parameter: {target}")
        if not target.startswith(("1:", "2:")):
            return fail(70, "Library not found")
    server.told.append((first.get("fullScan", "false"), targets))
    return 200, {"subsonic-response": {"status": "ok", "scanStatus": {"scanning": True}}}


def jellyfin(server: StandIn, request: Request) -> Answer:
    """Answer as its LibraryController.cs and AuthorizationContext.cs, without old headers."""
    header = re.fullmatch(r'MediaBrowser Token="(.*)"', request.headers.get("Authorization", ""))
    if not header or unquote(header[1]) != KEY:
        return 401, b""
    if (request.method, request.path) != ("POST", "/Library/Media/Updated"):
        return 404, b""
    server.told += [(each["Path"], each["UpdateType"]) for each in request.json["Updates"]]
    return 204, b""


def plex(*folders: str) -> Callable[[StandIn, Request], Answer]:
    """Return answers as of a Plex with a film library and a music library in `folders`."""

    def answer(server: StandIn, request: Request) -> Answer:
        if request.headers.get("X-Plex-Token") != KEY:
            return 401, b"<html>401 Unauthorized</html>"
        if request.path == "/library/sections":
            places = [{"id": number, "path": path} for number, path in enumerate(folders)]
            music = {"key": "5", "type": "artist", "Location": places}
            films = {"key": "1", "type": "movie", "Location": [{"id": 9, "path": "/films"}]}
            return 200, {"MediaContainer": {"size": 2, "Directory": [films, music]}}
        if request.method == "GET" and request.path == "/library/sections/5/refresh":
            server.told += request.query.get("path", ["all"])
            return 200, b""
        return 404, b""

    return answer


def kodi(server: StandIn, request: Request) -> Answer:
    """Answer as its web server and JSON-RPC. A scan during a scan would stop that one."""
    if request.credentials != f"kodi:{PASSWORD}":
        return 401, b""
    if (request.method, request.path) != ("POST", "/jsonrpc"):
        return 404, b""
    if request.headers["Content-Type"] != "application/json":
        return 415, b""
    call = request.json
    answer = {"jsonrpc": "2.0", "id": call["id"]}
    if call["method"] == "XBMC.GetInfoBooleans" and call["params"] == [["Library.IsScanningMusic"]]:
        is_busy = server.is_busy.pop(0) if server.is_busy else False
        return 200, answer | {"result": {"Library.IsScanningMusic": is_busy}}
    if call["method"] == "AudioLibrary.Scan" and list(map(type, call["params"])) == [str, bool]:
        server.told.append(call["params"][0])
        return 200, answer | {"result": "OK"}
    return 200, answer | {"error": {"code": -32602, "message": "Invalid params."}}


def lyrion(server: StandIn, request: Request) -> Answer:
    """Answer as its reference of the command-line interface says of jsonrpc.js."""
    if request.credentials != f"{USER}:{PASSWORD}":
        return 401, b""
    if (request.method, request.path) != ("POST", "/jsonrpc.js"):
        return 404, b""
    call = request.json
    if call["method"] != "slim.request" or call["params"][0] != 0:
        return 200, {}
    server.told.append(call["params"][1])
    return 200, {**call, "result": {}}


def healthchecks(server: StandIn, request: Request) -> Answer:
    """Answer as its hc/api/urls.py; told: the signal and the text of each ping."""
    match = re.fullmatch(r"/ping/5bf66975-d4c7-4bf5-bcc8-b8d8a82ea278(?:/(\w+))?", request.path)
    if not match or match[1] not in (None, "start", "fail", "log"):
        return 404, b"not found"
    server.told.append((match[1] or "success", request.body.decode()))
    return 200, b"OK"


PING_PATH = "/ping/5bf66975-d4c7-4bf5-bcc8-b8d8a82ea278"


@contextmanager
def serve_mpd() -> Iterator[StandIn]:
    """Serve the protocol of MPD, with read permission for those who give no password."""
    stand_in = StandIn()

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"OK MPD 0.23.5\n")
            is_admin = False
            for line in self.rfile:
                command, *words = shlex.split(line.decode())
                if command == "password" and words == [PASSWORD]:
                    is_admin = True
                elif command == "password":
                    self.wfile.write(b"ACK [3@0] {password} incorrect password\n")
                    continue
                elif command not in ("update", "rescan"):
                    self.wfile.write(f'ACK [5@0] {{}} unknown command "{command}"\n'.encode())
                    continue
                elif not is_admin:
                    text = f'ACK [4@0] {{{command}}} you don\'t have permission for "{command}"\n'
                    self.wfile.write(text.encode())
                    continue
                else:
                    stand_in.told.append((command, *words))
                    self.wfile.write(b"updating_db: 1\n")
                self.wfile.write(b"OK\n")

    server = ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stand_in.url = f"mpd://127.0.0.1:{server.server_address[1]}"
    with _run(server):
        yield stand_in


def read_everything(*folders: Path) -> bytes:
    """Return what all files below folders contain, to look for what must not be there."""
    paths = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return b"\n".join(path.read_bytes() for path in paths)
