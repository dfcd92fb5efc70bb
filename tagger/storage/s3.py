"""Objects in S3 and in servers with the same API. Owns boto3, which is loaded late.

boto3 finds the credentials, the endpoint and the region. Keys are used to the letter.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlencode

from tagger.errors import (
    AccessError,
    FailureKind,
    TagError,
    UnfinishedError,
    make_missing_extra_error,
)
from tagger.paths import RemotePath
from tagger.records import Track
from tagger.storage.filesystem import FILE_CHANGED
from tagger.storage.objects import (
    FORBIDDEN,
    ObjectEntry,
    ObjectInfo,
    describe_storage_error,
    get_http_status,
    make_length_error,
)

T = TypeVar("T")

S3_SCHEME = "s3"
ANONYMOUS_VARIABLE = "FSSPEC_S3_ANON"
"""The environment variable for public buckets. fsspec has it, and boto3 has none."""
FALSE_VALUES = {"", "0", "false", "no"}

KEPT_HEADERS = (
    "CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "ContentType",
    "Expires", "Metadata", "WebsiteRedirectLocation", "StorageClass", "ServerSideEncryption",
    "SSEKMSKeyId", "BucketKeyEnabled", "ObjectLockMode", "ObjectLockRetainUntilDate",
    "ObjectLockLegalHoldStatus",
)  # fmt: skip
"""What a new object takes over from the old one, by the parameter names of the API."""

MAX_PUT_BYTES = 5 * 1 << 30
"""The largest object that S3 takes in one request. Only such a request can have a condition."""

DOWNLOAD_CHUNK_BYTES = 8 << 20

REQUEST_TIMEOUT_S = 60
MIN_BYTES_PER_S = 100_000
"""A request that transfers fewer bytes a second is given up."""

MAX_CONNECTIONS = 64
"""urllib3 warns on the terminal where more threads than this use one client."""

MISSING = 404
UNKNOWN_CALL_STATUSES = {405, 501}
"""What servers answer to calls that they do not know."""
LOST_RACE_STATUSES = {404, 409, 412}
"""No object to match, a write at the same time, a version other than the one to match."""
CLIENT_ERROR_STATUSES = range(400, 500)
"""After these answers nothing was written. After others, or none, it may have been."""


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """An object that is about to be replaced. kept: the headers and tags of the new one."""

    path: RemotePath
    info: ObjectInfo
    kept: dict[str, Any]


class S3Store:
    """The store behind s3://. See ObjectStore for the contracts of the reading methods."""

    def look_up(self, path: RemotePath) -> ObjectInfo | None:
        try:
            return _parse_answer(self._head(path))
        except Exception as error:
            if get_http_status(error) == MISSING:
                return None
            raise

    def has_folder(self, path: RemotePath) -> bool:
        bucket, prefix = _split_folder_path(path)
        page = self._call("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
        return not prefix or bool(page.get("Contents"))

    def list_folder(self, folder: RemotePath) -> Iterator[ObjectEntry]:
        bucket, prefix = _split_folder_path(folder)
        token: dict[str, Any] = {}
        while True:
            page = self._call(
                "list_objects_v2", Bucket=bucket, Prefix=prefix, Delimiter="/", **token
            )
            for entry in page.get("CommonPrefixes", ()):
                name = entry["Prefix"][len(prefix) : -1]
                yield ObjectEntry(folder / name, is_folder=True)
            for entry in page.get("Contents", ()):
                name = entry["Key"][len(prefix) :]
                if name:  # without one: the empty object that some programs make for a folder
                    yield ObjectEntry(folder / name, is_folder=False, info=_parse_answer(entry))
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def read_range(self, path: RemotePath, info: ObjectInfo, start: int, stop: int) -> bytes:
        """Return bytes of exactly this version. Raises AccessError where there is another now."""
        try:
            answer = self._call(
                "get_object", **_split_object_path(path), Range=f"bytes={start}-{stop - 1}",
                IfMatch=info.version, timeout_s=_get_timeout_s(stop - start),
            )  # fmt: skip
        except Exception as error:
            if get_http_status(error) in LOST_RACE_STATUSES:
                raise AccessError(FILE_CHANGED, FailureKind.CHANGED) from error
            raise
        content: bytes = answer["Body"]
        return content

    def read_chunks(self, path: RemotePath, info: ObjectInfo) -> Iterator[bytes]:
        """Yield a whole object. Raises AccessError where the server sends less or more."""
        for start in range(0, info.size, DOWNLOAD_CHUNK_BYTES):
            stop = min(start + DOWNLOAD_CHUNK_BYTES, info.size)
            chunk = self.read_range(path, info, start, stop)
            if len(chunk) != stop - start:
                raise make_length_error(len(chunk), stop - start)
            yield chunk

    def look_up_version(self, track: Track, path: RemotePath) -> ObjectVersion:
        """Look up an object that is about to be replaced, with all that the new one takes over.

        Raises AccessError where it is not the object of the Track, TagError where the new object
        could not have all of its properties.
        """
        head = self._head(path)
        info = _parse_answer(head)
        if info.make_track(path) != track:
            raise AccessError(FILE_CHANGED, FailureKind.CHANGED)
        if info.size > MAX_PUT_BYTES - DOWNLOAD_CHUNK_BYTES:
            raise TagError("S3 takes no more than 5 GiB in one piece")
        if head.get("MissingMeta"):
            raise TagError("it has metadata that S3 does not show, which would be lost")
        kept = {name: head[name] for name in KEPT_HEADERS if head.get(name)}
        if tags := self._read_object_tags(path):
            kept["Tagging"] = urlencode(tags)
        return ObjectVersion(path, info, kept)

    def _read_object_tags(self, path: RemotePath) -> list[tuple[str, str]]:
        """Return the tags that the store has for an object, which are not those in the file."""
        try:
            answer = self._call("get_object_tagging", **_split_object_path(path))
        except Exception as error:
            if get_http_status(error) in UNKNOWN_CALL_STATUSES:
                return []
            if get_http_status(error) == FORBIDDEN:
                reason = "the tags of the object, which would be lost, may not be read"
                raise AccessError(f"{reason} (s3:GetObjectTagging)") from error
            raise
        return [(tag["Key"], tag["Value"]) for tag in answer["TagSet"]]

    def replace_object(self, old: ObjectVersion, file: BinaryIO) -> Track:
        """Put a file, which has a name, in the place of an object; return the new Track.

        Raises AccessError where somebody else replaced the object, or the store refuses, and
        UnfinishedError where nobody can tell whether the file was written.
        """
        size = file.seek(0, os.SEEK_END)
        try:
            # A request that timed out may still read. Nobody else moves the position of this body,
            # and it is closed then, which ends the request before it is complete.
            with Path(file.name).open("rb") as body:
                answer = self._call(
                    "put_object", **_split_object_path(old.path), **old.kept, Body=body,
                    IfMatch=old.info.version, timeout_s=_get_timeout_s(size),
                )  # fmt: skip
        except Exception as error:  # noqa: BLE001 - of botocore, of urllib3, a time-out
            return self._settle_failed_put(error, old, file)
        written = ObjectInfo(size, 0, answer["ETag"])
        with suppress(Exception):  # the object is written, even if it cannot be looked up
            now = self.look_up(old.path)
            if now and now.version == written.version:
                return now.make_track(old.path)
        return written.make_track(old.path)

    def _settle_failed_put(self, error: Exception, old: ObjectVersion, file: BinaryIO) -> Track:
        """Find out what a failed put did: the object may be written, and only the answer lost.

        botocore then sends the file again, and the server refuses it: the object is the new one.
        """
        try:
            now = self.look_up(old.path)
            if now and now != old.info and self._has_content(old.path, now, file):
                return now.make_track(old.path)
        except Exception as second:  # noqa: BLE001 - as above
            reason = f"nobody can tell whether it was written: {describe_storage_error(second)}"
            raise UnfinishedError(reason) from error
        status = get_http_status(error)
        if status in LOST_RACE_STATUSES:
            raise AccessError(FILE_CHANGED, FailureKind.CHANGED) from error
        reason = f"the store does not take it: {describe_storage_error(error)}"
        if status in CLIENT_ERROR_STATUSES:
            kind = FailureKind.NO_ACCESS if status == FORBIDDEN else FailureKind.SERVER
            raise AccessError(reason, kind) from error
        raise UnfinishedError(reason) from error

    def _has_content(self, path: RemotePath, info: ObjectInfo, file: BinaryIO) -> bool:
        """Tell whether an object and a file are the same to the byte."""
        if info.size != file.seek(0, os.SEEK_END):
            return False
        file.seek(0)
        return all(chunk == file.read(len(chunk)) for chunk in self.read_chunks(path, info))

    def _head(self, path: RemotePath) -> Any:
        return self._call("head_object", **_split_object_path(path))

    def _call(self, method: str, *, timeout_s: float = REQUEST_TIMEOUT_S, **parameters: Any) -> Any:
        """Return the answer to a call of the API, with its body as bytes.

        Raises the errors of botocore, and TimeoutError.
        """
        call = getattr(_get_client(os.getpid()), method)

        def send() -> Any:
            answer = call(**parameters)
            return answer | {"Body": answer["Body"].read()} if "Body" in answer else answer

        return _run_with_timeout(send, timeout_s)


@cache
def _get_client(process: int) -> Any:  # noqa: ARG001 - a fork must not use the same connections
    """Return boto3's client for this process, which any number of threads may use."""
    try:
        import boto3
        from botocore import UNSIGNED
        from botocore.config import Config
    except ImportError as error:
        raise make_missing_extra_error("s3://", "s3") from error
    config = Config(
        connect_timeout=REQUEST_TIMEOUT_S,
        read_timeout=REQUEST_TIMEOUT_S,
        max_pool_connections=MAX_CONNECTIONS,
    )
    if os.environ.get(ANONYMOUS_VARIABLE, "").lower() not in FALSE_VALUES:
        config = config.merge(Config(signature_version=UNSIGNED))
    return boto3.Session().client("s3", config=config)


def _run_with_timeout(function: Callable[[], T], timeout_s: float) -> T:
    """Return the result of a function. Raises its error, or TimeoutError.

    botocore's own time-outs bound each wait for the next bytes, and not the whole request.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return future.result(timeout_s)
    except TimeoutError as error:
        raise TimeoutError(f"no complete answer in {timeout_s:.0f} s") from error


def _get_timeout_s(size: int) -> float:
    return REQUEST_TIMEOUT_S + size / MIN_BYTES_PER_S


def _split_object_path(path: RemotePath) -> dict[str, Any]:
    """Return the bucket and the key. Raises AccessError for a bucket."""
    bucket, _, key = path.location.partition("/")
    if not bucket or not key:
        raise AccessError("it is a bucket, not an object", FailureKind.OTHER)
    return {"Bucket": bucket, "Key": key}


def _split_folder_path(path: RemotePath) -> tuple[str, str]:
    """Return the bucket and the beginning of all keys below a folder."""
    bucket, _, key = path.location.partition("/")
    return bucket, f"{key}/" if key else ""


def _parse_answer(answer: dict[str, Any]) -> ObjectInfo:
    """Make an ObjectInfo of an answer to head_object, or of an object in a listing."""
    size = answer["ContentLength"] if "ContentLength" in answer else answer["Size"]
    whole_seconds = int(
        answer["LastModified"].timestamp()
    )  # some listings are more exact than head_object
    return ObjectInfo(size, whole_seconds * 10**9, answer["ETag"])
