"""The training itself: transformers' Trainer over decoded windows, or over embeddings of them."""

import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations.integration_utils import TensorBoardCallback

from tagger.errors import DiskFullError, MissingExtraError, ModelError, SettingsError, TaggerError
from tagger.inference.dataset import choose_jobs
from tagger.inference.devices import BF16_FROM, choose_devices, is_out_of_memory
from tagger.models.extractor import Extractor
from tagger.records import displayed
from tagger.settings import Precision, Settings
from tagger.training.measures import Epoch
from tagger.training.network import Head, backbone_name, embed
from tagger.training.recipe import Recipe
from tagger.training.sounds import Collate, Segment, SegmentDataset

CHECKPOINTS = "checkpoints"
STATE = "trainer_state.json"
EMBEDDED_AT_ONCE = 8
MOST_WARMUP = 0.999
"""A whole number would be one of steps to Trainer."""

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
        return not any(
            weights.requires_grad
            for weights in getattr(self.model, backbone_name(self.model)).parameters()
        )


def finetune(task: Task, tell: Tell, *, resume: bool) -> tuple[Epoch, ...]:
    """Train; afterwards `task.model` has the weights of the epoch with the best accuracy.

    `resume`: go on from the last whole checkpoint, if there is one. Raises ModelError where the
    memory is too small or the loss is no number any more, DiskFullError.
    """
    _choose_gpu(task.settings.device)
    with warnings.catch_warnings(action="ignore"), _clear_errors(task):
        examples = _embedded(task, tell) if task.is_head_alone else _segments(task)
        trainer = Trainer(
            model=examples.network,
            args=_arguments(task),
            data_collator=examples.collate,
            train_dataset=examples.train,
            eval_dataset=examples.validation,
            compute_metrics=lambda made: {"accuracy": pooled_accuracy(made, task.validation)},
            callbacks=list(_callbacks(task, tell)),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=last_checkpoint(task.folder) if resume else None)
        nn.Module.to(task.model, torch.device("cpu"))
    return epochs_of(trainer.state.log_history)


@dataclass(frozen=True, slots=True)
class Examples:
    """What Trainer is given: a network, and both halves in the form that the network takes."""

    network: nn.Module
    train: Dataset[Any]
    validation: Dataset[Any]
    collate: Callable[[Any], dict[str, Any]]


def _segments(task: Task) -> Examples:
    seed, crop_s = task.recipe.seed, task.extractor.window_s if task.recipe.random_crops else None
    train = SegmentDataset(task.train.segments, task.extractor, crop_s=crop_s, seed=seed)
    validation = SegmentDataset(task.validation.segments, task.extractor)
    return Examples(task.model, train, validation, Collate(task.extractor))


def _embedded(task: Task, tell: Tell) -> Examples:
    """Listen to every segment once; what is trained is the head alone, on what it gets of them."""
    device = choose_devices(task.settings.device)[0]
    nn.Module.to(task.model, device)
    head = Head(task.model, backbone_name(task.model))
    halves = (_segments(task).train, _segments(task).validation)
    of = len(task.train.segments) + len(task.validation.segments)
    embeddings: tuple[list[Example], list[Example]] = ([], [])
    for half, found in zip(halves, embeddings, strict=True):
        loader = DataLoader(
            half,
            batch_size=EMBEDDED_AT_ONCE,
            collate_fn=Collate(task.extractor),
            num_workers=choose_jobs(task.settings.jobs, slow=True),
        )
        for batch in loader:
            labels = batch.pop("labels")
            made = embed(task.model, head, {name: each.to(device) for name, each in batch.items()})
            for number, label in enumerate(labels.tolist()):
                values = tuple(each[number].cpu() for each in made)
                found.append({"embeddings": values, "labels": label})
            tell.embedded(sum(map(len, embeddings)), of)
    return Examples(head, Listed(embeddings[0]), Listed(embeddings[1]), _collate_embeddings)


class Listed(Dataset[Example]):
    """Examples that are in memory."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]


def _collate_embeddings(examples: Sequence[Example]) -> dict[str, Any]:
    columns = zip(*(example["embeddings"] for example in examples), strict=True)
    labels = torch.tensor([example["labels"] for example in examples])
    return {"embeddings": tuple(torch.stack(column) for column in columns), "labels": labels}


def _arguments(task: Task) -> TrainingArguments:
    recipe = task.recipe
    jobs = 0 if task.is_head_alone else choose_jobs(task.settings.jobs, slow=True)
    options: dict[str, Any] = {
        "output_dir": str(task.folder / CHECKPOINTS),
        "num_train_epochs": recipe.epochs,
        "learning_rate": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
        "per_device_train_batch_size": recipe.batch_size,
        "per_device_eval_batch_size": recipe.batch_size,
        "gradient_accumulation_steps": recipe.gradient_accumulation,
        "warmup_steps": min(recipe.warmup, MOST_WARMUP),
        "label_smoothing_factor": recipe.label_smoothing,
        "gradient_checkpointing": recipe.gradient_checkpointing and not task.is_head_alone,
        **dict.fromkeys(("eval_strategy", "save_strategy", "logging_strategy"), "epoch"),
        "save_total_limit": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": "accuracy",
        "restore_callback_states_from_checkpoint": recipe.early_stopping is not None,
        "seed": recipe.seed,
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "dataloader_num_workers": jobs,
        "use_cpu": task.settings.device == "cpu",
        "disable_tqdm": True,
        "report_to": "none",
    }
    return TrainingArguments(**options, **_precision(task.settings))


def _precision(settings: Settings) -> dict[str, Any]:
    """Return the number format; `auto` is mixed precision on a GPU, as in the tutorial."""
    device = choose_devices(settings.device)[0]
    asked = settings.precision
    if asked is Precision.AUTO and device.type == "cuda":
        has_bf16 = torch.cuda.get_device_capability(device) >= BF16_FROM
        asked = Precision.BF16 if has_bf16 else Precision.FP16
    if asked is Precision.FP16 and device.type != "cuda":
        raise SettingsError("--precision fp16 needs a CUDA GPU in a training")
    return {"bf16": asked is Precision.BF16, "fp16": asked is Precision.FP16}


def _choose_gpu(name: str) -> None:
    """Have Trainer, which takes all GPUs that it sees, see one only."""
    choose_devices(name)
    kind, _, number = name.partition(":")
    if number:
        os.environ["CUDA_VISIBLE_DEVICES"] = number
    elif kind == "cuda":
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")


def pooled_accuracy(made: EvalPrediction, half: Half) -> float:
    """Return the share of clips whose mean logits are highest for one of the clip's labels."""
    logits = np.asarray(made.predictions)
    ends = np.cumsum(half.counts)
    pooled = np.stack([part.mean(0) for part in np.split(logits, ends[:-1])])
    guesses = pooled.argmax(1).tolist()
    right = sum(guess in truth for guess, truth in zip(guesses, half.truths, strict=True))
    return right / len(guesses)


def _callbacks(task: Task, tell: Tell) -> Iterator[TrainerCallback]:
    yield Telling(tell)
    if task.recipe.early_stopping:
        yield EarlyStoppingCallback(early_stopping_patience=task.recipe.early_stopping)
    if task.tensorboard:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise MissingExtraError("--tensorboard needs: pip install 'tagger[train]'") from error
        yield TensorBoardCallback(SummaryWriter(str(task.folder / "runs")))


class Telling(TrainerCallback):
    """Passes on how the training goes."""

    def __init__(self, tell: Tell) -> None:
        self.tell = tell

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002 - as the base class has it, here and below
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **_: Any,
    ) -> None:
        self.tell.stepped(state.global_step, state.max_steps)

    def on_evaluate(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **_: Any,
    ) -> None:
        epoch = epochs_of(state.log_history)[-1]
        if not math.isfinite(epoch.validation_loss):
            raise ModelError("the loss is no number any more: try a smaller --learning-rate")
        self.tell.epoch(epoch)


def epochs_of(history: Sequence[Mapping[str, float]]) -> tuple[Epoch, ...]:
    """Read the epochs out of what Trainer logged."""
    epochs, train_loss = [], math.nan
    for entry in history:
        train_loss = entry.get("loss", train_loss)
        if "eval_accuracy" in entry:
            number, loss = round(entry["epoch"]), entry["eval_loss"]
            epochs.append(Epoch(number, train_loss, loss, entry["eval_accuracy"]))
    return tuple(epochs)


def last_checkpoint(folder: Path) -> str | None:
    """Return the newest checkpoint that was written to its end: its state comes last."""
    found = {}
    for state in (folder / CHECKPOINTS).glob(f"checkpoint-*/{STATE}"):
        with suppress(OSError, ValueError, KeyError):
            found[json.loads(state.read_text("utf-8"))["global_step"]] = state.parent
    return str(found[max(found)]) if found else None


@contextmanager
def _clear_errors(task: Task) -> Iterator[None]:
    try:
        yield
    except TaggerError:
        raise
    except OSError as error:
        raise DiskFullError(f"cannot write to {displayed(task.folder)}: {error}") from error
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(
            "the memory is too small: try --batch-size"
            f" {max(1, task.recipe.batch_size // 2)} with --gradient-accumulation"
            f" {2 * task.recipe.gradient_accumulation}, or --gradient-checkpointing"
        ) from error
