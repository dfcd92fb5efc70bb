"""The `musicnn-gtzan` recipe, cross-validated: python tests/benchmarks/gtzan.py FOLDER.

FOLDER has a folder for each genre. musicnn embeds every clip once. Then its head is trained ten
times on nine tenths of the clips and measured on the rest, with the default options of `tagger
train --base-model musicnn --freeze backbone`. The accuracy is that after the last epoch, so that
the measured clips do not choose the epoch.
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
    PartSegments,
    TrainingExamples,
    make_embedding_examples,
    run_trainer,
)
from tagger.training.job import TrainingPlan, TrainingRequest, make_part_segments, prepare_training
from tagger.training.network import load_trainable_model
from tagger.training.recipe import Freeze, Recipe
from tagger.training.splits import Split

FOLDS = 10
NO_SEGMENTS = PartSegments((), (), ())


class SilentObserver:
    """Shows no progress."""

    def _ignore(self, *_: object) -> None: ...

    on_decoded = on_download = on_embedded = on_step = on_evaluated = _ignore

    def on_epoch(self, epoch: EpochMeasures) -> None: ...


def select_clips(
    part: PartSegments, examples: Sequence[Example], clips: Sequence[int]
) -> tuple[PartSegments, ExampleList]:
    """Return some of the clips of a part, and their examples."""
    starts = np.cumsum([0, *part.counts])
    chosen = [n for clip in clips for n in range(starts[clip], starts[clip + 1])]
    counts = tuple(part.counts[clip] for clip in clips)
    label_numbers = tuple(part.label_numbers[clip] for clip in clips)
    return PartSegments((), counts, label_numbers), ExampleList([examples[n] for n in chosen])


def measure_accuracies(plan: TrainingPlan, folder: Path, seeds: int) -> list[float]:
    """Return the accuracy of a tenfold cross-validation for each seed."""
    request = plan.request
    model = load_trainable_model(
        request.source, plan.config, plan.labels, plan.recipe, request.settings
    )
    whole = make_part_segments(plan.dataset.clips, plan)
    task = FinetuneTask(
        model=model,
        extractor=plan.extractor,
        train=whole,
        validation=NO_SEGMENTS,
        recipe=plan.recipe,
        folder=folder,
        settings=request.settings,
    )
    embedded = make_embedding_examples(task, SilentObserver())
    examples = [embedded.train[number] for number in range(len(whole.segments))]
    labels = [min(numbers) for numbers in whole.label_numbers]
    accuracies = []
    for seed in range(seeds):
        correct = 0.0
        for train, validation in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(
            labels, labels
        ):
            part, measured = select_clips(whole, examples, validation.tolist())
            _, learned = select_clips(whole, examples, train.tolist())
            fold = replace(task, validation=part, recipe=replace(task.recipe, seed=seed + 1))
            network = copy.deepcopy(embedded.network)
            epochs = run_trainer(
                fold,
                TrainingExamples(network, learned, measured, embedded.collate),
                SilentObserver(),
                resume=False,
            )
            correct += epochs[-1].accuracy * len(validation)
        accuracies.append(correct / len(labels))
        print(f"seed {seed}: {accuracies[-1]:.1%}", flush=True)
    return accuracies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # Trainer and its loader warn
    settings = Settings(model="musicnn")
    recipe = Recipe(base_model="musicnn", freeze=Freeze.BACKBONE)
    with tempfile.TemporaryDirectory() as folder:
        request = TrainingRequest(
            source=find_base_model(settings),
            recipe=recipe,
            settings=settings,
            folder=Path(folder),
            cache=Path(folder) / "decoded",
            split_dataset=lambda dataset: Split(dataset.clips, (), (), "none"),
        )
        plan = prepare_training(
            request, read_dataset(arguments.folder, settings, {}), SilentObserver(), download=False
        )
        accuracies = measure_accuracies(plan, Path(folder), arguments.seeds)
    print(f"{np.mean(accuracies):.1%}, standard deviation over seeds {np.std(accuracies):.1%}")


if __name__ == "__main__":
    main()
