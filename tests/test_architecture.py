"""STYLE.md section 2, read from the imports: they point down, and each heavy library has owners."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tagger"

LAYERS = [
    {"errors", "paths", "profiles", "__init__"},
    {"records"},
    {"values", "priority", "storage"},
    {"settings"},
    {
        "crawl",
        "audio",
        "tags",
        "models",
        "state",
        "report",
        "decide",
        "albums",
        "isolation",
        "pacing",
    },
    {"inference", "writing"},
    {"engines"},
    {"scan", "undo", "review", "classify", "training"},
    {"service", "demo"},
    {"cli"},
    {"__main__"},
]
ROW = {module: row for row, modules in enumerate(LAYERS) for module in modules}

OWNERS = {
    "torch": {"models", "inference", "engines", "training"},
    "transformers": {"models", "training"},
    "safetensors": {"models"},
    "huggingface_hub": {"models"},
    "tqdm": {"models"},
    "tensorflow": {"models"},
    "soundfile": {"audio"},
    "soxr": {"audio"},
    "av": {"audio"},
    "mutagen": {"tags"},
    "sqlite3": {"state"},
    "filelock": {"state", "training"},
    "click": {"cli"},
    "rich": {"cli"},
    "jinja2": {"report"},
    "prometheus_client": {"service"},
    "ray": {"engines"},
    "gradio": {"demo"},
    "datasets": {"training"},
    "sklearn": {"training"},
    "scipy": {"training"},
    "matplotlib": {"training"},
    "subprocess": {"isolation", "service"},
    "platformdirs": {"settings"},
    "psutil": {"priority"},
    "fsspec": {"storage"},
    "s3fs": {"storage"},
    "botocore": {"storage"},
}

SOURCES = sorted(PACKAGE.rglob("*.py"))


def home(path: Path) -> str:
    """Return the module of the map that a source file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Yield the full name of everything a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_module_has_a_row() -> None:
    assert {home(path) for path in SOURCES} == set(ROW)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down_and_libraries_stay_with_their_owners(path: Path) -> None:
    here = home(path)
    for name in imports(path):
        top, *rest = name.split(".")
        if ROW[here] <= ROW["records"]:
            assert top in {*sys.stdlib_module_names, "tagger"}, f"{here} imports {top}"
        if top in OWNERS:
            assert here in OWNERS[top], f"{here} is no owner of {top}"
        if top == "tagger":
            target = rest[0] if rest and rest[0] in ROW else "__init__"
            assert target == here or ROW[target] < ROW[here], f"{here} imports {target}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_import_hides_from_this_test(path: Path) -> None:
    text = path.read_text("utf-8")
    assert not [word for word in ("TYPE_CHECKING", "__import__", "importlib") if word in text]
