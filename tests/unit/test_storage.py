"""URLs as paths, files read by ranges, objects as Tracks, and the errors of foreign libraries."""

import copy
import os
import pickle
import time
from io import SEEK_CUR, SEEK_END, SEEK_SET, BufferedReader, BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagger.errors import AccessError, FailureKind, LibraryError
from tagger.paths import (
    AnyPath,
    RemotePath,
    display_path,
    join_path,
    parse_displayed_path,
    parse_path,
)
from tagger.records import Track
from tagger.storage import remote, s3
from tagger.storage.objects import (
    FsspecStore,
    ObjectInfo,
    describe_storage_error,
    translate_storage_errors,
)
from tagger.storage.remote import READ_BLOCK_BYTES, RangedFile

NAMES = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1)
SEGMENTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(lambda s: f"{s}x")


@given(SEGMENTS)
def test_a_url_stays_what_it_is_to_the_letter(key: str) -> None:
    path = parse_path(f"s3://bucket/{key}")
    assert isinstance(path, RemotePath)
    assert str(path) == os.fspath(path) == f"s3://bucket/{key}"
    assert os.fsdecode(os.fsencode(path)) == str(path)
    assert pickle.loads(pickle.dumps(path)) == copy.deepcopy(path) == path
    assert {path: 1}[RemotePath(str(path))] == 1
    assert path.resolve() is path.expanduser() is path
    assert str(path.parent / path.name) == str(path)
    assert os.fsencode(path.name) == os.path.split(os.fsencode(path))[1]


@given(NAMES)
def test_what_a_url_is_called_and_where_it_lies(name: str) -> None:
    folder = parse_path("s3://bucket/a folder")
    path = folder / name
    assert (type(path), path.name, path.parent) == (RemotePath, name, folder)
    assert path.suffix == Path("x", name).suffix
    assert path.is_relative_to(folder)
    assert path.is_relative_to(path)
    assert not path.is_relative_to(parse_path("s3://bucket/a"))
    assert not path.is_relative_to(Path("/"))
    assert str(path.with_name("b")) == "s3://bucket/a folder/b"


def test_no_two_names_are_one() -> None:
    texts = [
        "s3://b/a//b",
        "s3://b/a/b",
        "s3://b/a/./b",
        "s3://b/x/../a/b",
        "gs://b/a/b",
        "s3:/b/a/b",
    ]
    assert len({parse_path(text) for text in texts}) == len(texts)
    assert parse_path("s3://b/a") != Path("s3:/b/a")
    assert not isinstance(parse_path("s3://b/a"), Path)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a/b", Path("a/b")),
        ("/x/s3://b", Path("/x/s3:/b")),
        ("s3:/b/a", Path("s3:/b/a")),
        ("file:///a%20b/%ff", Path("/a b/\udcff")),
        ("FILE://localhost/a", Path("/a")),
        ("S3://B/a///", RemotePath("s3://B/a")),
        ("file://elsewhere/a", RemotePath("file://elsewhere/a")),
    ],
)
def test_what_a_text_names(text: str, path: AnyPath) -> None:
    assert parse_path(text) == path


@pytest.mark.parametrize("folder", ["/a/b", "s3://b/a", "http://h"])
def test_a_name_joins_its_folder(folder: str) -> None:
    assert join_path(folder, "x y") == parse_path(f"{folder}/x y")


def test_a_line_break_in_a_key_is_shown_and_read_back() -> None:
    path = parse_path("s3://b/a\n\\xe9.mp3")
    assert display_path(path) == "s3://b/a\n\\xe9.mp3"
    assert parse_displayed_path("s3://b/x.mp3") == RemotePath("s3://b/x.mp3")
    assert str(parse_path("s3://b").parent) == "s3://b"


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(0, 3 * READ_BLOCK_BYTES), st.just(0)),
        st.tuples(st.just("seek"), st.integers(0, 6 * READ_BLOCK_BYTES), st.just(SEEK_SET)),
        st.tuples(st.just("seek"), st.integers(0, 100), st.just(SEEK_CUR)),
        st.tuples(st.just("seek"), st.integers(-6 * READ_BLOCK_BYTES, 10), st.just(SEEK_END)),
    ),
    max_size=20,
)
CONTENT = os.urandom(5 * READ_BLOCK_BYTES + 77)


@given(STEPS)
def test_reading_by_ranges_is_reading(steps: list[tuple[str, int, int]]) -> None:
    fetched: list[range] = []

    def fetch(start: int, stop: int) -> bytes:
        fetched.append(range(start, stop))
        return CONTENT[start:stop]

    source, plain = RangedFile("x", len(CONTENT), fetch), BytesIO(CONTENT)
    with BufferedReader(source) as file:
        for what, number, whence in steps:
            if what == "read":
                assert file.read(number) == plain.read(number)
            elif whence != SEEK_END or number >= -len(CONTENT):
                assert file.seek(number, whence) == plain.seek(number, whence)
    assert all(each.stop <= len(CONTENT) for each in fetched)


def test_what_was_read_is_kept_and_requests_grow_while_reading_goes_straight_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetched: list[int] = []

    def fetch(start: int, stop: int) -> bytes:
        fetched.append((stop - start) // READ_BLOCK_BYTES)
        return bytes(stop - start)

    source = RangedFile("x", 100 * READ_BLOCK_BYTES, fetch)
    buffer = bytearray(READ_BLOCK_BYTES)
    for _ in range(10):
        source.readinto(buffer)
    assert fetched == [1, 2, 4, 8]
    source.seek(0)
    source.readinto(buffer)
    assert len(fetched) == 4
    monkeypatch.setattr(remote, "MAX_CACHED_BYTES", READ_BLOCK_BYTES)
    source.seek(50 * READ_BLOCK_BYTES)
    source.readinto(buffer)
    assert len(source.blocks) == 1
    with pytest.raises(OSError, match="before the start"):
        source.seek(-1)


def test_a_file_remembers_why_a_range_could_not_be_fetched() -> None:
    """Libsndfile and FFmpeg take the OSError for the end of the file."""
    gone = AccessError("the server is gone", FailureKind.SERVER)

    def refuse(*_: int) -> bytes:
        raise gone

    source = RangedFile("x", 10, refuse)
    with pytest.raises(OSError, match="the server is gone"):
        source.readinto(bytearray(1))
    assert source.failure is gone
    short = RangedFile("x", 10, lambda *_: b"123")
    with pytest.raises(OSError, match="sent 3 bytes for 10"):
        short.readinto(bytearray(1))
    assert short.failure
    assert short.failure.kind is FailureKind.SERVER


def test_every_version_of_an_object_is_another_track() -> None:
    path = RemotePath("s3://b/a.mp3")
    info = ObjectInfo(1, 10**9, '"etag"')
    track = info.make_track(path)
    assert track == info.make_track(path) == Track(path, 1, 10**9, track.inode)
    assert 0 < track.inode < 1 << 63
    others = [
        ObjectInfo(2, 10**9, '"etag"'),
        ObjectInfo(1, 0, '"etag"'),
        ObjectInfo(1, 10**9, '"other"'),
    ]
    assert track not in [other.make_track(path) for other in others]
    assert track.inode != info.make_inode(RemotePath("s3://b/b.mp3"))
    assert track.inode == 8308809001355255342  # state files have it


def test_foreign_errors_become_one_line() -> None:
    class ServerError(Exception):
        response = {"Error": {"Code": "AccessDenied", "Message": "Access\nDenied"}}  # noqa: RUF012

    assert describe_storage_error(ServerError()) == "Access Denied (AccessDenied)"
    assert describe_storage_error(TimeoutError()) == "TimeoutError"
    assert len(describe_storage_error(ValueError("x" * 5000))) < 400
    with (
        pytest.raises(AccessError, match="cannot open: no"),
        translate_storage_errors("cannot open"),
    ):
        raise ValueError("no")
    with pytest.raises(LibraryError), translate_storage_errors("cannot open"):
        raise LibraryError("ours")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(403, FailureKind.NO_ACCESS), (503, FailureKind.SERVER), (0, FailureKind.SERVER)],
)
def test_the_answer_of_a_server_tells_the_kind_of_failure(status: int, kind: FailureKind) -> None:
    class ServerError(Exception):
        response = {"ResponseMetadata": {"HTTPStatusCode": status}}  # noqa: RUF012

    with pytest.raises(AccessError) as caught, translate_storage_errors("cannot be read"):
        raise ServerError
    assert caught.value.kind is kind


def test_a_store_that_fsspec_knows_is_listed_and_read() -> None:
    import fsspec

    files = fsspec.filesystem("memory")
    for name in ("/h/lib/a b.mp3", "/h/lib/sub/c.mp3", "/h/library/d.mp3"):
        files.pipe(name, b"0123456789")
    folder = RemotePath("memory://h/lib")
    store = FsspecStore(folder)
    entries = {entry.name: entry.is_dir() for entry in store.list_folder(folder)}
    assert entries == {"a b.mp3": False, "sub": True}
    info = store.look_up(folder / "a b.mp3")
    assert info
    assert store.read_range(folder / "a b.mp3", info, 2, 5) == b"234"
    assert store.look_up(folder / "none.mp3") is None
    assert not store.has_folder(folder / "none")


def test_a_request_is_given_up_after_its_time() -> None:
    assert s3._run_with_timeout(lambda: 1, 60) == 1
    with pytest.raises(TimeoutError, match="no complete answer in 0 s"):
        s3._run_with_timeout(lambda: time.sleep(1), 0.01)
    with pytest.raises(ZeroDivisionError):
        s3._run_with_timeout(lambda: 1 // 0, 60)


@pytest.mark.extra
@pytest.mark.parametrize(("value", "is_signed"), [("true", False), ("1", False), ("false", True)])
def test_an_environment_variable_reads_public_buckets(
    monkeypatch: pytest.MonkeyPatch, value: str, *, is_signed: bool
) -> None:
    pytest.importorskip("boto3", reason="needs boto3, from the extra `dev`")
    monkeypatch.setenv("FSSPEC_S3_ANON", value)
    client = s3._get_client.__wrapped__(0)
    assert isinstance(client.meta.config.signature_version, str) is is_signed
