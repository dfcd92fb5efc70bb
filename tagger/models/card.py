"""The model card of a trained model: its data, recipe and scores, for people and for the Hub.

Names and labels come from data of unknown origin, so all are escaped: none can become markup.
"""

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tagger.errors import ModelError
from tagger.models.sources import BUNDLED_MODELS
from tagger.paths import display_path, to_one_line, write_file_whole

PIPELINE_TASK = "audio-classification"

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
"""The id of a model or data set on the Hub, which the Hub's page links to."""

MARKDOWN_CHARACTERS = re.compile(r"([\\`*_{}\[\]<>#|~&!$])")

CARD_PICTURES = {
    "curves.png": "the course of training",
    "measures.png": "confusion and calibration",
}
"""Pictures that may be in a model's folder, and what they show."""


@dataclass(frozen=True, slots=True)
class CardScores:
    """How good the model is on clips that it did not learn from.

    low, high: the 95 % confidence interval of the accuracy. chose: whether the checkpoint was
    chosen by these clips too, so that the scores are a little too high.
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
    """The content of a model card.

    name: the repository, or the folder of a model that is not pushed. base, dataset: ids on the
    Hub, or other names. data: facts, such as the clips in each part and how the data set was split.
    leaks: what was found in more than one part, a line each. recipe: options and values. epochs,
    genres: rows of tables; all rows of a table have the same keys, which become its header. limits:
    lines to add to the limits that every such model has.
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
    """Write the card of the model in this folder, as README.md. Raises ModelError."""
    pictures = [name for name in CARD_PICTURES if (folder / name).is_file()]
    text = "\n".join(["---", _make_metadata(card), "---\n", *_make_body(card, pictures)])
    path = folder / "README.md"
    try:
        write_file_whole(path, text.encode())
    except OSError as error:
        raise ModelError(f"cannot write {display_path(path)}: {error.strerror}") from error


def _make_metadata(card: CardContent) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    name, dataset = (
        to_one_line(each).rpartition("/")[2] or "model" for each in (card.name, card.dataset)
    )
    metrics = {
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
            metric_type=metric,
            metric_name=title,
            metric_value=round(value, 4),
        )
        for metric, (title, value) in metrics.items()
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
        f"{_escape_markdown(card.base)}, fine-tuned on {_escape_markdown(card.dataset)} by tagger"
        f" to tell {len(card.labels)} genres of music apart:"
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
    bundled = BUNDLED_MODELS.get(card.model_type)
    package = bundled.package if bundled else ""
    register = f"import {package}\n\n{package}.register()\n\n" if package else ""
    name = to_one_line(card.name)
    yield "## How to use it\n"
    yield (
        f"```python\n{register}from transformers import pipeline\n\n"
        f"classify = pipeline({json.dumps(PIPELINE_TASK)}, model={json.dumps(name)})\n"
        'classify("song.mp3")\n```\n'
    )
    if register:
        yield "The model's code is part of tagger, which must be installed.\n"
    yield "To write the genres of a whole library into its files:\n"
    yield f"```sh\ntagger scan ~/Music --model {shlex.quote(name)}\n```\n"


def _list_limits(card: CardContent) -> Iterator[str]:
    if card.scores.chose:
        yield (
            "The checkpoint was chosen by the clips that were measured: on other music, the scores"
            " will be a little lower."
        )
    yield (
        f"The scores are those of {card.scores.clips} clips. The interval assumes that clips are"
        " independent; those of one artist or album are not quite."
    )
    yield (
        "The genres are those of one collection and of the people who labelled it. On other music,"
        " and by other definitions of a genre, the model will be worse. It always answers with one"
        " of its labels."
    )
    yield from card.limits


def _make_table(rows: Sequence[Mapping[str, object]]) -> Iterator[str]:
    if rows:
        keys = list(rows[0])
        cells = [[_escape_markdown(row.get(key, "")) for key in keys] for row in rows]
        lines = [[_escape_markdown(key) for key in keys], ["---"] * len(keys), *cells]
        yield "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _make_list(lines: Iterable[str]) -> Iterator[str]:
    if items := [f"- {_escape_markdown(line)}" for line in lines]:
        yield "\n".join(items) + "\n"


def _escape_markdown(value: object) -> str:
    """Return a value as text without any Markdown in it."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return MARKDOWN_CHARACTERS.sub(r"\\\1", to_one_line(text))
