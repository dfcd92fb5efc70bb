"""Uploads to the tests' Hub: each commit becomes a folder.

This is the protocol of huggingface_hub without Xet (HF_HUB_DISABLE_XET): small files are in the
commit itself, large ones come before it as objects of Git LFS.
"""

import base64
import hashlib
import json
import shutil
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar

from tests.hub import Handler, Hub, Request, parse

LARGE = (".safetensors", ".png")
"""Suffixes of files that are uploaded as LFS objects."""


@dataclass
class WritableHub(Hub):
    """A Hub that accepts uploads, into a folder for each commit below `root`."""

    root: Path = field(default=Path("/nowhere"))
    objects: dict[str, bytes] = field(default_factory=dict)
    full: bool = False

    def role(self, token: str) -> str:
        return {self.token: "write", self.reader: "read"}.get(token, "")

    def commit(self, name: str, lines: list[dict[str, Any]]) -> str:
        """Store a posted commit: a header, then a line for each file."""
        history = self.history.get(name, [])
        folder = self.root / name / str(len(history))
        if history:
            shutil.copytree(history[-1].folder, folder)
        folder.mkdir(parents=True, exist_ok=True)
        for line in lines[1:]:
            value = line["value"]
            content = (
                base64.b64decode(value["content"])
                if line["key"] == "file"
                else self.objects[value["oid"]]
            )
            (folder / value["path"]).write_bytes(content)
        return self.publish(name, folder, message=lines[0]["value"]["summary"])


class UploadHandler(Handler):
    """Serves files, and accepts uploads with a token that may write."""

    hub: ClassVar[WritableHub]

    def do_GET(self) -> None:  # noqa: N802 - http.server's name
        if self.path != "/api/whoami-v2":
            super().do_GET()
        elif role := self.hub.role(self.token):
            orgs = [{"name": name} for name in self.hub.orgs]
            who = {"name": self.hub.user, "orgs": orgs, "auth": {"accessToken": {"role": role}}}
            self.send_json(who)
        else:
            self.send_json({"error": "Invalid credentials"}, HTTPStatus.UNAUTHORIZED)

    def do_POST(self) -> None:  # noqa: N802 - http.server's name
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.hub.role(self.token) != "write":
            known = self.hub.role(self.token)
            self.send_json(
                {"error": "no"}, HTTPStatus.FORBIDDEN if known else HTTPStatus.UNAUTHORIZED
            )
            return
        if self.path.endswith("/objects/batch"):
            self.send_json(
                {"objects": [self.answer_batch(each) for each in json.loads(body)["objects"]]}
            )
            return
        asked = parse(self.path)
        if self.path == "/api/repos/create":
            self.create(json.loads(body))
        elif asked.what in {"preupload", "commit"} and asked.name not in self.hub.history:
            self.refuse("missing")
        elif asked.what == "preupload":
            self.answer_preupload(asked, json.loads(body))
        elif asked.what == "commit":
            self.commit(asked, body)
        else:  # /api/validate-yaml, and the confirmation of an object
            self.send_json({"warnings": [], "errors": []})

    def do_PUT(self) -> None:  # noqa: N802 - http.server's name
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.hub.full:
            self.send_json({"error": "no space"}, HTTPStatus.FORBIDDEN)
            return
        self.hub.objects[hashlib.sha256(data).hexdigest()] = data
        self.send_json({})

    def create(self, body: dict[str, Any]) -> None:
        name = f"{body['organization'] or self.hub.user}/{body['name']}"
        url = {"url": f"{self.hub.endpoint}/{name}"}
        if name.split("/", maxsplit=1)[0] not in (self.hub.user, *self.hub.orgs):
            self.send_json({"error": "no"}, HTTPStatus.FORBIDDEN)
        elif name in self.hub.history:
            self.send_json(url, HTTPStatus.CONFLICT)
        else:
            self.hub.history[name], self.hub.repos[name] = [], {}
            if body.get("visibility") == "private":
                self.hub.private.add(name)
            self.send_json(url)

    def answer_preupload(self, asked: Request, body: dict[str, Any]) -> None:
        """Answer for each file: how to upload it, and the hash of the file that is there."""
        history = self.hub.history[asked.name]
        files = []
        for file in body["files"]:
            path = history[-1].folder / file["path"] if history else Path("/nowhere")
            mode = "lfs" if Path(file["path"]).suffix in LARGE else "regular"
            oid = get_git_hash(path.read_bytes(), mode) if path.is_file() else None
            files.append(
                {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}
            )
        self.send_json({"files": files})

    def answer_batch(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Answer where to upload an object, unless it is there."""
        if wanted["oid"] in self.hub.objects:
            return wanted
        steps = {each: {"href": f"{self.hub.endpoint}/{each}"} for each in ("upload", "verify")}
        return {**wanted, "actions": steps}

    def commit(self, asked: Request, body: bytes) -> None:
        oid = self.hub.commit(asked.name, [json.loads(line) for line in body.splitlines()])
        url = f"{self.hub.endpoint}/{asked.name}/commit/{oid}"
        self.send_json({"success": True, "commitOid": oid, "commitUrl": url})

    def send_json(self, answer: object, status: HTTPStatus = HTTPStatus.OK) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def get_git_hash(data: bytes, mode: str) -> str:
    """Return the name that git or Git LFS gives to this content."""
    if mode == "lfs":
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
