"""A training as a person sees it: its plan, and what came of it."""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.table import Table
from rich.text import Text

from tagger.cli.console import PatientConsole
from tagger.cli.measures import WIDEST, print_tables
from tagger.cli.signals import stopping_on_signals
from tagger.cli.text import count_of, printable, show
from tagger.cli.training_progress import TrainingProgress
from tagger.errors import LibraryError
from tagger.models import find_base
from tagger.models.sharing import check_push, push
from tagger.paths import displayed
from tagger.settings import Settings
from tagger.training.clips import Dataset, at_least
from tagger.training.evaluate import as_json
from tagger.training.job import train
from tagger.training.plans import Plans, Request, Trained, estimate, prepare
from tagger.training.reading import read_dataset, read_library
from tagger.training.recipe import Recipe, SplitKind
from tagger.training.split_files import read_split_files
from tagger.training.splits import Split, split_clips
from tagger.training.workspace import DECODED, check_workspace, held

STOPPED = "stopped; with --resume it goes on from the last whole epoch"
FEWEST, FEWEST_TAGGED = 2, 10
SHOWN = 5
HALVES = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Order:
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


def run(order: Order) -> int:
    """Train, or with `--dry-run` show what would be done; return the exit code."""
    with (
        stopping_on_signals(STOPPED) as stopper,
        _places(order) as (folder, cache),
    ):
        return _run(order, _request(order, folder, cache), TrainingProgress(stopper))


def _run(order: Order, request: Request, progress: TrainingProgress) -> int:
    console = PatientConsole(stderr=order.settings.json)
    with progress.bar:
        progress.begin(f"reading {printable(order.dataset)}")
        plans = prepare(request, _read(order), progress, download=not order.settings.dry_run)
        progress.rest()
        print_plan(plans, console)
        if order.settings.dry_run:
            _show_memory(order, plans, console)
            return 1 if plans.failed else 0
        trained = train(plans, progress, resume=order.resume, tensorboard=order.tensorboard)
        progress.rest()
        if not order.settings.json:
            best = f"kept: epoch {trained.best.number} of {len(trained.epochs)}"
            console.print(Text(best))
            print_tables(trained.evaluation, order.settings.min_score)
            show(f"Model: {printable(displayed(order.folder))}")
        address = _publish(request, progress, private=order.private)
    if order.settings.json:
        show(json.dumps(_summary(order, trained) | {"published": address or None}))
    elif address:
        show(f"Published: {address}")
    return 1 if plans.failed or trained.evaluation.failed else 0


def _request(order: Order, folder: Path, cache: Path) -> Request:
    repo = check_push(order.repo) if order.repo and not order.settings.dry_run else ""
    return Request(
        source=find_base(order.listening),
        recipe=order.recipe,
        settings=order.listening,
        folder=folder,
        cache=cache,
        divide=lambda clips: _divide(order, clips),
        repo=repo,
    )


def _publish(request: Request, progress: TrainingProgress, *, private: bool) -> str:
    """Push the model where that is wanted, and return the address of the commit."""
    if not request.repo:
        return ""
    message = f"{request.base} fine-tuned by tagger"
    uploading = progress.uploading
    return push(request.folder, request.repo, private=private, message=message, progress=uploading)


@contextmanager
def _places(order: Order) -> Iterator[tuple[Path, Path]]:
    """Yield the folder of the training and that of decoded sound; a dry run leaves nothing."""
    folder = order.folder.resolve()
    if order.settings.dry_run:
        with tempfile.TemporaryDirectory(prefix="tagger-") as temporary:
            yield folder, order.cache or Path(temporary)
        return
    check_workspace(folder, resume=order.resume)
    with held(folder):
        yield folder, order.cache or folder / DECODED


def _read(order: Order) -> Dataset:
    settings, place = order.settings, Path(order.dataset)
    read = read_library if order.from_tags else read_dataset
    found = read(place, settings, settings.genre_map)
    fewest = order.min_tracks or (FEWEST_TAGGED if order.from_tags else FEWEST)
    dataset = at_least(found, fewest)
    if not dataset.clips:
        raise LibraryError(f"{dataset.name} has no genre with {fewest} tracks (--min-tracks)")
    return dataset


def _divide(order: Order, dataset: Dataset) -> Split:
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


def print_plan(plans: Plans, console: PatientConsole) -> None:
    """Print the halves, and what is to be known about them."""
    for line in _warnings(plans):
        console.print(Text(line), soft_wrap=True)
    console.print(_split_table(plans.split))


def _warnings(plans: Plans) -> Iterator[str]:
    split = plans.split
    left_out = Counter(each.reason for each in (*plans.dataset.left_out, *plans.failed))
    left_out.update("in none of the lists" for _ in split.left_out)
    for reason, clips in left_out.most_common(SHOWN):
        yield f"{count_of(clips)} left out: {printable(reason)}"
    if len(left_out) > SHOWN:
        yield "…"
    for failure in plans.failed[:SHOWN]:
        yield printable(f"  {displayed(failure.track.path)}: {failure.reason}")
    if len(plans.failed) > SHOWN:
        yield f"  … {len(plans.failed)} in all"
    if split.unmatched:
        first = printable(", ".join(split.unmatched[:SHOWN]))
        yield f"{len(split.unmatched)} names in the lists are of no clip here: {first}, …"
    if split.untrained:
        yield f"no clip to learn from: {printable(', '.join(split.untrained))}"
    if split.unseen:
        yield f"no clip held out, so nobody sees how well: {printable(', '.join(split.unseen))}"
    for one, other in plans.leaks[:SHOWN]:
        names = (printable(displayed(clip.track.path)) for clip in (one, other))
        yield f"the same recording is in both halves: {' = '.join(names)}"
    if len(plans.leaks) > SHOWN:
        yield f"… {len(plans.leaks)} such pairs in all"
    yield f"halves: {printable(split.how)}"


def _split_table(split: Split) -> Table:
    rows = split.counts()
    halves = [name for name in HALVES if getattr(split, name)]
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("genre", no_wrap=True, max_width=WIDEST)
    for name in halves:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(Text(printable(row.genre)), *(str(getattr(row, name)) for name in halves))
    table.add_row("all", *(str(len(getattr(split, name))) for name in halves))
    return table


def _show_memory(order: Order, plans: Plans, console: PatientConsole) -> None:
    memory = asdict(estimate(plans))
    of = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in memory.items())
    total = f"memory for a step: about {sum(memory.values()) / 1e6:,.0f} MB ({of})"
    console.print(Text(total), soft_wrap=True)
    if order.settings.json:
        show(json.dumps({"dry_run": True, **_plan_as_json(plans), "memory_bytes": memory}))


def _plan_as_json(plans: Plans) -> dict[str, object]:
    return {
        "base_model": plans.request.source.identity,
        "halves": {"how": plans.split.how, "genres": [asdict(x) for x in plans.split.counts()]},
        "left_out": [
            {"path": displayed(each.track.path), "reason": each.reason}
            for each in (*plans.dataset.left_out, *plans.failed)
        ],
        "same_recording": [[displayed(clip.track.path) for clip in pair] for pair in plans.leaks],
    }


def _summary(order: Order, trained: Trained) -> dict[str, object]:
    return {
        "output_dir": displayed(order.folder),
        "epochs": [asdict(epoch) for epoch in trained.epochs],
        **as_json(trained.evaluation),
        **_plan_as_json(trained.plans),
        "failed": len(trained.plans.failed) + len(trained.evaluation.failed),
    }
