"""A bucket on a real server that speaks S3, on this machine, and folders on a web server."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import boto3


class Bucket:
    """A bucket of its own for each test, by the vendor's client."""

    def __init__(self, endpoint: str) -> None:
        self.name = f"music-{uuid4().hex[:8]}"
        self.client: Any = boto3.client("s3", endpoint_url=endpoint)
        self.client.create_bucket(Bucket=self.name)

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    def put(self, key: str, content: bytes | Path, **rest: Any) -> str:
        """Store an object and return its URL."""
        body = content.read_bytes() if isinstance(content, Path) else content
        self.client.put_object(Bucket=self.name, Key=key, Body=body, **rest)
        return f"{self.url}/{key}"

    def get(self, key: str) -> bytes:
        body: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return body

    def download(self, key: str, folder: Path) -> Path:
        path = folder / key.replace("/", "_")
        path.write_bytes(self.get(key))
        return path

    def head(self, key: str) -> dict[str, Any]:
        head: dict[str, Any] = self.client.head_object(Bucket=self.name, Key=key)
        return head

    def tags(self, key: str) -> dict[str, str]:
        answer = self.client.get_object_tagging(Bucket=self.name, Key=key)
        return {each["Key"]: each["Value"] for each in answer["TagSet"]}

    def etags(self) -> dict[str, str]:
        """Return the ETag of every object by its key."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {each["Key"]: each["ETag"] for page in pages for each in page.get("Contents", ())}


class RangeHandler(SimpleHTTPRequestHandler):
    """Serves folders as lists of links, and files by ranges; `lie` is added to each length."""

    lie = 0

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as it is there
        """Keep quiet."""

    def send_head(self) -> Any:
        path = Path(self.translate_path(self.path))
        wanted = self.headers.get("Range")
        if path.is_dir() or not wanted or not path.exists():
            return super().send_head()
        content = path.read_bytes()
        first, last = (int(each) for each in wanted.removeprefix("bytes=").split("-"))
        stretch = content[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(len(stretch) + self.lie))
        self.end_headers()
        return BytesIO(stretch)


@contextmanager
def web_server(folder: Path, handler: type[RangeHandler] = RangeHandler) -> Iterator[str]:
    """Serve a folder and give its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=os.fspath(folder)))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
