"""Cross-validate the `musicnn-gtzan` recipe: python tests/benchmarks/gtzan.py FOLDER.

FOLDER has a folder for each genre. The towers of musicnn embed every clip once. Then a head is
trained ten times on nine tenths of the clips and evaluated on the rest, with the defaults of
`tagger train --base-model musicnn --freeze backbone`. The result is the accuracy after the last
epoch, so the evaluated clips choose nothing.
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
NO_SEGMENTS = SplitSegments((), (), ())


class SilentObserver:
    """Ignores the progress of the training."""

    def _ignore(self, *_: object) -> None: ...

    on_decoded = on_download = on_embedded = on_step = on_evaluated = _ignore

    def on_epoch(self, epoch: EpochMeasures) -> None: ...


def select_clips(
    segments: SplitSegments, examples: Sequence[Example], clips: Sequence[int]
) -> tuple[SplitSegments, ExampleList]:
    """Return some of the clips of a part, and their examples."""
    starts = np.cumsum([0, *segments.counts])
    chosen = [n for clip in clips for n in range(starts[clip], starts[clip + 1])]
    counts = tuple(segments.counts[clip] for clip in clips)
    truths = tuple(segments.truths[clip] for clip in clips)
    return SplitSegments((), counts, truths), ExampleList([examples[n] for n in chosen])


def cross_validate(plans: TrainingPlan, folder: Path, seeds: int) -> list[float]:
    """Return the accuracy of the tenfold cross-validation with each seed."""
    request = plans.request
    model = load_trainable_model(
        request.source, plans.config, plans.labels, plans.recipe, request.settings
    )
    whole = make_split_segments(plans.dataset.clips, plans)
    task = FinetuneTask(
        model=model,
        extractor=plans.extractor,
        train=whole,
        validation=NO_SEGMENTS,
        recipe=plans.recipe,
        folder=folder,
        settings=request.settings,
    )
    embedded = make_embedded_examples(task, SilentObserver())
    examples = [embedded.train[number] for number in range(len(whole.segments))]
    labels = [min(truth) for truth in whole.truths]
    accuracies = []
    for seed in range(seeds):
        right = 0.0
        for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(
            labels, labels
        ):
            validation, test_examples = select_clips(whole, examples, test.tolist())
            _, train_examples = select_clips(whole, examples, train.tolist())
            fold = replace(task, validation=validation, recipe=replace(task.recipe, seed=seed + 1))
            network = copy.deepcopy(embedded.network)
            epochs = run_trainer(
                fold,
                TrainingExamples(network, train_examples, test_examples, embedded.collate),
                SilentObserver(),
                resume=False,
            )
            right += epochs[-1].accuracy * len(test)
        accuracies.append(right / len(labels))
        print(f"seed {seed}: {accuracies[-1]:.1%}", flush=True)
    return accuracies


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
            request, read_dataset(arguments.folder, settings, {}), SilentObserver(), download=False
        )
        accuracies = cross_validate(plans, Path(folder), arguments.seeds)
    print(f"{np.mean(accuracies):.1%}, standard deviation over seeds {np.std(accuracies):.1%}")


if __name__ == "__main__":
    main()
