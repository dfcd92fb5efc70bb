"""Who hears of a run: media servers, a monitoring service, people. No secret is ever shown."""

import email
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import pytest

from tagger.addresses import ServerKind
from tagger.cli import main
from tagger.cli.progress import RunProgress
from tagger.errors import InterruptedRunError
from tagger.models import find_model
from tagger.records import Outcome, Prediction, Score
from tagger.service import servers, web
from tagger.service.servers import PROTOCOLS, name_secret
from tagger.settings import Settings
from tagger.settings_sources import load_settings
from tagger.state import AUTO_WINDOWS, open_state
from tagger.tags import read_tags
from tests import media_servers as fake
from tests.builders import add_genre, audio_bytes
from tests.front_door import Command, Scan
from tests.hub import NOWHERE
from tests.media_servers import KEY, PASSWORD, PING_PATH, USER, StandIn, serve, serve_mpd
from tests.processes import run_in_background
from tests.replacing import make_track

Capsys = pytest.CaptureFixture[str]

ENOENT = "No such file or directory"

IMGHDR = "ignore:'imghdr' is deprecated:DeprecationWarning"
"""Apprise imports this module where there is one, up to Python 3.12."""

WRONG = "wrong-sEcReT-7c1"


@pytest.fixture(autouse=True)
def quick_and_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing wait, and no variable of the person who runs the tests count."""
    monkeypatch.setattr(web, "RETRY_PAUSE_S", 0.0)
    monkeypatch.setattr(servers, "KODI_INTERVAL_S", 0.0)
    for kind in ServerKind:
        monkeypatch.delenv(name_secret(kind), raising=False)
        monkeypatch.delenv(f"{name_secret(kind)}_FILE", raising=False)


@pytest.fixture
def genres(tmp_path: Path) -> Path:
    """Build a library with genres of odd spelling, which `normalize` changes without a model."""
    folder = tmp_path / "music"
    for name in ("Artist/Album 1/a.mp3", "Artist/Album 1/b.mp3", "Ärtist/c #1?.mp3"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(audio_bytes(".mp3", rich=True))
        add_genre(path, "hip hop")
    return folder


class Normalize(Command):
    """One `tagger normalize`: a run that writes, and takes no time."""

    def __init__(self, capsys: Capsys, *args: str | Path) -> None:
        super().__init__(capsys, "normalize", *args)


@pytest.fixture
def all_servers() -> Iterator[dict[str, StandIn]]:
    with ExitStack() as stack:
        answers = {
            "navidrome": fake.navidrome,
            "jellyfin": fake.jellyfin,
            "plex": fake.plex("/data", "/data/music"),
            "kodi": fake.kodi,
            "lyrion": fake.lyrion,
        }
        found = {name: stack.enter_context(serve(answer)) for name, answer in answers.items()}
        found["mpd"] = stack.enter_context(serve_mpd())
        yield found


def make_address(name: str, server: StandIn, secret: str, mappings: str = "") -> str:
    user = {"navidrome": USER, "lyrion": USER, "kodi": "kodi"}.get(name, "")
    scheme = "mpd" if name == "mpd" else "http"
    return f"{name}={scheme}://{user}:{quote(secret, safe='')}@{server.host}{mappings}"


def save_predictions(library: Path) -> None:
    """Save that the bundled model has listened to all songs."""
    model = find_model(Settings()).identity
    with open_state(Settings().state) as state:
        for song in (path for path in library.rglob("*") if path.is_file()):
            track = make_track(song)
            scores = (Score("Electronic", 0.9), Score("Rock", 0.1))
            state.save_tags(track, read_tags(song))
            state.save_prediction(Prediction(track, scores, model, 4.0), windows=AUTO_WINDOWS)


RIGHT = {"jellyfin": KEY, "plex": KEY}


def test_a_scan_tells_each_server_in_its_own_words(
    library: Path, all_servers: dict[str, StandIn], capsys: Capsys
) -> None:
    (library / "sub d#r").mkdir()
    (library / "c.ogg").rename(library / "sub d#r" / "c.ogg")
    save_predictions(library)
    mappings = {
        "navidrome": f"#{library}=1",
        "plex": f"#{library}=/data/music/rock",
        "kodi": f"#{library.parent}=smb://nas/share/",
        "mpd": f"#{library.parent}#{library}=up/down",  # the longer one counts
        "lyrion": f"#{library}=/mnt/mu sic",
    }
    options = [
        f"--notify={make_address(name, server, RIGHT.get(name, PASSWORD), mappings.get(name, ''))}"
        for name, server in all_servers.items()
    ]
    scan = Scan(capsys, library, *options)
    assert (scan.code, scan.summary["written"]) == (0, 3), scan.err
    told = {name: server.told for name, server in all_servers.items()}
    assert told == {
        "navidrome": [("false", ["1:", "1:sub d#r"])],
        "jellyfin": [(str(library), "Modified"), (str(library / "sub d#r"), "Modified")],
        "plex": ["/data/music/rock", "/data/music/rock/sub d#r"],
        "kodi": [""],  # several folders: a second request would stop the first scan
        "mpd": [("update", "up/down"), ("update", "up/down/sub d#r")],
        "lyrion": [
            ["rescan", "full", "file:///mnt/mu%20sic"],
            ["rescan", "full", "file:///mnt/mu%20sic/sub%20d%23r"],
        ],
    }
    assert Scan(capsys, library, *options).code == 0  # a quiet run tells nobody
    assert told == {name: server.told for name, server in all_servers.items()}
    undo = Command(capsys, "undo", *options)
    assert (undo.code, undo.summary["restored"]) == (0, 3)
    assert all_servers["jellyfin"].told[2:] == told["jellyfin"][:2]


@pytest.mark.parametrize("name", ServerKind)
def test_a_server_that_refuses_loses_nothing_and_no_secret_is_shown(
    name: str, genres: Path, all_servers: dict[str, StandIn], tmp_path: Path, capsys: Capsys
) -> None:
    others = [each for each in ("jellyfin", "mpd") if each != name]
    page, metrics = tmp_path / "page.html", tmp_path / "tagger.prom"
    options: list[str | Path] = ["--html", page, "--metrics", metrics, "--verbose"]
    secret = f"{WRONG} é" if name in ("navidrome", "kodi", "lyrion", "mpd") else WRONG
    options += ["--notify", make_address(name, all_servers[name], secret, f"#{genres}=1")]
    for each in others:
        right = make_address(each, all_servers[each], RIGHT.get(each, PASSWORD), f"#{genres}=/m")
        options += ["--notify", right]
    run = Normalize(capsys, genres, *options)
    assert (run.code, run.summary["written"]) == (3, 3)
    assert f"--notify {name}=" in run.err
    assert any(word in run.err for word in ("refuses the password or key", "assword"))
    assert all_servers[name].told == []
    assert all(all_servers[each].told for each in others)
    shown = run.out + run.err
    written = fake.read_everything(tmp_path)  # also the library and the state
    for word in (WRONG, quote(secret, safe=""), KEY, PASSWORD, quote(PASSWORD, safe="")):
        assert word not in shown
        assert word.encode() not in written
    assert "tagger_run_exit_code 3.0" in metrics.read_text()


def test_secrets_come_from_a_variable_or_a_file(
    genres: Path, all_servers: dict[str, StandIn], tmp_path: Path, capsys: Capsys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "key").write_text(f"{KEY}\n")
    monkeypatch.setenv("TAGGER_JELLYFIN_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("TAGGER_PLEX_TOKEN", KEY)
    monkeypatch.setenv("TAGGER_NAVIDROME_PASSWORD", PASSWORD)
    monkeypatch.setenv("TAGGER_KODI_PASSWORD", PASSWORD)
    monkeypatch.setenv("TAGGER_LYRION_PASSWORD", PASSWORD)
    monkeypatch.setenv("TAGGER_MPD_PASSWORD", PASSWORD)
    addresses = [
        f"jellyfin={all_servers['jellyfin'].url}/",
        f"plex={all_servers['plex'].url}#{genres}=/data/music",
        f"navidrome=http://{USER}@{all_servers['navidrome'].host}",
        f"kodi={all_servers['kodi'].url}",
        f"lyrion=http://{USER}@{all_servers['lyrion'].host}",
        f"mpd={all_servers['mpd'].url}#{genres}",
    ]
    run = Normalize(capsys, genres, *(f"--notify={each}" for each in addresses))
    assert (run.code, run.err) == (0, "")
    assert all(server.told for server in all_servers.values())
    assert all_servers["navidrome"].told == [("false", [])]  # no mapping: a scan of all


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("jellyfin=http://nas:8096", "--notify jellyfin needs the key: set TAGGER_JELLYFIN_KEY"),
        (f"navidrome=http://:{WRONG}@nas:4533", "--notify navidrome needs the user"),
        (f"lyrion=http://:{WRONG}@nas:9000", "--notify lyrion needs the user"),
        (f"plex=http://{WRONG}%C3%A9@nas", "characters that cannot be sent"),
        (f"emby=http://{WRONG}@nas", "--notify: must be SERVER=URL, with one of navidrome"),
        (f"kodi=nas:{WRONG}", "--notify: must be kodi=http://HOST:PORT"),
        (f"kodi=http://{WRONG}@nas:port", "--notify: must have a URL behind kodi="),
        (f"plex=http://nas?X-Plex-Token={WRONG}", "--notify: must not have a ? in the URL"),
        (f"kodi=http://{WRONG}@nas#music=/x", "must have an absolute folder behind #"),
        (f"kodi=http://{WRONG}@nas#/srv/music", "must say what the server calls the folder"),
        (f"plex=http://{WRONG}@nas#/a=/b#/c=", "must say what the server calls the folder"),
        (f"mpd=mpd://{WRONG}@nas:6600/srv/music", "must name the music folder of MPD"),
        (f"mpd=http://{WRONG}@nas:6600#/srv/music", "must be mpd=mpd://HOST:6600#/srv/music"),
        (f"navidrome=http://{WRONG}@nas#/srv/music=music", "must have the number of a library"),
    ],
)
def test_what_cannot_work_is_said_before_the_run(
    genres: Path, address: str, reason: str, capsys: Capsys
) -> None:
    before = fake.read_everything(genres)
    run = Normalize(capsys, genres, "--notify", address)
    assert run.code == 2
    assert reason in run.err
    assert WRONG not in run.err
    assert fake.read_everything(genres) == before


def test_a_key_file_that_cannot_be_read_is_named(
    genres: Path, tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAGGER_JELLYFIN_KEY_FILE", str(tmp_path / "none"))
    run = Normalize(capsys, genres, "--notify", f"jellyfin={NOWHERE}")
    assert (run.code, f"cannot read {tmp_path / 'none'}" in run.err) == (2, True)


def test_kept_modification_times_need_a_thorough_scan(
    genres: Path, all_servers: dict[str, StandIn], capsys: Capsys
) -> None:
    options = [
        f"--notify={make_address(name, all_servers[name], PASSWORD, f'#{genres}=2')}"
        for name in ("navidrome", "mpd")
    ]
    assert Normalize(capsys, genres, "--preserve-mtime", *options).code == 0
    assert all_servers["navidrome"].told == [("true", ["2:Artist/Album 1", "2:Ärtist"])]
    assert all_servers["mpd"].told == [("rescan", "2/Artist/Album 1"), ("rescan", "2/Ärtist")]


def test_many_folders_are_one_request_for_the_whole_library(
    genres: Path, all_servers: dict[str, StandIn], capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MAX_MPD_FOLDERS", "MAX_LYRION_FOLDERS", "MAX_PLEX_FOLDERS"):
        monkeypatch.setattr(servers, name, 1)
    options = [
        f"--notify={make_address(name, all_servers[name], secret, f'#{genres}=/data/music')}"
        for name, secret in (("mpd", PASSWORD), ("lyrion", PASSWORD), ("plex", KEY))
    ]
    assert Normalize(capsys, genres, *options).code == 0
    assert all_servers["mpd"].told == [("update",)]
    assert all_servers["lyrion"].told == [["rescan"]]
    assert all_servers["plex"].told == ["all"]


def test_a_scan_that_kodi_is_doing_is_not_stopped(
    genres: Path, all_servers: dict[str, StandIn], capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    kodi = all_servers["kodi"]
    kodi.is_busy += [True, True]
    address = make_address("kodi", kodi, PASSWORD, f"#{genres}=D:\\Music")
    run = Normalize(capsys, genres / "Artist", "--notify", address)
    assert (run.code, kodi.told) == (0, ["D:\\Music\\Artist\\Album 1\\"])
    monkeypatch.setattr(servers, "KODI_WAIT_S", -1.0)
    kodi.is_busy += [True, True]
    run = Normalize(capsys, genres, "--notify", address)
    assert (run.code, kodi.told[1:]) == (3, [])
    assert "it is busy with a scan" in run.err


def test_folders_that_a_server_does_not_have_are_named(
    genres: Path, all_servers: dict[str, StandIn], capsys: Capsys
) -> None:
    options = [
        f"--notify={make_address(name, all_servers[name], RIGHT.get(name, PASSWORD), mapping)}"
        for name, mapping in (("plex", ""), ("mpd", "#/srv/music"), ("navidrome", "#/srv=1"))
    ]
    run = Normalize(capsys, genres, *options)
    assert run.code == 0  # another library's folder is no failure
    for name in ("plex", "mpd", "navidrome"):
        assert f"--notify {name}=" in run.err
    assert f"it has no library with {genres / 'Artist/Album 1'} and 1 more (#HERE=" in run.err
    assert [all_servers[name].told for name in ("plex", "mpd", "navidrome")] == [[], [], []]


def test_a_folder_that_cannot_be_written_as_text_is_named_by_the_one_above(
    genres: Path, all_servers: dict[str, StandIn], capsys: Capsys
) -> None:
    (genres / "Artist").rename(genres / "caf\udce9")
    (genres / "Ärtist").rename(genres / "a\nb")
    jellyfin = all_servers["jellyfin"]
    run = Normalize(capsys, genres, "--notify", make_address("jellyfin", jellyfin, KEY))
    assert (run.code, jellyfin.told) == (0, [(str(genres), "Modified")])


@pytest.mark.parametrize(
    ("name", "answer", "reason"),
    [
        ("jellyfin", (500, b""), "it answered 500 Internal Server Error"),
        ("jellyfin", (200, b"<html>"), "its answer is not that of Jellyfin"),
        ("jellyfin", (302, b""), "it answered 302 Found (is this its address?)"),
        ("plex", (200, b"<html>"), "its answer is no JSON object"),
        ("plex", (200, b'{"MediaContainer": {"Directory": [{}]}}'), "is not that of Plex"),
        ("navidrome", (200, b"{}"), "its answer is not that of Navidrome"),
        ("kodi", (200, b'{"error": {"message": "Parse error."}}'), "it answered: Parse error."),
        ("kodi", (200, b"[]"), "its answer is no JSON object"),
        ("lyrion", (200, b"{}"), "it does not understand the request"),
    ],
)
def test_answers_of_something_else(
    genres: Path, name: str, answer: fake.Answer, reason: str, capsys: Capsys
) -> None:
    with serve(lambda _server, _request: answer) as server:
        run = Normalize(capsys, genres, "--notify", make_address(name, server, WRONG))
    assert (run.code, run.summary["written"]) == (3, 3)
    assert reason in run.err
    assert WRONG not in run.err


def test_nobody_there_and_somebody_slow(
    genres: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [f"--notify=kodi={NOWHERE}", f"--notify=mpd=mpd://127.0.0.1:9#{genres}"]
    run = Normalize(capsys, genres, *options)
    assert run.code == 3
    assert f"--notify kodi={NOWHERE}: no connection: " in run.err
    assert "--notify mpd=mpd://127.0.0.1:9: Connection refused" in run.err
    monkeypatch.setattr(web, "TIMEOUT_S", 0.05)
    assert main(["undo"]) == 0

    def wait(_server: StandIn, _request: fake.Request) -> fake.Answer:
        time.sleep(0.5)
        return 204, b""

    with serve(wait) as server:
        address = make_address("jellyfin", server, WRONG)
        run = Normalize(capsys, genres, "--force", "--notify", address)
    assert (run.code, "no answer within 0 s" in run.err) == (3, True)


@pytest.fixture
def monitor() -> Iterator[StandIn]:
    with serve(fake.healthchecks) as server:
        yield server


def test_each_end_of_a_run_is_a_ping(
    genres: Path, monitor: StandIn, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"--ping-url={monitor.url}{PING_PATH}?create=1"
    assert Normalize(capsys, genres, url, "--quiet").code == 0
    (started, done) = monitor.told
    assert started == ("start", "")
    assert done[0] == "success"
    assert done[1].startswith("3 tracks in ")
    assert "To take this back: tagger undo --run" in done[1]
    assert all(request.query == {"create": ["1"]} for request in monitor.requests)
    del monitor.told[:]
    assert Normalize(capsys, genres, url).code == 0  # nothing to do
    assert [signal for signal, _ in monitor.told] == ["start", "success"]
    assert Normalize(capsys, genres / "none", url).code == 3
    assert monitor.told[3] == ("fail", f"tagger: cannot read {genres / 'none'}: {ENOENT}")
    with open_state(load_settings({}).state):
        assert Normalize(capsys, genres, url).code == 4
    assert monitor.told[5][0] == "log"  # neither success nor failure: another run is at work
    (genres / "bad.mp3").write_bytes(b"no music")
    assert Normalize(capsys, genres, url).code == 1
    assert monitor.told[7][0] == "fail"
    assert "1 failed for the first time" in monitor.told[7][1]
    assert Normalize(capsys, genres, url, "--metrics", genres).code == 2
    assert monitor.told[9][0] == "fail"

    def interrupt(_self: RunProgress, _outcome: Outcome) -> None:
        raise InterruptedRunError("interrupted")

    monkeypatch.setattr(RunProgress, "on_outcome", interrupt)
    assert Normalize(capsys, genres, url, "--force").code == 130
    assert monitor.told[11] == ("fail", "tagger: interrupted")

    def break_down(_self: RunProgress, _outcome: Outcome) -> None:
        raise RuntimeError(PASSWORD)

    monkeypatch.setattr(RunProgress, "on_outcome", break_down)
    assert Normalize(capsys, genres, url, "--force").code == 3
    assert monitor.told[13] == ("fail", "tagger: RuntimeError")


def test_a_ping_that_fails_is_a_warning(genres: Path, monitor: StandIn, capsys: Capsys) -> None:
    run = Normalize(capsys, genres, "--ping-url", f"{NOWHERE}/{WRONG}")
    assert (run.code, run.summary["written"]) == (0, 3)
    assert run.err.count("tagger: --ping-url http://127.0.0.1:9/…: no connection") == 2
    assert WRONG not in run.err
    run = Normalize(capsys, genres, "--ping-url", f"http://{WRONG}:{WRONG}@{monitor.host}/{WRONG}")
    assert run.code == 0
    assert f"--ping-url {monitor.url}/…: it answered 404 Not Found" in run.err
    assert WRONG not in run.err


def test_a_server_that_was_not_told_is_a_failure_for_the_monitoring_service(
    genres: Path, monitor: StandIn, capsys: Capsys
) -> None:
    options = [f"--ping-url={monitor.url}{PING_PATH}", f"--notify=kodi={NOWHERE}"]
    assert Normalize(capsys, genres, *options).code == 3
    signal, text = monitor.told[-1]
    assert signal == "fail"
    assert "3 tracks in" in text
    assert f"tagger: --notify kodi={NOWHERE}: no connection" in text


def test_secret_options_come_from_files_too(
    genres: Path, monitor: StandIn, tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "url").write_text(f"{monitor.url}{PING_PATH}\n")
    monkeypatch.setenv("TAGGER_PING_URL_FILE", str(tmp_path / "url"))
    (tmp_path / "servers").write_text(f"jellyfin=http://{KEY}@nas\nkodi=http://nas#/a=/b#/c=/d\n")
    monkeypatch.setenv("TAGGER_NOTIFY_FILE", str(tmp_path / "servers"))
    found = [str(each) for each in load_settings({}).notify]
    assert found == ["jellyfin=http://nas", "kodi=http://nas#/a=/b#/c=/d"]
    assert Command(capsys, "normalize", genres, "-n").code == 0
    assert [signal for signal, _ in monitor.told] == ["start", "success"]
    (tmp_path / "url").write_text(WRONG)
    run = Normalize(capsys, genres)
    assert (run.code, run.err) == (2, "tagger: TAGGER_PING_URL_FILE: must be a URL\n")


def test_shown_settings_and_jobs_keep_secrets(
    home: Path, tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "tagger").mkdir(parents=True)
    (home / "tagger" / "config.toml").write_text(
        f'notify = ["jellyfin=http://{WRONG}@[::1]:80/j/#/a=/b", "mpd=mpd://{WRONG}@nas#/srv"]\n'
        f'ping-url = "https://{WRONG}@hc-ping.com/{WRONG}"\n'
        f'alert = ["tgram://{WRONG}/1", "https://hooks.slack.com/services/{WRONG}"]\n'
    )
    assert main(["config", "--show"]) == 0
    shown = capsys.readouterr().out
    assert "notify = jellyfin=http://[::1]:80/j#/a=/b, mpd=mpd://nas:6600#/srv  # from" in shown
    assert "ping-url = https://hc-ping.com/…  # from" in shown
    assert "alert = tgram://…, https://hooks.slack.com/…  # from" in shown
    assert WRONG not in shown
    assert WRONG not in repr(load_settings({}))
    assert main(["schedule", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert (WRONG in out, err) == (False, "")  # the config file keeps it
    assert main(["schedule", "--ping-url", f"https://hc-ping.com/{WRONG}", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert out.count(WRONG) == 2  # for systemd and for cron: the job needs it
    assert "the job has the secret of --ping-url in its command" in err
    monkeypatch.setenv("TAGGER_KODI_PASSWORD", WRONG)
    monkeypatch.setenv("TAGGER_PING_URL", f"https://hc-ping.com/{WRONG}")
    assert main(["schedule", "--notify", "kodi=http://nas", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert WRONG not in out
    for variable in ("TAGGER_KODI_PASSWORD", "TAGGER_PING_URL"):
        assert f"tagger: the job will not see {variable} of this shell" in err


def test_each_kind_of_server_has_a_protocol() -> None:
    assert set(PROTOCOLS) == set(ServerKind)


def test_alerts_need_a_library(
    genres: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    run = Normalize(capsys, genres, "--alert", f"ntfy://{WRONG}")
    assert (run.code, run.err) == (3, "tagger: --alert needs: pip install 'tagger-music[alert]'\n")


@pytest.mark.extra
@pytest.mark.filterwarnings(IMGHDR)
def test_people_hear_only_of_what_is_wrong(genres: Path, capsys: Capsys) -> None:
    pytest.importorskip("apprise")
    with serve(lambda _server, _request: (200, b"")) as server:
        options = [f"--alert=json://{server.host}/{WRONG}"]
        assert Normalize(capsys, genres, *options).code == 0
        assert server.requests == []
        (genres / "bad.mp3").write_bytes(b"no music")
        assert Normalize(capsys, genres, *options).code == 1
        (message,) = [request.json for request in server.requests]
        assert message["title"] == "tagger: some tracks failed"
        assert "1 failed for the first time" in message["message"]
        assert Normalize(capsys, genres, *options).code == 0  # it is known now
        assert Normalize(capsys, genres / "none", *options).code == 3
        assert server.requests[1].json["title"] == "tagger: the run failed"
        assert len(server.requests) == 2


class MailServer:
    """A stand-in for smtplib.SMTP, which keeps the texts of mails."""

    mails: ClassVar[list[str]] = []

    def __init__(self, *_args: object, **_options: object) -> None:
        pass

    def sendmail(self, _sender: str, _receivers: list[str], mail: str) -> dict[str, object]:
        message = email.message_from_string(mail)
        assert message.get_content_type() == "text/plain"
        payload = message.get_payload(decode=True)
        assert isinstance(payload, bytes)
        self.mails.append(payload.decode())
        return {}

    def login(self, *_: object) -> None:
        pass

    def quit(self) -> None:
        pass


@pytest.mark.extra
@pytest.mark.filterwarnings(IMGHDR)
def test_an_alert_by_mail_is_plain_text(
    genres: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("apprise")
    monkeypatch.setattr(MailServer, "mails", [])
    monkeypatch.setattr("smtplib.SMTP", MailServer)
    url = "mailto://me:secret@mail.example:2525/?from=me@mail.example&mode=insecure"
    missing = genres / "<b>  none"
    assert Normalize(capsys, missing, "--alert", url).code == 3
    (mail,) = MailServer.mails
    assert mail.strip() == f"tagger: cannot read {missing}: {ENOENT}"


@pytest.mark.extra
@pytest.mark.filterwarnings(IMGHDR)
def test_alerts_that_cannot_be_sent_show_no_secret(genres: Path, capsys: Capsys) -> None:
    pytest.importorskip("apprise")
    run = Normalize(capsys, genres, "--alert", f"none://{WRONG}/x")
    assert (run.code, WRONG in run.err) == (2, False)
    assert "--alert none://…: Apprise knows no such service" in run.err
    run = Normalize(capsys, genres / "none", "--alert", f"json://127.0.0.1:9/{WRONG}")
    assert (run.code, WRONG in run.err) == (3, False)
    assert "--alert json://…: the message could not be sent" in run.err


MPD_CONFIG = """
music_directory "{music}"
db_file "{folder}/db"
bind_to_address "{folder}/socket"
password "secret@read,add,control,admin"
default_permissions "read"
audio_output {{
    type "null"
    name "none"
}}
"""


@pytest.mark.extra
@pytest.mark.skipif(not shutil.which("mpd"), reason="this machine has no mpd")
@pytest.mark.parametrize("mtime", ["--preserve-mtime", "--no-preserve-mtime"])
def test_a_real_mpd_shows_the_new_genre(
    genres: Path, tmp_path: Path, capsys: Capsys, mtime: str
) -> None:
    import mpd

    for path in genres.rglob("*.*"):
        os.utime(path, (1e9, 1e9))  # MPD sees no change within one second
    folder = Path(tmp_path / "mpd")
    folder.mkdir()
    (folder / "conf").write_text(MPD_CONFIG.format(music=genres, folder=folder))
    command = ["mpd", "--no-daemon", "--stderr", str(folder / "conf")]
    with run_in_background(command, stderr=subprocess.DEVNULL):
        while not (folder / "socket").exists():
            time.sleep(0.05)
        client = mpd.MPDClient()
        client.connect(str(folder / "socket"))
        client.password("secret")

        def wait_for(*found: str) -> None:
            while [each["genre"] for each in client.list("genre")] != list(found):
                time.sleep(0.05)

        client.update()
        wait_for("hip hop")
        run = Normalize(capsys, genres, mtime, "--notify", f"mpd={folder}/socket#{genres}")
        assert (run.code, "you don't have permission" in run.err) == (3, True)
        assert main(["undo"]) == 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TAGGER_MPD_PASSWORD", "secret")
            address = f"mpd={folder}/socket#{genres}"
            assert Normalize(capsys, genres, mtime, "--force", "--notify", address).code == 0
        wait_for("Hip-Hop")
        client.disconnect()
