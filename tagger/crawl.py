"""Find the audio files below folders, in a stable order."""

import os
import re
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase, translate
from itertools import chain

from tagger.errors import AccessError
from tagger.ignore_files import IgnoreRules, explain_hiding, read_rules_above
from tagger.paths import AnyPath, is_remote, join_path
from tagger.records import Failure, PassedOver, Shard, Track
from tagger.storage import FolderEntry, ListedFile, Root, get_filesystem

SKIPPED_NAMES = {
    "$RECYCLE.BIN",
    "RECYCLER",
    "#recycle",
    "#snapshot",
    "@eaDir",
    "@Recycle",
    "@Recently-Snapshot",
    "__MACOSX",
    "lost+found",
    "System Volume Information",
}
SKIPPED_DOT_NAMES = (
    ".", "..",  # parts of an object's key, which no path can name
    "._*", ".appledouble", ".appledb", ".appledesktop", ".ds_store", ".spotlight-v100",  # macOS
    ".fseventsd", ".temporaryitems", ".documentrevisions-v100", ".mobilebackups",
    ".trash", ".trash-*", ".trashes", ".trashed-*", ".dtrash", ".recycle", ".recycled", ".recycler",
    ".recycle.bin", ".deleted", ".debris", ".rubbish", ".unwanted",
    ".thumb", ".thumbs", ".thumbnail", ".thumbnails", ".@*", ".directory", ".hidden", ".comments",
    ".xvpics", ".picasa.ini", ".picasaoriginals",
    ".snapshot", ".snapshots", ".zfs", ".~*", ".streams", ".lost+found", ".quota", ".glusterfs",
    ".nfs[0-9a-f][0-9a-f][0-9a-f][0-9a-f]*", ".fuse_hidden*", ".smbdelete*",
    ".goutputstream-*", ".pending-*", ".incomplete", ".partial", ".rsync-*", ".*.tagger-*",
    ".stfolder*", ".stversions", ".stignore", ".syncthing.*", ".sync", ".csync*", ".dropbox*",
    ".owncloud*", ".nextcloud*", ".seafile*", ".unison", ".tmp", ".tmp.*", ".tmp-*", ".temp",
    ".git*", ".svn", ".hg", ".bzr", ".venv", ".tox", ".nox", ".*_cache", ".idea", ".vscode*",
    ".ipynb_checkpoints",
    ".cache", ".config", ".local", ".var", ".ssh", ".gnupg", ".mozilla", ".thunderbird", ".wine",
    ".steam", ".minecraft", ".android", ".java", ".npm", ".cargo", ".rustup", ".gradle", ".m2",
    ".docker", ".kube", ".snap", ".flatpak*", ".themes", ".icons", ".fonts",
)  # fmt: skip
"""Files and folders with these names are passed over, except where the user names them: they belong
to systems and programs. A name with a dot in front that nobody knows may be an album's. The dot
names are patterns in lower case."""

SKIPPED_DOT_NAME = re.compile("|".join(map(translate, SKIPPED_DOT_NAMES)))

MAX_LISTED_FILES = 500
"""The files of one Listing. The limit keeps memory flat however large a folder is."""

EMPTY_NAME_PART = "its name has an empty part (//), which a path cannot keep: it is not looked at"


@dataclass(frozen=True, slots=True)
class PathSelection:
    """Files and folders below the roots of a crawl, with all folders that lead to them."""

    paths: Collection[str]
    ancestors: Collection[str]

    @classmethod
    def make(cls, paths: Iterable[AnyPath]) -> "PathSelection":
        names = {str(path) for path in paths}
        return cls(names, {above for name in names for above in _list_parents(name)})

    def leads_to(self, path: str) -> bool:
        """Tell whether a path is selected, below a selected folder, or on the way to one."""
        if path in self.paths or path in self.ancestors:
            return True
        return any(above in self.paths for above in _list_parents(path))


def _list_parents(path: str) -> Iterator[str]:
    while (parent := os.path.dirname(path)) != path:  # noqa: PTH120 - it may be a URL
        yield parent
        path = parent


@dataclass(frozen=True, slots=True)
class Scope:
    """Which files of a folder count.

    suffixes: in lower case. unknown_suffixes: files with these are only counted.
    exclude: patterns of names, of paths below the root, or of whole paths.
    shard: only the files of this shard count. The path below the root decides, so that all
    machines agree wherever the library is mounted. whole_folders: the folder alone decides.
    only: nothing else below the roots counts.
    include_ignored: take also what files such as .nomedia and .ndignore hide.
    """

    suffixes: Collection[str]
    exclude: Sequence[str] = ()
    follow_symlinks: bool = False
    shard: Shard | None = None
    whole_folders: bool = False
    unknown_suffixes: Collection[str] = ()
    only: PathSelection | None = None
    include_ignored: bool = False

    def is_selected(self, path: str) -> bool:
        return self.only is None or self.only.leads_to(path)

    def is_audio(self, name: str) -> bool:
        return _get_suffix(name) in self.suffixes

    def find_exclusion(self, name: str, path: str, root: AnyPath) -> str:
        """Return the pattern that excludes a file or folder; an empty text if there is none."""
        if not self.exclude:
            return ""
        path_below_root = os.path.relpath(path, root)
        fitting = (
            pattern
            for pattern in self.exclude
            if fnmatchcase(path if pattern.startswith("/") else name, pattern)
            or fnmatchcase(path_below_root, pattern)
        )
        return next(fitting, "")

    def is_in_shard(self, folder_below_root: bytes, name: str) -> bool:
        if self.shard is None:
            return True
        if self.whole_folders:
            return self.shard.has(folder_below_root)
        return self.shard.has(folder_below_root + b"/" + os.fsencode(name))


def _get_suffix(name: str) -> str:
    return name[name.rfind(".") :].lower()


@dataclass(frozen=True, slots=True)
class Listing:
    """Audio files that follow one another in a folder, by name. The folder is absolute."""

    folder: str
    files: Sequence[ListedFile]

    def track(self, file: ListedFile) -> Track:
        return Track(join_path(self.folder, file.name), *file[1:])


@dataclass(frozen=True, slots=True)
class FoundFolder:
    """A folder on the way of a crawl. ignored: what the ignore files of the folders above hide."""

    path: AnyPath
    ignored: IgnoreRules


@dataclass(slots=True)
class FolderWalk:
    """One crawl. It remembers files and folders, as roots overlap and links go in circles.

    passed_over: what it did not list, as PassedOver says.
    """

    scope: Scope
    passed_over: PassedOver
    files: set[str] = field(default_factory=set)
    folders: set[Hashable] = field(default_factory=set)

    def walk_folder(self, root: AnyPath) -> Iterator[Listing | Failure]:
        found = self.walk_tree(root)
        return (item for item in found if not isinstance(item, FoundFolder))

    def walk_tree(self, root: AnyPath) -> Iterator[Listing | Failure | FoundFolder]:
        """Walk depth first, and yield each folder before what is in it.

        A stack does it, because folders may be nested deeper than calls.
        """
        ignored = IgnoreRules() if self.scope.include_ignored else read_rules_above(root)
        pending: list[Iterator[Listing | Failure | FoundFolder]]
        pending = [iter([FoundFolder(root, ignored)])]
        while pending:
            item = next(pending[-1], None)
            if item is None:
                pending.pop()
                continue
            yield item
            if isinstance(item, FoundFolder):
                pending.append(self._walk_one_folder(item, root))

    def list_named_file(self, path: AnyPath) -> Iterator[Listing | Failure]:
        """Yield a file that the user or a link names, unless its folder was walked already."""
        try:
            folder = get_filesystem(path).identify_folder(path.parent)
            if folder in self.folders or str(path) in self.files:
                return
            self.files.add(str(path))
            track = None
            if self.scope.is_in_shard(b".", path.name):
                track = get_filesystem(path).look_up(path)
        except AccessError as error:
            yield _make_access_failure(path, error)
            return
        if track:
            listed = ListedFile(path.name, track.size, track.mtime_ns, track.inode, track.links)
            yield Listing(str(path.parent), [listed])

    def _walk_one_folder(
        self, found: FoundFolder, root: AnyPath
    ) -> Iterator[Listing | Failure | FoundFolder]:
        """Yield the files of one folder, and then the folders in it."""
        folder = found.path
        try:
            entries, ignored = self._list_entries(found, root)
        except AccessError as error:
            yield _make_access_failure(folder, error)
            return
        others = []
        files: list[ListedFile] = []
        look_up_entry = get_filesystem(folder).look_up_entry
        below_root = os.fsencode(os.path.relpath(folder, root)) if self.scope.shard else b""
        for entry in entries:
            try:
                is_new_audio = self.scope.is_audio(entry.name) and entry.path not in self.files
                file = look_up_entry(entry) if is_new_audio else None
            except AccessError as error:
                yield _make_access_failure(folder / entry.name, error)
                continue
            if file is None:
                others.append(entry)
            elif self.scope.is_in_shard(below_root, file.name):
                files.append(file)
            if len(files) == MAX_LISTED_FILES:
                yield Listing(str(folder), files)
                files = []
        if files:
            yield Listing(str(folder), files)
        for entry in others:
            yield from self._enter(entry, folder / entry.name, ignored, below_root)

    def _list_entries(
        self, found: FoundFolder, root: AnyPath
    ) -> tuple[list[FolderEntry], IgnoreRules]:
        """Return the entries that count, and what is ignored in the folder.

        There are no entries where the folder was walked already.
        """
        folder, ignored = found.path, found.ignored
        filesystem = get_filesystem(folder)
        identity = filesystem.identify_folder(folder)
        if identity in self.folders:
            return [], ignored
        self.folders.add(identity)
        entries = filesystem.list_folder(folder)
        if not self.scope.include_ignored:
            ignored = ignored.read(folder, entries)
        if ignored.hide_all:
            self.passed_over.folders += 1
            return [], ignored
        counted = [
            entry
            for entry in entries
            if self.scope.is_selected(entry.path)
            and not self.scope.find_exclusion(entry.name, entry.path, root)
            and not self._pass_over(entry, ignored)
        ]
        return counted, ignored

    def _pass_over(self, entry: FolderEntry, ignored: IgnoreRules) -> bool:
        """Tell whether an entry is passed over, by its name or an ignore file; count it then."""
        if not (is_foreign_name(entry.name) or ignored.hide(entry)):
            return False
        with suppress(OSError):
            if entry.is_dir():
                self.passed_over.folders += 1
            elif self.scope.is_audio(entry.name):
                self.passed_over.files += 1
        return True

    def _enter(
        self, entry: FolderEntry, path: AnyPath, ignored: IgnoreRules, below_root: bytes
    ) -> Iterator[Listing | Failure | FoundFolder]:
        """Yield the folder that an entry is or, where links are followed, what it leads to."""
        if not entry.name:
            yield Failure.without_stat(path, EMPTY_NAME_PART)
            return
        try:
            if not entry.is_symlink():
                suffix = _get_suffix(entry.name)
                if entry.is_dir():
                    yield FoundFolder(path, ignored.enter(entry.name))
                elif suffix in self.scope.unknown_suffixes and (
                    self.scope.is_in_shard(below_root, entry.name)
                ):
                    counts = self.passed_over.suffixes
                    counts[suffix] = counts.get(suffix, 0) + 1
            elif self.scope.follow_symlinks and (target := get_filesystem(path).follow_link(path)):
                if target.is_folder:
                    yield FoundFolder(target.path, ignored.enter(entry.name))
                elif self.scope.is_audio(target.path.name):
                    yield from self.list_named_file(target.path)
        except OSError as error:
            yield _make_access_failure(path, AccessError(f"cannot be looked at: {error.strerror}"))
        except AccessError as error:
            yield _make_access_failure(path, error)


def is_foreign_name(name: str) -> bool:
    """Tell whether a name is known to be that of a system or program, not of music."""
    if name.startswith("."):
        return SKIPPED_DOT_NAME.match(name.lower()) is not None
    return name in SKIPPED_NAMES


def explain_passing_over(path: AnyPath, scope: Scope) -> str:
    """Return why a crawl of a folder above a file passes it over; an empty text if it does not."""
    above = list(_list_folders_above(path))
    for number, place in enumerate([path, *above]):
        if is_foreign_name(place.name):
            return f"{place} has a name of trash, snapshots or programs"
        for root in above[number:]:
            if pattern := scope.find_exclusion(place.name, str(place), root):
                return f"--exclude {pattern} fits {place} (in a scan of {root})"
    return "" if scope.include_ignored else explain_hiding(path)


def _list_folders_above(path: AnyPath) -> Iterator[AnyPath]:
    while path.parent != path:
        path = path.parent
        yield path


def _make_access_failure(path: AnyPath, error: AccessError) -> Failure:
    return Failure.without_stat(path, str(error), error.kind)


def crawl(paths: Sequence[AnyPath], scope: Scope) -> Iterator[Track | Failure]:
    """Return an iterator over every single track; see `crawl_folders`."""
    return chain.from_iterable(map(_list_tracks, crawl_folders(paths, scope)))


def _list_tracks(item: Listing | Failure) -> Iterator[Track | Failure]:
    return map(item.track, item.files) if isinstance(item, Listing) else iter((item,))


def list_folders(root: AnyPath, scope: Scope) -> Iterator[AnyPath]:
    """Yield the folders below `root` that a crawl looks into, `root` first."""
    walk = FolderWalk(scope, PassedOver())
    return (item.path for item in walk.walk_tree(root) if isinstance(item, FoundFolder))


def crawl_folders(
    paths: Sequence[AnyPath], scope: Scope, passed_over: PassedOver | None = None
) -> Iterator[Listing | Failure]:
    """Yield every audio file below `paths` once: the files named, then folder by folder, by name.

    The files of a folder come before the folders in it, and local files before remote ones. Paths
    come out absolute. A folder or file that the system does not show is a Failure. A link is passed
    over, or with `follow_symlinks` stands for what it leads to. `passed_over` counts along.
    Raises LibraryError at once where one of `paths` is not there or no part of a library.
    """
    roots = [get_filesystem(path).find_root(path, scope.suffixes) for path in paths]
    roots.sort(key=lambda root: (is_remote(root.path), root.is_folder))  # stable
    walk = FolderWalk(scope, PassedOver() if passed_over is None else passed_over)

    def walk_root(root: Root) -> Iterator[Listing | Failure]:
        return walk.walk_folder(root.path) if root.is_folder else walk.list_named_file(root.path)

    return chain.from_iterable(map(walk_root, roots))
