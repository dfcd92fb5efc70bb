"""Scans of a bucket, on a real server that speaks S3, and of folders on a web server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from tagger.audio import stream_digests
from tagger.tags import read_tags
from tests.builders import add_rich_tags, build_audio
from tests.front_door import ANY, Command, Scan, set_genre
from tests.stores import Bucket

FORMATS = (".mp3", ".flac", ".ogg", ".opus", ".m4a", ".wav", ".wma", ".wv")


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    return Bucket(endpoint)


def test_two_hundred_objects_one_of_them_changed_in_between(
    bucket: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    songs = [add_rich_tags(build_audio(tmp_path / f"x{end}", seconds=2)) for end in FORMATS]
    keys = [f"lib/album {n // 20}/{n:03}{FORMATS[n % 8]}" for n in range(200)]
    for number, key in enumerate(keys):
        song = songs[number % 8]
        bucket.put(key, song, ContentType="audio/x-some", Metadata={"owner": "me"}, Tagging="a=1")
    before = bucket.etags()

    dry = Scan(capsys, f"{bucket.url}/lib", "-n", *ANY)
    assert (dry.code, dry.actions) == (0, {"would-write": 200}), dry.err
    assert [row["path"] for row in dry.rows] == [f"{bucket.url}/{key}" for key in keys]
    assert bucket.etags() == before

    changed = build_audio(tmp_path / "other.flac", seconds=3, frequency_hz=330)
    bucket.put(keys[1], changed)
    real = Scan(capsys, f"{bucket.url}/lib", *ANY)
    assert (real.code, real.actions) == (0, {"written": 200}), real.err
    assert "1 track to listen to" in real.err
    assert real.row("001.flac")["duration_s"] == "3.00"
    for number, key in enumerate(keys):
        song = changed if number == 1 else songs[number % 8]
        path = bucket.download(key, tmp_path)
        row = real.row(path.name.rpartition("_")[2])
        assert read_tags(path).genres == (row["genre"],)
        assert read_tags(path).scores == row["scores"]
        assert stream_digests(path) == stream_digests(song)
        path.unlink()
    head = bucket.head(keys[0])
    assert (head["ContentType"], head["Metadata"]) == ("audio/x-some", {"owner": "me"})
    assert bucket.tags(keys[0]) == {"a": "1"}

    after = bucket.etags()
    again = Scan(capsys, f"{bucket.url}/lib", *ANY)
    assert again.actions == {"unchanged": 200}
    assert bucket.etags() == after

    undone = Command(capsys, "undo", f"{bucket.url}/lib/album 0")
    assert (undone.code, undone.summary["restored"]) == (0, 20)
    assert not read_tags(bucket.download(keys[0], tmp_path)).genres
    assert read_tags(bucket.download(keys[20], tmp_path)).genres
