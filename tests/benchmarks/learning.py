r"""How right `tagger train --freeze backbone` is with few tracks of each genre, by base model.

    python -m tests.benchmarks.learning --features FEATURES.npz

docs/bundled_model describes the features, from which `Trainer` learns the head as in a training
with default options. Each draw holds out a quarter of the artists, and takes some tracks of each
genre from the others. Genres with fewer tracks than wanted give all that they have. As in `tagger
train`, a tenth of the tracks is the validation part. The accuracy is that on the artists held out.
"""

import argparse
import math
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import EvalPrediction

from docs.bundled_model.fit_head import load_features
from tagger.models import find_base_model
from tagger.settings import Settings
from tagger.training.finetune import (
    Example,
    ExampleList,
    FinetuneTask,
    PartSegments,
    TrainingExamples,
    collate_embeddings,
    compute_pooled_accuracy,
    run_trainer,
)
from tagger.training.network import (
    ClassifierHead,
    find_backbone_name,
    load_trainable_config,
    load_trainable_model,
)
from tagger.training.recipe import Freeze, Recipe, choose_defaults
from tests.benchmarks.gtzan import SilentObserver

INPUTS = {
    "musicnn": ("musicnn_logits", "musicnn_embedding"),
    "musicnn-yamnet": ("tag_logits", "embedding"),
}
"""Base model -> the arrays that its head takes."""

TRACKS = (3, 10, 30)
MIN_CLIPS = 40
HELD_OUT = 0.25


@dataclass(frozen=True, slots=True)
class Clips:
    """Whole pieces of music of the genres that have many, by their numbers in the features."""

    data: dict[str, NDArray[Any]]
    numbers: NDArray[np.int64]
    label: NDArray[np.int64]
    artist: NDArray[np.int64]
    genres: tuple[str, ...]

    def make_part(
        self, rows: NDArray[np.int64], arrays: Sequence[str]
    ) -> tuple[PartSegments, ExampleList]:
        """Return the windows of some clips as inputs of a head."""
        ends = np.cumsum(self.data["windows"])
        counts = self.data["windows"][self.numbers[rows]]
        examples: list[Example] = []
        for row, count in zip(rows.tolist(), counts.tolist(), strict=True):
            end = int(ends[self.numbers[row]])
            for window in range(end - count, end):
                inputs = tuple(torch.from_numpy(self.data[name][window]) for name in arrays)
                examples.append({"embeddings": inputs, "labels": int(self.label[row])})
        labels = tuple(frozenset([number]) for number in self.label[rows].tolist())
        return PartSegments((), tuple(counts.tolist()), labels), ExampleList(examples)


def read_clips(features: Path) -> Clips:
    data = load_features(features)
    data = {name: x.astype(np.float32) if x.dtype.kind == "f" else x for name, x in data.items()}
    is_kept = ~data["gtzan_excerpt"] & ~np.isin(data["genre"], ["", "speech", "sound"])
    names, counts = np.unique(data["genre"][is_kept], return_counts=True)
    genres = names[counts >= MIN_CLIPS]
    numbers = np.flatnonzero(is_kept & np.isin(data["genre"], genres))
    label = np.searchsorted(genres, data["genre"][numbers])
    return Clips(data, numbers, label, data["artist"][numbers], tuple(genres.tolist()))


def draw_rows(clips: Clips, tracks: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the clips to learn from, in random order, and those of the artists held out."""
    generator = np.random.default_rng(seed)
    artists = generator.permutation(np.unique(clips.artist))
    is_out = np.isin(clips.artist, artists[: round(len(artists) * HELD_OUT)])
    order = generator.permutation(np.flatnonzero(~is_out))
    by_genre = [order[clips.label[order] == number] for number in range(len(clips.genres))]
    learned = np.concatenate([rows[:tracks] for rows in by_genre])
    return generator.permutation(learned), np.flatnonzero(is_out)


def train_head(base_model: str, clips: Clips, tracks: int, seed: int) -> float:
    """Return the accuracy of a new head on the artists held out."""
    settings = Settings(model=base_model)
    source = find_base_model(settings)
    recipe = Recipe(base_model=base_model, freeze=Freeze.BACKBONE, seed=seed + 1)
    config, extractor = load_trainable_config(source, recipe, settings)
    recipe = recipe.resolve_auto(choose_defaults(recipe.freeze, config.model_type))
    model = load_trainable_model(source, config, clips.genres, recipe, settings)
    learned, held_out = draw_rows(clips, tracks, seed)
    count = math.ceil(len(learned) * recipe.test_size)
    validation, validation_examples = clips.make_part(learned[:count], INPUTS[base_model])
    train, train_examples = clips.make_part(learned[count:], INPUTS[base_model])
    head = ClassifierHead(model, find_backbone_name(model))
    examples = TrainingExamples(head, train_examples, validation_examples, collate_embeddings)
    with tempfile.TemporaryDirectory() as folder:
        task = FinetuneTask(
            model=model,
            extractor=extractor,
            train=train,
            validation=validation,
            recipe=recipe,
            folder=Path(folder),
            settings=settings,
        )
        run_trainer(task, examples, SilentObserver(), resume=False)
    return measure_accuracy(head, *clips.make_part(held_out, INPUTS[base_model]))


@torch.inference_mode()
def measure_accuracy(head: ClassifierHead, part: PartSegments, examples: ExampleList) -> float:
    """Return the share of clips whose mean logits are highest for their label."""
    batch = collate_embeddings(examples.examples)
    logits = head.eval()(batch["embeddings"])["logits"].numpy()
    output = EvalPrediction(logits, batch["labels"].numpy())
    return compute_pooled_accuracy(output, part)


def report_curve(features: Path, draws: int) -> Iterator[str]:
    clips = read_clips(features)
    counts = np.bincount(clips.label).tolist()
    named = ", ".join(f"{name} {n}" for name, n in zip(clips.genres, counts, strict=True))
    yield f"{len(clips.label)} pieces, {len(np.unique(clips.artist))} artists: {named}"
    yield ""
    yield f"| tracks of each genre | {' | '.join(INPUTS)} |"
    yield f"|---{'|---' * len(INPUTS)}|"
    for tracks in TRACKS:
        columns = [
            [train_head(model, clips, tracks, seed) for seed in range(draws)] for model in INPUTS
        ]
        yield f"| {tracks} | {' | '.join(map(format_range, columns))} |"


def format_range(values: Sequence[float]) -> str:
    """Return the median, and the least and the greatest value, in percent."""
    return f"{np.median(values):.0%} ({min(values):.0%} to {max(values):.0%})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # Trainer and its loader warn
    for line in report_curve(options.features, options.draws):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
