"""What the README says of options, suffixes, labels and exit codes is what the program has."""

import re
from pathlib import Path

from tagger import errors
from tagger.cli.options import default_of
from tagger.models.musicnn.head import LABELS
from tagger.settings import OPTIONS
from tagger.tags import EXTENSIONS

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


def test_the_option_table_is_the_list_of_settings() -> None:
    rows = re.findall(r"^\| ((?:`-\w`, )?`--.*?`) \| (.*?) \| ?(.*?) ?\|$", README, re.MULTILINE)
    expected = []
    for name, option in OPTIONS.items():
        short = f"`{option.short}`, " if option.short else ""
        values = f" {option.values}".replace("|", "\\|") if option.values else ""
        default = f"`{default_of(name)}`" if default_of(name) else ""
        if name == "state":
            default = "in the user's state folder"
        expected.append((f"{short}`--{name}{values}`", option.help, default))
    assert rows == expected


def test_every_suffix_and_label_is_named() -> None:
    containers = " ".join(re.findall(r"^\| \w+.* \((.*?)\) \| `", README, re.MULTILINE))
    assert {f".{name}" for name in re.findall(r"\w+", containers)} >= EXTENSIONS
    assert ", ".join(LABELS) in re.sub(r"\s+", " ", README)


def test_the_exit_codes_of_all_errors_are_explained() -> None:
    explained = {
        int(code)
        for row in re.findall(r"^\| ([\d /]+) \|", README, re.MULTILINE)
        for code in row.split("/")
    }
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    raised = {kind.exit_code for kind in classes if issubclass(kind, errors.TaggerError)}
    assert explained == raised | {0, 1}
