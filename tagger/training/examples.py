"""What a network is trained on: windows of clips, or what a frozen backbone made of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel

from tagger.inference.dataset import choose_jobs, start_worker
from tagger.inference.devices import choose_devices
from tagger.models.extractor import Extractor
from tagger.settings import Settings
from tagger.training.measures import Epoch
from tagger.training.network import Head, backbone_name, embed
from tagger.training.recipe import Freeze, Recipe
from tagger.training.sounds import Collate, Segment, SegmentDataset

Example = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Half:
    """The segments of a half of the data; of each clip, how many there are and what is right."""

    segments: tuple[Segment, ...]
    counts: tuple[int, ...]
    truths: tuple[frozenset[int], ...]


class Tell(Protocol):
    """Told how the training goes; an error of it ends the training."""

    def embedded(self, done: int, of: int) -> None: ...
    def stepped(self, done: int, of: int) -> None: ...
    def epoch(self, epoch: Epoch) -> None: ...


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be trained, on what, and where its checkpoints are kept."""

    model: PreTrainedModel
    extractor: Extractor
    train: Half
    validation: Half
    recipe: Recipe
    folder: Path
    settings: Settings
    tensorboard: bool = False

    @property
    def is_head_alone(self) -> bool:
        return self.recipe.freeze is Freeze.BACKBONE


@dataclass(frozen=True, slots=True)
class Examples:
    """What Trainer is given: a network, and both halves in the form that the network takes."""

    network: nn.Module
    train: Dataset[Any]
    validation: Dataset[Any]
    collate: Callable[[Any], dict[str, Any]]


def segments(task: Task) -> Examples:
    seed, crop_s = task.recipe.seed, task.extractor.window_s if task.recipe.random_crops else None
    train = SegmentDataset(task.train.segments, task.extractor, crop_s=crop_s, seed=seed)
    validation = SegmentDataset(task.validation.segments, task.extractor)
    return Examples(task.model, train, validation, Collate(task.extractor))


def embedded(task: Task, tell: Tell) -> Examples:
    """Listen to every segment once; what is trained is the head alone, on what it gets of them."""
    device = choose_devices(task.settings.device)[0]
    nn.Module.to(task.model, device)
    head = Head(task.model, backbone_name(task.model))
    sounds = segments(task)
    of = len(task.train.segments) + len(task.validation.segments)
    done, found = 0, list[Listed]()
    for half, dataset in ((task.train, sounds.train), (task.validation, sounds.validation)):
        examples: list[Example] = []
        jobs = choose_jobs(task.settings.jobs, slow=True)
        for batch in clip_by_clip(dataset, half, sounds.collate, jobs=jobs):
            labels = batch.pop("labels").tolist()
            made = embed(task.model, head, {name: each.to(device) for name, each in batch.items()})
            examples += _examples(made, labels)
            tell.embedded(done + len(examples), of)
        done += len(examples)
        found.append(Listed(examples))
    train, validation = found
    return Examples(head, train, validation, collate_embeddings)


def _examples(made: Sequence[torch.Tensor], labels: Sequence[int]) -> Iterator[Example]:
    for number, label in enumerate(labels):
        values = tuple(each[number].cpu().clone() for each in made)
        yield {"embeddings": values, "labels": label}


class Listed(Dataset[Example]):
    """Examples that are in memory."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]


def collate_embeddings(examples: Sequence[Example]) -> dict[str, Any]:
    columns = zip(*(example["embeddings"] for example in examples), strict=True)
    labels = torch.tensor([example["labels"] for example in examples])
    return {"embeddings": tuple(torch.stack(column) for column in columns), "labels": labels}


def clip_by_clip(
    dataset: Dataset[Any], half: Half, collate: Callable[[Any], dict[str, Any]], *, jobs: int
) -> DataLoader[Any]:
    """Return a loader whose batches are the segments of one clip each, which are of one length."""
    ends = np.cumsum(half.counts).tolist()
    starts = [0, *ends][:-1]
    return DataLoader(
        dataset,
        batch_sampler=[list(range(*each)) for each in zip(starts, ends, strict=True)],
        collate_fn=collate,
        num_workers=jobs,
        worker_init_fn=start_worker,
    )
