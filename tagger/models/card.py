"""The model card: what a trained model is, learned from, and is worth, for people and for the Hub.

Names and labels come from data that anybody may have made: none of them can become markup.
"""

import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tagger.errors import ModelError
from tagger.paths import display_path

PIPELINE_TASK = "audio-classification"

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
"""What the Hub takes for a model or a data set of its own, and links to."""

MARKDOWN_CHARACTERS = re.compile(r"([\\`*_{}\[\]<>#|~&!$])")

CARD_PICTURES = {
    "curves.png": "the course of training",
    "measures.png": "confusion and calibration",
}
"""What may lie in a model's folder, and what it shows."""

REGISTER_CODE = "import tagger.models.musicnn\n\ntagger.models.musicnn.register()\n\n"


@dataclass(frozen=True, slots=True)
class CardScores:
    """What the model is worth on clips that it did not learn from.

    low, high: the 95 % confidence interval of the accuracy. chose: whether these clips also chose
    the checkpoint, so that the measures flatter it.
    """

    accuracy: float
    low: float
    high: float
    clips: int
    macro_f1: float
    ece: float
    chose: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CardContent:
    """What a model card tells.

    name: the repository, or the folder of a model that is not pushed. base, dataset: ids on the
    Hub, or how people call them. data: facts such as how many clips are in each half and how they
    were parted. leaks: what was found in both halves, a line each. recipe: options and values.
    epochs, genres: rows of tables, all with the same keys, which become the heads. limits: lines
    to add to those that hold for every such model.
    """

    name: str
    base: str
    dataset: str
    model_type: str
    labels: tuple[str, ...]
    scores: CardScores
    data: Mapping[str, object]
    recipe: Mapping[str, object]
    epochs: Sequence[Mapping[str, object]] = ()
    genres: Sequence[Mapping[str, object]] = ()
    leaks: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()


def write_card(folder: Path, card: CardContent) -> None:
    """Write the card of the model in a folder, as its README.md. Raises ModelError."""
    pictures = [name for name in CARD_PICTURES if (folder / name).is_file()]
    text = "\n".join(["---", _make_metadata(card), "---\n", *_make_body(card, pictures)])
    path = folder / "README.md"
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, "utf-8")
        part.replace(path)
    except OSError as error:
        raise ModelError(f"cannot write {display_path(path)}: {error.strerror}") from error


def _make_metadata(card: CardContent) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    name, dataset = (
        _to_one_line(each).rpartition("/")[2] or "model" for each in (card.name, card.dataset)
    )
    measures = {
        "accuracy": ("Accuracy", card.scores.accuracy),
        "f1": ("Macro F1", card.scores.macro_f1),
        "ece": ("Expected calibration error", card.scores.ece),
    }
    results = [
        EvalResult(
            task_type=PIPELINE_TASK,
            task_name="Audio Classification",
            dataset_type=card.dataset if HUB_ID.fullmatch(card.dataset) else dataset,
            dataset_name=dataset,
            metric_type=kind,
            metric_name=called,
            metric_value=round(value, 4),
        )
        for kind, (called, value) in measures.items()
    ]
    data = ModelCardData(
        base_model=card.base if HUB_ID.fullmatch(card.base) else None,
        datasets=[card.dataset] if HUB_ID.fullmatch(card.dataset) else None,
        eval_results=results,
        library_name="transformers",
        metrics=["accuracy", "f1"],
        model_name=name,
        pipeline_tag=PIPELINE_TASK,
        tags=[PIPELINE_TASK, "music", "genre", "tagger"],
    )
    return str(data.to_yaml())


def _make_body(card: CardContent, pictures: Iterable[str]) -> Iterator[str]:
    scores = card.scores
    yield f"# {_escape_markdown(card.name)}\n"
    yield (
        f"{_escape_markdown(card.base)}, fine-tuned on {_escape_markdown(card.dataset)} by tagger to hear which of"
        f" {len(card.labels)} genres a piece of music is:"
        f" {', '.join(_escape_markdown(label) for label in card.labels)}.\n"
    )
    yield from _make_usage(card)
    yield "## Data\n"
    yield from _make_table(
        [{"": key, "of the data set": value} for key, value in card.data.items()]
    )
    yield from _make_list(card.leaks)
    yield "## Recipe\n"
    yield from _make_table([{"option": key, "value": value} for key, value in card.recipe.items()])
    yield "## Scores\n"
    yield (
        f"Accuracy {scores.accuracy:.1%} of {scores.clips} clips (95 % confidence interval:"
        f" {scores.low:.1%} to {scores.high:.1%}), macro-F1 {scores.macro_f1:.3f}, expected"
        f" calibration error {scores.ece:.3f}.\n"
    )
    yield from _make_table(card.genres)
    yield from _make_table(card.epochs)
    yield from (f"![{CARD_PICTURES[name]}]({name})\n" for name in pictures)
    yield "## Limits\n"
    yield from _make_list(_list_limits(card))


def _make_usage(card: CardContent) -> Iterator[str]:
    register = REGISTER_CODE if card.model_type == "musicnn" else ""
    name = _to_one_line(card.name)
    yield "## How to use it\n"
    yield (
        f"```python\n{register}from transformers import pipeline\n\n"
        f"classify = pipeline({json.dumps(PIPELINE_TASK)}, model={json.dumps(name)})\n"
        'classify("song.mp3")\n```\n'
    )
    if register:
        yield "The model's code is part of tagger, which must be installed.\n"
    yield "Or for a whole library, its genres written into the files:\n"
    yield f"```sh\ntagger scan ~/Music --model {shlex.quote(name)}\n```\n"


def _list_limits(card: CardContent) -> Iterator[str]:
    if card.scores.chose:
        yield (
            "The clips that were measured also chose the checkpoint: music that had no part in the"
            " choice will be heard a little worse."
        )
    yield (
        f"The measures are those of {card.scores.clips} clips, and the interval takes them for"
        " independent; those of one artist or album are not quite."
    )
    yield (
        "The genres are those of one collection and of the people who labelled it: other music, and"
        " other notions of a genre, will be met less well. The answer is always one of the labels."
    )
    yield from card.limits


def _make_table(rows: Sequence[Mapping[str, object]]) -> Iterator[str]:
    if rows:
        heads = list(rows[0])
        cells = [[_escape_markdown(row.get(head, "")) for head in heads] for row in rows]
        lines = [[_escape_markdown(head) for head in heads], ["---"] * len(heads), *cells]
        yield "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _make_list(lines: Iterable[str]) -> Iterator[str]:
    if items := [f"- {_escape_markdown(line)}" for line in lines]:
        yield "\n".join(items) + "\n"


def _escape_markdown(value: object) -> str:
    """Return a value as text that Markdown takes for nothing else."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return MARKDOWN_CHARACTERS.sub(r"\\\1", _to_one_line(text))


def _to_one_line(text: str) -> str:
    shown = os.fsencode(text).decode("utf-8", "backslashreplace")
    return " ".join("".join(char if char.isprintable() else " " for char in shown).split())
