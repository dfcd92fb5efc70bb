"""README, CONTRIBUTING and docs/ agree with the program."""

import json
import re
import runpy
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click

from tagger import errors
from tagger.cli import commands
from tagger.errors import FailureKind, KeepReason, WriteReason
from tagger.models.musicnn_yamnet import CHECKPOINT
from tagger.records import Action
from tagger.report.csv import HEADER
from tagger.tags import EXTENSIONS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {
    path: path.read_text("utf-8")
    for path in [*ROOT.glob("*.md"), *DOCS.glob("**/*.md"), *ROOT.glob("tests/**/README.md")]
}
README, CONTRIBUTING = PAGES[ROOT / "README.md"], PAGES[ROOT / "CONTRIBUTING.md"]

MAX_README_LINES = 250

LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
CODE_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE_OPTION = re.compile(r"`(--[a-z][a-z-]*)")
TABLE_CELL = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)

EXTRA = re.compile(r"""['`](tagger[\w-]*|\.)\[([\w,]+)\]['`]""")
"""How a page says which extra a command needs."""

FOREIGN_OPTIONS = {"--clock", "--music", "--pretend"}
"""Options of scripts in tests/benchmarks, and of beets, that the pages name."""


def list_options(command: click.Command) -> set[str]:
    found = (option for option in command.params if isinstance(option, click.Option))
    return {"-h", "--help"} | {name for option in found for name in option.opts}


OPTIONS_BY_COMMAND = {name: list_options(each) for name, each in commands.commands.items()}


def find_anchors(page: str) -> set[str]:
    """Return the anchors that GitHub makes of the headings."""
    headings = HEADING.findall(CODE_BLOCK.sub("", page))
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def list_commands() -> Iterator[tuple[Path, list[str]]]:
    """Yield each command line of tagger in the code blocks, as words, from its subcommand on."""
    for path, page in PAGES.items():
        for language, block in CODE_BLOCK.findall(page):
            if language not in ("sh", "console"):
                continue
            for line in block.splitlines():
                for part in re.split(r"&&|(?<= )\| ", line.removeprefix("$ ")):
                    words = shlex.split(part, comments=True) if "tagger " in part else []
                    if words and words[0].rpartition("/")[2] == "tagger":
                        yield path, words[1:]


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= MAX_README_LINES


def test_the_page_of_options_is_what_the_script_makes() -> None:
    fill_tables = runpy.run_path(str(ROOT / ".ci/options"))["fill_tables"]
    page = PAGES[DOCS / "options.md"]
    assert page == fill_tables(page), "run .ci/options"
    named = set(re.findall(r"<!-- options of (\w+) -->", page))
    assert named | {"completion"} == set(commands.commands)


def test_every_suffix_and_label_is_named() -> None:
    config = json.loads((CHECKPOINT / "config.json").read_text("utf-8"))
    names = [config["id2label"][str(number)] for number in range(len(config["id2label"]))]
    labels = ", ".join(name for name in names if name not in config["not_music"])
    for page in (README, PAGES[DOCS / "models.md"]):
        assert labels in " ".join(page.split())
    named = " ".join(
        re.findall(r"^\| \w+.* \((.*?)\) \| `", PAGES[DOCS / "files.md"], re.MULTILINE)
    )
    for text in (named, README):
        assert {f".{word}" for word in re.findall(r"\w+", text)} >= EXTENSIONS


def test_the_exit_codes_of_all_errors_are_explained() -> None:
    cells = re.findall(r"^\| ([\d /]+) \|", README, re.MULTILINE)
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    raised = {kind.exit_code for kind in classes if issubclass(kind, errors.TaggerError)}
    assert {int(code) for cell in cells for code in cell.split("/")} == raised | {0, 1}


def test_every_column_action_and_kind_of_the_report_is_explained() -> None:
    explained = TABLE_CELL.findall(PAGES[DOCS / "reports.md"])
    assert sorted(explained) == sorted([*HEADER, *Action, *FailureKind, *KeepReason, *WriteReason])
    for page in (README, PAGES[DOCS / "reports.md"]):
        assert ",".join(HEADER) in page.splitlines()


def test_extras_are_those_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    found = {each for page in PAGES.values() for each in EXTRA.findall(page)}
    assert {name for name, _ in found} == {".", project["name"]}
    extras = {extra for _, each in found for extra in each.split(",")}
    assert extras <= set(project["optional-dependencies"])


def test_links_lead_to_files_and_headings() -> None:
    broken = []
    for path, page in PAGES.items():
        for link in LINK.findall(CODE_BLOCK.sub("", page)):
            if link.startswith("https://"):
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            if not target.exists() or (anchor and anchor not in find_anchors(PAGES[target])):
                broken.append(f"{path.name}: {link}")
    assert broken == []


def test_commands_use_options_that_exist() -> None:
    found = list(list_commands())
    wrong = []
    for path, (name, *words) in found:
        options = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        wrong += [f"{path.name}: {name} {each}" for each in options - OPTIONS_BY_COMMAND[name]]
    assert wrong == []
    assert {name for _, (name, *_) in found} >= {"scan", "undo", "train", "evaluate", "demo"}


def test_options_in_the_text_exist() -> None:
    known = set.union(*OPTIONS_BY_COMMAND.values()) | FOREIGN_OPTIONS | {"--no-", "--version"}
    wrong = []
    for path, page in PAGES.items():
        text = CODE_BLOCK.sub("", page)
        wrong += [f"{path.name}: {name}" for name in INLINE_OPTION.findall(text)]
    assert [each for each in wrong if each.partition(": ")[2] not in known] == []


def test_the_map_names_each_module() -> None:
    text = CONTRIBUTING.partition("\n## Map\n")[2].partition("\n## ")[0]
    named = {name for name in TABLE_CELL.findall(text) if name.endswith(".py")}
    package = ROOT / "tagger"
    modules = {path.relative_to(package).as_posix() for path in package.rglob("*.py")}
    assert named == {name for name in modules if not name.endswith("__.py")}


def test_what_the_how_to_names_exists() -> None:
    text = CONTRIBUTING.partition("\n## How to\n")[2].partition("\n## ")[0]
    names = set(re.findall(r"`([\w./]+)`", text))
    paths = {name for name in names if "/" in name}
    sources = "\n".join(
        path.read_text("utf-8")
        for name in ("tagger", "tests")
        for path in (ROOT / name).rglob("*.py")
    )
    words = {name for name in names - paths if re.search(r"[A-Z_]", name)}
    assert {name for name in words if not re.search(rf"\b{name}\b", sources)} == set()
    places = [ROOT, ROOT / "tagger"]
    assert {name for name in paths if not any((place / name).exists() for place in places)} == set()
