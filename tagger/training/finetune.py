"""The training itself: transformers' Trainer over decoded windows, or over embeddings of them."""

import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations.integration_utils import TensorBoardCallback

from tagger.errors import MissingExtraError, ModelError, SettingsError, WorkerError
from tagger.inference.dataset import choose_jobs, start_worker
from tagger.inference.devices import choose_devices, has_bf16, is_out_of_memory
from tagger.settings import Precision, Settings
from tagger.training.examples import Examples, Half, Task, Tell, clip_by_clip, embedded, segments
from tagger.training.measures import Epoch
from tagger.training.workspace import CHECKPOINTS, clear_errors

STATE = "trainer_state.json"
MOST_WARMUP = 0.999
"""A whole number would be one of steps to Trainer."""


class ClipwiseTrainer(Trainer):
    """Asks about the windows of one clip at a time, which are of one length.

    Beside a longer neighbour a window would be padded, and networks without a mask hear that.
    """

    asked: Half

    def get_train_dataloader(self) -> DataLoader[Any]:
        loader: Any = super().get_train_dataloader()
        getattr(loader, "base_dataloader", loader).worker_init_fn = start_worker
        return cast("DataLoader[Any]", loader)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        dataset = cast("Dataset[Any]", eval_dataset or self.eval_dataset)
        jobs = self.args.dataloader_num_workers
        loader = clip_by_clip(dataset, self.asked, self.data_collator, jobs=jobs)
        return cast("DataLoader[Any]", self.accelerator.prepare(loader))


def finetune(task: Task, tell: Tell, *, resume: bool) -> tuple[Epoch, ...]:
    """Train; afterwards `task.model` has the weights of the epoch with the best accuracy.

    `resume`: go on from the last whole checkpoint, if there is one. Raises ModelError where the
    memory is too small or the loss is no number any more, DiskFullError.
    """
    with warnings.catch_warnings(action="ignore"), _clear_errors(task):
        examples = embedded(task, tell) if task.is_head_alone else segments(task)
        epochs = fit(task, examples, tell, resume=resume)
        nn.Module.to(task.model, torch.device("cpu"))
    return epochs


def fit(task: Task, examples: Examples, tell: Tell, *, resume: bool) -> tuple[Epoch, ...]:
    """Run Trainer on the examples of a task; afterwards their network is the best one."""
    trainer = ClipwiseTrainer(
        model=examples.network,
        args=_arguments(task),
        data_collator=examples.collate,
        train_dataset=examples.train,
        eval_dataset=examples.validation,
        compute_metrics=lambda made: {"accuracy": pooled_accuracy(made, task.validation)},
        callbacks=list(_callbacks(task, tell)),
    )
    trainer.asked = task.validation
    trainer.model_accepts_loss_kwargs = False  # the networks take a mean, whatever they accept
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=last_checkpoint(task.folder) if resume else None)
    return epochs_of(trainer.state.log_history)


def _arguments(task: Task) -> TrainingArguments:
    recipe, device = task.recipe, choose_devices(task.settings.device)[0]
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
        "dataloader_pin_memory": device.type == "cuda",
        "use_cpu": device.type == "cpu",
        "disable_tqdm": True,
        "report_to": "none",
    }
    # accelerate's own switch; Trainer would spread each batch over all GPUs that it sees
    os.environ["ACCELERATE_TORCH_DEVICE"] = str(device)
    arguments = TrainingArguments(**options, **precision_of(task.settings))
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # noqa: SLF001 - there is no other way
    return arguments


def precision_of(settings: Settings) -> dict[str, Any]:
    """Return the number format; `auto` is mixed precision on a GPU, as in the tutorial.

    Raises SettingsError where there is no GPU for fp16.
    """
    device = choose_devices(settings.device)[0]
    asked = settings.precision
    if asked is Precision.AUTO and device.type == "cuda":
        asked = Precision.BF16 if has_bf16(device) else Precision.FP16
    if asked is Precision.FP16 and device.type != "cuda":
        raise SettingsError("--precision fp16 needs a CUDA GPU in a training")
    return {"bf16": asked is Precision.BF16, "fp16": asked is Precision.FP16}


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

    def on_prediction_step(
        self,
        args: TrainingArguments,  # noqa: ARG002
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
        with clear_errors(task.folder):
            yield
    except RuntimeError as error:
        if "DataLoader worker" in str(error):
            raise WorkerError(f"a process that reads decoded sound died: {error}") from error
        if not is_out_of_memory(error):
            raise
        raise ModelError(
            "the memory is too small: try --batch-size"
            f" {max(1, task.recipe.batch_size // 2)} with --gradient-accumulation"
            f" {2 * task.recipe.gradient_accumulation}, or --gradient-checkpointing"
        ) from error
