"""What the ignore files of media servers hide from a crawl, each by its own rules."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tagger.crawl import Scope, crawl, crawl_folders
from tagger.ignore_files import IGNORE_FILES, MAX_FILE_BYTES
from tagger.records import Failure, PassedOver

SCOPE = Scope({".mp3", ".flac"})

LIKE_GIT = (".ndignore", ".lmsignore", ".ignore")
PATTERN_FILES = sorted(IGNORE_FILES.keys() - {".nomedia"})


def make_files(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def write(root: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf-8", "surrogateescape")


def found(root: Path, *named: Path, scope: Scope = SCOPE) -> list[str]:
    """Return the files of a crawl by their path below `root`, in alphabetical order."""
    tracks = [each for each in crawl(named or [root], scope) if not isinstance(each, Failure)]
    assert len(tracks) == len(list(crawl(named or [root], scope)))
    return sorted(os.path.relpath(each.path, root) for each in tracks)


@pytest.mark.parametrize("name", [".ndignore", ".lmsignore", ".ignore", ".nomedia"])
@pytest.mark.parametrize("text", ["", " \n\t\n"])
def test_an_empty_file_hides_its_folder_and_all_below(tmp_path: Path, name: str, text: str) -> None:
    make_files(tmp_path, "a.mp3", "b/a.mp3", "b/c/a.mp3")
    write(tmp_path, {f"b/{name}": text})
    assert found(tmp_path) == ["a.mp3"]
    passed_over = PassedOver()
    list(crawl_folders([tmp_path], SCOPE, passed_over))
    assert passed_over == PassedOver(folders=1)


@pytest.mark.parametrize(
    ("name", "hides"),
    [(".ndignore", True), (".nomedia", True), (".ignore", False), (".lmsignore", False),
     (".mpdignore", False), (".plexignore", False)],
)  # fmt: skip
def test_comments_alone_hide_all_for_navidrome_only(
    tmp_path: Path, name: str, *, hides: bool
) -> None:
    make_files(tmp_path, "a.mp3")
    write(tmp_path, {name: "# nothing yet\n\n"})
    assert found(tmp_path) == ([] if hides else ["a.mp3"])


@pytest.mark.parametrize("name", [".mpdignore", ".plexignore"])
def test_an_empty_file_of_mpd_and_plex_hides_nothing(tmp_path: Path, name: str) -> None:
    make_files(tmp_path, "a.mp3")
    write(tmp_path, {name: ""})
    assert found(tmp_path) == ["a.mp3"]


@pytest.mark.parametrize("name", LIKE_GIT)
def test_patterns_are_those_of_gitignore(tmp_path: Path, name: str) -> None:
    make_files(tmp_path, *(f"{folder}{file}" for folder in ("", "x/", "untagged/", "y/untagged/")
                           for file in ("a.mp3", "b.flac", "Live 1.mp3", "#1.mp3")))  # fmt: skip
    text = "# a comment\r\n*.flac\r\n/untagged/\n!/x/*.flac\n\\#1.mp3\nLive ?.mp3  \n"
    write(tmp_path, {name: text})
    assert found(tmp_path) == ["a.mp3", "x/a.mp3", "x/b.flac", "y/untagged/a.mp3"]


@pytest.mark.parametrize("name", PATTERN_FILES)
def test_a_comment_may_have_any_number_of_stars(tmp_path: Path, name: str) -> None:
    make_files(tmp_path, "a.mp3", "b.mp3")
    write(tmp_path, {name: "# * * * hide * * *\na.mp3\n"})
    assert found(tmp_path) == ["b.mp3"]


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    make_files(tmp_path, "a.mp3", "b.mp3")
    write(tmp_path, {".ndignore": "\ufeffa.mp3\n"})
    assert found(tmp_path) == ["b.mp3"]


def test_a_name_that_is_not_utf8_can_be_hidden(tmp_path: Path) -> None:
    make_files(tmp_path, "caf\udce9.mp3", "b.mp3")
    write(tmp_path, {".ndignore": "caf\udce9.mp3\n"})
    assert found(tmp_path) == ["b.mp3"]


@pytest.mark.parametrize("name", PATTERN_FILES)
def test_the_files_of_the_folders_above_hold_below(tmp_path: Path, name: str) -> None:
    make_files(tmp_path, "a.mp3", "b/c/a.mp3", "b/c/b.mp3", "d/b.mp3")
    write(tmp_path, {name: "a.mp3\n", f"d/{name}": "b.mp3"})
    assert found(tmp_path) == ["b/c/b.mp3"]


def test_a_file_further_down_can_show_what_one_above_hides(tmp_path: Path) -> None:
    make_files(tmp_path, "a.flac", "keep/a.flac", "keep/deep/a.flac")
    write(tmp_path, {".ndignore": "*.flac\n", "keep/.ndignore": "!*.flac\n"})
    assert found(tmp_path) == ["keep/a.flac", "keep/deep/a.flac"]
    write(tmp_path, {"keep/deep/.lmsignore": "*.flac\n"})
    assert found(tmp_path) == ["keep/a.flac"]  # a file of one server shows nothing to another


def test_jellyfin_reads_only_the_nearest_file(tmp_path: Path) -> None:
    make_files(tmp_path, "a.mp3", "b.mp3", "x/a.mp3", "x/b.mp3")
    write(tmp_path, {".ignore": "a.mp3\n", "x/.ignore": "b.mp3\n"})
    assert found(tmp_path) == ["b.mp3", "x/a.mp3"]


def test_mpd_compares_names_of_files_and_folders(tmp_path: Path) -> None:
    make_files(tmp_path, "99 a.mp3", "x/99 b/a.mp3", "x/a.mp3", "x/!b.mp3", "!c.mp3", "x/c.mp3")
    write(tmp_path, {".mpdignore": " 99*\nx/c.mp3\n!b.mp3\n"})
    assert found(tmp_path) == ["!c.mp3", "x/a.mp3", "x/c.mp3"]


def test_plex_compares_names_of_files_and_paths_of_folders(tmp_path: Path) -> None:
    names = ["A live.mp3", "live/a.mp3", "Podcasts/p/a.mp3", "x/Extras/a.mp3", "Kids/a.mp3"]
    make_files(tmp_path, *names, "x/y/Extras/a.mp3", "x/Podcasts/a.mp3", "x/#1.mp3", "x/!b.mp3")
    text = "# mine\n*LIVE*\npodcasts/*\n*/Extras/*\n/Kids/*\n\\#1.mp3\n!b.*\n"
    write(tmp_path, {".plexignore": text})
    assert found(tmp_path) == ["Kids/a.mp3", "live/a.mp3", "x/Podcasts/a.mp3", "x/y/Extras/a.mp3"]


def test_what_is_hidden_is_counted(tmp_path: Path) -> None:
    make_files(tmp_path, "a.mp3", "cover.jpg", "b.mp3", "pod/a.mp3", "pod/b.mp3")
    write(tmp_path, {".ndignore": "a.mp3\ncover.jpg\npod/\n"})
    passed_over = PassedOver()
    list(crawl_folders([tmp_path], SCOPE, passed_over))
    assert passed_over == PassedOver(folders=1, files=1)


def test_a_folder_with_the_name_of_an_ignore_file_hides_nothing(tmp_path: Path) -> None:
    make_files(tmp_path, "a.mp3", ".ignore/b.mp3")
    assert found(tmp_path) == [".ignore/b.mp3", "a.mp3"]


def test_what_the_user_names_is_scanned_whatever_a_folder_above_hides(tmp_path: Path) -> None:
    make_files(tmp_path, "pod/a.mp3", "pod/old/b.mp3")
    write(tmp_path, {".ndignore": "pod/\n*.mp3\n", "pod/.ndignore": "old"})
    assert found(tmp_path) == []
    assert found(tmp_path, tmp_path / "pod" / "a.mp3") == ["pod/a.mp3"]
    assert found(tmp_path, tmp_path / "pod", tmp_path) == ["pod/a.mp3"]


def test_the_patterns_of_folders_above_hold_for_a_named_folder(tmp_path: Path) -> None:
    make_files(tmp_path, "Rock/a.mp3", "Rock/Podcasts/a.mp3", "Rock/Live/Podcasts/a.mp3")
    write(tmp_path, {".ndignore": "Rock/Podcasts\n", ".plexignore": "rock/live/podcasts/*"})
    assert found(tmp_path, tmp_path / "Rock") == ["Rock/a.mp3"]
    assert found(tmp_path, tmp_path / "Rock" / "Live") == []
    assert found(tmp_path, tmp_path / "Rock" / "Podcasts") == ["Rock/Podcasts/a.mp3"]


def test_a_broken_file_above_a_named_folder_does_not_matter(tmp_path: Path) -> None:
    make_files(tmp_path, "x/a.mp3")
    write(tmp_path, {".ndignore": "!"})
    assert found(tmp_path, tmp_path / "x") == ["x/a.mp3"]


def test_rules_hold_below_a_link_by_the_name_of_the_link(tmp_path: Path) -> None:
    make_files(tmp_path, "outside/a.mp3", "outside/b.mp3", "music/c.mp3")
    (tmp_path / "music" / "link").symlink_to(tmp_path / "outside")
    write(tmp_path, {"music/.ndignore": "link/a.mp3\n"})
    scope = Scope({".mp3"}, follow_symlinks=True)
    assert found(tmp_path, tmp_path / "music", scope=scope) == ["music/c.mp3", "outside/b.mp3"]
    write(tmp_path, {"music/.ndignore": "link\n"})
    assert found(tmp_path, tmp_path / "music", scope=scope) == ["music/c.mp3"]


def test_an_ignore_file_may_be_a_link(tmp_path: Path) -> None:
    make_files(tmp_path, "x/a.mp3", "x/b.mp3")
    write(tmp_path, {"patterns": "a.mp3"})
    (tmp_path / "x" / ".ndignore").symlink_to(tmp_path / "patterns")
    assert found(tmp_path) == ["x/b.mp3"]


def test_everything_is_found_if_the_user_wants_it(tmp_path: Path) -> None:
    make_files(tmp_path, "x/a.mp3", "y/a.mp3")
    write(tmp_path, {".ndignore": "x", "y/.nomedia": "", "x/.plexignore": "*"})
    assert found(tmp_path, scope=Scope({".mp3"}, include_ignored=True)) == ["x/a.mp3", "y/a.mp3"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a.mp3\n!\n", "Invalid git pattern"),
        ("[z-a].mp3", "bad character range"),
        ("*a*a*a*a*", "more than 4 *"),
        ("a\0.mp3", "no text"),
        ("a\n" * MAX_FILE_BYTES, "more than 64 KiB"),
        (None, "No such file"),
    ],
)
def test_a_broken_file_hides_its_folder_and_is_a_failure(
    tmp_path: Path, text: str | None, reason: str
) -> None:
    make_files(tmp_path, "x/a.mp3", "x/y/a.mp3", "b.mp3")
    if text is None:
        (tmp_path / "x" / ".ndignore").symlink_to("nowhere")
    else:
        write(tmp_path, {"x/.ndignore": text})
    failures = [each for each in crawl([tmp_path], SCOPE) if isinstance(each, Failure)]
    assert [(each.track.path, each.permanent) for each in failures] == [(tmp_path / "x", False)]
    assert failures[0].reason.startswith("the folder is left out, because its .ndignore cannot be")
    assert reason in failures[0].reason
    assert len(list(crawl([tmp_path], SCOPE))) == 2


def test_a_pipe_is_no_ignore_file(tmp_path: Path) -> None:
    make_files(tmp_path, "x/a.mp3")
    os.mkfifo(tmp_path / "x" / ".plexignore")
    (failure,) = crawl([tmp_path], SCOPE)
    assert isinstance(failure, Failure)


def test_nomedia_hides_a_folder_whose_other_files_are_broken(tmp_path: Path) -> None:
    make_files(tmp_path, "x/a.mp3", "x/.nomedia")
    write(tmp_path, {"x/.ndignore": "!"})
    assert found(tmp_path) == []


SEGMENTS = st.sampled_from(
    ["a", "b", "*", "**", "*.mp3", "a*", "?", "[ab]", "[!a]*", "c d", "c d  ", "\\!a", "x.mp3"]
)
PATTERNS = st.builds(
    lambda start, segments, end: f"{start}{'/'.join(segments)}{end}",
    st.sampled_from(["", "", "", "/", "# "]),
    st.lists(SEGMENTS, min_size=1, max_size=3),
    st.sampled_from(["", "", "", "/"]),
)
LINES = st.lists(PATTERNS, min_size=1, max_size=4)
FOLDERS = ["", *(f"{a}/" for a in ("a", "b", "c d", "!a")), *(f"a/{b}/" for b in ("a", "b", "ab"))]


@pytest.mark.skipif(not shutil.which("git"), reason="this machine has no git")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(["a/**/"], [], ".ndignore")
@example(["a/**", "!a/x.mp3"], [], ".ndignore")
@example(["x/**/", "b/**/ "], [], ".ignore")
@given(LINES, st.one_of(st.just([]), LINES), st.sampled_from(LIKE_GIT[:2]))
def test_git_ignores_the_same_files(
    tmp_path: Path, above: list[str], below: list[str], name: str
) -> None:
    root = tmp_path / "git"
    shutil.rmtree(root, ignore_errors=True)
    every = [f"{folder}{file}" for folder in FOLDERS for file in ("x.mp3", "a.mp3", "#.mp3")]
    make_files(root, *every)
    for each in (name, ".gitignore"):
        write(root, {each: "\n".join([*above, "none"]), f"a/{each}": "\n".join([*below, "none"])})
    subprocess.run(["git", "init", "-q", root], check=True)
    check = ["git", "-C", str(root), "check-ignore", "--no-index", "-z", "--stdin"]
    done = subprocess.run(
        check, input="\0".join(every), capture_output=True, text=True, check=False
    )
    assert not done.stderr
    assert {*found(root)} == {*every} - {*done.stdout.split("\0")}
