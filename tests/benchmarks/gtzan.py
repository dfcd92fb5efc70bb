"""The `musicnn-gtzan` recipe, cross-validated: python tests/benchmarks/gtzan.py FOLDER.

FOLDER has a folder for each genre. musicnn listens to every clip once; then its head is trained ten
times on nine tenths of the clips and asked about the rest, with the options that `tagger train
--base-model musicnn --freeze backbone` has by default. What counts is the accuracy after the last
epoch, so that the clips asked about choose nothing.
"""

import argparse
import copy
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedKFold

from tagger.models import find_base_model
from tagger.settings import Settings
from tagger.training.datasets import read_dataset
from tagger.training.evaluate import EpochMeasures
from tagger.training.finetune import (
    Example,
    ExampleList,
    FinetuneTask,
    SplitSegments,
    TrainingExamples,
    make_embedded_examples,
    run_trainer,
)
from tagger.training.job import TrainingPlan, TrainingRequest, make_split_segments, prepare_training
from tagger.training.network import load_trainable_model
from tagger.training.recipe import Freeze, Recipe
from tagger.training.splits import Split

FOLDS = 10
NOBODY = SplitSegments((), (), ())


class Silence:
    """Says nothing about how it goes."""

    def _ignore(self, *_: object) -> None: ...

    on_decoded = on_download = on_embedded = on_step = on_evaluated = _ignore

    def on_epoch(self, epoch: EpochMeasures) -> None: ...


def part(
    half: SplitSegments, examples: Sequence[Example], clips: Sequence[int]
) -> tuple[SplitSegments, ExampleList]:
    """Return some of the clips of a half, and their examples."""
    starts = np.cumsum([0, *half.counts])
    chosen = [n for clip in clips for n in range(starts[clip], starts[clip + 1])]
    counts = tuple(half.counts[clip] for clip in clips)
    truths = tuple(half.truths[clip] for clip in clips)
    return SplitSegments((), counts, truths), ExampleList([examples[n] for n in chosen])


def accuracies(plans: TrainingPlan, folder: Path, seeds: int) -> list[float]:
    """Return the share of right answers of each seed's tenfold cross-validation."""
    request = plans.request
    model = load_trainable_model(
        request.source, plans.config, plans.labels, plans.recipe, request.settings
    )
    whole = make_split_segments(plans.dataset.clips, plans)
    task = FinetuneTask(
        model=model,
        extractor=plans.extractor,
        train=whole,
        validation=NOBODY,
        recipe=plans.recipe,
        folder=folder,
        settings=request.settings,
    )
    heard = make_embedded_examples(task, Silence())
    examples = [heard.train[number] for number in range(len(whole.segments))]
    labels = [min(truth) for truth in whole.truths]
    found = []
    for seed in range(seeds):
        right = 0.0
        for train, held in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(
            labels, labels
        ):
            half, asked = part(whole, examples, held.tolist())
            _, learned = part(whole, examples, train.tolist())
            fold = replace(task, validation=half, recipe=replace(task.recipe, seed=seed + 1))
            network = copy.deepcopy(heard.network)
            epochs = run_trainer(
                fold,
                TrainingExamples(network, learned, asked, heard.collate),
                Silence(),
                resume=False,
            )
            right += epochs[-1].accuracy * len(held)
        found.append(right / len(labels))
        print(f"seed {seed}: {found[-1]:.1%}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # of Trainer's and its loader's
    settings = Settings(model="musicnn")
    recipe = Recipe(base_model="musicnn", freeze=Freeze.BACKBONE)
    with tempfile.TemporaryDirectory() as folder:
        request = TrainingRequest(
            source=find_base_model(settings),
            recipe=recipe,
            settings=settings,
            folder=Path(folder),
            cache=Path(folder) / "decoded",
            divide=lambda dataset: Split(dataset.clips, (), (), "none"),
        )
        plans = prepare_training(
            request, read_dataset(arguments.folder, settings, {}), Silence(), download=False
        )
        found = accuracies(plans, Path(folder), arguments.seeds)
    print(f"{np.mean(found):.1%}, standard deviation over seeds {np.std(found):.1%}")


if __name__ == "__main__":
    main()
