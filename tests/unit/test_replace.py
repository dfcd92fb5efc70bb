"""One file is replaced whole or not at all, whatever happens meanwhile."""

import errno
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import pytest

from tagger.errors import (
    AccessError,
    DiskFullError,
    FailureKind,
    TagError,
    TrackError,
    UnfinishedError,
)
from tagger.records import Tags
from tagger.tags import read_other_fields, read_tags, write_tags
from tagger.writing import replace
from tagger.writing.replace import copy_bytes, replace_tags
from tests.builders import EACH_ENDING, add_genre, audio_bytes
from tests.replacing import inspect_file, make_change, make_track, restore, retag

TAGS = Tags(("Hip-Hop", "Soul"), ("Hip-Hop", "Soul"), "Hip-Hop=0.8;Soul=0.1", "musicnn")
HOUR_NS = 3600 * 10**9


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def song(tmp_path: Path) -> Path:
    """Make a FLAC file, last changed an hour ago, in its own folder."""
    path = tmp_path / "album" / "song.flac"
    path.parent.mkdir()
    path.write_bytes(audio_bytes(".flac", rich=True))
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - HOUR_NS))
    return path


def assert_untouched(path: Path, before: os.stat_result) -> None:
    """Assert that the file is unchanged, byte for byte, and alone in its folder."""
    assert path.read_bytes() == audio_bytes(".flac", rich=True)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert list_names(path.parent) == [path.name]


@pytest.mark.parametrize("in_place", [False, True], ids=["renamed", "in place"])
@pytest.mark.parametrize("ending", EACH_ENDING)
def test_files_of_every_container_are_replaced_and_restored(
    tmp_path: Path, ending: str, *, in_place: bool
) -> None:
    path = tmp_path / f"song{ending}"
    path.write_bytes(audio_bytes(ending, rich=True))
    add_genre(path, "Mine")
    before, others = read_tags(path), read_other_fields(path)
    track = retag(path, TAGS, in_place=in_place)
    assert track == make_track(path)
    assert read_tags(path) == TAGS
    assert read_other_fields(path) == others
    assert before.genres == ("Mine",)
    restore(path, before)
    assert read_tags(path) == before
    assert read_tags(path).raw == before.raw
    assert read_other_fields(path) == others
    assert list_names(tmp_path) == [path.name]


def test_mode_and_attributes_stay_and_the_mtime_changes(song: Path) -> None:
    song.chmod(0o2640)
    with suppress(OSError):  # not every file system has them
        os.setxattr(song, "user.rating", b"five")
    before, attributes = song.stat(), os.listxattr(song)
    retag(song, TAGS)
    after = song.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )
    assert os.listxattr(song) == attributes
    assert all(os.getxattr(song, name) == b"five" for name in attributes if "rating" in name)
    assert after.st_ino != before.st_ino
    assert after.st_mtime_ns > before.st_mtime_ns + HOUR_NS // 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to another user")
def test_the_owner_stays(song: Path) -> None:
    os.chown(song, 4321, 1234)
    retag(song, TAGS)
    assert (song.stat().st_uid, song.stat().st_gid) == (4321, 1234)


@pytest.mark.parametrize("in_place", [False, True])
def test_preserve_mtime_keeps_the_mtime(song: Path, *, in_place: bool) -> None:
    before = song.stat().st_mtime_ns
    track = retag(song, TAGS, preserve_mtime=True, in_place=in_place)
    assert song.stat().st_mtime_ns == track.mtime_ns == before
    assert read_tags(song) == TAGS


def test_in_place_keeps_inode_and_hard_links(song: Path) -> None:
    twin = song.with_name("twin.flac")
    twin.hardlink_to(song)
    inode = song.stat().st_ino
    track = retag(song, TAGS, in_place=True)
    assert (track.inode, track.links) == (inode, 2)
    assert read_tags(twin) == TAGS
    assert list_names(song.parent) == ["song.flac", "twin.flac"]


def inspect_wrongly(path: Path) -> dict[str, str]:
    """Report a different sound for each file."""
    return {"audio stream 0": path.name}


@pytest.mark.parametrize("in_place", [False, True])
def test_different_sound_leaves_the_original(song: Path, *, in_place: bool) -> None:
    before = song.stat()
    with pytest.raises(TagError, match="change audio stream 0"):
        replace_tags(make_change(make_track(song), TAGS), inspect_wrongly, in_place=in_place)
    assert_untouched(song, before)


def write_and_damage(position: bytes) -> Callable[[Path, Tags, BinaryIO], None]:
    """Return a writer that also changes the byte after the given bytes."""

    def write(path: Path, tags: Tags, already: BinaryIO) -> None:
        write_tags(path, tags, already)
        data = bytearray(path.read_bytes())
        data[data.index(position) + len(position)] ^= 1
        path.write_bytes(data)

    return write


@pytest.mark.parametrize(
    ("position", "reason"),
    [
        (b"ALBUM=", "it would change album"),
        (b"TAGGER_MODEL=", "could not be read back"),
        (b"image/png\0\0\0\x05fron", "it would change block"),
        (b"fLaC", "."),
    ],
)
def test_any_other_difference_leaves_the_original(
    song: Path, monkeypatch: pytest.MonkeyPatch, position: bytes, reason: str
) -> None:
    before = song.stat()
    monkeypatch.setattr(replace, "write_tags", write_and_damage(position))
    with pytest.raises(TrackError, match=reason):
        retag(song, TAGS)
    assert_untouched(song, before)


def test_a_changed_last_byte_of_sound_leaves_the_original(
    song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: Path, tags: Tags, already: BinaryIO) -> None:
        write_tags(path, tags, already)
        path.write_bytes(path.read_bytes()[:-1] + b"?")

    before = song.stat()
    monkeypatch.setattr(replace, "write_tags", write)
    with pytest.raises(TagError, match="change audio stream 0"):
        retag(song, TAGS)
    assert_untouched(song, before)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_an_interrupt_leaves_the_original_and_no_copy(
    song: Path, error: type[BaseException]
) -> None:
    def interrupt(_: Path) -> Mapping[str, str]:
        raise error

    before = song.stat()
    with pytest.raises(error):
        replace_tags(make_change(make_track(song), TAGS), interrupt)
    assert_untouched(song, before)


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.ENOSPC, DiskFullError), (errno.EDQUOT, DiskFullError), (errno.EIO, AccessError)],
)
@pytest.mark.parametrize("call", ["fsync", "replace", "fchmod", "copy_file_range"])
def test_a_system_error_leaves_the_original(
    song: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    number: int,
    error: type[Exception],
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    before, track = song.stat(), make_track(song)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(error, match=os.strerror(number)):
            replace_tags(make_change(track, TAGS), inspect_file)
    assert_untouched(song, before)


def test_without_kernel_copies_the_bytes_are_copied(
    song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    retag(song, TAGS)
    assert read_tags(song) == TAGS


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def swap(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.with_name("reserve").touch()  # it takes the free inode
    path.write_bytes(data)


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def add_hard_link(path: Path) -> None:
    with suppress(FileExistsError):  # meanwhile, it is called for each look at the copy
        os.link(path, path.with_name("elsewhere"))


@pytest.mark.parametrize("change", [grow, swap, link, add_hard_link, os.utime, os.unlink])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_file_that_changes_meanwhile_is_left_alone(
    song: Path, change: Callable[[Path], None], when: str, *, in_place: bool
) -> None:
    def inspect(path: Path) -> Mapping[str, str]:
        if when == "meanwhile" and path != song:
            change(song)
        return {}

    track = make_track(song)
    if when == "before":
        change(song)
    with pytest.raises(AccessError, match=r"changed while|No such file|symbolic links|hard link"):
        replace_tags(make_change(track, TAGS), inspect, in_place=in_place)
    assert set(list_names(song.parent)) <= {"song.flac", "elsewhere", "reserve"}
    if song.exists():
        assert read_tags(song).genres == ()


def test_a_folder_replaced_by_a_link_does_not_redirect_the_write(
    song: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / song.name).write_bytes(audio_bytes(".flac"))
    album, track = song.parent, make_track(song)

    def inspect(path: Path) -> Mapping[str, str]:
        if path != song and read_tags(path) == TAGS:
            album.rename(tmp_path / "moved")
            album.symlink_to(other)
        return {}

    replace_tags(make_change(track, TAGS), inspect)
    assert (other / song.name).read_bytes() == audio_bytes(".flac")
    assert list_names(other) == [song.name]
    assert read_tags(tmp_path / "moved" / song.name) == TAGS


def test_a_copy_replaced_by_a_link_is_not_written_through(song: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.flac"
    other.write_bytes(audio_bytes(".flac"))
    before = song.read_bytes()

    def swap_copy(source: int, target: int) -> None:
        copy_bytes(source, target)
        (copy,) = (path for path in song.parent.iterdir() if path != song)
        copy.unlink()
        copy.symlink_to(other)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replace, "copy_bytes", swap_copy)
        with pytest.raises(TrackError):
            retag(song, TAGS)
    assert other.read_bytes() == audio_bytes(".flac")
    assert song.read_bytes() == before
    assert list_names(song.parent) == [song.name]


def test_another_file_under_the_name_of_the_copy_replaces_nothing(song: Path) -> None:
    before = song.read_bytes()

    def inspect_and_swap(path: Path) -> Mapping[str, str]:
        content = inspect_file(path)
        if path != song and read_tags(path) == TAGS:  # the last look, behind that at the old tags
            path.unlink()
            path.write_bytes(b"evil")
        return content

    with pytest.raises(AccessError, match="changed while") as raised:
        replace_tags(make_change(make_track(song), TAGS), inspect_and_swap)
    assert raised.value.kind is FailureKind.CHANGED
    assert song.read_bytes() == before
    assert list_names(song.parent) == [song.name]


def test_an_edit_meanwhile_that_restores_the_mtime_is_not_lost(song: Path) -> None:
    track = make_track(song)

    def edit(path: Path) -> Mapping[str, str]:
        if path != song:
            data = song.read_bytes().replace(b"ALBUM=Album", b"ALBUM=Other")
            with song.open("r+b") as file:
                file.write(data)
            os.utime(song, ns=(track.mtime_ns, track.mtime_ns))
        return {}

    with pytest.raises(AccessError, match="changed while"):
        replace_tags(make_change(track, TAGS), edit)
    assert b"ALBUM=Other" in song.read_bytes()


def test_an_attribute_that_comes_from_the_folder_is_removed(
    song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy_with_more(source: int, target: int) -> None:
        copy_bytes(source, target)
        os.setxattr(target, "user.extra", b"1")

    monkeypatch.setattr(replace, "copy_bytes", copy_with_more)
    retag(song, TAGS)
    assert os.listxattr(song) == []


NAMES = [
    "x" * 250 + ".flac",
    "é" * 125 + ".flac",
    os.fsdecode(b"\xff\xfe caf\xe9.flac"),
    os.fsdecode(b"\xff" * 250 + b".flac"),
    "new\nline\t'quotes' \x1b[31m.flac",
    "-n.flac",
    "f.flac",
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_any_name_works(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(audio_bytes(".flac"))
    names: list[str] = []

    def inspect(path: Path) -> Mapping[str, str]:
        names.extend(list_names(tmp_path))
        return inspect_file(path)

    replace_tags(make_change(make_track(path), TAGS), inspect)
    assert read_tags(path) == TAGS
    assert list_names(tmp_path) == [name]
    (copy,) = set(names) - {name}
    assert copy.startswith(".")
    assert f".tagger-{make_track(tmp_path).inode:x}" not in copy
    assert copy.endswith(".part.flac")
    assert len(os.fsencode(copy)) <= 255


def test_a_rename_that_fails_after_it_was_done_counts_as_done(
    song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename_and_fail(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        os.rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")  # as NFS may do

    monkeypatch.setattr(os, "replace", rename_and_fail)
    track = retag(song, TAGS)
    assert track == make_track(song)
    assert read_tags(song) == TAGS


def test_a_rename_that_fails_changes_nothing(song: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(AccessError, match="Input/output error"):
        retag(song, TAGS)
    assert read_tags(song) == Tags()
    assert list_names(song.parent) == ["song.flac"]


def test_the_copy_is_private_until_it_is_done(song: Path) -> None:
    modes = set()

    def inspect(path: Path) -> Mapping[str, str]:
        modes.add(path.stat().st_mode & 0o777)
        return {}

    song.chmod(0o644)
    replace_tags(make_change(make_track(song), TAGS), inspect)
    assert modes == {0o644, 0o600}
    assert song.stat().st_mode & 0o777 == 0o644


def test_a_failed_write_in_place_leaves_a_full_copy_and_says_so(
    song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(replace, "overwrite_file", fail)
    with pytest.raises(UnfinishedError, match=r"half-written.*\.full\.flac") as raised:
        retag(song, TAGS, in_place=True)
    assert raised.value.kind is FailureKind.UNFINISHED
    (full,) = set(list_names(song.parent)) - {song.name}
    assert full.endswith(".full.flac")
    assert f"-{song.stat().st_ino:x}-" in full
    assert read_tags(song.with_name(full)) == TAGS
