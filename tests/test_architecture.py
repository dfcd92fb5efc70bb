"""The layers of CONTRIBUTING.md, read from the imports: these point down only.

Each heavy library is imported by its owners alone.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "tagger"
PLUGINS = Path(__file__).parents[1] / "beetsplug"

LAYERS = [
    {"addresses", "errors", "user_folders", "version"},
    {"paths"},
    {"records"},
    {"options", "pacing", "storage"},
    {"ignore_files", "vocabulary"},
    {"settings"},
    {"labels", "settings_sources"},
    {"audio", "crawl", "decide", "evidence", "isolation", "models", "state", "tags"},
    {"inference", "report", "writing"},
    {"classify", "scanning", "training"},
    {"api", "demo", "service"},
    {"__init__", "cli"},
    {"__main__"},
]
ROW = {module: row for row, modules in enumerate(LAYERS) for module in modules}

OWNERS = {
    "apprise": {"service"},
    "av": {"audio"},
    "beets": set(),  # its plugin stands outside the package
    "boto3": {"storage"},
    "botocore": {"storage"},
    "click": {"cli"},
    "datasets": {"training"},
    "filelock": {"state", "training"},
    "fsspec": {"storage"},
    "gradio": {"demo"},
    "httpx2": {"service"},
    "huggingface_hub": {"models"},
    "inotify_simple": {"service"},
    "jinja2": {"report"},
    "matplotlib": {"training"},
    "mpd": {"service"},
    "mutagen": {"tags"},
    "pathspec": {"ignore_files"},
    "platformdirs": {"user_folders"},
    "prometheus_client": {"service"},
    "psutil": {"pacing"},
    "ray": {"inference"},
    "rich": {"cli"},
    "safetensors": {"models"},
    "scipy": {"training"},
    "sklearn": {"training"},
    "soundfile": {"audio"},
    "soxr": {"audio"},
    "sqlite3": {"state"},
    "subprocess": {"isolation", "service"},
    "tensorflow": set(),
    "torch": {"inference", "models", "training"},
    "tqdm": {"models"},
    "transformers": {"models", "training"},
}

HIDDEN_IMPORTS = {"TYPE_CHECKING", "__import__", "importlib"}


def find_module(path: Path) -> str:
    """Return the module of the layers that a source file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def list_imports(folder: Path = PACKAGE) -> Iterator[tuple[Path, str]]:
    """Yield each source file with the full name of everything that it imports, also late."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                module = "." * node.level + (node.module or "")
                yield from ((path, f"{module}.{alias.name}") for alias in node.names)
            elif isinstance(node, ast.Name | ast.Attribute):
                name = node.id if isinstance(node, ast.Name) else node.attr
                if name in HIDDEN_IMPORTS:
                    yield path, name


def test_imports_point_down() -> None:
    offenders = []
    for path, name in list_imports():
        module = find_module(path)
        top, *rest = name.split(".")
        target = rest[0] if rest and rest[0] in ROW else "__init__"  # what scripts use
        is_hidden = top in HIDDEN_IMPORTS or not top  # "": a relative import
        points_up = top == "tagger" and module != target and ROW[target] >= ROW[module]
        if is_hidden or points_up:
            offenders.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert offenders == []


def test_each_heavy_library_stays_with_its_owners() -> None:
    offenders = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path, name in list_imports()
        if find_module(path) not in OWNERS.get(name.split(".")[0], {find_module(path)})
    ]
    assert offenders == []


def test_the_plugin_of_beets_uses_what_scripts_use() -> None:
    names = {name for _, name in list_imports(PLUGINS) if name.split(".")[0] == "tagger"}
    assert names == {"tagger", "tagger.tags.EXTENSIONS"}
