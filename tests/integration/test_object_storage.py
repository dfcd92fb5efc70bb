"""Scans of a bucket, on a real server that speaks S3, and of folders on a web server."""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("moto.server", reason="needs moto, from the extra `dev`")

from moto.server import ThreadedMotoServer

from tagger.audio import hash_streams
from tagger.cli import main
from tagger.crawl import Scope, crawl
from tagger.errors import AccessError, TagError
from tagger.paths import RemotePath, parse_path
from tagger.records import Failure, Shard, TagChange, Tags, Track
from tagger.report.csv import read_report
from tagger.storage import s3
from tagger.tags import read_tags
from tagger.writing.replace import make_copy_name, replace_tags
from tests.builders import add_rich_tags, build_audio
from tests.checkpoints import save
from tests.front_door import ANY, Command, Scan, set_genre
from tests.processes import capture_fork
from tests.replacing import inspect_file
from tests.stores import Bucket, RangeHandler, web_server

pytestmark = pytest.mark.extra

FORMATS = (".mp3", ".flac", ".ogg", ".opus", ".m4a")


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
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


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "hubert", "hubert")


@pytest.fixture
def song(tmp_path: Path) -> Path:
    return add_rich_tags(build_audio(tmp_path / "song.flac", seconds=2))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Keep the network from fighting with the server for the cores: forty times, it shows."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def track_in(found: Track | Failure) -> Track:
    assert isinstance(found, Track)
    return found


def track_of(bucket: Bucket, key: str) -> Track:
    path = RemotePath(f"{bucket.url}/{key}")
    (track,) = crawl([path], Scope({path.suffix}))
    return track_in(track)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_forty_objects_one_of_them_changed_in_between(
    bucket: Bucket, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    songs = [add_rich_tags(build_audio(tmp_path / f"x{end}", seconds=1.5)) for end in FORMATS]
    sounds = [hash_streams(song) for song in songs]
    keys = [f"lib/album {n // 20}/{n:03}{FORMATS[n % 5]}" for n in range(40)]
    for number, key in enumerate(keys):
        kept: dict[str, Any] = {"ContentType": "audio/x-some", "Metadata": {"owner": "me"}}
        bucket.put(key, songs[number % 5], Tagging="a=1&b=%2B", CacheControl="no-store", **kept)
    before = bucket.etags()
    scan = (f"{bucket.url}/lib", "-m", model, *ANY)

    dry = Scan(capsys, *scan, "-n")
    assert (dry.code, dry.actions) == (0, {"would-write": 40}), dry.err
    assert [row["path"] for row in dry.rows] == [f"{bucket.url}/{key}" for key in keys]
    assert bucket.etags() == before

    songs[1] = build_audio(tmp_path / "other.flac", seconds=3, frequency_hz=330)
    bucket.put(keys[1], songs[1])
    real = Scan(capsys, *scan)
    assert (real.code, real.actions) == (0, {"written": 40}), real.err
    assert "1 track to listen to" in real.err
    assert [row["duration_s"] for row in real.rows].count("3.00") == 1
    for number, key in enumerate(keys):
        path, row = bucket.download(key, tmp_path), real.row(Path(key).name)
        tags = read_tags(path)
        assert (tags.genres, tags.scores) == ((row["genre"],), row["scores"])
        sound = hash_streams(songs[1]) if number == 1 else sounds[number % 5]
        assert hash_streams(path) == sound
        path.unlink()
    head = bucket.head(keys[0])
    assert (head["ContentType"], head["Metadata"]) == ("audio/x-some", {"owner": "me"})
    assert (head["CacheControl"], bucket.tags(keys[0])) == ("no-store", {"a": "1", "b": "+"})

    after = bucket.etags()
    again = Scan(capsys, *scan)
    assert again.actions == {"unchanged": 40}
    assert bucket.etags() == after

    undone = Command(capsys, "undo", f"{bucket.url}/lib/album 0")
    assert (undone.code, undone.summary["restored"]) == (0, 20)
    assert inspect_file(bucket.download(keys[3], tmp_path)) == inspect_file(songs[3])
    assert not read_tags(bucket.download(keys[0], tmp_path)).genres
    assert read_tags(bucket.download(keys[20], tmp_path)).genres


def test_an_object_replaced_while_it_is_edited_is_left_as_it_is(
    bucket: Bucket,
    model: Path,
    song: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = bucket.put("a.flac", song)
    other = song.read_bytes() + b"edit"
    replace_object = s3.S3Store.replace_object

    def replace_late(self: s3.S3Store, old: s3.ObjectVersion, file: Any) -> Track:
        bucket.put("a.flac", other)
        return replace_object(self, old, file)

    monkeypatch.setattr(s3.S3Store, "replace_object", replace_late)
    scan = Scan(capsys, url, "-m", model, *ANY)
    assert (scan.code, scan.actions) == (1, {"failed": 1})
    assert "changed while tagger was at work: left as it is" in scan.row("a.flac")["error"]
    assert bucket.get("a.flac") == other
    assert Command(capsys, "undo").summary["tracks"] == 0


@pytest.mark.parametrize("arrived", [True, False])
def test_an_answer_that_is_lost_is_made_out_by_what_is_there(
    bucket: Bucket, model: Path, song: Path, capsys: pytest.CaptureFixture[str], *, arrived: bool
) -> None:
    url = bucket.put("a.flac", song)
    call = s3.S3Store._call

    def broken(self: s3.S3Store, method: str, **wanted: Any) -> Any:
        if method != "put_object":
            return call(self, method, **wanted)
        if arrived:
            call(self, method, **wanted)
        raise ConnectionResetError("the line is dead")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3.S3Store, "_call", broken)
        scan = Scan(capsys, url, "-m", model, *ANY)
    assert scan.actions == {"written" if arrived else "failed": 1}
    assert (bucket.get("a.flac") == song.read_bytes()) is not arrived
    again = Scan(capsys, url, "-m", model, *ANY)
    assert again.actions == {"unchanged" if arrived else "written": 1}
    assert Command(capsys, "undo", bucket.url).summary["restored"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("before", [True, False])
def test_a_run_killed_around_the_put_is_settled_by_the_next(
    bucket: Bucket, model: Path, song: Path, capsys: pytest.CaptureFixture[str], *, before: bool
) -> None:
    scratch = Path(tempfile.gettempdir())
    url = bucket.put("a.flac", song)
    old = track_of(bucket, "a.flac").inode
    put = s3.S3Store.replace_object

    def die(*args: Any) -> None:
        if not before:
            put(*args)
        os.kill(os.getpid(), signal.SIGKILL)

    def scan_and_die() -> int:
        pytest.MonkeyPatch().setattr(s3.S3Store, "replace_object", die)
        return main(["scan", url, "-m", str(model), *ANY])

    assert capture_fork(scan_and_die).returncode == -signal.SIGKILL
    assert len(list(scratch.glob(f".a.flac.tagger-{old:x}-*"))) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        set_genre(song, "Polka")
        here = in_another_process("pass", "scan", song)
    assert (here.returncode, "kept" in here.stdout) == (0, True), here.stderr
    scan = Scan(capsys, url, "-m", model, *ANY)
    assert scan.actions == {"written" if before else "unchanged": 1}
    assert not list(scratch.glob(f".a.flac.tagger-{old:x}-*"))
    assert Command(capsys, "undo", url).summary["restored"] == 1
    back = bucket.download("a.flac", song.parent)
    assert (read_tags(back).genres, inspect_file(back)) == ((), inspect_file(song))


def test_what_cannot_be_kept_is_not_written(
    bucket: Bucket, song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("a.flac", song)
    track = track_of(bucket, "a.flac")
    change = TagChange(track, Tags(), Tags(("Jazz",)), make_copy_name(track))
    with pytest.raises(AccessError, match="preserve-mtime"):
        replace_tags(change, inspect_file, preserve_mtime=True)
    monkeypatch.setattr(s3, "MAX_PUT_BYTES", 1000)
    with pytest.raises(TagError, match="5 GiB"):
        replace_tags(change, inspect_file)
    with pytest.raises(AccessError, match="changed while"):
        replace_tags(replace(change, track=replace(track, size=9)), inspect_file)
    web = replace(track, path=RemotePath("http://127.0.0.1/a.flac"))
    with pytest.raises(AccessError, match="can read http:// but not write"):
        replace_tags(replace(change, track=web), inspect_file)
    assert bucket.get("a.flac") == song.read_bytes()


def test_keys_that_no_path_can_name(
    bucket: Bucket, model: Path, song: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [
        "lib/a?versionId=b.flac",
        "lib/b%0A%2e.flac",
        "lib/c;'\"::x.flac",
        "lib/\u202e\u00e9.flac",
    ]
    for key in good:
        bucket.put(key, song)
    for key in ("lib/", "lib/sub/", "lib//a.flac", "lib/../d.flac", "lib/./e.flac", "lib/._x.flac"):
        bucket.put(key, song)
    before = bucket.etags()
    scan = Scan(capsys, f"{bucket.url}/lib/", "-m", model, *ANY)
    assert scan.actions == {"written": len(good), "failed": 1}
    (failed,) = [row for row in scan.rows if row["action"] == "failed"]
    assert (failed["path"], "empty part" in failed["error"]) == (f"{bucket.url}/lib/", True)
    after = bucket.etags()
    assert {key for key in after if after[key] != before[key]} == set(good)
    assert Scan(capsys, f"{bucket.url}/lib", "-m", model, *ANY).code == 0
    for odd in ("/lib//a.flac", "/lib/../d.flac", "/lib/./e.flac"):
        one = Scan(capsys, bucket.url + odd, "-m", model, *ANY)
        assert (one.code, "cannot be" in one.err or "no path" in one.err) == (3, True), one.err


def test_the_rules_of_a_crawl_hold_for_objects(bucket: Bucket) -> None:
    keys = [
        "a.mp3", "A.MP3", "b/10.mp3", "b/2.mp3", "b/c/x.mp3", "b.txt", "@eaDir/x.mp3",
        "n/.nomedia", "n/x.mp3", "n/m/x.mp3", ".git/x.mp3", "pod/old/x.mp3", "x.mp3/y.mp3",
        "ignored/x.mp3", "pod/ignored/x.mp3",
    ]  # fmt: skip
    for key in keys:
        bucket.put(key, b"x")
    bucket.put(".ndignore", b"ignored/\n")

    def found(*roots: str, **rest: Any) -> list[str]:
        paths = [parse_path(f"{bucket.url}{root}") for root in roots]
        tracks = crawl(paths, Scope({".mp3"}, **rest))
        return [str(track_in(each).path).removeprefix(f"{bucket.url}/") for each in tracks]

    every = ["A.MP3", "a.mp3", "b/10.mp3", "b/2.mp3", "b/c/x.mp3", "pod/old/x.mp3", "x.mp3/y.mp3"]
    assert found("") == every
    assert found("/b", "/b/c", "/b/2.mp3", "/x.mp3") == [
        "b/2.mp3",
        "b/10.mp3",
        "b/c/x.mp3",
        "x.mp3/y.mp3",
    ]
    assert found("/b", exclude=("c", "1*")) == ["b/2.mp3"]
    assert found("", exclude=("pod/*", "b/*/x.mp3")) == [*every[:4], every[-1]]
    parts = [found("", shard=Shard(number, 3)) for number in (1, 2, 3)]
    assert sorted(chain.from_iterable(parts)) == sorted(every)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("s3://no-such-bucket", "bucket does not exist"),
        ("s3://{bucket}/nothing", "nothing is there"),
        ("s3://{bucket}/none.flac", "nothing is there"),
        ("s3://", "names no bucket"),
        ("nonsense://x/y", "knows no server for nonsense://"),
        ("file://elsewhere/x", "knows no server for file://"),
    ],
)
def test_a_place_that_is_not_there_ends_the_run_in_one_line(
    bucket: Bucket, capsys: pytest.CaptureFixture[str], place: str, said: str
) -> None:
    scan = Scan(capsys, place.format(bucket=bucket.name), "-n")
    assert (scan.code, scan.err.count("\n")) == (3, 1)
    assert said in scan.err


def in_another_process(code: str, *args: str | Path) -> subprocess.CompletedProcess[str]:
    script = f"import sys; {code}; from tagger.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_no_server_no_credentials_no_package(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = in_another_process("sys.modules['boto3'] = None", "scan", bucket.url, "-n")
    assert (missing.returncode, missing.stderr.count("\n")) == (3, 1)
    assert "pip install 'tagger-music[s3]'" in missing.stderr
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    dead = in_another_process("pass", "scan", bucket.url, "-n")
    assert (dead.returncode, dead.stderr.count("\n")) == (3, 1)
    assert "Could not connect" in dead.stderr
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    nobody = in_another_process("pass", "scan", bucket.url, "-n")
    assert (nobody.returncode, nobody.stderr.count("\n")) == (3, 1)
    assert "credentials" in nobody.stderr


def test_a_server_that_dies_costs_rows_that_are_tried_again(
    bucket: Bucket, model: Path, song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        bucket.put(f"{name}.flac", song)
    report = tmp_path / "report.csv"
    dying = (
        "import os; from tagger.storage.remote import RemoteFiles; list_ = RemoteFiles.list_folder;"
        "RemoteFiles.list_folder = lambda *args:"
        " (os.environ.update(AWS_ENDPOINT_URL='http://127.0.0.1:9'), list_(*args))[1]"
    )
    args = ("scan", bucket.url, "-m", model, "-n", "--report", report, *ANY)
    done = in_another_process(dying, *args)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    rows = list(read_report(report))
    assert [row.action for row in rows] == ["failed", "failed"]
    assert "Could not connect" in rows[0].error
    scan = Scan(capsys, bucket.url, "-m", model, *ANY)
    assert scan.actions == {"written": 2}


def test_an_edited_report_a_page_and_an_album(
    bucket: Bucket, library: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    for name in ("a", "b", "c"):
        bucket.put(f"album/{name}.flac", library / "a.flac")
    report, page = tmp_path / "report.csv", tmp_path / "page.html"
    both = (bucket.url, library, "-m", model, *ANY)
    dry = Scan(capsys, *both, "-n", "--by-album", "--report", report, "--html", page)
    assert dry.actions == {"would-write": 6}
    assert f"{bucket.url}/album/a.flac" in page.read_text("utf-8")
    url = f"{bucket.url}/album/a.flac"
    lines = report.read_text("utf-8").splitlines()
    edited = [line.replace(",would-write,", ",would-write,Polka;") for line in lines if url in line]
    report.write_text("\n".join([lines[0], *edited]), "utf-8")
    applied = Command(capsys, "apply", report)
    assert (applied.code, applied.summary["written"]) == (0, 1)
    assert read_tags(bucket.download("album/a.flac", tmp_path)).genres[0] == "Polka"
    assert Scan(capsys, *both).actions == {"kept": 1, "written": 5}
    heard = Command(capsys, "classify", url, f"{bucket.url}/none.flac", "-m", model)
    assert (heard.code, url in heard.out, "it is not there" in heard.out) == (1, True, True)


def test_what_stores_cannot_do_is_refused_at_once(
    bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = Scan(capsys, bucket.url, "--preserve-mtime")
    assert (kept.code, "--preserve-mtime is not possible" in kept.err) == (2, True)
    web = Scan(capsys, "http://127.0.0.1:9/music")
    assert (web.code, web.err.count("\n")) == (2, 1)
    assert "can read http:// but not write there: only a dry run is possible (-n)" in web.err


def test_a_web_server_can_be_listened_to(
    library: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (library / "sub folder").mkdir()
    (library / "c.ogg").rename(library / "sub folder" / "c.ogg")
    with web_server(library) as url:
        scan = Scan(capsys, url, "-n", "-m", model, *ANY)
        assert (scan.code, scan.actions) == (0, {"would-write": 3}), scan.err
        assert scan.rows[2]["path"] == f"{url}/sub%20folder/c.ogg"
        set_genre(library / "a.flac", "Polka")
        again = Scan(capsys, url, "-n", "-m", model, *ANY)
        assert again.actions == {"would-write": 2, "kept": 1}
        assert "to listen to" not in again.err


@pytest.mark.parametrize("lie", [-5, 5])
def test_a_web_server_that_lies_about_lengths_is_not_believed(
    library: Path, model: Path, capsys: pytest.CaptureFixture[str], lie: int
) -> None:
    class Liar(RangeHandler):
        pass

    Liar.lie = lie
    with web_server(library, Liar) as url:
        scan = Scan(capsys, url, "-n", "-m", model, *ANY)
        assert scan.actions == {"failed": 3}
        assert not [row["error"] for row in scan.rows if "cannot be read" not in row["error"]]
    with web_server(library) as url:  # on another port, and so other files
        assert Scan(capsys, url, "-n", "-m", model, *ANY).actions == {"would-write": 3}


def test_a_server_that_is_slow_for_once_costs_one_run(
    library: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Slow(RangeHandler):
        delay_s = 3.0

        def send_head(self) -> Any:
            if self.delay_s and "Range" in self.headers and self.path.endswith(".flac"):
                time.sleep(self.delay_s)
                raise BrokenPipeError  # nobody waits for it any more
            return super().send_head()

        def handle(self) -> None:
            with suppress(BrokenPipeError):
                super().handle()

    scan = ("-n", "-m", model, *ANY, "--max-seconds", "2", "--max-memory", "4096")
    with web_server(library, Slow) as url:
        slow = Scan(capsys, url, *scan)
        assert slow.row("a.flac")["action"] == "failed"
        Slow.delay_s = 0
        assert Scan(capsys, url, *scan).actions == {"would-write": 3}
