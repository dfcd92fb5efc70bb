"""A stand-in for the Hugging Face Hub: an HTTP server over folders, with its API and its errors."""

import hashlib
import importlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import huggingface_hub
import huggingface_hub.constants
import huggingface_hub.hf_api

from tagger.cli import main
from tests.processes import capture_fork

CHUNK_BYTES = 1 << 20

NOWHERE = "http://127.0.0.1:9"
"""An address where nothing listens."""

REFUSALS = {
    "gated": (HTTPStatus.FORBIDDEN, "GatedRepo"),
    "missing": (HTTPStatus.UNAUTHORIZED, "RepoNotFound"),
    "revision": (HTTPStatus.NOT_FOUND, "RevisionNotFound"),
    "broken": (HTTPStatus.FORBIDDEN, "TryLater"),
    "entry": (HTTPStatus.NOT_FOUND, "EntryNotFound"),
}


def commit_of(folder: Path) -> str:
    """Return a commit id that depends on the files' content."""
    whole = hashlib.sha1(usedforsecurity=False)
    for path in files_in(folder):
        whole.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return whole.hexdigest()


def files_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


@dataclass(frozen=True, slots=True)
class Commit:
    """A version of a repository."""

    oid: str
    folder: Path
    parent: str = ""
    message: str = ""


@dataclass
class Hub:
    """The repositories of the Hub, and its users.

    repos: id of a model, or `datasets/` and the id of a data set -> revision -> folder.
    history: the commits of each main branch, oldest first.
    token: may do everything, also read `gated` and `private` repositories. reader: a token that may
    only read. Both belong to `user`, a member of `orgs`.
    broken: names of files that the Hub refuses for now. pause_s: a pause after each MiB.
    """

    repos: dict[str, dict[str, Path]] = field(default_factory=dict)
    history: dict[str, list[Commit]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    pause_s: float = 0.0
    token: str = "hf_secret"
    reader: str = "hf_reader"
    user: str = "me"
    orgs: tuple[str, ...] = ("team",)
    endpoint: str = ""
    downloads: list[str] = field(default_factory=list)

    def publish(
        self, name: str, folder: Path, revision: str = "main", *, message: str = "published"
    ) -> str:
        """Add a folder as a revision of a repository; return its commit."""
        oid = commit_of(folder)
        self.repos.setdefault(name, {}).update({revision: folder, oid: folder})
        if revision == "main":
            earlier = self.history.setdefault(name, [])
            parent = earlier[-1].oid if earlier else ""
            earlier.append(Commit(oid, folder, parent, message))
        return oid

    def refusal(self, name: str, revision: str, token: str) -> str:
        """Return why a request is refused; empty where it is allowed."""
        hidden = name in self.private and token != self.token
        if hidden or name not in self.repos:
            return "missing"
        if name in self.gated and token != self.token:
            return "gated"
        return "" if revision in self.repos[name] else "revision"


@dataclass(frozen=True, slots=True)
class Request:
    """A parsed request. what: `resolve`, `tree`, `revision` and so on."""

    api: bool
    name: str
    what: str
    revision: str
    path: str


def parse(address: str) -> Request:
    """Take apart /api/models/ID/WHAT/REV/…, /api/datasets/ID/…, /ID/WHAT/REV/…, /datasets/ID/…."""
    parts = [unquote(part) for part in urlsplit(address).path.strip("/").split("/")]
    api = parts[0] == "api"
    parts = parts[1:] if api else parts
    prefix = "datasets/" if parts[0] == "datasets" else ""
    parts = parts[1:] if api or prefix else parts
    owner, name, what, revision, *rest = [*parts, "", "", "", ""][: max(len(parts), 4)]
    return Request(api, f"{prefix}{owner}/{name}", what, revision or "main", "/".join(rest))


class Handler(BaseHTTPRequestHandler):
    """Serves files and lists of files."""

    hub: ClassVar[Hub]

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        asked = parse(self.path)
        if reason := self.hub.refusal(asked.name, asked.revision, self.token):
            self.refuse(reason)
            return
        folder = self.hub.repos[asked.name][asked.revision]
        if asked.api:
            self.answer(json.dumps(self.listing(asked, folder)).encode(), folder)
            return
        path = folder / asked.path
        if not path.is_file():
            self.refuse("entry")
            return
        if path.name in self.hub.broken:
            self.refuse("broken")
            return
        if self.command == "GET":
            self.hub.downloads.append(path.name)
        self.answer(path.read_bytes(), folder)

    def do_POST(self) -> None:
        """Answer with the entries of single paths, the only read request that is a POST."""
        asked = parse(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if reason := self.hub.refusal(asked.name, asked.revision, self.token):
            self.refuse(reason)
            return
        folder = self.hub.repos[asked.name][asked.revision]
        paths = [folder / path for path in parse_qs(body.decode())["paths"]]
        found = [entry(path, folder) for path in paths if path.exists()]
        self.answer(json.dumps(found).encode(), folder)

    def listing(self, asked: Request, folder: Path) -> object:
        if asked.what == "tree":
            place = folder / asked.path
            recursive = "recursive=true" in self.path.lower()
            return [
                entry(each, folder) for each in sorted(place.glob("**/*" if recursive else "*"))
            ]
        return {
            "id": asked.name.removeprefix("datasets/"),
            "sha": commit_of(folder),
            "private": asked.name in self.hub.private,
            "siblings": [{"rfilename": str(path.relative_to(folder))} for path in files_in(folder)],
        }

    def answer(self, body: bytes, folder: Path) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit_of(folder))
        self.end_headers()
        if self.command == "GET":
            for start in range(0, len(body), CHUNK_BYTES):
                self.wfile.write(body[start : start + CHUNK_BYTES])
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


def entry(path: Path, folder: Path) -> dict[str, object]:
    """Return the API's entry for a file or folder."""
    name = str(path.relative_to(folder))
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": "0" * 40}
    return {"type": "file", "path": name, "size": path.stat().st_size, "oid": etag(path)}


def etag(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def serving(hub: Hub, kind: type[Handler] = Handler) -> Iterator[Hub]:
    """Serve the Hub at `hub.endpoint`."""
    handler = type("OwnHandler", (kind,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        hub.endpoint = f"http://127.0.0.1:{server.server_port}"
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


def tagger(
    endpoint: str, *args: str | Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the program in a fork of this process that reads the Hub's address again."""

    def run() -> int:
        set_environment(os.environ, endpoint, environment)
        importlib.reload(huggingface_hub.constants)
        huggingface_hub.hf_api.api.endpoint = huggingface_hub.constants.ENDPOINT
        if "datasets" in sys.modules:
            importlib.reload(sys.modules["datasets"].config)
        return main([*map(str, args)])

    return capture_fork(run)


def start_tagger(
    endpoint: str, *args: str | Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the program in a new process, which reads the Hub's address as it starts."""
    variables = dict(os.environ)
    set_environment(variables, endpoint, environment)
    command = [sys.executable, "-m", "tagger", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=variables)


def set_environment(
    variables: MutableMapping[str, str], endpoint: str, more: dict[str, str]
) -> None:
    variables.pop("HF_HUB_OFFLINE", None)
    variables.update({"HF_ENDPOINT": endpoint} | more)
