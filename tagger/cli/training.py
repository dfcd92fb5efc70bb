"""What `tagger train` and `tagger evaluate` show."""

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

from tagger import decide
from tagger.cli.progress import LINE_INTERVAL_S, LoadingStatus, PipeSafeConsole
from tagger.cli.terminal import (
    StopSignal,
    catch_stop_signals,
    escape_unprintable,
    format_track_count,
    print_line,
)
from tagger.errors import LibraryError
from tagger.models import find_base_model, find_model
from tagger.models.hub import check_push, push_model
from tagger.paths import display_path
from tagger.settings import Settings
from tagger.training.clips import Dataset, drop_rare_labels
from tagger.training.datasets import read_dataset, read_library
from tagger.training.evaluate import (
    EpochMeasures,
    Evaluation,
    Measures,
    Proportion,
    evaluate,
    evaluation_as_json,
)
from tagger.training.job import (
    TrainingPlan,
    TrainingRequest,
    TrainingResult,
    estimate_memory,
    prepare_training,
    run_training,
)
from tagger.training.recipe import Recipe, SplitKind
from tagger.training.splits import Split, read_split_files, split_clips
from tagger.training.workspace import DECODED_FOLDER, check_workspace, lock_workspace

BYTES_PER_MB = 1_000_000


class TrainingProgress:
    """`bar`, a context manager, is live on a terminal; elsewhere lines come at times.

    Each epoch is a line on both.
    """

    def __init__(self, stopper: StopSignal) -> None:
        self.stopper = stopper
        self.console = PipeSafeConsole(file=sys.stderr)
        self.told = time.monotonic()
        self.what = ""
        self.has_epochs = False
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("", total=None)

    def rest(self) -> None:
        """Take the bar down until something begins, for what is printed elsewhere."""
        self.bar.stop()

    def begin(self, what: str, of: int | None = None) -> None:
        self.what = what
        self.bar.start()
        self.bar.reset(self.task, total=of, description=what[:1].upper() + what[1:])

    def on_decoded(self, done: int, of: int) -> None:
        self._at("decoding", done, of)

    def on_download(self, done: int, total: int) -> None:
        self._at("downloading the model (MB)", done // BYTES_PER_MB, total // BYTES_PER_MB)

    def on_upload(self, done: int, total: int) -> None:
        self._at("uploading (MB)", done // BYTES_PER_MB, total // BYTES_PER_MB)

    def on_embedded(self, done: int, of: int) -> None:
        self._at("listening", done, of)

    def on_step(self, done: int, of: int) -> None:
        self._at("training", done, of)

    def on_evaluated(self, done: int, of: int) -> None:
        self._at("measuring", done, of)

    def on_epoch(self, epoch: EpochMeasures) -> None:
        if not self.has_epochs:
            self.console.print("epoch  training loss  validation loss  accuracy")
            self.has_epochs = True
        losses = f"{epoch.train_loss:13.3f}  {epoch.validation_loss:15.3f}"
        self.console.print(f"{epoch.number:5}  {losses}  {epoch.accuracy:8.1%}")

    def _at(self, what: str, done: int, of: int) -> None:
        self.stopper.check()
        if what != self.what:
            self.begin(what, of)
        self.bar.update(self.task, completed=done)
        if not self.console.is_terminal and time.monotonic() - self.told >= LINE_INTERVAL_S:
            self._line(f"{what}, {done} of {of}")

    def _line(self, text: str) -> None:
        self.told = time.monotonic()
        self.console.print(Text(f"tagger: {text}"), soft_wrap=True)


MAX_SHOWN_REASONS = 5
MAX_GENRE_WIDTH = 24
"""Columns for a genre; a longer one is cut off, for the numbers beside it."""


def run_evaluation(
    place: Path, settings: Settings, stopper: StopSignal, *, from_tags: bool, min_tracks: int
) -> Evaluation:
    """Evaluate the model of the settings on a dataset, or a library, and show how that goes on."""
    source = find_model(settings)
    loading = LoadingStatus(stopper)
    with loading.status:
        loading.show(f"reading {escape_unprintable(display_path(place))}")
        read_in = read_library if from_tags else read_dataset
        read = read_in(place, settings, decide.get_label_names(settings))
        dataset = drop_rare_labels(read, min_tracks)
        if read.clips and not dataset.clips:
            raise LibraryError(f"{read.name} has no genre with {min_tracks} tracks (--min-tracks)")
        of = len(dataset.clips)
        return evaluate(
            dataset,
            source,
            settings,
            loading.on_download,
            lambda done: loading.show(f"listening, {done} of {of}"),
        )


def print_evaluation(found: Evaluation, min_score: float) -> None:
    """Print the measures, the genres, and what was taken for what."""
    console = PipeSafeConsole()
    for line in _list_measures(found, min_score):
        console.print(Text(line), soft_wrap=True)
    console.print(make_genre_table(found.measures))
    console.print(Text("labelled (rows) and heard as (columns):"))
    console.print(make_confusion_table(found.measures))


def _list_measures(found: Evaluation, min_score: float) -> list[str]:
    measures = found.measures
    lines = [
        f"{escape_unprintable(found.model)} on {escape_unprintable(found.dataset.name)}",
        f"accuracy            {_format_proportion(measures.accuracy)}",
        f"among its labels    {_format_proportion(found.among.accuracy)}",
        f"macro-F1            {measures.macro_f1:.3f}",
        f"calibration (ECE)   {measures.ece:.3f}",
        f"clips a second      {found.clips_per_s:.1f}",
    ]
    if found.sure:
        lines.insert(3, f"score {min_score:g} or more   {_format_proportion(found.sure)}")
    for label, clips in found.unknown.items():
        tracks = f"{format_track_count(clips)} of {escape_unprintable(label)}"
        lines.append(f"{tracks}: no label of the model, not counted")
    left_out = Counter(each.reason for each in (*found.dataset.left_out, *found.failed))
    lines += [
        f"{format_track_count(clips)} left out: {escape_unprintable(reason)}"
        for reason, clips in left_out.most_common(MAX_SHOWN_REASONS)
    ]
    return [*lines, "…"] if len(left_out) > MAX_SHOWN_REASONS else lines


def _format_proportion(share: Proportion) -> str:
    return f"{share.value:.1%} of {share.clips} (95 %: {share.low:.1%} to {share.high:.1%})"


def make_genre_table(measures: Measures) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("genre", no_wrap=True, max_width=MAX_GENRE_WIDTH)
    for name in ("clips", "precision", "recall", "F1"):
        table.add_column(name, justify="right")
    for row in measures.genres:
        numbers = (f"{value:.2f}" for value in (row.precision, row.recall, row.f1))
        table.add_row(Text(escape_unprintable(row.genre)), str(row.clips), *numbers)
    return table


def make_confusion_table(measures: Measures) -> Table:
    """Return the counts; columns are named by the first letters of the labels."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True, max_width=MAX_GENRE_WIDTH)
    for label in measures.labels:
        table.add_column(Text(escape_unprintable(label)[:4]), justify="right", no_wrap=True)
    for row, counts in zip(measures.genres, measures.confusion.tolist(), strict=False):
        cells = (Text(str(count or "·"), "" if count else "dim") for count in counts)
        table.add_row(Text(escape_unprintable(row.genre)), *cells)
    return table


TRAINING_STOPPED_MESSAGE = "stopped; with --resume it goes on from the last whole epoch"
MIN_CLIPS_PER_GENRE, MIN_TAGGED_TRACKS_PER_GENRE = 2, 10
MAX_SHOWN_LINES = 5
SPLIT_PARTS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class TrainCommand:
    """What the user asked for on the command line."""

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
    def listening(self) -> Settings:
        """Return the settings by which the base model is loaded and clips are decoded."""
        window_s = self.recipe.segment_seconds
        return replace(self.settings, model=self.recipe.base_model, window_seconds=window_s)


def run_train_command(order: TrainCommand) -> int:
    """Train, or with `--dry-run` show what would be done; return the exit code."""
    with (
        catch_stop_signals(TRAINING_STOPPED_MESSAGE) as stopper,
        _open_folders(order) as (folder, cache),
    ):
        return _run_training(order, _make_request(order, folder, cache), TrainingProgress(stopper))


def _run_training(order: TrainCommand, request: TrainingRequest, progress: TrainingProgress) -> int:
    console = PipeSafeConsole(stderr=order.settings.json)
    with progress.bar:
        progress.begin(f"reading {escape_unprintable(order.dataset)}")
        plans = prepare_training(
            request, _read_training_data(order), progress, download=not order.settings.dry_run
        )
        progress.rest()
        print_plan(plans, console)
        if order.settings.dry_run:
            _print_memory(order, plans, console)
            return 1 if plans.failed else 0
        trained = run_training(plans, progress, resume=order.resume, tensorboard=order.tensorboard)
        progress.rest()
        if not order.settings.json:
            best = f"kept: epoch {trained.best.number} of {len(trained.epochs)}"
            console.print(Text(best))
            print_evaluation(trained.evaluation, order.settings.min_score)
            print_line(f"Model: {escape_unprintable(display_path(order.folder))}")
        address = _push_result(request, progress, private=order.private)
    if order.settings.json:
        print_line(json.dumps(_result_as_json(order, trained) | {"published": address or None}))
    elif address:
        print_line(f"Published: {address}")
    return 1 if plans.failed or trained.evaluation.failed else 0


def _make_request(order: TrainCommand, folder: Path, cache: Path) -> TrainingRequest:
    repo = check_push(order.repo) if order.repo and not order.settings.dry_run else ""
    return TrainingRequest(
        source=find_base_model(order.listening),
        recipe=order.recipe,
        settings=order.listening,
        folder=folder,
        cache=cache,
        divide=lambda clips: _split_dataset(order, clips),
        repo=repo,
    )


def _push_result(request: TrainingRequest, progress: TrainingProgress, *, private: bool) -> str:
    """Push the model where that is wanted, and return the address of the commit."""
    if not request.repo:
        return ""
    message = f"{request.base} fine-tuned by tagger"
    uploading = progress.on_upload
    return push_model(
        request.folder, request.repo, private=private, message=message, progress=uploading
    )


@contextmanager
def _open_folders(order: TrainCommand) -> Iterator[tuple[Path, Path]]:
    """Yield the folder of the training and that of decoded sound; a dry run leaves nothing."""
    folder = order.folder.resolve()
    if order.settings.dry_run:
        with tempfile.TemporaryDirectory(prefix="tagger-") as temporary:
            yield folder, order.cache or Path(temporary)
        return
    check_workspace(folder, resume=order.resume)
    with lock_workspace(folder):
        yield folder, order.cache or folder / DECODED_FOLDER


def _read_training_data(order: TrainCommand) -> Dataset:
    settings, place = order.settings, Path(order.dataset)
    read = read_library if order.from_tags else read_dataset
    found = read(place, settings, settings.genre_map)
    fewest = order.min_tracks or (
        MIN_TAGGED_TRACKS_PER_GENRE if order.from_tags else MIN_CLIPS_PER_GENRE
    )
    dataset = drop_rare_labels(found, fewest)
    if not dataset.clips:
        raise LibraryError(f"{dataset.name} has no genre with {fewest} tracks (--min-tracks)")
    return dataset


def _split_dataset(order: TrainCommand, dataset: Dataset) -> Split:
    recipe = order.recipe
    if order.split_files:
        return read_split_files(order.split_files, dataset)
    if all(clip.part for clip in dataset.clips):
        usual = SplitKind.PUBLISHED
    else:
        by_album = order.from_tags and any(clip.album for clip in dataset.clips)
        usual = SplitKind.ALBUM if by_album else SplitKind.RANDOM
    how = recipe.split or usual
    return split_clips(dataset, how, test_size=recipe.test_size, seed=recipe.seed)


def print_plan(plans: TrainingPlan, console: PipeSafeConsole) -> None:
    """Print the halves, and what is to be known about them."""
    for line in _list_warnings(plans):
        console.print(Text(line), soft_wrap=True)
    console.print(_make_split_table(plans.split))


def _list_warnings(plans: TrainingPlan) -> Iterator[str]:
    split = plans.split
    left_out = Counter(each.reason for each in (*plans.dataset.left_out, *plans.failed))
    left_out.update("in none of the lists" for _ in split.left_out)
    for reason, clips in left_out.most_common(MAX_SHOWN_LINES):
        yield f"{format_track_count(clips)} left out: {escape_unprintable(reason)}"
    if len(left_out) > MAX_SHOWN_LINES:
        yield "…"
    for failure in plans.failed[:MAX_SHOWN_LINES]:
        yield escape_unprintable(f"  {display_path(failure.track.path)}: {failure.reason}")
    if len(plans.failed) > MAX_SHOWN_LINES:
        yield f"  … {len(plans.failed)} in all"
    if split.unmatched:
        first = escape_unprintable(", ".join(split.unmatched[:MAX_SHOWN_LINES]))
        yield f"{len(split.unmatched)} names in the lists are of no clip here: {first}, …"
    if split.untrained:
        yield f"no clip to learn from: {escape_unprintable(', '.join(split.untrained))}"
    if split.unmeasured:
        genres = escape_unprintable(", ".join(split.unmeasured))
        yield f"no clip held out, so nobody sees how well: {genres}"
    for one, other in plans.leaks[:MAX_SHOWN_LINES]:
        names = (escape_unprintable(display_path(clip.track.path)) for clip in (one, other))
        yield f"the same recording is in both halves: {' = '.join(names)}"
    if len(plans.leaks) > MAX_SHOWN_LINES:
        yield f"… {len(plans.leaks)} such pairs in all"
    yield f"halves: {escape_unprintable(split.how)}"


def _make_split_table(split: Split) -> Table:
    rows = split.counts()
    halves = [name for name in SPLIT_PARTS if getattr(split, name)]
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("genre", no_wrap=True, max_width=MAX_GENRE_WIDTH)
    for name in halves:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            Text(escape_unprintable(row.genre)), *(str(getattr(row, name)) for name in halves)
        )
    table.add_row("all", *(str(len(getattr(split, name))) for name in halves))
    return table


def _print_memory(order: TrainCommand, plans: TrainingPlan, console: PipeSafeConsole) -> None:
    memory = asdict(estimate_memory(plans))
    of = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in memory.items())
    total = f"memory for a step: about {sum(memory.values()) / 1e6:,.0f} MB ({of})"
    console.print(Text(total), soft_wrap=True)
    if order.settings.json:
        print_line(json.dumps({"dry_run": True, **_plan_as_json(plans), "memory_bytes": memory}))


def _plan_as_json(plans: TrainingPlan) -> dict[str, object]:
    return {
        "base_model": plans.request.source.identity,
        "halves": {"how": plans.split.how, "genres": [asdict(x) for x in plans.split.counts()]},
        "left_out": [
            {"path": display_path(each.track.path), "reason": each.reason}
            for each in (*plans.dataset.left_out, *plans.failed)
        ],
        "same_recording": [
            [display_path(clip.track.path) for clip in pair] for pair in plans.leaks
        ],
    }


def _result_as_json(order: TrainCommand, trained: TrainingResult) -> dict[str, object]:
    return {
        "output_dir": display_path(order.folder),
        "epochs": [asdict(epoch) for epoch in trained.epochs],
        **evaluation_as_json(trained.evaluation),
        **_plan_as_json(trained.plans),
        "failed": len(trained.plans.failed) + len(trained.evaluation.failed),
    }
