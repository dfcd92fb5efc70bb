"""Objects in S3, and in what speaks like it: by the calls of its API, each key to the letter.

s3fs finds the credentials, the endpoint and the region; its own ideas of a path are not used.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import urlencode

from tagger.errors import AccessError, TagError, UnfinishedError
from tagger.paths import RemotePath
from tagger.records import Track
from tagger.storage.refusals import FILE_CHANGED, describe_storage_error, get_http_status
from tagger.storage.stores import FolderEntry, ObjectInfo, get_filesystem_class

S3_SCHEME = "s3"

KEPT_HEADERS = (
    "CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "ContentType",
    "Expires", "Metadata", "WebsiteRedirectLocation", "StorageClass", "ServerSideEncryption",
    "SSEKMSKeyId", "BucketKeyEnabled", "ObjectLockMode", "ObjectLockRetainUntilDate",
    "ObjectLockLegalHoldStatus",
)  # fmt: skip
"""What a new object gets from the one in whose place it comes, by the names of the API."""

MAX_PUT_BYTES = 5 * 1 << 30
"""So many bytes can be put in one piece, and only so with a condition."""

DOWNLOAD_PIECE_BYTES = 8 << 20
"""So much of an object is fetched at once where all of it is wanted."""

REQUEST_TIMEOUT_S = 60
MIN_BYTES_PER_S = 100_000
"""Bytes a second: a request that takes longer is given up."""

FORBIDDEN, MISSING = 403, 404
UNKNOWN_CALL_STATUSES = {405, 501}
"""What servers answer to calls that they do not know."""
LOST_RACE_STATUSES = {404, 409, 412}
"""No object to match, a write at the same time, another version than the one to match."""
CLIENT_ERROR_STATUSES = range(400, 500)
"""Answers after which nothing was written; after others, and after none, it may have been."""


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """An object as it was looked at, to be replaced as long as it is still that. kept: see KEPT."""

    path: RemotePath
    facts: ObjectInfo
    kept: dict[str, Any]


class S3Store:
    """The store behind s3://."""

    def __init__(self) -> None:
        self.fs = get_filesystem_class(S3_SCHEME)(use_listings_cache=False)

    def look(self, path: RemotePath) -> ObjectInfo | None:
        try:
            return _make_object_info(self._head(path))
        except Exception as error:
            if get_http_status(error) == MISSING:
                return None
            raise

    def has_folder(self, path: RemotePath) -> bool:
        bucket, prefix = _split_folder_path(path)
        page = self._call("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
        return not prefix or bool(page.get("Contents"))

    def entries(self, folder: RemotePath) -> Iterator[FolderEntry]:
        bucket, prefix = _split_folder_path(folder)
        more: dict[str, Any] = {}
        while True:
            page = self._call(
                "list_objects_v2", Bucket=bucket, Prefix=prefix, Delimiter="/", **more
            )
            for each in page.get("CommonPrefixes", ()):
                yield FolderEntry(each["Prefix"][len(prefix) : -1], is_folder=True)
            for each in page.get("Contents", ()):
                if each["Key"] != prefix:  # what some programs put there so that it looks a folder
                    facts = ObjectInfo(
                        each["Size"], _to_whole_seconds_ns(each["LastModified"]), each["ETag"]
                    )
                    yield FolderEntry(each["Key"][len(prefix) :], is_folder=False, facts=facts)
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def fetch(self, path: RemotePath, facts: ObjectInfo, start: int, stop: int) -> bytes:
        """Return a stretch of this very version. Raises AccessError where there is another now."""
        try:
            answer = self._call(
                "get_object", **_split_object_path(path), Range=f"bytes={start}-{stop - 1}",
                IfMatch=facts.version, seconds=REQUEST_TIMEOUT_S + (stop - start) / MIN_BYTES_PER_S,
            )  # fmt: skip
        except Exception as error:
            if get_http_status(error) in LOST_RACE_STATUSES:
                raise AccessError(FILE_CHANGED) from error
            raise
        content: bytes = answer["Body"]
        return content

    def hold(self, track: Track, path: RemotePath) -> ObjectVersion:
        """Look at an object that is to be replaced, and at what has to be kept of it.

        Raises AccessError where it is not what the Track says, TagError where it cannot be kept.
        """
        head = self._head(path)
        facts = _make_object_info(head)
        if facts.track(path) != track:
            raise AccessError(FILE_CHANGED)
        if facts.size > MAX_PUT_BYTES - DOWNLOAD_PIECE_BYTES:
            raise TagError("S3 takes no more than 5 GiB in one piece")
        if head.get("MissingMeta"):
            raise TagError("it has metadata that S3 does not show, which would be lost")
        kept = {name: head[name] for name in KEPT_HEADERS if head.get(name)}
        tags = self._tags(path)
        return ObjectVersion(path, facts, kept | ({"Tagging": urlencode(tags)} if tags else {}))

    def _tags(self, path: RemotePath) -> list[tuple[str, str]]:
        """Return the tags that the store, not the file, has of an object."""
        try:
            answer = self._call("get_object_tagging", **_split_object_path(path))
        except Exception as error:
            if get_http_status(error) in UNKNOWN_CALL_STATUSES:
                return []
            if get_http_status(error) == FORBIDDEN:
                reason = "the tags of the object, which would be lost, may not be read"
                raise AccessError(f"{reason} (s3:GetObjectTagging)") from error
            raise
        return [(each["Key"], each["Value"]) for each in answer["TagSet"]]

    def put(self, held: ObjectVersion, file: BinaryIO) -> Track:
        """Put a file in the place of the object that is held, and return the Track of it.

        Raises AccessError where the object is another one by now, or the store refuses;
        UnfinishedError where nobody can tell whether it was written.
        """
        size = file.seek(0, 2)
        file.seek(0)
        try:
            answer = self._call(
                "put_object", **_split_object_path(held.path), **held.kept, Body=file,
                IfMatch=held.facts.version, seconds=REQUEST_TIMEOUT_S + size / MIN_BYTES_PER_S,
            )  # fmt: skip
        except Exception as error:  # noqa: BLE001 - botocore's, aiohttp's, a time-out
            return self._after(error, held, file)
        written = ObjectInfo(size, 0, answer["ETag"])
        with suppress(Exception):  # it is written, whether or not that can be looked at
            now = self.look(held.path)
            if now and now.version == written.version:
                return now.track(held.path)
        return written.track(held.path)

    def _after(self, error: Exception, held: ObjectVersion, file: BinaryIO) -> Track:
        """Find out what became of a put that failed: its answer alone may have been lost.

        botocore then tries again, which the server refuses, for the object is what we made of it.
        """
        try:
            now = self.look(held.path)
            if now and now != held.facts and self._holds(held.path, now, file):
                return now.track(held.path)
        except Exception as second:  # noqa: BLE001 - as above
            reason = f"nobody can tell whether it was written: {describe_storage_error(second)}"
            raise UnfinishedError(reason) from error
        if get_http_status(error) in LOST_RACE_STATUSES:
            raise AccessError(FILE_CHANGED) from error
        reason = f"the store does not take it: {describe_storage_error(error)}"
        definite = get_http_status(error) in CLIENT_ERROR_STATUSES
        raise (AccessError if definite else UnfinishedError)(reason) from error

    def _holds(self, path: RemotePath, facts: ObjectInfo, file: BinaryIO) -> bool:
        """Tell whether an object is what a file is, to the byte."""
        if facts.size != file.seek(0, 2):
            return False
        file.seek(0)
        return all(piece == file.read(len(piece)) for piece in self.pieces(path, facts))

    def pieces(self, path: RemotePath, facts: ObjectInfo) -> Iterator[bytes]:
        """Yield all of an object. Raises AccessError where the server sends less or more."""
        for start in range(0, facts.size, DOWNLOAD_PIECE_BYTES):
            stop = min(start + DOWNLOAD_PIECE_BYTES, facts.size)
            piece = self.fetch(path, facts, start, stop)
            if len(piece) != stop - start:
                raise AccessError(f"its server sent {len(piece)} bytes for {stop - start}")
            yield piece

    def _head(self, path: RemotePath) -> Any:
        return self._call("head_object", **_split_object_path(path))

    def _call(self, method: str, *, seconds: float = REQUEST_TIMEOUT_S, **wanted: Any) -> Any:
        """Return the answer to a call of the API, its body read. Raises botocore's errors."""
        from fsspec.asyn import sync

        return sync(self.fs.loop, self._answer, method, wanted, timeout=seconds)

    async def _answer(self, method: str, wanted: dict[str, Any]) -> Any:
        await self.fs.set_session()
        client = await self.fs.get_s3(wanted["Bucket"])
        # Not by s3fs's own way, which leaves out what an older botocore does not know: a condition.
        answer = await getattr(client, method)(**self.fs.req_kw, **wanted)
        if "Body" in answer:
            async with answer["Body"] as body:
                answer["Body"] = await body.read()
        return answer


def _split_object_path(path: RemotePath) -> dict[str, Any]:
    """Return the bucket and the key. Raises AccessError for what is no object."""
    bucket, _, key = path.place.partition("/")
    if not bucket or not key:
        raise AccessError("that is a bucket, not an object")
    return {"Bucket": bucket, "Key": key}


def _split_folder_path(path: RemotePath) -> tuple[str, str]:
    """Return the bucket and how all keys below a folder begin."""
    bucket, _, key = path.place.partition("/")
    return bucket, f"{key}/" if key else ""


def _make_object_info(head: Any) -> ObjectInfo:
    return ObjectInfo(
        head["ContentLength"], _to_whole_seconds_ns(head["LastModified"]), head["ETag"]
    )


def _to_whole_seconds_ns(modified: Any) -> int:
    """Return whole seconds in nanoseconds: some listings tell more of a time than the object."""
    return int(modified.timestamp()) * 10**9
