"""Containerfile, compose.yaml and the script of the container agree with the program."""

import os
import re
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from tagger.cli import commands
from tagger.errors import DISTRIBUTION
from tagger.settings import ALL_OPTIONS
from tagger.settings_sources import name_variable

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "container/tagger"
CONTAINERFILE = (ROOT / "Containerfile").read_text("utf-8")
COMPOSE = (ROOT / "compose.yaml").read_text("utf-8")
SERVICE: Mapping[str, Any] = yaml.safe_load(COMPOSE)["services"]["tagger"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def list_copied_files() -> list[str]:
    """Return what Containerfile copies from the checkout."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", CONTAINERFILE, re.MULTILINE)
    return [name for line in lines for name in line.split()[:-1]]


def test_each_variable_of_the_files_is_an_option() -> None:
    named = set(re.findall(r"\bTAGGER_\w+", COMPOSE + CONTAINERFILE))
    assert "TAGGER_MIN_SCORE" in named
    assert named <= set(map(name_variable, ALL_OPTIONS))


def test_each_command_of_the_files_exists() -> None:
    (health,) = re.findall(r"^HEALTHCHECK .* CMD tagger (.*) \|\|", CONTAINERFILE, re.MULTILINE)
    (default,) = re.findall(r"^CMD (\[.*\])$", CONTAINERFILE, re.MULTILINE)
    for name, *rest in (health.split(), yaml.safe_load(default), SERVICE["command"]):
        known = {flag for option in commands.commands[name].params for flag in option.opts}
        assert {word for word in rest if word.startswith("-")} <= known


def test_python_and_package_are_what_the_project_says() -> None:
    (python,) = re.findall(r"uv venv --python (\S+)", CONTAINERFILE)
    assert python in SpecifierSet(PROJECT["requires-python"])
    assert f"python{python}/site-packages" in CONTAINERFILE
    assert PROJECT["name"] == DISTRIBUTION


def test_what_is_copied_is_there_and_reaches_the_build() -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8")
    shown = [line[1:] for line in ignored.splitlines() if line.startswith("!")]
    for name in list_copied_files():
        assert (ROOT / name).exists()
        assert any(name == each or name.startswith(f"{each}/") for each in shown), name
    assert os.access(SCRIPT, os.X_OK)


def run_script(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script of the container with a program that says who runs it, and how."""
    program = folder / "program"
    program.write_text('#!/bin/sh\necho "$(id -u):$(id -G) $(umask) $*"\n')
    program.chmod(0o755)
    config = folder / "config"
    config.mkdir(exist_ok=True)
    text = SCRIPT.read_text("utf-8").replace("/opt/tagger/bin/tagger", str(program))
    script = folder / "script"
    script.write_text(re.sub(r"(?<!\w)/config\b", str(config), text))
    return subprocess.run(
        ["sh", script, *words],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)  # any user may run what lies there, unlike in tmp_path
        yield Path(name)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv of util-linux")
def test_the_container_gives_up_root(folder: Path) -> None:
    (folder / "config").mkdir()
    (folder / "config/old").touch()
    done = run_script(folder, "scan", "a b", PUID="1234", PGID="5678", UMASK="002")
    assert done.stdout == "1234:5678 0002 scan a b\n"
    status = (folder / "config/old").stat()
    assert (status.st_uid, status.st_gid) == (1234, 5678)
    assert run_script(folder).stdout == "1000:1000 0022 \n"
    assert run_script(folder, PUID="0", PGID="0").stdout == "0:0 0022 \n"


def test_wrong_numbers_are_refused(folder: Path) -> None:
    wrong = [{"UMASK": "rwx"}]
    if os.getuid() == 0:
        wrong += [{"PUID": "me"}, {"PGID": "-1"}]
    for variables in wrong:
        done = run_script(folder, "scan", **variables)
        assert (done.returncode, done.stdout) == (2, "")
        (name,) = variables
        assert name in done.stderr


def test_the_scripts_are_clean() -> None:
    if not (shellcheck := shutil.which("shellcheck")):
        pytest.skip("needs shellcheck")
    scripts = [SCRIPT, *(ROOT / ".ci").glob("*")]
    shells = [
        path
        for path in scripts
        if path.is_file() and path.read_bytes().partition(b"\n")[0].endswith(b"sh")
    ]
    done = subprocess.run(
        [shellcheck, "--severity=warning", *shells], capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
