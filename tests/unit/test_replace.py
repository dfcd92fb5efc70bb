"""One file is replaced whole or not at all, whatever happens on the way."""

import errno
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import pytest

from tagger.errors import AccessError, DiskFullError, TagError, TrackError
from tagger.records import Tags
from tagger.tags import read_other_fields, read_tags, write_tags
from tagger.writing import replace
from tagger.writing.replace import copy_bytes, replace_tags
from tests.builders import ENDINGS, add_genre, audio_bytes
from tests.replacing import change_of, everything_else, restore, retag, track_of

TAGS = Tags(("Hip-Hop", "Soul"), ("Hip-Hop", "Soul"), "Hip-Hop=0.8;Soul=0.1", "musicnn")
HOUR_NS = 3600 * 10**9


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def song(tmp_path: Path) -> Path:
    """Return a FLAC file, last changed an hour ago, in a folder of its own."""
    path = tmp_path / "album" / "song.flac"
    path.parent.mkdir()
    path.write_bytes(audio_bytes(".flac", rich=True))
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - HOUR_NS))
    return path


def assert_untouched(path: Path, before: os.stat_result) -> None:
    """Assert that the file is the one from before, byte for byte, and alone in its folder."""
    assert path.read_bytes() == audio_bytes(".flac", rich=True)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert names_in(path.parent) == [path.name]


@pytest.mark.parametrize("in_place", [False, True], ids=["renamed", "in place"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_every_kind_is_replaced_and_restored(
    tmp_path: Path, ending: str, *, in_place: bool
) -> None:
    path = tmp_path / f"song{ending}"
    path.write_bytes(audio_bytes(ending, rich=True))
    add_genre(path, "Mine")
    before, others = read_tags(path), read_other_fields(path)
    track = retag(path, TAGS, in_place=in_place)
    assert track == track_of(path)
    assert read_tags(path) == TAGS
    assert read_other_fields(path) == others
    assert before.genres == ("Mine",)
    restore(path, before)
    assert read_tags(path) == before
    assert read_tags(path).raw == before.raw
    assert read_other_fields(path) == others
    assert names_in(tmp_path) == [path.name]


def test_mode_and_attributes_stay_and_the_time_moves_on(song: Path) -> None:
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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_stays(song: Path) -> None:
    os.chown(song, 4321, 1234)
    retag(song, TAGS)
    assert (song.stat().st_uid, song.stat().st_gid) == (4321, 1234)


@pytest.mark.parametrize("in_place", [False, True])
def test_the_time_stays_where_that_is_asked_for(song: Path, *, in_place: bool) -> None:
    before = song.stat().st_mtime_ns
    track = retag(song, TAGS, preserve_mtime=True, in_place=in_place)
    assert song.stat().st_mtime_ns == track.mtime_ns == before
    assert read_tags(song) == TAGS


def test_in_place_keeps_inode_and_links(song: Path) -> None:
    twin = song.with_name("twin.flac")
    twin.hardlink_to(song)
    inode = song.stat().st_ino
    track = retag(song, TAGS, in_place=True)
    assert (track.inode, track.links) == (inode, 2)
    assert read_tags(twin) == TAGS
    assert names_in(song.parent) == ["song.flac", "twin.flac"]


def lying(path: Path) -> dict[str, str]:
    """Find in each file a sound that no other has."""
    return {"audio stream 0": path.name}


@pytest.mark.parametrize("in_place", [False, True])
def test_sound_that_differs_leaves_the_original(song: Path, *, in_place: bool) -> None:
    before = song.stat()
    with pytest.raises(TagError, match="change audio stream 0"):
        replace_tags(change_of(track_of(song), TAGS), lying, in_place=in_place)
    assert_untouched(song, before)


def damage(where: bytes) -> Callable[[Path, Tags, BinaryIO], None]:
    """Return a writer that changes one more byte, after the given ones."""

    def write(path: Path, tags: Tags, already: BinaryIO) -> None:
        write_tags(path, tags, already)
        data = bytearray(path.read_bytes())
        data[data.index(where) + len(where)] ^= 1
        path.write_bytes(data)

    return write


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        (b"ALBUM=", "it would change album"),
        (b"TAGGER_MODEL=", "could not be read back"),
        (b"image/png\0\0\0\x05fron", "it would change block"),
        (b"fLaC", "."),
    ],
)
def test_any_other_difference_leaves_the_original(
    song: Path, monkeypatch: pytest.MonkeyPatch, where: bytes, reason: str
) -> None:
    before = song.stat()
    monkeypatch.setattr(replace, "write_tags", damage(where))
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
    def interrupted(_: Path) -> Mapping[str, str]:
        raise error

    before = song.stat()
    with pytest.raises(error):
        replace_tags(change_of(track_of(song), TAGS), interrupted)
    assert_untouched(song, before)


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.ENOSPC, DiskFullError), (errno.EDQUOT, DiskFullError), (errno.EIO, AccessError)],
)
@pytest.mark.parametrize("call", ["fsync", "replace", "fchmod", "copy_file_range"])
def test_a_refusal_of_the_system_leaves_the_original(
    song: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    number: int,
    error: type[Exception],
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    before, track = song.stat(), track_of(song)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(error, match=os.strerror(number)):
            replace_tags(change_of(track, TAGS), everything_else)
    assert_untouched(song, before)


def test_a_system_that_cannot_share_blocks_copies_them(
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
    path.with_name("reserve").touch()  # so that the inode is not taken again
    path.write_bytes(data)


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


@pytest.mark.parametrize("change", [grow, swap, link, os.utime, os.unlink])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_file_that_changes_under_us_is_left_alone(
    song: Path, change: Callable[[Path], None], when: str, *, in_place: bool
) -> None:
    def digest(path: Path) -> Mapping[str, str]:
        if when == "meanwhile" and path != song:
            change(song)
        return {}

    track = track_of(song)
    if when == "before":
        change(song)
    with pytest.raises(AccessError, match=r"changed while|No such file|symbolic links"):
        replace_tags(change_of(track, TAGS), digest, in_place=in_place)
    left = set(names_in(song.parent))
    assert left <= {"song.flac", "elsewhere", "reserve"}
    if song.exists():
        assert read_tags(song).genres == ()


def test_a_folder_swapped_for_a_link_leads_nowhere_else(song: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / song.name).write_bytes(audio_bytes(".flac"))
    album, track = song.parent, track_of(song)

    def digest(path: Path) -> Mapping[str, str]:
        if path != song:
            album.rename(tmp_path / "moved")
            album.symlink_to(other)
        return {}

    track = replace_tags(change_of(track, TAGS), digest)
    assert (other / song.name).read_bytes() == audio_bytes(".flac")
    assert names_in(other) == [song.name]
    assert read_tags(tmp_path / "moved" / song.name) == TAGS


def test_a_copy_swapped_for_a_link_is_not_written_through(song: Path, tmp_path: Path) -> None:
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
    assert names_in(song.parent) == [song.name]


def test_a_name_swapped_after_the_check_takes_no_place(song: Path) -> None:
    before = song.read_bytes()

    def swap_checked(path: Path) -> Mapping[str, str]:
        found = everything_else(path)
        if path != song:
            path.unlink()
            path.write_bytes(b"evil")
        return found

    with pytest.raises(AccessError, match="changed while"):
        replace_tags(change_of(track_of(song), TAGS), swap_checked)
    assert song.read_bytes() == before
    assert names_in(song.parent) == [song.name]


def test_an_edit_during_the_check_that_hides_its_time_is_not_lost(song: Path) -> None:
    track = track_of(song)

    def edit(path: Path) -> Mapping[str, str]:
        if path != song:
            data = song.read_bytes().replace(b"ALBUM=Album", b"ALBUM=Other")
            with song.open("r+b") as file:
                file.write(data)
            os.utime(song, ns=(track.mtime_ns, track.mtime_ns))
        return {}

    with pytest.raises(AccessError, match="changed while"):
        replace_tags(change_of(track, TAGS), edit)
    assert b"ALBUM=Other" in song.read_bytes()


def test_an_attribute_that_the_folder_gives_is_not_kept(
    song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy_with_more(source: int, target: int) -> None:
        copy_bytes(source, target)
        os.setxattr(target, "user.surplus", b"1")

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

    def digest(path: Path) -> Mapping[str, str]:
        names.extend(names_in(tmp_path))
        return everything_else(path)

    replace_tags(change_of(track_of(path), TAGS), digest)
    assert read_tags(path) == TAGS
    assert names_in(tmp_path) == [name]
    (copy,) = set(names) - {name}
    assert copy.startswith(".")
    assert f".tagger-{track_of(tmp_path).inode:x}" not in copy
    assert copy.endswith(".part.flac")
    assert len(os.fsencode(copy)) <= 255


def test_the_copy_is_private_while_it_is_made(song: Path) -> None:
    modes = set()

    def digest(path: Path) -> Mapping[str, str]:
        modes.add(path.stat().st_mode & 0o777)
        return {}

    song.chmod(0o644)
    replace_tags(change_of(track_of(song), TAGS), digest)
    assert modes == {0o644, 0o600}
    assert song.stat().st_mode & 0o777 == 0o644


def test_in_place_says_that_a_whole_copy_is_being_written_over(
    song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(replace, "write_over", fail)
    with pytest.raises(AccessError, match=r"half-written.*\.full\.flac"):
        retag(song, TAGS, in_place=True)
    (whole,) = set(names_in(song.parent)) - {song.name}
    assert whole.endswith(".full.flac")
    assert f"-{song.stat().st_ino:x}-" in whole
    assert read_tags(song.with_name(whole)) == TAGS
