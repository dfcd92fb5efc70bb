"""What a file system has to offer: the disks of this machine, or the servers behind URLs."""

from collections.abc import Collection, Hashable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from tagger.paths import AnyPath
from tagger.records import ContentSample, Track

CANNOT_OPEN = "cannot open"
CANNOT_LOOK_UP = "cannot be looked at"
CANNOT_LIST = "cannot list the folder"
CANNOT_READ = "cannot be read"
FILE_CHANGED = "changed while tagger was at work: left as it is"


class Root(NamedTuple):
    """A folder or file to crawl; a local path is absolute and leads through no link."""

    path: AnyPath
    is_folder: bool


class ListedFile(NamedTuple):
    """The fields of a Track without the folder: a Path for each file of a library costs much."""

    name: str
    size: int
    mtime_ns: int
    inode: int
    links: int


class FolderEntry(Protocol):
    """Something in a folder. The methods are those of os.DirEntry, which may raise OSError."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> str: ...

    def is_symlink(self) -> bool: ...

    def is_dir(self) -> bool: ...


class FileSystem(Protocol):
    """A file system. All methods raise AccessError where the system or the server refuses.

    Each implementation takes paths and entries of its own type only.
    """

    def find_root(self, path: Any, suffixes: Collection[str]) -> Root:
        """Return the folder or audio file that a user names. Raises LibraryError for others."""

    def look_up(self, path: Any) -> Track | None:
        """Return the file at a path as it is now, None where there is none."""

    def find_file(self, path: Any) -> Track:
        """Return the file that a user names, through links. Raises AccessError for others."""

    def identify_folder(self, folder: Any) -> Hashable:
        """Return a value that is the same for all paths of one folder."""

    def list_folder(self, folder: Any) -> Sequence[FolderEntry]:
        """Return the entries of a folder, sorted by the bytes of their names."""

    def look_up_entry(self, entry: Any) -> ListedFile | None:
        """Return the regular file that an entry is, None for anything else. It follows no link."""

    def follow_link(self, link: Any) -> Root | None:
        """Return the folder or file that a link leads to, None where it leads nowhere."""

    def open_for_reading(self, path: Any) -> AbstractContextManager[BinaryIO]:
        """Open a file. Raises AccessError for objects, OSError for local files."""

    def open_for_decoding(self, path: Any) -> AbstractContextManager[Path | BinaryIO]:
        """Give what decoders open fastest: the path of a local file, or an open object."""

    def is_reachable(self, path: Any) -> bool:
        """Tell whether the folder of a file is there, or the server of an object answers."""

    def was_moved_from(self, path: Any, inode: int) -> bool:
        """Tell whether a file is no longer at a path: there is none, or one with another inode."""

    def sample_content(self, path: Any) -> ContentSample:
        """Return something of the content of a file. It is empty where the file is not read."""

    def find_volume(self, path: Any) -> int | None:
        """Return a number that tells the file system from others; None if that is not known."""

    def check_no_writer(self, path: Any, *, is_settled: bool) -> None:
        """Raise AccessError if another program has a file open for writing.

        Some systems cannot tell. There, a file that changed in the last minutes is refused, unless
        `is_settled`: the last change is known to be over. Do nothing if the file cannot be opened.
        """

    def reports_changes(self, path: Any) -> bool:
        """Tell whether the system reports all changes below a folder, whoever makes them."""

    def check_writable(self, path: Any, *, preserve_mtime: bool) -> None:
        """Raise SettingsError where no file can be replaced, or its time cannot be kept."""
