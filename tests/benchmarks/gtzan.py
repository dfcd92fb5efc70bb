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

from tagger.models import find_base
from tagger.settings import Settings
from tagger.training.examples import Example, Examples, Half, Listed, Task, embedded
from tagger.training.finetune import fit
from tagger.training.measures import Epoch
from tagger.training.network import load_model
from tagger.training.plans import Plans, Request, half_of, prepare
from tagger.training.reading import read_dataset
from tagger.training.recipe import Freeze, Recipe
from tagger.training.splits import Split

FOLDS = 10
NOBODY = Half((), (), ())


class Silence:
    """Says nothing about how it goes."""

    def _ignore(self, *_: object) -> None: ...

    decoded = fetching = embedded = stepped = measured = _ignore

    def epoch(self, epoch: Epoch) -> None: ...


def part(half: Half, examples: Sequence[Example], clips: Sequence[int]) -> tuple[Half, Listed]:
    """Return some of the clips of a half, and their examples."""
    starts = np.cumsum([0, *half.counts])
    chosen = [n for clip in clips for n in range(starts[clip], starts[clip + 1])]
    counts = tuple(half.counts[clip] for clip in clips)
    truths = tuple(half.truths[clip] for clip in clips)
    return Half((), counts, truths), Listed([examples[n] for n in chosen])


def accuracies(plans: Plans, folder: Path, seeds: int) -> list[float]:
    """Return the share of right answers of each seed's tenfold cross-validation."""
    request = plans.request
    model = load_model(request.source, plans.config, plans.labels, plans.recipe, request.settings)
    whole = half_of(plans.dataset.clips, plans)
    task = Task(
        model=model,
        extractor=plans.extractor,
        train=whole,
        validation=NOBODY,
        recipe=plans.recipe,
        folder=folder,
        settings=request.settings,
    )
    heard = embedded(task, Silence())
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
            epochs = fit(
                fold, Examples(network, learned, asked, heard.collate), Silence(), resume=False
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
        request = Request(
            source=find_base(settings),
            recipe=recipe,
            settings=settings,
            folder=Path(folder),
            cache=Path(folder) / "decoded",
            divide=lambda dataset: Split(dataset.clips, (), (), "none"),
        )
        plans = prepare(
            request, read_dataset(arguments.folder, settings, {}), Silence(), download=False
        )
        found = accuracies(plans, Path(folder), arguments.seeds)
    print(f"{np.mean(found):.1%}, standard deviation over seeds {np.std(found):.1%}")


if __name__ == "__main__":
    main()
