"""What the README says of options, suffixes, labels and exit codes is what the program has."""

import json
import re
from pathlib import Path

from tagger import errors
from tagger.cli.options import format_default, get_default_text
from tagger.models.musicnn import CHECKPOINT
from tagger.options import Option
from tagger.settings import OPTIONS
from tagger.tags import EXTENSIONS
from tagger.training import recipe
from tagger.training.recipe import Recipe

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


SCANNING, TRAINING = README.split("\n## Training a model\n")

Row = tuple[str, str, str]


def rows(text: str) -> list[Row]:
    return re.findall(r"^\| ((?:`-\w`, )?`--.*?`) \| (.*?) \| ?(.*?) ?\|$", text, re.MULTILINE)


def row(name: str, option: Option, default: str) -> Row:
    short = f"`{option.short}`, " if option.short else ""
    values = f" {option.values}".replace("|", "\\|") if option.values else ""
    return f"{short}`--{name}{values}`", option.help, f"`{default}`" if default else ""


def test_the_option_table_is_the_list_of_settings() -> None:
    expected = [row(name, option, get_default_text(name)) for name, option in OPTIONS.items()]
    state = [(*each[:2], "in the user's state folder") for each in expected if "--state" in each[0]]
    assert rows(SCANNING) == [state[0] if "--state" in each[0] else each for each in expected]


def test_the_option_table_of_a_training_is_the_recipe() -> None:
    assert rows(TRAINING) == [
        row(name, option, format_default(option, getattr(Recipe(), name.replace("-", "_"))))
        for name, option in recipe.RECIPE_OPTIONS.items()
    ]


def test_every_suffix_and_label_is_named() -> None:
    config = json.loads((CHECKPOINT / "config.json").read_text("utf-8"))
    genres = [config["id2label"][str(number)] for number in range(len(config["id2label"]))]
    containers = " ".join(re.findall(r"^\| \w+.* \((.*?)\) \| `", README, re.MULTILINE))
    assert {f".{name}" for name in re.findall(r"\w+", containers)} >= EXTENSIONS
    assert ", ".join(genres) in re.sub(r"\s+", " ", README)


def test_the_exit_codes_of_all_errors_are_explained() -> None:
    explained = {
        int(code)
        for row in re.findall(r"^\| ([\d /]+) \|", README, re.MULTILINE)
        for code in row.split("/")
    }
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    raised = {kind.exit_code for kind in classes if issubclass(kind, errors.TaggerError)}
    assert explained == raised | {0, 1}
