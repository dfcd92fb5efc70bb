"""What helps to set tagger up: the config file, completion in shells, manual pages, profiles."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tagger.cli import main
from tagger.decide import GENRE_FORMATS, find_split_names, format_genre_values
from tagger.settings import ALL_OPTIONS, Profile, Settings
from tagger.settings_sources import load_settings
from tagger.tags import read_tags
from tests.front_door import ANY, Scan
from tests.marks import others_slow

ROOT = Path(__file__).parents[2]


def test_a_new_config_file_changes_nothing_and_each_line_of_it_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "config.toml"
    assert main(["config", "--init", "--config", str(path)]) == 0
    assert load_settings({}, path) == Settings()
    lines = re.findall(r"^# ([a-z-]+ = .+)$", path.read_text(), re.MULTILINE)
    assert [line.partition(" ")[0] for line in lines] == list(ALL_OPTIONS)
    (tmp_path / "genres.toml").write_text('"rock" = "Rock"')
    (tmp_path / "vocabulary.toml").write_text("[genres.Rock]")
    for line in lines:
        own = re.sub(r"~/(?=(genres|vocabulary)\.toml)", f"{tmp_path}/", line)
        path.write_text(own)
        load_settings({}, path)
    assert main(["config", "--init", "--config", str(path)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_it_shows_what_counts_and_where_it_stands(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["config"]) == 0
    assert "config.toml does not exist" in capsys.readouterr().out
    (home / "tagger").mkdir(parents=True)
    (home / "tagger" / "config.toml").write_text('top-k = 3\nexclude = ["a", "b"]\n')
    assert main(["config", "--show"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert "top-k = 3  # from the file" in shown
    assert 'exclude = ["a", "b"]  # from the file' in shown
    assert "min-score = 0.4  # default" in shown
    assert "html is not set" in shown
    monkeypatch.setenv("TAGGER_TOP_K", "4")
    monkeypatch.setenv("TAGGER_HTML", "")
    assert main(["config", "--show"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert 'top-k = "4"  # from TAGGER_TOP_K' in shown
    assert "html is not set" in shown
    monkeypatch.delenv("TAGGER_TOP_K")
    (home / "tagger" / "config.toml").write_text("top-k = 0\n")
    assert main(["config"]) == 2
    assert main(["config", "--config", str(home / "none.toml")]) == 2


def completed(*words: str) -> list[str]:
    environment = os.environ | {
        "_TAGGER_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["tagger", *words]),
        "COMP_CWORD": str(len(words)),
    }
    script = "from tagger.cli import commands; commands(prog_name='tagger')"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.stdout.split()


def test_shells_complete_commands_options_and_values(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert main(["completion", shell]) == 0
        assert "_TAGGER_COMPLETE" in capsys.readouterr().out
    assert completed("sc") == ["plain,scan", "plain,schedule"]
    assert completed("scan", "--exi") == ["plain,--existing"]
    assert completed("scan", "--existing", "") == ["plain,keep", "plain,replace", "plain,append"]
    assert completed("scan", "--report", "a") == ["file,a"]
    assert completed("scan", "Mus") == ["file,Mus"]


@pytest.mark.extra
def test_the_manual_pages_are_those_of_the_commands(tmp_path: Path) -> None:
    pytest.importorskip("click_man", reason="needs click-man, from the extra `dev`")
    hidden = ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    subprocess.run([sys.executable, ROOT / ".ci/manual", tmp_path], check=True, env=environment)
    pages = ROOT / "tagger" / "cli" / "man"
    assert {path.name for path in pages.iterdir()} == {path.name for path in tmp_path.iterdir()}
    for path in tmp_path.iterdir():
        assert (pages / path.name).read_text() == path.read_text(), ".ci/manual writes them anew"


@pytest.mark.parametrize("profile", others_slow(zip(Profile), 2))
def test_several_genres_go_to_each_server_as_it_reads_them(
    library: Path, capsys: pytest.CaptureFixture[str], profile: Profile
) -> None:
    Scan(capsys, library, *ANY, "--genres", "2", "--profile", profile)
    for path in library.iterdir():
        genres = read_tags(path).genres
        single = bool(GENRE_FORMATS[profile].separator)
        assert len(genres) == (1 if single else 2)
        assert (", " in genres[0]) == single
    again = Scan(capsys, library, *ANY, "--genres", "2", "--profile", profile)
    assert again.actions == {"unchanged": 3}


def test_names_that_a_server_takes_apart_are_named(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = tmp_path / "names.toml"
    names.write_text('"folk" = "Folk, World"\n"rock" = "Rock / Pop"\n')
    mapped = ("-n", "--genre-map", names)
    assert "splits these names" not in Scan(capsys, library, *mapped).err
    assert (
        "kodi splits these names into several genres: Rock / Pop ("
        in Scan(capsys, library, *mapped, "--profile", "kodi").err
    )
    warning = Scan(capsys, library, *mapped, "--profile", "navidrome").err
    assert "navidrome splits these names into several genres: Folk, World, Rock / Pop" in warning


def test_no_genres_stay_none() -> None:
    assert format_genre_values((), Profile.ITUNES) == ()
    assert find_split_names(["R&B", "Hip-Hop"], Profile.JELLYFIN) == ()
