"""Help, wrong usage, and the commands that a summary proposes."""

import io
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tagger.cli import commands, main
from tagger.cli.progress import LoadingStatus
from tagger.cli.terminal import StopSignal
from tagger.tags import read_tags
from tests.builders import build_audio
from tests.front_door import ANY, run_without_torch, set_genre
from tests.marks import others_slow

Capsys = pytest.CaptureFixture[str]

UNDO, APPLY = "To take this back: ", "To write its genres, also after you edited it: "


def test_without_a_command_the_help_is_printed_as_wrong_usage(capsys: Capsys) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Usage: tagger [OPTIONS] COMMAND [ARGS]...\n\n  Listen to")
    assert "\n  scan " in err
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == err


@pytest.mark.parametrize("name", commands.commands)
def test_every_command_has_help_and_says_what_is_missing(name: str, capsys: Capsys) -> None:
    assert main([name, "--help"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"Usage: tagger {name}")
    assert err == ""
    required = [each for each in commands.commands[name].params if each.required]
    if required:
        assert main([name]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert f"\ntagger: Missing {required[0].param_type_name}" in err
        assert "\\n" not in err


def test_the_help_of_each_option_stands_alone() -> None:
    for command in commands.commands.values():
        for option in command.params:
            text = getattr(option, "help", None)
            if text and text != "Show this message and exit.":
                sentence = text.split("  [default")[0]
                assert sentence[0].isupper(), text
                assert sentence.endswith("."), text


def test_help_loads_nothing_heavy() -> None:
    for words in ([], ["--help"], ["scan", "--help"], ["train", "--help"], ["demo", "--help"]):
        done = run_without_torch(*words)
        assert "imported" not in done.stderr
        assert done.returncode == (0 if words else 2)


def test_brackets_in_a_path_are_no_markup() -> None:
    loading = LoadingStatus(StopSignal("stopped"))
    loading.show("reading /music/[flac] Jazz")
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as capture:
        console.print(loading.status.renderable)
    assert "Reading /music/[flac] Jazz" in capture.get()


def run_proposed(printed: str, introduction: str, *words: str) -> str:
    """Run the command behind `introduction` as a person pastes it into a shell; return it."""
    (command,) = [
        line.removeprefix(introduction)
        for line in printed.splitlines()
        if line.startswith(introduction)
    ]
    assert command.startswith("tagger ")
    python = shlex.join([sys.executable, "-P", "-m", "tagger"])
    script = f'tagger() {{ {python} "$@"; }}; {command} {shlex.join(words)}'
    path = os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(
        ["sh", "-c", script], cwd="/", env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return command


@pytest.mark.parametrize(
    "name",
    others_slow(
        [(os.fsdecode(b"caf\xe9\n100% \\$(x)`'\".db"),), ("my state's $HOME.sqlite",), (None,)]
    ),
)
def test_the_proposed_commands_do_what_the_summary_says(
    library: Path, tmp_path: Path, capsys: Capsys, name: str | None
) -> None:
    state = ["--state", str(tmp_path / name)] if name else []
    paths = sorted(library.iterdir())
    set_genre(paths[0], "Jungle")
    before = [read_tags(path).genres for path in paths]
    assert main(["scan", str(library), *ANY, "-n", "--existing", "replace", *state]) == 0
    command = run_proposed(capsys.readouterr().out, APPLY)
    assert "--existing replace" in command
    written = [read_tags(path).genres for path in paths]
    assert all(written)
    assert written[0] != ("Jungle",)
    assert main(["undo", *state]) == 0
    printed = capsys.readouterr().out
    assert [read_tags(path).genres for path in paths] == before
    run_proposed(printed, UNDO)
    assert [read_tags(path).genres for path in paths] == written


def test_a_proposed_command_does_not_depend_on_the_environment(
    library: Path, tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["scan", str(library), *ANY]) == 0
    printed = capsys.readouterr().out
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    run_proposed(printed, UNDO)
    assert not any(read_tags(path).genres for path in library.iterdir())


def test_a_config_file_does_not_defeat_a_proposed_command(
    library: Path, home: Path, capsys: Capsys
) -> None:
    (home / "tagger").mkdir(parents=True, exist_ok=True)
    config = f'report = "{home}/tagger.csv"\ndry-run = true\n'
    (home / "tagger" / "config.toml").write_text(config)
    assert main(["scan", str(library), *ANY]) == 0
    run_proposed(capsys.readouterr().out, APPLY)
    paths = sorted(library.iterdir())
    assert all(read_tags(path).genres for path in paths)
    for path in paths:
        build_audio(path, seconds=4, seed=9)
    assert main(["scan", str(library), *ANY, "--no-dry-run"]) == 0
    printed = capsys.readouterr().out
    assert all(read_tags(path).genres for path in paths)
    run_proposed(printed, UNDO)
    assert not any(read_tags(path).genres for path in paths)


def test_a_proposed_command_overrides_the_config_file(
    library: Path, home: Path, capsys: Capsys
) -> None:
    (home / "tagger").mkdir(parents=True, exist_ok=True)
    (home / "tagger" / "config.toml").write_text('existing = "replace"\npreserve-mtime = true\n')
    flags = ["--existing", "keep", "--no-preserve-mtime"]
    assert main(["scan", str(library), *ANY, "-n", *flags]) == 0
    printed = capsys.readouterr().out
    assert "--existing keep --no-preserve-mtime" in run_proposed(printed, APPLY, "-n")
