"""Fine-tune a model with transformers' Trainer, on decoded windows or on embeddings of them."""

import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

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

from tagger.errors import ModelError, SettingsError, WorkerError, make_missing_extra_error
from tagger.inference.dataset import choose_jobs, start_worker
from tagger.inference.devices import choose_devices, has_bf16, is_out_of_memory
from tagger.models.classifier import WindowFeatureExtractor
from tagger.settings import Precision, Settings
from tagger.training.decoding import Segment, SegmentCollator, SegmentDataset
from tagger.training.evaluate import EpochMeasures
from tagger.training.network import ClassifierHead, compute_embeddings, find_backbone_name
from tagger.training.recipe import Freeze, Recipe
from tagger.training.workspace import CHECKPOINT_FOLDER, translate_workspace_errors

Example = Mapping[str, Any]

MIN_CLIPS_TO_CHOOSE = 50
"""With fewer validation clips, an accuracy is known to 14 points either way at best."""


@dataclass(frozen=True, slots=True)
class PartSegments:
    """The segments of one part of a split, clip by clip.

    counts: the number of segments of each clip. label_numbers: the labels of each clip.
    """

    segments: tuple[Segment, ...]
    counts: tuple[int, ...]
    label_numbers: tuple[frozenset[int], ...]


class FinetuneObserver(Protocol):
    """Is told of the progress of a training. An error that it raises ends the training."""

    def on_embedded(self, done: int, total: int) -> None: ...
    def on_step(self, done: int, total: int) -> None: ...
    def on_epoch(self, epoch: EpochMeasures) -> None: ...


@dataclass(frozen=True, slots=True)
class FinetuneTask:
    """A model, the data to train it on, and the folder for checkpoints."""

    model: PreTrainedModel
    extractor: WindowFeatureExtractor
    train: PartSegments
    validation: PartSegments
    recipe: Recipe
    folder: Path
    settings: Settings
    tensorboard: bool = False

    @property
    def is_head_only(self) -> bool:
        return self.recipe.freeze is Freeze.BACKBONE

    @property
    def keeps_last_epoch(self) -> bool:
        """Whether the validation part is too small to choose an epoch.

        A head alone hardly overfits: with up to ten tracks of each of twelve genres its last epoch
        is 9 to 11 points better than the one that is best on a tenth of them.
        """
        is_small = len(self.validation.counts) < MIN_CLIPS_TO_CHOOSE
        return self.is_head_only and is_small and self.recipe.early_stopping is None

    def choose_epoch(self, epochs: Sequence[EpochMeasures]) -> EpochMeasures:
        """Return the epoch whose weights Trainer keeps."""
        return epochs[-1] if self.keeps_last_epoch else max(epochs, key=lambda each: each.rank)


@dataclass(frozen=True, slots=True)
class TrainingExamples:
    """What Trainer needs: a network, and the data of two parts as inputs of this network."""

    network: nn.Module
    train: Dataset[Any]
    validation: Dataset[Any]
    collate: Callable[[Any], dict[str, Any]]


def make_segment_examples(task: FinetuneTask) -> TrainingExamples:
    seed, crop_s = task.recipe.seed, task.extractor.window_s if task.recipe.random_crops else None
    train = SegmentDataset(task.train.segments, task.extractor, crop_s=crop_s, seed=seed)
    validation = SegmentDataset(task.validation.segments, task.extractor)
    return TrainingExamples(task.model, train, validation, SegmentCollator(task.extractor))


def _choose_loader_jobs(task: FinetuneTask) -> int:
    settings = task.settings
    return choose_jobs(settings.jobs, slow=True, max_memory_mib=settings.max_memory)


def make_embedding_examples(task: FinetuneTask, observer: FinetuneObserver) -> TrainingExamples:
    """Run the backbone on every segment once. The head is then trained on these embeddings."""
    device = choose_devices(task.settings.device)[0]
    nn.Module.to(task.model, device)
    head = ClassifierHead(task.model, find_backbone_name(task.model))
    segments = make_segment_examples(task)
    jobs = _choose_loader_jobs(task)
    total = len(task.train.segments) + len(task.validation.segments)
    done = 0

    def embed(dataset: Dataset[Any], part: PartSegments) -> ExampleList:
        nonlocal done
        examples: list[Example] = []
        for batch in make_clip_loader(dataset, part, segments.collate, jobs=jobs):
            labels = batch.pop("labels").tolist()
            inputs = {name: tensor.to(device) for name, tensor in batch.items()}
            examples += _make_examples(compute_embeddings(task.model, head, inputs), labels)
            done += len(labels)
            observer.on_embedded(done, total)
        return ExampleList(examples)

    train = embed(segments.train, task.train)
    validation = embed(segments.validation, task.validation)
    return TrainingExamples(head, train, validation, collate_embeddings)


def _make_examples(embeddings: Sequence[torch.Tensor], labels: Sequence[int]) -> Iterator[Example]:
    for number, label in enumerate(labels):
        values = tuple(tensor[number].cpu().clone() for tensor in embeddings)
        yield {"embeddings": values, "labels": label}


class ExampleList(Dataset[Example]):
    """Examples in memory."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]


def collate_embeddings(examples: Sequence[Example]) -> dict[str, Any]:
    """Return the embeddings, each (n, size), and labels (n,)."""
    columns = zip(*(example["embeddings"] for example in examples), strict=True)
    labels = torch.tensor([example["labels"] for example in examples])
    return {"embeddings": tuple(torch.stack(column) for column in columns), "labels": labels}


def make_clip_loader(
    dataset: Dataset[Any],
    part: PartSegments,
    collate: Callable[[Any], dict[str, Any]],
    *,
    jobs: int,
) -> DataLoader[Any]:
    """Return a loader. Each batch has the segments of one clip, which have the same length."""
    ends = np.cumsum(part.counts).tolist()
    starts = [0, *ends][:-1]
    return DataLoader(
        dataset,
        batch_sampler=[list(range(*bounds)) for bounds in zip(starts, ends, strict=True)],
        collate_fn=collate,
        num_workers=jobs,
        worker_init_fn=start_worker,
    )


TRAINER_STATE_FILE = "trainer_state.json"
MAX_WARMUP_SHARE = 0.999
"""Trainer takes a share of 1 or more for a number of steps."""


class ClipwiseTrainer(Trainer):
    """Evaluates the segments of one clip at a time, which have the same length.

    A batch pads a short segment to the length of the longest one. Networks without an attention
    mask then give the short segment other scores.
    """

    validation_part: PartSegments

    def get_train_dataloader(self) -> DataLoader[Any]:
        loader: Any = super().get_train_dataloader()
        getattr(loader, "base_dataloader", loader).worker_init_fn = start_worker
        return cast("DataLoader[Any]", loader)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        dataset = cast("Dataset[Any]", eval_dataset or self.eval_dataset)
        jobs = self.args.dataloader_num_workers
        loader = make_clip_loader(dataset, self.validation_part, self.data_collator, jobs=jobs)
        return cast("DataLoader[Any]", self.accelerator.prepare(loader))


def finetune(
    task: FinetuneTask, observer: FinetuneObserver, *, resume: bool
) -> tuple[EpochMeasures, ...]:
    """Train. Afterwards `task.model` has the weights of the epoch that the task chooses.

    `resume`: continue from the last whole checkpoint, if there is one. Raises ModelError if the
    memory is too small or the loss is not a finite number, DiskFullError if the disk is full.
    """
    with warnings.catch_warnings(action="ignore"), _translate_training_errors(task):
        examples = (
            make_embedding_examples(task, observer)
            if task.is_head_only
            else make_segment_examples(task)
        )
        epochs = run_trainer(task, examples, observer, resume=resume)
        nn.Module.to(task.model, torch.device("cpu"))
    return epochs


def run_trainer(
    task: FinetuneTask, examples: TrainingExamples, observer: FinetuneObserver, *, resume: bool
) -> tuple[EpochMeasures, ...]:
    """Run Trainer. Afterwards `examples.network` has the weights of the epoch that is kept."""
    trainer = ClipwiseTrainer(
        model=examples.network,
        args=_make_arguments(task),
        data_collator=examples.collate,
        train_dataset=examples.train,
        eval_dataset=examples.validation,
        compute_metrics=lambda output: measure_epoch(output, task.validation),
        callbacks=list(_make_callbacks(task, observer)),
    )
    trainer.validation_part = task.validation
    trainer.model_accepts_loss_kwargs = False  # they accept them, but compute a mean loss
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=find_last_checkpoint(task.folder) if resume else None)
    return read_epochs(trainer.state.log_history)


def _make_arguments(task: FinetuneTask) -> TrainingArguments:
    recipe, device = task.recipe, choose_devices(task.settings.device)[0]
    jobs = 0 if task.is_head_only else _choose_loader_jobs(task)
    options: dict[str, Any] = {
        "output_dir": str(task.folder / CHECKPOINT_FOLDER),
        "num_train_epochs": recipe.epochs,
        "learning_rate": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
        "per_device_train_batch_size": recipe.batch_size,
        "per_device_eval_batch_size": recipe.batch_size,
        "gradient_accumulation_steps": recipe.gradient_accumulation,
        "warmup_steps": min(recipe.warmup, MAX_WARMUP_SHARE),
        "label_smoothing_factor": recipe.label_smoothing,
        "gradient_checkpointing": recipe.gradient_checkpointing and not task.is_head_only,
        **dict.fromkeys(("eval_strategy", "save_strategy", "logging_strategy"), "epoch"),
        "save_total_limit": 1,
        "load_best_model_at_end": not task.keeps_last_epoch,
        "metric_for_best_model": "rank",
        "include_for_metrics": ["loss"],
        "restore_callback_states_from_checkpoint": recipe.early_stopping is not None,
        "seed": recipe.seed,
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "dataloader_num_workers": jobs,
        "dataloader_pin_memory": device.type == "cuda",
        "use_cpu": device.type == "cpu",
        "disable_tqdm": True,
        "report_to": "none",
    }
    # A switch of accelerate. Without it Trainer spreads each batch over all GPUs that it sees.
    os.environ["ACCELERATE_TORCH_DEVICE"] = str(device)
    arguments = TrainingArguments(**options, **choose_training_precision(task.settings))
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # noqa: SLF001 - there is no public way
    return arguments


def choose_training_precision(settings: Settings) -> dict[str, Any]:
    """Return Trainer's arguments for the number format.

    `auto` is mixed precision on a GPU, as in the tutorial. Raises SettingsError for fp16 without
    a GPU.
    """
    device = choose_devices(settings.device)[0]
    precision = settings.precision
    if precision is Precision.AUTO and device.type == "cuda":
        precision = Precision.BF16 if has_bf16(device) else Precision.FP16
    if precision is Precision.FP16 and device.type != "cuda":
        raise SettingsError("--precision fp16 needs a CUDA GPU in a training")
    return {"bf16": precision is Precision.BF16, "fp16": precision is Precision.FP16}


def measure_epoch(output: EvalPrediction, part: PartSegments) -> dict[str, float]:
    """Return the accuracy on the validation part, and the rank by which the best epoch is chosen.

    Trainer chooses by one number. So the rank is the accuracy less a number that grows with the
    loss, but stays below the step from one possible accuracy to the next.
    """
    accuracy = compute_pooled_accuracy(output, part)
    loss = float(np.mean(np.asarray(output.losses)))
    return {"accuracy": accuracy, "rank": accuracy - loss / (1 + loss) / len(part.counts)}


def compute_pooled_accuracy(output: EvalPrediction, part: PartSegments) -> float:
    """Return the share of clips whose mean logits are highest for one of the clip's labels."""
    logits = np.asarray(output.predictions)
    ends = np.cumsum(part.counts)
    pooled = np.stack([rows.mean(0) for rows in np.split(logits, ends[:-1])])
    predicted = pooled.argmax(1).tolist()
    pairs = zip(predicted, part.label_numbers, strict=True)
    return sum(number in numbers for number, numbers in pairs) / len(predicted)


def _make_callbacks(task: FinetuneTask, observer: FinetuneObserver) -> Iterator[TrainerCallback]:
    yield ObserverCallback(observer)
    if task.recipe.early_stopping:
        yield EarlyStoppingCallback(early_stopping_patience=task.recipe.early_stopping)
    if task.tensorboard:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise make_missing_extra_error("--tensorboard", "train") from error
        yield TensorBoardCallback(SummaryWriter(str(task.folder / "runs")))


class ObserverCallback(TrainerCallback):
    """Tells an observer of the progress of a training."""

    def __init__(self, observer: FinetuneObserver) -> None:
        self.observer = observer

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002 - the base class has these, here and below
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **_: Any,
    ) -> None:
        self.observer.on_step(state.global_step, state.max_steps)

    on_prediction_step = on_step_end

    def on_evaluate(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **_: Any,
    ) -> None:
        epoch = read_epochs(state.log_history)[-1]
        if not math.isfinite(epoch.validation_loss):
            raise ModelError("the loss is not a finite number: try a smaller --learning-rate")
        self.observer.on_epoch(epoch)


def read_epochs(history: Sequence[Mapping[str, float]]) -> tuple[EpochMeasures, ...]:
    """Return the epochs in the log history of Trainer."""
    epochs, train_loss = [], math.nan
    for entry in history:
        train_loss = entry.get("loss", train_loss)
        if "eval_accuracy" in entry:
            number, loss = round(entry["epoch"]), entry["eval_loss"]
            epochs.append(EpochMeasures(number, train_loss, loss, entry["eval_accuracy"]))
    return tuple(epochs)


def find_last_checkpoint(folder: Path) -> str | None:
    """Return the newest checkpoint that is complete. Trainer writes its state file last."""
    checkpoints = {}
    for state in (folder / CHECKPOINT_FOLDER).glob(f"checkpoint-*/{TRAINER_STATE_FILE}"):
        with suppress(OSError, ValueError, KeyError):
            checkpoints[json.loads(state.read_text("utf-8"))["global_step"]] = state.parent
    return str(checkpoints[max(checkpoints)]) if checkpoints else None


@contextmanager
def _translate_training_errors(task: FinetuneTask) -> Iterator[None]:
    try:
        with translate_workspace_errors(task.folder):
            yield
    except RuntimeError as error:
        if "DataLoader worker" in str(error):
            raise WorkerError(f"a process that reads training data died: {error}") from error
        if not is_out_of_memory(error):
            raise
        raise ModelError(
            "the memory is too small for a training step: try --batch-size"
            f" {max(1, task.recipe.batch_size // 2)} with --gradient-accumulation"
            f" {2 * task.recipe.gradient_accumulation}, or --gradient-checkpointing"
        ) from error
