"""How a model is fine-tuned: the options of a training, by default those of the tutorial.

The tutorial is chapter 4 of Hugging Face's audio course, "Fine-tuning a model for music
classification". The fields of Recipe are the one list of these options: the command line makes its
flags of them, and they are noted beside the result.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Annotated, TypeVar

from tagger.errors import SettingsError
from tagger.models.sources import BUNDLED_MODELS
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
    """What keeps its weights: nothing, the convolutions below the transformer, all but the head."""

    NONE = "none"
    FEATURE_ENCODER = "feature-encoder"
    BACKBONE = "backbone"


class SplitKind(StrEnum):
    """How the clips are parted into a half to learn from and one that is held out."""

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


def to_open_share(value: object) -> float:
    with suppress(ValueError):
        number = to_probability(value)
        if 0 < number < 1:
            return number
    raise ValueError("must be a number between 0 and 1, and neither of the two")


def to_seed(value: object) -> int:
    text = str(value)
    if text.isdecimal() and int(text) < 1 << 32:
        return int(text)
    raise ValueError("must be a whole number from 0 to 4294967295")


def allow_auto(read: Callable[[object], T]) -> Callable[[object], T | None]:
    return lambda value: None if value == "auto" else read(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All that a training depends on, beside the data. None stands for `auto`."""

    base_model: Annotated[
        str, Option(to_text, "What is fine-tuned: a folder, or an id on the Hub.", "ID_OR_DIR")
    ] = DISTILHUBERT
    epochs: Annotated[
        int | None, Option(to_count_or_auto, "How often each clip is learned from.", "N|auto")
    ] = None
    learning_rate: Annotated[
        float | None,
        Option(allow_auto(to_positive), "The highest one; it falls linearly to 0.", "X|auto"),
    ] = None
    weight_decay: Annotated[
        float | None, Option(allow_auto(to_probability), "AdamW's weight decay.", "X|auto")
    ] = None
    batch_size: Annotated[int, Option(to_count, "Segments in a batch.", "N")] = 8
    gradient_accumulation: Annotated[
        int, Option(to_count, "Batches to a step: a larger batch without its memory.", "N")
    ] = 1
    warmup: Annotated[
        float, Option(to_probability, "The share of steps in which the rate rises.", "X")
    ] = 0.1
    freeze: Annotated[Freeze, make_choice(Freeze, "What keeps its weights.")] = Freeze.NONE
    dropout: Annotated[
        float | None,
        Option(allow_auto(to_probability), "Of all layers; auto: as the model says.", "X|auto"),
    ] = None
    label_smoothing: Annotated[
        float, Option(to_probability, "How much of a label goes to all the others.", "X")
    ] = 0.0
    segment_seconds: Annotated[
        float | None,
        Option(
            to_seconds_or_auto,
            "How long segments are; a clip's scores are pooled over its segments.",
            "S|auto",
        ),
    ] = None
    random_crops: Annotated[
        bool, Option(to_flag, "Learn from segments that lie elsewhere in each epoch.")
    ] = False
    early_stopping: Annotated[
        int | None,
        Option(to_count_or_auto, "Stop after so many epochs without a better accuracy.", "N"),
    ] = None
    gradient_checkpointing: Annotated[
        bool, Option(to_flag, "Calculate layers twice instead of remembering them.")
    ] = False
    seed: Annotated[int, Option(to_seed, "Of the split, the new weights and the order.", "N")] = 42
    split: Annotated[
        SplitKind | None,
        Option(
            allow_auto(SplitKind),
            "How clips are held out; auto: as published, by album with --from-tags, else random.",
            "auto|" + "|".join(SplitKind),
        ),
    ] = None
    test_size: Annotated[
        float, Option(to_open_share, "The share of the clips that is held out.", "X")
    ] = 0.1

    def __post_init__(self) -> None:
        if self.random_crops and self.freeze is Freeze.BACKBONE:
            raise SettingsError(
                "--random-crops does not go with --freeze backbone, which hears each clip once"
            )

    def settled(self, defaults: "RecipeDefaults") -> "Recipe":
        """Return the recipe with numbers where it said `auto`."""
        return replace(
            self,
            epochs=self.epochs or defaults.epochs,
            learning_rate=self.learning_rate or defaults.learning_rate,
            weight_decay=defaults.weight_decay if self.weight_decay is None else self.weight_decay,
        )

    def as_text(self) -> Mapping[str, str]:
        """Return each option as the command line takes it."""
        return {
            name.replace("_", "-"): "auto" if value is None else str(value)
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True, slots=True)
class RecipeDefaults:
    """What `auto` stands for."""

    epochs: int
    learning_rate: float
    weight_decay: float


TUTORIAL_DEFAULTS = RecipeDefaults(epochs=10, learning_rate=5e-5, weight_decay=0.0)
HEAD_ONLY_DEFAULTS = RecipeDefaults(epochs=20, learning_rate=3e-3, weight_decay=0.01)
"""A single layer, new and small: what was known before it stays as it is."""
BUNDLED_MODEL_DEFAULTS = RecipeDefaults(epochs=10, learning_rate=1e-4, weight_decay=0.01)
"""All layers; with 1e-3 a hundred clips are learned by heart in three epochs."""


def choose_defaults(freeze: Freeze, model_type: str) -> RecipeDefaults:
    if freeze is Freeze.BACKBONE:
        return HEAD_ONLY_DEFAULTS
    return BUNDLED_MODEL_DEFAULTS if model_type in BUNDLED_MODELS else TUTORIAL_DEFAULTS


RECIPE_OPTIONS = list_options(Recipe)


def make_recipe(flags: Mapping[str, object]) -> Recipe:
    """Read the flags that were given. Raises SettingsError."""
    return Recipe(
        **convert_values(
            RECIPE_OPTIONS, {name: (value, f"--{name}") for name, value in flags.items()}
        )
    )
