"""What a scan finds in a folder, and in which order."""

import os
from pathlib import Path

import pytest

from tagger.crawl import Listing, Scope, crawl, crawl_folders
from tagger.errors import LibraryError
from tagger.paths import AnyPath
from tagger.records import Failure, PassedOver, Track

SUFFIXES = frozenset({".mp3", ".flac"})


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def found(*roots: Path, exclude: tuple[str, ...] = (), follow: bool = False) -> list[AnyPath]:
    scope = Scope(SUFFIXES, exclude, follow_symlinks=follow)
    tracks = list(crawl(roots, scope))
    assert all(isinstance(track, Track) for track in tracks)
    return [track.path for track in tracks if isinstance(track, Track)]


def test_finds_every_known_suffix_in_any_case_by_folder_and_name(tmp_path: Path) -> None:
    names = ["b/2.flac", "b/10.MP3", "a.mp3", "B.Flac", "c/d/x.mp3"]
    paths = [touch(tmp_path / name) for name in names]
    touch(tmp_path / "cover.jpg")
    assert found(tmp_path) == [paths[i] for i in (3, 2, 1, 0, 4)]


def test_a_track_carries_what_identifies_the_file(tmp_path: Path) -> None:
    path = touch(tmp_path / "a.mp3")
    os.link(path, tmp_path / "other-name.txt")
    status = path.stat()
    (track,) = crawl([path], Scope(SUFFIXES))
    assert track == Track(path, 1, status.st_mtime_ns, status.st_ino, links=2)


JUNK_FILES = ["._a.mp3", ".trashed-17-a.mp3", ".a.mp3.tagger-1f-0a1b.part.mp3", ".~lock.a.mp3"]
JUNK_FOLDERS = [
    ".Trash-1000",
    ".Trash",
    ".git",
    ".stfolder",
    ".stversions",
    ".thumbnails",
    ".@__thumb",
    ".AppleDouble",
    "$RECYCLE.BIN",
    "@eaDir",
    "#recycle",
    ".debris",
    ".nfs000000000001",
    "lost+found",
]


@pytest.mark.parametrize("name", [*JUNK_FILES, *(f"{name}/x/a.mp3" for name in JUNK_FOLDERS)])
def test_passes_over_junk_and_counts_it(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "Artist" / name)
    good = touch(tmp_path / "good.mp3")
    passed_over = PassedOver()
    (listing,) = crawl_folders([tmp_path], Scope(SUFFIXES), passed_over)
    assert isinstance(listing, Listing)
    assert [file.name for file in listing.files] == [good.name]
    is_file = name in JUNK_FILES
    assert passed_over == PassedOver(folders=not is_file, files=is_file)


@pytest.mark.parametrize(
    "name",
    [
        "...And Justice for All/a.mp3",
        ".38 Special/Wild-Eyed Southern Boys/a.mp3",
        ".hack__SIGN/a.mp3",
        ".O.rang/a.mp3",
        ".mp3",
        "..mp3",
        ".calm.mp3",
        ".NFS Underground/a.mp3",
        ".gothic/a.mp3",
        "..Baby One More Time.mp3",
    ],
)
def test_a_name_with_a_dot_in_front_may_be_music(tmp_path: Path, name: str) -> None:
    song = touch(tmp_path / name)
    assert found(tmp_path) == [song]


def test_a_hidden_folder_that_the_user_names_is_walked(tmp_path: Path) -> None:
    path = touch(tmp_path / ".music" / "a.mp3")
    assert found(tmp_path / ".music") == [path]


def test_nomedia_hides_its_folder_and_all_below(tmp_path: Path) -> None:
    touch(tmp_path / "ringtones" / "deep" / "a.mp3")
    touch(tmp_path / "ringtones" / ".nomedia")
    good = touch(tmp_path / "good.mp3")
    assert found(tmp_path) == [good]
    passed_over = PassedOver()
    list(crawl_folders([tmp_path], Scope(SUFFIXES), passed_over))
    assert passed_over == PassedOver(folders=1)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_a_file_given_twice_is_found_once(tmp_path: Path, order: tuple[int, ...]) -> None:
    path = touch(tmp_path / "album" / "a.mp3")
    roots = [tmp_path, path.parent, path]
    assert found(*(roots[i] for i in order)) == [path]


@pytest.mark.parametrize("pattern", ["Podcasts", "Podcasts/*", "*.flac", "Pod*/old/*"])
def test_exclude_leaves_out_by_name_or_by_path_below_the_root(tmp_path: Path, pattern: str) -> None:
    touch(tmp_path / "Podcasts" / "old" / "a.flac")
    good = touch(tmp_path / "Music" / "a.mp3")
    assert found(tmp_path, exclude=(pattern,)) == [good]


def test_a_whole_path_is_excluded(tmp_path: Path) -> None:
    touch(tmp_path / "Music" / "Podcasts" / "a.mp3")
    good = touch(tmp_path / "Music" / "a" / "Podcasts" / "a.mp3")
    assert found(tmp_path / "Music", exclude=(f"{tmp_path}/Music/Podcasts",)) == [good]


def test_links_are_followed_only_when_asked(tmp_path: Path) -> None:
    outside = touch(tmp_path / "outside" / "a.mp3")
    single = touch(tmp_path / "single.flac")
    library = tmp_path / "library"
    library.mkdir()
    (library / "folder").symlink_to(outside.parent)
    (library / "one.flac").symlink_to(single)
    (library / "circle").symlink_to(library)
    (library / "dangling.mp3").symlink_to(tmp_path / "nowhere.mp3")
    assert found(library) == []
    assert found(library, follow=True) == [outside, single]


@pytest.mark.parametrize("link", ["a-link.mp3", "z-link.mp3"])
def test_a_link_into_the_library_is_no_second_track(tmp_path: Path, link: str) -> None:
    path = touch(tmp_path / "m" / "song.mp3")
    (tmp_path / link).symlink_to(path)
    (tmp_path / "m" / "beside.mp3").symlink_to(path)
    assert found(tmp_path, follow=True) == [path]


def test_a_root_that_is_not_there_or_no_audio_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="No such file"):
        found(tmp_path / "missing")
    with pytest.raises(LibraryError, match="neither a folder nor an audio file"):
        found(touch(tmp_path / "notes.txt"))


def test_a_name_that_is_not_utf8_is_found(tmp_path: Path) -> None:
    path = touch(tmp_path / os.fsdecode(b"caf\xe9.mp3"))
    assert found(tmp_path) == [path]


def test_a_folder_that_cannot_be_listed_is_a_failure_and_the_rest_is_found(tmp_path: Path) -> None:
    good = touch(tmp_path / "good.mp3")
    too_long = tmp_path / "x"
    for _ in range(20):  # a path beyond PATH_MAX can be made step by step, and not be listed
        too_long /= "d" * 250
    here = Path.cwd()
    try:
        os.chdir(tmp_path)
        for part in too_long.relative_to(tmp_path).parts:
            os.mkdir(part)  # noqa: PTH102 - relative on purpose
            os.chdir(part)
    finally:
        os.chdir(here)
    results = list(crawl([tmp_path], Scope(SUFFIXES)))
    assert results[0] == Track.from_stat(good, good.stat())
    assert [type(result) for result in results[1:]] == [Failure]
    failure = results[1]
    assert isinstance(failure, Failure)
    assert "File name too long" in failure.reason
    assert not failure.permanent
