"""A stand-in for the Hugging Face Hub: an HTTP server over folders, with its API and its errors."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

PIECE = 1 << 20

REFUSALS = {
    "gated": (HTTPStatus.FORBIDDEN, "GatedRepo"),
    "missing": (HTTPStatus.UNAUTHORIZED, "RepoNotFound"),
    "revision": (HTTPStatus.NOT_FOUND, "RevisionNotFound"),
    "broken": (HTTPStatus.FORBIDDEN, "TryLater"),
    "entry": (HTTPStatus.NOT_FOUND, "EntryNotFound"),
}


def commit_of(folder: Path) -> str:
    """Return a commit's name that follows the files' content."""
    whole = hashlib.sha1(usedforsecurity=False)
    for path in sorted(folder.iterdir()):
        whole.update(path.name.encode() + path.read_bytes())
    return whole.hexdigest()


@dataclass
class Hub:
    """What is on the Hub: model id -> revision -> folder.

    `token` opens `gated` and `private` models; `broken` files cannot be had at the moment;
    after each MiB of a file there is a pause.
    """

    models: dict[str, dict[str, Path]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    pause_s: float = 0.0
    token: str = "hf_secret"
    endpoint: str = ""
    downloads: list[str] = field(default_factory=list)

    def publish(self, name: str, folder: Path, revision: str = "main") -> str:
        """Put a folder there as a revision of a model; returns its commit."""
        commit = commit_of(folder)
        self.models.setdefault(name, {}).update({revision: folder, commit: folder})
        return commit

    def refusal(self, name: str, revision: str, token: str) -> str:
        """Return why a request is refused, nothing where it is not."""
        hidden = name in self.private and token != self.token
        if hidden or name not in self.models:
            return "missing"
        if name in self.gated and token != self.token:
            return "gated"
        return "" if revision in self.models[name] else "revision"


class Handler(BaseHTTPRequestHandler):
    """Answers /api/models/ID/revision/REV, .../tree/REV, and /ID/resolve/REV/FILE."""

    hub: ClassVar[Hub]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        wants_list = parts[:2] == ["api", "models"]
        if wants_list:
            parts = parts[2:]
        name, what, revision, *rest = ["/".join(parts[:2]), *parts[2:], "", ""][: len(parts) + 1]
        revision = revision or "main"
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        reason = self.hub.refusal(name, revision, token)
        if reason:
            self.refuse(reason)
            return
        folder = self.hub.models[name][revision]
        if wants_list:
            self.answer(json.dumps(self.listing(name, folder, what)).encode(), folder)
            return
        path = folder / "/".join(rest)
        if not path.is_file():
            self.refuse("entry")
            return
        if path.name in self.hub.broken:
            self.refuse("broken")
            return
        if self.command == "GET":
            self.hub.downloads.append(path.name)
        self.answer(path.read_bytes(), folder)

    def listing(self, name: str, folder: Path, what: str) -> object:
        files = [path for path in sorted(folder.iterdir()) if path.is_file()]
        if what == "tree":
            return [
                {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": etag(path)}
                for path in files
            ]
        return {
            "id": name,
            "sha": commit_of(folder),
            "siblings": [{"rfilename": path.name} for path in files],
        }

    def answer(self, body: bytes, folder: Path) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit_of(folder))
        self.end_headers()
        if self.command == "GET":
            for start in range(0, len(body), PIECE):
                self.wfile.write(body[start : start + PIECE])
                time.sleep(self.hub.pause_s)

    def refuse(self, reason: str) -> None:
        status, code = REFUSALS[reason]
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", reason)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def etag(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Let the Hub be reached at `hub.endpoint` for as long as this lasts."""
    handler = type("OwnHandler", (Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        hub.endpoint = f"http://127.0.0.1:{server.server_port}"
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
