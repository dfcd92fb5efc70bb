"""Objects on servers as a file system: which store serves a URL, reading by ranges, replacing."""

import errno
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import SEEK_CUR, SEEK_END, SEEK_SET, BufferedReader, RawIOBase
from typing import Any, BinaryIO

from tagger.errors import (
    AccessError,
    FailureKind,
    LibraryError,
    MissingExtraError,
    SettingsError,
)
from tagger.paths import RemotePath, is_remote
from tagger.records import ContentSample, Track
from tagger.storage.filesystem import (
    CANNOT_LIST,
    CANNOT_LOOK_UP,
    CANNOT_OPEN,
    CANNOT_READ,
    ListedFile,
    Root,
)
from tagger.storage.objects import (
    FsspecStore,
    ObjectEntry,
    ObjectStore,
    make_length_error,
    translate_storage_errors,
)
from tagger.storage.s3 import S3_SCHEME, ObjectVersion, S3Store

NO_PRESERVED_MTIME = (
    "a store sets the time of its objects itself: --preserve-mtime is not possible there"
)
READ_ONLY = "tagger can read {scheme}:// but not write there: only a dry run is possible (-n)"


class RemoteFiles:
    """The file system of all servers; see FileSystem for the contracts of the methods."""

    def find_root(self, path: RemotePath, suffixes: Collection[str]) -> Root:
        try:
            if path.suffix.lower() in suffixes and self.look_up(path):
                return Root(path, is_folder=False)
            with translate_storage_errors(CANNOT_LIST):
                if get_store(path).has_folder(path):
                    return Root(path, is_folder=True)
        except AccessError as error:
            raise LibraryError(f"cannot read {path}: {error}") from error
        raise LibraryError(f"cannot read {path}: nothing is there that tagger knows")

    def look_up(self, path: RemotePath) -> Track | None:
        with translate_storage_errors(CANNOT_LOOK_UP):
            info = get_store(path).look_up(path)
            return info.make_track(path) if info else None

    def find_file(self, path: RemotePath) -> Track:
        track = self.look_up(path)
        if track is None:
            raise AccessError(f"{CANNOT_OPEN}: it is not there")
        return track

    def identify_folder(self, folder: RemotePath) -> RemotePath:
        return folder

    def list_folder(self, folder: RemotePath) -> Sequence[ObjectEntry]:
        with translate_storage_errors(CANNOT_LIST):
            entries = get_store(folder).list_folder(folder)
            return sorted(entries, key=lambda entry: entry.name.encode("utf-8", "surrogateescape"))

    def look_up_entry(self, entry: ObjectEntry) -> ListedFile | None:
        if entry.is_folder:
            return None
        path, info = entry.location, entry.info
        track = info.make_track(path) if info else self.look_up(path)
        if track is None:
            return None
        return ListedFile(path.name, track.size, track.mtime_ns, track.inode, track.links)

    def follow_link(self, link: RemotePath) -> None:
        raise NotImplementedError(f"servers have no links: {link}")

    @contextmanager
    def open_for_reading(self, path: RemotePath) -> Iterator[BinaryIO]:
        """Open an object. Only the ranges that somebody reads are fetched.

        AccessError comes at the end as well: libraries take a failed read for the end of a file.
        """
        with translate_storage_errors(CANNOT_OPEN):
            store = get_store(path)
            info = store.look_up(path)
        if info is None:
            raise AccessError(f"{CANNOT_OPEN}: it is not there")

        def read_range(start: int, stop: int) -> bytes:
            with translate_storage_errors(CANNOT_READ):
                return store.read_range(path, info, start, stop)

        ranged_file = RangedFile(str(path), info.size, read_range)
        try:
            with BufferedReader(ranged_file) as file:
                yield file
        finally:
            if ranged_file.failure:
                raise ranged_file.failure

    open_for_decoding = open_for_reading

    def is_reachable(self, path: RemotePath) -> bool:
        try:
            self.look_up(path)
        except (AccessError, MissingExtraError):
            return False
        return True

    def was_moved_from(self, path: RemotePath, inode: int) -> bool:  # noqa: ARG002 - as FileSystem
        return False  # an object under another key is another object

    def sample_content(self, path: RemotePath) -> ContentSample:  # noqa: ARG002 - as FileSystem
        return ContentSample()  # the inode is made from the version of the content

    def find_volume(self, path: RemotePath) -> None:  # noqa: ARG002 - as FileSystem
        return None

    def check_no_writer(self, path: RemotePath, *, is_settled: bool) -> None:
        """Do nothing: servers show an object only after all of it has arrived."""

    def reports_changes(self, path: RemotePath) -> bool:  # noqa: ARG002 - an interface
        return False

    def check_writable(self, path: RemotePath, *, preserve_mtime: bool) -> None:
        if path.scheme != S3_SCHEME:
            raise SettingsError(READ_ONLY.format(scheme=path.scheme))
        if preserve_mtime:
            raise SettingsError(NO_PRESERVED_MTIME)


def get_store(path: RemotePath) -> ObjectStore:
    """Return the store of a URL. Raises AccessError for a URL that names no object surely."""
    check_url(path)
    return S3Store() if path.scheme == S3_SCHEME else FsspecStore(path)


def check_url(path: RemotePath) -> None:
    """Raise AccessError for a URL with a password, and for one that libraries would change."""
    if not path.location:
        raise AccessError("it names no bucket and no host", FailureKind.OTHER)
    host, *parts = path.location.split("/")
    user, _, _ = host.rpartition("@")
    if ":" in user:
        reason = (
            "a path is kept in reports and must hold no password (see fsspec's FSSPEC_ variables)"
        )
        raise AccessError(reason, FailureKind.OTHER)
    if any(part in ("", ".", "..") or "\0" in part for part in (host, *parts)):
        reason = "a part of its name is empty, . or .. or has a NUL: no path can name it faithfully"
        raise AccessError(reason, FailureKind.OTHER)


@dataclass(frozen=True, slots=True)
class ObjectReplacement:
    """An object that is about to be replaced, on condition that nobody changes it meanwhile."""

    store: S3Store
    version: ObjectVersion

    def download(self, file: BinaryIO) -> None:
        """Write the whole object into a file. Raises AccessError, and OSError of the file."""
        chunks = self.store.read_chunks(self.version.path, self.version.info)
        while True:
            with translate_storage_errors(CANNOT_READ):
                chunk = next(chunks, None)
            if chunk is None:
                return
            file.write(chunk)

    def upload(self, file: BinaryIO) -> Track:
        """Put a file in the place of the object. Raises AccessError, UnfinishedError."""
        with translate_storage_errors("cannot be written"):
            return self.store.replace_object(self.version, file)


def prepare_replacement(track: Track) -> ObjectReplacement:
    """Look up an object that is about to be replaced. Raises AccessError, TagError."""
    path = track.path
    assert is_remote(path)
    if path.scheme != S3_SCHEME:
        raise AccessError(READ_ONLY.format(scheme=path.scheme), FailureKind.CANNOT_TAG)
    check_url(path)
    store = S3Store()
    with translate_storage_errors(CANNOT_LOOK_UP):
        return ObjectReplacement(store, store.look_up_version(track, path))


READ_BLOCK_BYTES = 32 << 10
"""The first request of a sequence has this size: FFmpeg asks for as much."""

MAX_BLOCKS_AHEAD = 32
"""The largest request, in blocks, after reading went straight on for a while."""

MAX_CACHED_BYTES = 16 << 20
"""The bytes of a file that are kept, because decoders go back to where they were."""


class RangedFile(RawIOBase):
    """A file that is read by ranges. failure: why a range could not be fetched.

    The requests grow while reading goes straight on. None of fsspec's caches does that and keeps
    what was read: they ask two to three times as often, or fetch up to twice the bytes.
    """

    def __init__(self, name: str, size: int, read_range: Callable[[int, int], bytes]) -> None:
        self.name = name
        self.size = size
        self.read_range = read_range
        self.failure: AccessError | None = None
        self.position = 0
        self.blocks: OrderedDict[int, bytes] = OrderedDict()
        self.blocks_ahead = 1
        self.next_block = -1

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        start = {SEEK_SET: 0, SEEK_CUR: self.position, SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, "a place before the start")
        self.position = start + offset
        return self.position

    def readinto(self, buffer: Any) -> int:
        """Read up to the end of a block. Raises OSError where the block cannot be fetched."""
        view = memoryview(buffer).cast("B")
        if self.position >= self.size or not view:
            return 0
        number, start = divmod(self.position, READ_BLOCK_BYTES)
        if number not in self.blocks:
            self._fetch_blocks(number)
        self.blocks.move_to_end(number)
        content = self.blocks[number][start : start + len(view)]
        view[: len(content)] = content
        self.position += len(content)
        return len(content)

    def _fetch_blocks(self, number: int) -> None:
        is_next = number == self.next_block
        self.blocks_ahead = min(self.blocks_ahead * 2, MAX_BLOCKS_AHEAD) if is_next else 1
        self.next_block = number + self.blocks_ahead
        start, stop = number * READ_BLOCK_BYTES, self.next_block * READ_BLOCK_BYTES
        stop = min(stop, self.size)
        try:
            content = self.read_range(start, stop)
            if len(content) != stop - start:
                raise make_length_error(len(content), stop - start)
        except AccessError as error:
            self.failure = error
            raise OSError(errno.EIO, str(error)) from error
        for offset in range(0, len(content), READ_BLOCK_BYTES):
            block = content[offset : offset + READ_BLOCK_BYTES]
            self.blocks[number + offset // READ_BLOCK_BYTES] = block
        while len(self.blocks) * READ_BLOCK_BYTES > MAX_CACHED_BYTES:
            self.blocks.popitem(last=False)
