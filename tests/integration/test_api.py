"""The functions that scripts use: tagger.listen, tagger.scan, and settings for them."""

import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

import pytest

import tagger
from tagger.records import MinScore
from tagger.settings import Existing
from tagger.state import open_state
from tagger.tags import read_tags
from tests.front_door import set_genre

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs" / "python-and-beets.md"]


def accept_any() -> tagger.Settings:
    """Return settings for the tests' chords, which are no genre that a model could be sure of."""
    return tagger.make_settings(min_score=0)  # made in a test: the state file is that of its HOME


def count_reports() -> int:
    folder = tagger.Settings().state.parent / "reports"
    return len(list(folder.glob("*.csv")))


def test_listening_gives_predictions_in_order_and_changes_nothing(library: Path) -> None:
    files = [library / "c.ogg", library / "none.ogg", library / "a.flac"]
    before = files[0].read_bytes()
    results = tagger.listen([str(files[0]), *files[1:]])
    assert_type(results, Iterator[tagger.Prediction | tagger.Failure])
    first, missing, last = results
    assert isinstance(first, tagger.Prediction)
    assert isinstance(last, tagger.Prediction)
    assert isinstance(missing, tagger.Failure)
    assert [each.track.path for each in (first, missing, last)] == files
    assert len(first.scores) > tagger.Settings().top_k
    assert first.scores[0].probability >= first.scores[-1].probability
    assert files[0].read_bytes() == before
    assert not tagger.Settings().state.exists()


def test_listening_names_labels_as_the_genre_map_does(library: Path) -> None:
    (plain,) = tagger.listen(library / "a.flac")
    assert isinstance(plain, tagger.Prediction)
    names = {score.genre: "Anything" for score in plain.scores}
    (renamed,) = tagger.listen(library / "a.flac", tagger.make_settings(genre_map=names))
    assert isinstance(renamed, tagger.Prediction)
    assert [score.genre for score in renamed.scores] == ["Anything"]


def test_a_scan_gives_an_outcome_for_every_file_also_the_next_time(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (library / "broken.mp3").write_bytes(b"no sound")
    set_genre(library / "b.mp3", "Mine")
    monkeypatch.chdir(library.parent)
    seen = []

    def watch(outcome: tagger.Outcome) -> None:
        genres = () if outcome.error else read_tags(Path(outcome.track.path)).genres
        seen.append((outcome.track.path.name, genres))

    first = tagger.scan(library.name, accept_any(), on_outcome=watch)
    assert_type(first, list[tagger.Outcome])
    by_name = {outcome.track.path.name: outcome for outcome in first}
    actions = {name: outcome.action.value for name, outcome in by_name.items()}
    assert actions == {
        "a.flac": "written", "b.mp3": "kept", "broken.mp3": "failed", "c.ogg": "written",
    }  # fmt: skip
    assert by_name["broken.mp3"].error
    assert dict(seen) == {
        "a.flac": by_name["a.flac"].genres,
        "b.mp3": ("Mine",),
        "broken.mp3": (),
        "c.ogg": by_name["c.ogg"].genres,
    }
    again = {outcome.track.path.name: outcome for outcome in tagger.scan([library], accept_any())}
    assert {name: outcome.action.value for name, outcome in again.items()} == {
        **actions, "a.flac": "unchanged", "c.ogg": "unchanged",
    }  # fmt: skip
    assert {name: outcome.genres for name, outcome in again.items()} == {
        name: outcome.genres for name, outcome in by_name.items()
    }


def test_a_dry_run_writes_no_file_and_no_files_are_no_run(library: Path) -> None:
    before = (library / "a.flac").read_bytes()
    settings = tagger.make_settings(min_score=0, dry_run=True)
    (outcome,) = tagger.scan(library / "a.flac", settings)
    assert outcome.action is tagger.Action.WOULD_WRITE
    assert (library / "a.flac").read_bytes() == before
    assert count_reports() == 1
    assert tagger.scan([], settings) == []
    assert count_reports() == 1


def test_scans_work_in_threads_and_leave_the_handlers_of_signals(library: Path) -> None:
    outcomes: list[tagger.Outcome] = []
    errors: list[BaseException] = []

    def scan() -> None:
        try:
            outcomes.extend(tagger.scan(library / "a.flac", accept_any()))
        except BaseException as error:  # noqa: BLE001 - else the test would not see it
            errors.append(error)

    thread = threading.Thread(target=scan)
    thread.start()
    thread.join()
    assert errors == []
    assert [outcome.action for outcome in outcomes] == [tagger.Action.WRITTEN]

    def handle(number: int, frame: object) -> None:
        """Do nothing: a program around tagger may have handlers of its own."""

    numbers = (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        (outcome,) = tagger.scan(library / "b.mp3", accept_any())
        assert [signal.getsignal(number) for number in numbers] == [handle] * 3
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert outcome.action is tagger.Action.WRITTEN


@pytest.mark.slow
def test_a_script_needs_no_main_function(library: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, tagger\n"
        "for outcome in tagger.scan(sys.argv[1], tagger.make_settings(min_score=0, jobs=2)):\n"
        "    print(outcome.action)\n"
    )
    command = [sys.executable, str(script), str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.stdout.split(), done.stderr) == (["written"] * 3, "")


def test_errors_are_those_of_the_command(library: Path) -> None:
    for paths in ("", library / "none", library / "none.ogg"):
        with pytest.raises(tagger.TaggerError):
            tagger.scan(paths)
    with pytest.raises(tagger.TaggerError, match="nowhere"):
        tagger.listen(library / "a.flac", tagger.Settings(model="./nowhere"))
    with open_state(tagger.Settings().state), pytest.raises(tagger.LockedError):
        tagger.scan(library)


def test_unknown_names_are_warned_of(library: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = tagger.make_settings(
        dry_run=True, genre_map={"Polka": "Folk"}, min_score={"default": 0, "Yodel": 0.9}
    )
    tagger.scan(library / "a.flac", settings)
    assert [record.name for record in caplog.records] == ["tagger", "tagger"]
    assert "polka" in caplog.text
    assert "Yodel" in caplog.text


def test_settings_are_made_of_plain_values() -> None:
    settings = tagger.make_settings(
        min_score=0.6,
        existing="replace",
        write=("genre", "mood"),
        junk_genres=["Misc"],
        until="06:00",
        windows=None,
    )
    assert_type(settings, tagger.Settings)
    assert settings.min_score == MinScore(0.6)
    assert settings.existing is Existing.REPLACE
    assert settings.junk_genres == ("Misc",)
    assert settings.windows is None
    assert settings == tagger.Settings(
        min_score=MinScore(0.6),
        existing=Existing.REPLACE,
        write=settings.write,
        junk_genres=("Misc",),
        until=settings.until,
    )


def test_the_config_file_counts_where_it_is_asked_for(home: Path, tmp_path: Path) -> None:
    (home / "tagger").mkdir(parents=True, exist_ok=True)
    (home / "tagger" / "config.toml").write_text("windows = 7\ntop-k = 3")
    assert tagger.make_settings().windows is None
    assert tagger.read_settings(top_k=4).windows == 7
    assert tagger.read_settings(top_k=4).top_k == 4
    (tmp_path / "other.toml").write_text("windows = 2")
    assert tagger.read_settings(tmp_path / "other.toml").windows == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"min_score": 7}, "min_score: must be a number between 0 and 1, not 7"),
        ({"existing": "maybe"}, "existing: must be one of keep|replace|append, not 'maybe'"),
        ({"dry_run": "yes"}, "dry_run: must be true or false"),
        ({"minscore": 0.5}, "there is no option minscore"),
        ({"by_album": True, "context": "album"}, "leave one of them out"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], words: str) -> None:
    with pytest.raises(tagger.SettingsError, match=re.escape(words)):
        tagger.make_settings(**options)
    with pytest.raises(tagger.SettingsError):
        tagger.read_settings(None, **options)


def test_settings_refuse_values_of_another_class() -> None:
    with pytest.raises(tagger.SettingsError, match="min_score must be MinScore"):
        tagger.Settings(min_score=0.6)  # type: ignore[arg-type]
    with pytest.raises(tagger.SettingsError, match="existing must be Existing, not 'keep'"):
        tagger.Settings(existing="keep")  # type: ignore[arg-type]
    with pytest.raises(tagger.SettingsError, match="report must be Path or None"):
        tagger.Settings(report="report.csv")  # type: ignore[arg-type]
    assert tagger.Settings(window_seconds=3).window_seconds == 3


def test_importing_the_package_imports_nothing_heavy() -> None:
    script = (
        "import sys, tagger; heavy = {'torch', 'numpy', 'mutagen', 'sqlite3', 'av', 'click'};"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_pages_name_functions_that_exist() -> None:
    blocks = [
        block
        for page in PAGES
        for block in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    ]
    named = {name for block in blocks for name in re.findall(r"\btagger\.(\w+)", block)}
    assert named <= set(tagger.__all__)
    assert {"listen", "scan", "make_settings", "read_settings"} <= named
    for block in blocks:
        compile(block, "page", "exec")


def test_the_first_example_runs(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = re.findall(r"```python\n(.*?)```", PAGES[1].read_text("utf-8"), re.DOTALL)[0]
    assert len(example.split("\n")) <= 5  # three lines, and one empty line that the formatter wants
    shutil.copyfile(library / "b.mp3", library / "song.mp3")
    monkeypatch.chdir(library)
    names: dict[str, Any] = {}
    exec(example.replace("/home/me/Music", str(library)), names)
    (prediction,) = names["predictions"]
    assert prediction.track.path.name == "song.mp3"
    assert [each.track.path.name for each in names["outcomes"]] == [
        "a.flac", "b.mp3", "c.ogg", "song.mp3",
    ]  # fmt: skip
