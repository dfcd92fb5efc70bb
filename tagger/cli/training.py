"""Run `tagger train`, and print its progress and result.

cli.train imports this module late: it needs the libraries of the extra `train`.
"""

import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from tagger.cli.evaluation import (
    MAX_SHOWN_LINES,
    list_left_out,
    print_evaluation,
    read_labelled_clips,
)
from tagger.cli.progress import LINE_INTERVAL_S, PipeSafeConsole
from tagger.cli.tables import make_number_table
from tagger.cli.terminal import (
    StopSignal,
    catch_stop_signals,
    escape_unprintable,
    print_line,
)
from tagger.models import find_base_model
from tagger.models.hub import check_push, push_model
from tagger.paths import display_path
from tagger.settings import Settings
from tagger.training.clips import PARTS, Dataset
from tagger.training.evaluate import EpochMeasures, make_evaluation_json
from tagger.training.job import (
    TrainingPlan,
    TrainingRequest,
    TrainingResult,
    estimate_memory,
    prepare_training,
    run_training,
)
from tagger.training.recipe import Recipe
from tagger.training.splits import Split, choose_split_kind, read_split_files, split_clips
from tagger.training.workspace import DECODED_FOLDER, check_workspace, lock_workspace

BYTES_PER_MB = 1_000_000
TRAINING_STOPPED_MESSAGE = "stopped; --resume continues after the last whole epoch"
MIN_CLIPS_PER_GENRE, MIN_TAGGED_TRACKS_PER_GENRE = 2, 10
"""The defaults of `train --min-tracks`, without and with --from-tags."""


class TrainingProgress:
    """Shows a training: a live `bar` on a terminal, else a line from time to time.

    The bar is a context manager. Each epoch is a line in both cases.
    """

    def __init__(self, stop_signal: StopSignal) -> None:
        self.stop_signal = stop_signal
        self.console = PipeSafeConsole(file=sys.stderr)
        self.last_line_time = time.monotonic()
        self.step = ""
        self.has_epochs = False
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),  # it may have a path with [flac]
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("", total=None)

    def hide(self) -> None:
        """Remove the bar until the next step begins, so that other text can be printed."""
        self.bar.stop()

    def begin_step(self, step: str, total: int | None = None) -> None:
        self.step = step
        self.bar.start()
        self.bar.reset(self.task, total=total, description=step[:1].upper() + step[1:])

    def on_decoded(self, done: int, total: int) -> None:
        self._update("decoding", done, total)

    def on_download(self, done: int, total: int) -> None:
        self._update("downloading the model (MB)", done // BYTES_PER_MB, total // BYTES_PER_MB)

    def on_upload(self, done: int, total: int) -> None:
        self._update("uploading (MB)", done // BYTES_PER_MB, total // BYTES_PER_MB)

    def on_embedded(self, done: int, total: int) -> None:
        self._update("listening", done, total)

    def on_step(self, done: int, total: int) -> None:
        self._update("training", done, total)

    def on_evaluated(self, done: int, total: int) -> None:
        self._update("measuring", done, total)

    def on_epoch(self, epoch: EpochMeasures) -> None:
        if not self.has_epochs:
            self.console.print("epoch  training loss  validation loss  accuracy")
            self.has_epochs = True
        losses = f"{epoch.train_loss:13.3f}  {epoch.validation_loss:15.3f}"
        self.console.print(f"{epoch.number:5}  {losses}  {epoch.accuracy:8.1%}")

    def _update(self, step: str, done: int, total: int) -> None:
        self.stop_signal.check()
        if step != self.step:
            self.begin_step(step, total)
        self.bar.update(self.task, completed=done)
        is_due = time.monotonic() - self.last_line_time >= LINE_INTERVAL_S
        if is_due and not self.console.is_terminal:
            self.last_line_time = time.monotonic()
            self.console.print(Text(f"tagger: {step}, {done} of {total}"), soft_wrap=True)


@dataclass(frozen=True, slots=True)
class TrainCommand:
    """The arguments of `tagger train`."""

    dataset: str
    folder: Path
    recipe: Recipe
    settings: Settings
    from_tags: bool
    min_tracks: int | None
    split_files: tuple[Path, ...]
    cache: Path | None
    resume: bool
    tensorboard: bool
    repo: str | None
    private: bool

    @property
    def model_settings(self) -> Settings:
        """Return the settings for the base model, with the segments of the recipe as windows."""
        window_s = self.recipe.segment_seconds
        return replace(self.settings, model=self.recipe.base_model, window_seconds=window_s)


def run_train_command(command: TrainCommand) -> int:
    """Train, or with `--dry-run` only show the plan. Return the exit code."""
    with (
        catch_stop_signals(TRAINING_STOPPED_MESSAGE) as stop_signal,
        _open_folders(command) as (folder, cache),
    ):
        request = _make_request(command, folder, cache)
        return _run_training(command, request, TrainingProgress(stop_signal))


def _run_training(
    command: TrainCommand, request: TrainingRequest, progress: TrainingProgress
) -> int:
    settings = command.settings
    console = PipeSafeConsole(stderr=settings.json)
    with progress.bar:
        progress.begin_step(f"reading {escape_unprintable(command.dataset)}")
        dataset = _read_training_data(command)
        plan = prepare_training(request, dataset, progress, download=not settings.dry_run)
        progress.hide()
        print_plan(plan, console)
        if settings.dry_run:
            _print_memory(command, plan, console)
            return 1 if plan.failures else 0
        result = run_training(
            plan, progress, resume=command.resume, tensorboard=command.tensorboard
        )
        progress.hide()
        if not settings.json:
            console.print(Text(f"kept: epoch {result.kept_epoch.number} of {len(result.epochs)}"))
            print_evaluation(result.evaluation, settings.min_score)
            print_line(f"Model: {escape_unprintable(display_path(command.folder))}")
        address = _push_result(request, progress, private=command.private)
    if settings.json:
        print_line(json.dumps(_make_result_json(command, result) | {"published": address or None}))
    elif address:
        print_line(f"Published: {address}")
    return 1 if plan.failures or result.evaluation.failures else 0


def _make_request(command: TrainCommand, folder: Path, cache: Path) -> TrainingRequest:
    repo = check_push(command.repo) if command.repo and not command.settings.dry_run else ""
    return TrainingRequest(
        source=find_base_model(command.model_settings),
        recipe=command.recipe,
        settings=command.model_settings,
        folder=folder,
        cache=cache,
        split_dataset=lambda dataset: _split_dataset(command, dataset),
        repo=repo,
    )


def _push_result(request: TrainingRequest, progress: TrainingProgress, *, private: bool) -> str:
    """Push the model if the user asks for it, and return the address of the commit."""
    if not request.repo:
        return ""
    message = f"{request.base_name} fine-tuned by tagger"
    upload = progress.on_upload
    return push_model(
        request.folder, request.repo, private=private, message=message, progress=upload
    )


@contextmanager
def _open_folders(command: TrainCommand) -> Iterator[tuple[Path, Path]]:
    """Yield the folders of the training and of decoded sound. A dry run leaves no files."""
    folder = command.folder.resolve()
    if command.settings.dry_run:
        with tempfile.TemporaryDirectory(prefix="tagger-") as temporary:
            yield folder, command.cache or Path(temporary)
        return
    check_workspace(folder, resume=command.resume)
    with lock_workspace(folder):
        yield folder, command.cache or folder / DECODED_FOLDER


def _read_training_data(command: TrainCommand) -> Dataset:
    settings, from_tags = command.settings, command.from_tags
    default = MIN_TAGGED_TRACKS_PER_GENRE if from_tags else MIN_CLIPS_PER_GENRE
    count, path = command.min_tracks or default, Path(command.dataset)
    names = settings.genre_map
    return read_labelled_clips(path, settings, names, from_tags=from_tags, min_tracks=count)


def _split_dataset(command: TrainCommand, dataset: Dataset) -> Split:
    recipe = command.recipe
    if command.split_files:
        return read_split_files(command.split_files, dataset)
    kind = recipe.split or choose_split_kind(dataset, is_library=command.from_tags)
    return split_clips(dataset, kind, test_size=recipe.test_size, seed=recipe.seed)


def print_plan(plan: TrainingPlan, console: PipeSafeConsole) -> None:
    """Print warnings about the data, and the number of clips in each part."""
    for line in _list_warnings(plan):
        console.print(Text(line), soft_wrap=True)
    console.print(_make_split_table(plan.split))


def _list_warnings(plan: TrainingPlan) -> Iterator[str]:
    split = plan.split
    reasons = Counter(failure.reason for failure in (*plan.dataset.left_out, *plan.failures))
    reasons.update("in none of the lists" for _ in split.left_out)
    yield from list_left_out(reasons)
    for failure in plan.failures[:MAX_SHOWN_LINES]:
        yield escape_unprintable(f"  {display_path(failure.track.path)}: {failure.reason}")
    if len(plan.failures) > MAX_SHOWN_LINES:
        yield f"  … {len(plan.failures)} in all"
    if split.unmatched:
        names = escape_unprintable(", ".join(split.unmatched[:MAX_SHOWN_LINES]))
        yield f"{len(split.unmatched)} names in the lists match no clip: {names}, …"
    if split.untrained_genres:
        yield f"no clip for training: {escape_unprintable(', '.join(split.untrained_genres))}"
    if split.unmeasured_genres:
        genres = escape_unprintable(", ".join(split.unmeasured_genres))
        yield f"no clip for validation or test, so these genres are not measured: {genres}"
    for pair in plan.leaks[:MAX_SHOWN_LINES]:
        names = " = ".join(escape_unprintable(display_path(clip.track.path)) for clip in pair)
        yield f"the same recording is in two parts: {names}"
    if len(plan.leaks) > MAX_SHOWN_LINES:
        yield f"… {len(plan.leaks)} such pairs in all"
    yield f"split: {escape_unprintable(split.method)}"


def _make_split_table(split: Split) -> Table:
    parts = [part for part in PARTS if getattr(split, part)]
    table = make_number_table("genre", *parts)
    for row in split.count_genres():
        counts = (str(getattr(row, part)) for part in parts)
        table.add_row(Text(escape_unprintable(row.genre)), *counts)
    table.add_row("all", *(str(len(getattr(split, part))) for part in parts))
    return table


def _print_memory(command: TrainCommand, plan: TrainingPlan, console: PipeSafeConsole) -> None:
    memory = asdict(estimate_memory(plan))
    sizes = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in memory.items())
    total = f"memory for a step: about {sum(memory.values()) / 1e6:,.0f} MB ({sizes})"
    console.print(Text(total), soft_wrap=True)
    if command.settings.json:
        print_line(json.dumps({"dry_run": True, **_make_plan_json(plan), "memory_bytes": memory}))


def _make_plan_json(plan: TrainingPlan) -> dict[str, object]:
    """Return a plan as values for JSON. Programs read the keys, so `halves` keeps its old name."""
    genres = [asdict(row) for row in plan.split.count_genres()]
    return {
        "base_model": plan.request.source.identity,
        "halves": {"how": plan.split.method, "genres": genres},
        "left_out": [
            {"path": display_path(failure.track.path), "reason": failure.reason}
            for failure in (*plan.dataset.left_out, *plan.failures)
        ],
        "same_recording": [[display_path(clip.track.path) for clip in pair] for pair in plan.leaks],
    }


def _make_result_json(command: TrainCommand, result: TrainingResult) -> dict[str, object]:
    return {
        "output_dir": display_path(command.folder),
        "epochs": [asdict(epoch) for epoch in result.epochs],
        **make_evaluation_json(result.evaluation),
        **_make_plan_json(result.plan),
        "failed": len(result.plan.failures) + len(result.evaluation.failures),
    }
