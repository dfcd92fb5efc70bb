"""Defaults, TOML file and flags become one Settings."""

from dataclasses import replace
from pathlib import Path

import pytest

from tagger.cli import main
from tagger.errors import ModelError, SettingsError
from tagger.models import find_model
from tagger.options import to_path
from tagger.records import MinScore
from tagger.settings import OPTIONS, Existing, Precision, Settings, WrittenField, get_row_settings
from tagger.settings_sources import load_settings


def toml(folder: Path, text: str, name: str = "config.toml") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def test_a_flag_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    config = toml(
        tmp_path, 'existing = "append"\nmin-score = 0.7\nexclude = ["a", "b"]\naudit = true'
    )
    settings = load_settings({"min-score": "0.2"}, config)
    assert settings.existing is Existing.APPEND
    assert settings.min_score == MinScore(0.2)
    assert settings.exclude == ("a", "b")
    assert settings.audit
    assert settings.precision is Precision.AUTO


def test_the_users_own_file_is_read_when_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert load_settings({}).windows != 7
    (tmp_path / "tagger").mkdir()
    toml(tmp_path / "tagger", "windows = 7")
    assert load_settings({}).windows == 7


def test_a_variable_wins_over_the_file_and_a_flag_over_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.toml"
    path.write_text("top-k = 3\ngenres = 2\njobs = 1\n")
    monkeypatch.setenv("TAGGER_TOP_K", "4")
    monkeypatch.setenv("TAGGER_GENRES", "3")
    monkeypatch.setenv("TAGGER_JOBS", "")  # as compose passes a variable that nobody set
    found = load_settings({"genres": 4}, path)
    assert (found.top_k, found.genres, found.jobs) == (4, 4, 1)
    assert load_settings({}, path, config_options={"jobs"}).top_k == Settings().top_k
    monkeypatch.setenv("TAGGER_TOP_K", "0")
    with pytest.raises(SettingsError, match="TAGGER_TOP_K: must be a whole number"):
        load_settings({}, path)


def test_variables_for_switches_and_for_options_that_are_repeatable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TAGGER_GENTLE", "Yes")
    monkeypatch.setenv("TAGGER_EXCLUDE", "Live: */*\n*.wav\n")
    found = load_settings({})
    assert found.gentle
    assert found.exclude == ("Live: */*", "*.wav")
    assert not load_settings({"gentle": False}).gentle
    monkeypatch.setenv("TAGGER_GENTLE", "maybe")
    with pytest.raises(SettingsError, match="TAGGER_GENTLE: must be true or false, not 'maybe'"):
        load_settings({})


def test_the_report_that_a_notify_command_is_told_of_is_no_option(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TAGGER_REPORT", "/old.csv")
    assert load_settings({}).report == Path("/old.csv")
    monkeypatch.setenv("TAGGER_WRITTEN", "3")
    assert load_settings({}).report is None


def test_auto_is_none_and_a_number_a_number() -> None:
    assert load_settings({"jobs": "auto"}).jobs is None
    assert load_settings({"jobs": "3"}).jobs == 3


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"existing": "apend"}, "--existing: must be one of keep|replace|append, not 'apend'"),
        ({"context": "label"}, "--context: must be one of none|album|artist, not 'label'"),
        ({"by-album": True, "context": "album"}, "--by-album gives an album one genre"),
        ({"write": "style,mood", "styles": "genre"}, "--styles genre puts styles behind the genre"),
        ({"min-score": "2"}, "--min-score: must be a number between 0 and 1"),
        ({"min-score": "half"}, "--min-score: must be a number between 0 and 1, not 'half'"),
        ({"windows": "0"}, "--windows: must be a whole number, 1 or more"),
        ({"jobs": "many"}, "--jobs: must be a whole number"),
        ({"model": ""}, "--model: must not be empty"),
        ({"report": "~nobody-knows/x"}, "--report: must not begin with the home"),
        ({"write": "genre,tempo"}, "--write: must be some of genre, style, mood, voice"),
        ({"device": "gpu"}, "--device: must be auto, cpu, cuda, cuda:N or mps"),
    ],
)
def test_a_wrong_value_names_its_flag(flags: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings(flags)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("min-scor = 0.5", "min-scor"),
        (
            "[min-score]\nRock = 2",
            "must have a number between 0 and 1 for each genre, but Rock is",
        ),
        ("[min-score]\nRock = 0.5\naudit = true", "put the table at the end of the file"),
        ('[min-score]\nRock = "0.5"', "Rock is '0.5'"),
        ("[min-score]\nHip-Hop = 0.5\nhiphop = 0.4", "must not name 'Hip-Hop' twice"),
        ('dry-run = "yes"', "dry-run in"),
        ("windows = ", "no valid TOML"),
        ('exclude = "one"', "must be a list"),
    ],
)
def test_a_wrong_line_in_the_file_names_file_and_option(
    tmp_path: Path, text: str, words: str
) -> None:
    config = toml(tmp_path, text)
    with pytest.raises(SettingsError) as error:
        load_settings({}, config)
    assert words in str(error.value)
    assert str(config) in str(error.value)


def test_a_config_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read"):
        load_settings({}, tmp_path / "none.toml")


def test_a_table_of_bounds_by_genre(tmp_path: Path) -> None:
    config = toml(tmp_path, '[min-score]\ndefault = 0.3\nRock = 0.5\n"Drum & Bass" = 0.7')
    assert load_settings({}, config).min_score == MinScore(0.3, {"Rock": 0.5, "Drum & Bass": 0.7})
    assert load_settings({"min-score": "0.2"}, config).min_score == MinScore(0.2)
    assert str(load_settings({}, config).min_score) == "0.3 (Drum & Bass 0.7, Rock 0.5)"
    without_default = toml(tmp_path, "[min-score]\nRock = 1", "other.toml")
    assert load_settings({}, without_default).min_score == MinScore(0.4, {"Rock": 1})


def test_a_genre_map_is_read_and_checked(tmp_path: Path) -> None:
    good = toml(tmp_path, '"Hip-Hop" = "Rap"\nPop = ""', "map.toml")
    assert load_settings({"genre-map": str(good)}).genre_map == {"hip-hop": "Rap", "pop": ""}
    bad = toml(tmp_path, "Pop = 3", "bad.toml")
    with pytest.raises(SettingsError, match=r'every line must read "label" = "name"'):
        load_settings({"genre-map": str(bad)})


def test_a_tilde_in_the_config_file_is_the_home(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home.mkdir(exist_ok=True)
    (home / "labels.txt").write_text("techno\nlied\n")
    (home / "genres.toml").write_text('"rock" = "Rock"')
    names = {name: f"~/{name}" for name, option in OPTIONS.items() if option.convert is to_path}
    names |= {"labels": "~/labels.txt", "genre-map": "~/genres.toml", "model": "~/nothing"}
    lines = [f'{name} = "{value}"' for name, value in names.items()]
    settings = load_settings({}, toml(tmp_path, "\n".join([*lines, 'exclude = ["~/Podcasts"]'])))
    assert {"report", "html", "state", "metrics"} <= names.keys()
    for name, option in OPTIONS.items():
        if option.convert is to_path:
            assert getattr(settings, name.replace("-", "_")) == home / name
    assert [label.name for label in settings.labels] == ["techno", "lied"]
    assert settings.genre_map == {"rock": "Rock"}
    assert settings.exclude == (f"{home}/Podcasts",)
    with pytest.raises(ModelError, match="there is no model folder"):
        find_model(replace(settings, labels=()))
    missing = ("report", "--csv=~/no/such.csv", "--state=~/nothing")
    assert main([*missing]) != 0
    assert "tagger: " in capsys.readouterr().err
    assert not Path("~").exists()


def test_labels_are_words_a_list_or_lines_of_a_file(tmp_path: Path) -> None:
    words = load_settings({"labels": " techno,chamber music ,Žižkov"}).labels
    assert [label.name for label in words] == ["techno", "chamber music", "Žižkov"]
    assert words[0].prompt == "This is a sound of techno."
    file = tmp_path / "labels.txt"
    file.write_text("\ufeff# ours\ntechno\n\nlied = a {} for voice and piano\n", "utf-8")
    lines = load_settings({"labels": str(file)}).labels
    assert [label.name for label in lines] == ["techno", "lied"]
    assert lines[1].prompt == "a lied for voice and piano"
    config = toml(tmp_path, 'labels = ["techno", "lied = a {} for voice and piano"]')
    assert load_settings({}, config).labels == lines


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("techno", "two labels or more"),
        ("none.txt", "two labels or more, or a text file"),
        ("a,=b", "two labels or more"),
        ("a,b,A", "must not name 'a' twice"),
        ("x" * 5000, "two labels or more"),
    ],
)
def test_labels_that_leave_no_choice_are_refused(text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load_settings({"labels": text})


@pytest.mark.parametrize("text", ['["mood", "genre"]', '"mood, genre"'])
def test_the_fields_to_write_are_a_list_or_a_text(tmp_path: Path, text: str) -> None:
    settings = load_settings({}, toml(tmp_path, f"write = {text}"))
    assert settings.write == (WrittenField.GENRE, WrittenField.MOOD)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e9", "long"])
def test_a_window_is_neither_endless_nor_nothing(text: str) -> None:
    with pytest.raises(SettingsError, match=r"between 0\.1 and 3600"):
        load_settings({"window-seconds": text})


def test_a_row_depends_on_the_bound_of_each_genre() -> None:
    tables = [{}, {"Rock": 0.5}, {"Rock": 0.6}, {"Jazz": 0.5}]
    rows = {repr(get_row_settings(Settings(min_score=MinScore(0.4, table)))) for table in tables}
    assert len(rows) == len(tables)
