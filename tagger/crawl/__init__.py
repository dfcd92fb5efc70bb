"""Folders to Tracks, in a stable order, without what no one would call part of the library."""

from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from pathlib import Path

from tagger import storage
from tagger.crawl.disk import DiskWalk, find_root
from tagger.crawl.remote import RemoteWalk, is_folder
from tagger.crawl.walk import Listing, Scope, Seen
from tagger.errors import AccessError
from tagger.paths import RemotePath
from tagger.records import Failure, Track

__all__ = ["Listing", "Scope", "Seen", "crawl", "crawl_folders", "look_at"]


def crawl(paths: Sequence[Path], scope: Scope) -> Iterator[Track | Failure]:
    """Yield the tracks of all listings one by one; else as `crawl_folders`."""
    return chain.from_iterable(map(_one_by_one, crawl_folders(paths, scope)))


def _one_by_one(found: Listing | Failure) -> Iterator[Track | Failure]:
    return map(found.track, found.files) if isinstance(found, Listing) else iter((found,))


def crawl_folders(paths: Sequence[Path], scope: Scope) -> Iterator[Listing | Failure]:
    """Yield every audio file below `paths` once: the files named, then folder by folder, by name.

    The files of a folder come before the folders in it. Paths come out absolute. A folder or file
    that the system will not show is a Failure. A link is passed over, or with `follow_symlinks`
    stands for what it leads to. What lies elsewhere comes after what lies here.
    Raises LibraryError at once where one of `paths` is not there or no part of a library.
    """
    here = [find_root(path, scope) for path in paths if not isinstance(path, RemotePath)]
    elsewhere = [path for path in paths if isinstance(path, RemotePath)]
    folders = {path for path in here if path.is_dir()}
    folders |= {path for path in elsewhere if is_folder(path, scope)}
    return chain(
        _walked(here, folders, DiskWalk(scope)), _walked(elsewhere, folders, RemoteWalk(scope))
    )


def _walked(
    roots: Sequence[Path], folders: Collection[Path], walk: DiskWalk | RemoteWalk
) -> Iterator[Listing | Failure]:
    return chain(
        chain.from_iterable(walk.named(root) for root in roots if root not in folders),
        chain.from_iterable(walk.below(root) for root in roots if root in folders),
    )


def look_at(path: Path) -> Track | None:
    """Return the file at a path as it is now, None where there is none. Raises AccessError."""
    if isinstance(path, RemotePath):
        return storage.look_at(path)
    try:
        return Track.from_stat(path, path.lstat())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AccessError(f"cannot be looked at: {error.strerror}") from error
