"""The options of a training. The defaults are those of the tutorial.

The tutorial is chapter 4 of Hugging Face's audio course, "Fine-tuning a model for music
classification". The fields of Recipe are the only list of these options. The flags of the command
line are made from them, and recipe.json beside a trained model has their values.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Annotated, TypeVar

from tagger.errors import SettingsError
from tagger.options import (
    Option,
    convert_values,
    list_options,
    make_choice,
    to_count,
    to_count_or_auto,
    to_flag,
    to_probability,
    to_seconds_or_auto,
    to_text,
)

T = TypeVar("T")

DISTILHUBERT = "ntu-spml/distilhubert"


class Freeze(StrEnum):
    """The layers that are not trained: none, the convolutions, or all layers below the head."""

    NONE = "none"
    FEATURE_ENCODER = "feature-encoder"
    BACKBONE = "backbone"


class SplitKind(StrEnum):
    """How the clips are split into a train part and a validation part."""

    RANDOM = "random"
    STRATIFIED = "stratified"
    ALBUM = "album"
    ARTIST = "artist"
    PUBLISHED = "published"


def to_positive(value: object) -> float:
    with suppress(ValueError):
        number = float(str(value))
        if 0 < number < float("inf"):
            return number
    raise ValueError("must be a number above 0")


def to_test_size(value: object) -> float:
    with suppress(ValueError):
        number = to_probability(value)
        if 0 < number < 1:
            return number
    raise ValueError("must be a number between 0 and 1, but not 0 or 1")


def to_seed(value: object) -> int:
    text = str(value)
    if text.isdecimal() and int(text) < 1 << 32:
        return int(text)
    raise ValueError("must be a whole number from 0 to 4294967295")


def allow_auto(convert: Callable[[object], T]) -> Callable[[object], T | None]:
    return lambda value: None if value == "auto" else convert(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The options on which the result of a training depends. None stands for `auto`."""

    base_model: Annotated[
        str, Option(to_text, "The model to fine-tune: a folder, or an id on the Hub.", "ID_OR_DIR")
    ] = DISTILHUBERT
    epochs: Annotated[
        int | None, Option(to_count_or_auto, "The number of passes over all clips.", "N|auto")
    ] = None
    learning_rate: Annotated[
        float | None,
        Option(allow_auto(to_positive), "The highest rate; it falls linearly to 0.", "X|auto"),
    ] = None
    weight_decay: Annotated[
        float | None, Option(allow_auto(to_probability), "The weight decay of AdamW.", "X|auto")
    ] = None
    batch_size: Annotated[int, Option(to_count, "The number of segments in a batch.", "N")] = 8
    gradient_accumulation: Annotated[
        int, Option(to_count, "Batches per step: like a larger batch, with less memory.", "N")
    ] = 1
    warmup: Annotated[
        float, Option(to_probability, "The share of steps in which the learning rate rises.", "X")
    ] = 0.1
    freeze: Annotated[Freeze, make_choice(Freeze, "Layers that keep their weights.")] = Freeze.NONE
    dropout: Annotated[
        float | None,
        Option(allow_auto(to_probability), "Dropout of all layers; auto: the model's.", "X|auto"),
    ] = None
    label_smoothing: Annotated[
        float, Option(to_probability, "The share of a label that all labels get.", "X")
    ] = 0.0
    segment_seconds: Annotated[
        float | None,
        Option(
            to_seconds_or_auto,
            "The length of a segment; the scores of a clip are the mean over its segments.",
            "S|auto",
        ),
    ] = None
    random_crops: Annotated[
        bool, Option(to_flag, "Cut the segments from other places of the clips in each epoch.")
    ] = False
    early_stopping: Annotated[
        int | None,
        Option(to_count_or_auto, "Stop after N epochs that are no better.", "N"),
    ] = None
    gradient_checkpointing: Annotated[
        bool, Option(to_flag, "Save memory: compute the outputs of the layers twice.")
    ] = False
    seed: Annotated[
        int,
        Option(
            to_seed, "Seed of the split, of the new weights and of the order of the clips.", "N"
        ),
    ] = 42
    split: Annotated[
        SplitKind | None,
        Option(
            allow_auto(SplitKind),
            "How to split the clips; auto: published parts, albums with --from-tags, else random.",
            "auto|" + "|".join(SplitKind),
        ),
    ] = None
    test_size: Annotated[
        float, Option(to_test_size, "The share of the clips for validation.", "X")
    ] = 0.1

    def __post_init__(self) -> None:
        if self.random_crops and self.freeze is Freeze.BACKBONE:
            raise SettingsError(
                "--random-crops does not work with --freeze backbone, which embeds each clip once"
            )
        if self.dropout is not None and self.freeze is Freeze.BACKBONE:
            raise SettingsError(
                "--dropout does not work with --freeze backbone, which trains no layer with dropout"
            )

    def resolve_auto(self, defaults: "RecipeDefaults") -> "Recipe":
        """Return the recipe with the defaults in place of `auto`."""
        return replace(
            self,
            epochs=self.epochs or defaults.epochs,
            learning_rate=self.learning_rate or defaults.learning_rate,
            weight_decay=defaults.weight_decay if self.weight_decay is None else self.weight_decay,
        )

    def format_options(self) -> Mapping[str, str]:
        """Return each option as it is given on the command line."""
        return {
            name.replace("_", "-"): "auto" if value is None else str(value)
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True, slots=True)
class RecipeDefaults:
    """The values that `auto` stands for."""

    epochs: int
    learning_rate: float
    weight_decay: float


TUTORIAL_DEFAULTS = RecipeDefaults(epochs=10, learning_rate=5e-5, weight_decay=0.0)
HEAD_ONLY_DEFAULTS = RecipeDefaults(epochs=20, learning_rate=3e-3, weight_decay=0.01)
"""One small new layer learns; the layers below it do not change."""
DEFAULTS_BY_MODEL_TYPE = {
    # for all layers; with 1e-3 the model learns a hundred clips by heart in three epochs
    "musicnn": RecipeDefaults(epochs=10, learning_rate=1e-4, weight_decay=0.01)
}
"""The defaults of models that train better with other values than those of the tutorial."""


def choose_defaults(freeze: Freeze, model_type: str) -> RecipeDefaults:
    if freeze is Freeze.BACKBONE:
        return HEAD_ONLY_DEFAULTS
    return DEFAULTS_BY_MODEL_TYPE.get(model_type, TUTORIAL_DEFAULTS)


RECIPE_OPTIONS = list_options(Recipe)


def make_recipe(flags: Mapping[str, object]) -> Recipe:
    """Return the recipe of the flags that the user gave. Raises SettingsError."""
    return Recipe(
        **convert_values(
            RECIPE_OPTIONS, {name: (value, f"--{name}") for name, value in flags.items()}
        )
    )
