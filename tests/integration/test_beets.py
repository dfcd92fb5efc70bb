"""The plugin for beets in the program `beet`: on import and as a command, database and files."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mutagen
import pytest
from filelock import FileLock

import tagger
from tagger.tags import read_tags
from tests.front_door import set_genre
from tests.processes import capture_fork

pytest.importorskip("beets")
pytestmark = [pytest.mark.extra, pytest.mark.slow]

ROOT = Path(__file__).parents[2]

OTHER_PLUGIN = """
from beets.importer import Action
from beets.plugins import BeetsPlugin

class OtherPlugin(BeetsPlugin):
    def __init__(self):
        super().__init__()
        self.register_listener("import_task_before_choice", lambda session, task: Action.RETAG)
        self.import_stages = [self.give_genre]

    def give_genre(self, session, task):
        for item in task.imported_items():
            if item.title == "c":
                item.genres = ["Polka"]
                item.store()
"""
"""Gives one track a genre on import. beets writes its tags then, as after a match."""


@dataclass(frozen=True, slots=True)
class Beets:
    """A library of beets in a folder, used through the command line."""

    folder: Path

    def configure(self, imports: str = "", *, plugins: str = "tagger", auto: str = "yes") -> None:
        (self.folder / "tagger.toml").write_text("min-score = 0")
        (self.folder / "plugins").mkdir(exist_ok=True)
        (self.folder / "plugins" / "other.py").write_text(OTHER_PLUGIN)
        (self.folder / "config.yaml").write_text(
            f"directory: {self.folder}/music\n"
            f"library: {self.folder}/library.db\n"
            f"pluginpath: {self.folder}/plugins\n"
            f"plugins: {plugins}\n"
            "ui: {color: no}\n"
            "paths: {default: $genres/$title}\n"
            f"tagger: {{auto: {auto}, config: tagger.toml}}\n"
            f"import: {{quiet: yes, quiet_fallback: asis{imports}}}\n"
        )

    def run(self, *words: str | Path) -> str:
        """Return what beets printed, with its log. It runs in a fork, which has imported torch."""

        def run() -> int:
            from beets import ui

            os.environ["BEETSDIR"] = str(self.folder)
            ui.main([*map(str, words)])
            return 0

        with Path(os.devnull).open("rb") as nothing:
            done = capture_fork(run, nothing)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def start(self, *words: str | Path) -> str:
        """Return what beets printed in a new process, as a user starts it."""
        command = [sys.executable, "-m", "beets", *map(str, words)]
        env = os.environ | {"BEETSDIR": str(self.folder), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def list(self, template: str) -> list[str]:
        return self.run("ls", "-f", template, "title+").splitlines()

    def find(self, name: str) -> Path:
        (path,) = (self.folder / "music").rglob(name)
        return path


@pytest.fixture
def beets(tmp_path: Path, library: Path) -> Beets:
    """Make an empty library. The tracks of `library` are an album to import."""
    for path in library.iterdir():
        audio: Any = mutagen.File(path, easy=True)
        if audio.tags is None:
            audio.add_tags()
        audio["album"], audio["artist"], audio["title"] = "Album", "Artist", path.stem
        audio.save()
    (tmp_path / "beets").mkdir()
    beets = Beets(tmp_path / "beets")
    beets.configure()
    return beets


def test_an_import_writes_genres_and_both_programs_agree_on_them(
    beets: Beets, library: Path
) -> None:
    set_genre(library / "c.ogg", "Mine")
    before = (library / "a.flac").read_bytes()
    beets.run("import", "-A", library)
    assert (library / "a.flac").read_bytes() == before
    tags = read_tags(beets.find("a.flac"))
    assert tags.genres == tags.written != ()
    assert tags.model
    assert read_tags(beets.find("c.ogg")).genres == ("Mine",)
    genre = tags.genres[0]
    assert beets.list("$title $genres $mood") == [
        f"a {genre} $mood", f"b {genre} Calm", "c Mine $mood",
    ]  # fmt: skip
    assert beets.run("ls", "-a", "-f", "$genres").split() == [genre]
    assert beets.find("c.ogg").parent.name == genre  # the path has the genre of the album
    assert "genres" not in beets.run("write", "--pretend")
    assert beets.run("update", "--pretend") == ""
    beets.run("write", "--force")
    assert read_tags(beets.find("a.flac")) == tags
    assert beets.run("tagger").endswith("tagger: 1 kept, 2 unchanged\n")


def test_a_genre_that_beets_wrote_on_import_stays(beets: Beets, library: Path) -> None:
    beets.configure(plugins="tagger other")
    beets.run("import", library)
    tags = read_tags(beets.find("c.ogg"))
    assert (tags.genres, tags.written) == (("Polka",), ())
    assert read_tags(beets.find("a.flac")).written
    assert beets.list("$title $genres")[2] == "c Polka"
    assert beets.run("update", "--pretend") == ""


def test_without_write_only_the_database_changes(beets: Beets, library: Path) -> None:
    beets.configure(", write: no, copy: no, hardlink: yes")
    before = {path.name: path.read_bytes() for path in library.iterdir()}
    beets.start("import", "-A", library)
    assert {path.name: path.read_bytes() for path in library.iterdir()} == before
    assert beets.find("a.flac").samefile(library / "a.flac")
    titles = [line.split() for line in beets.list("$title $genres")]
    assert [title for title, _ in titles] == ["a", "b", "c"]
    assert beets.find("a.flac").parent.name == titles[0][1]


def test_the_command_respects_what_stands_in_the_database(beets: Beets, library: Path) -> None:
    beets.configure(auto="no")
    beets.run("import", "-A", library)
    assert beets.list("$genres") == ["", "", ""]
    shown = beets.run("tagger", "--pretend", "title:a")
    genre = shown.split("+ ")[1].split()[0]
    assert "tagger: 1 would-write" in shown
    assert read_tags(beets.find("a.flac")).genres == ()
    assert beets.list("$genres") == ["", "", ""]
    beets.run("tagger", "title:a")
    assert read_tags(beets.find("a.flac")).genres == (genre,)
    assert beets.list("$genres") == [genre, "", ""]
    beets.run("modify", "--yes", "--nowrite", "title:c", "genres=Own")
    done = beets.run("tagger")
    assert "1 left out with a genre that only beets' database has, 1 unchanged, 1 written" in done
    assert beets.list("$genres") == [genre, genre, "Own"]
    assert read_tags(beets.find("c.ogg")).genres == ()
    assert "1 written" in beets.run("tagger", "--force", "title:c")
    assert beets.list("$genres") == [genre, genre, genre]
    assert read_tags(beets.find("c.ogg")).genres == (genre,)


def test_a_failure_is_logged_with_its_path_and_the_import_goes_on(
    beets: Beets, library: Path
) -> None:
    whole = (library / "b.mp3").read_bytes()
    (library / "b.mp3").write_bytes(whole[: len(whole) // 2])
    done = beets.run("import", "-A", library)
    assert "b.mp3: truncated" in done
    assert beets.list("$title") == ["a", "b", "c"]
    assert read_tags(beets.find("a.flac")).written
    state = tagger.Settings().state
    with FileLock(f"{state}.lock"):
        beets.find("a.flac").rename(library / "d.flac")
        beets.run("rm", "--force")
        done = beets.run("import", "-A", library)
    assert "no genre for" in done
    assert "another run is using" in done
    assert len(beets.list("$title")) == 4
