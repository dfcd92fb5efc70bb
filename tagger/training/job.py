"""A whole training: prepare the data, fine-tune, evaluate, write the results."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from transformers import PreTrainedConfig

from tagger.errors import LibraryError
from tagger.models import ModelSource, download_missing, find_model
from tagger.models.card import CardContent, CardScores, write_card
from tagger.models.classifier import WindowFeatureExtractor
from tagger.paths import AnyPath
from tagger.records import Failure
from tagger.settings import Settings
from tagger.training.clips import PARTS, Clip, Dataset
from tagger.training.decoding import (
    CROP_SOURCE_S,
    DecodedClip,
    DecodePlan,
    Segment,
    SegmentCollator,
    SegmentDataset,
    decode_clips,
)
from tagger.training.evaluate import EpochMeasures, Evaluation, evaluate_model, make_evaluation_json
from tagger.training.finetune import (
    FinetuneObserver,
    FinetuneTask,
    PartSegments,
    choose_training_precision,
    finetune,
)
from tagger.training.fingerprints import find_leaks, find_same_recordings
from tagger.training.network import (
    TrainingMemory,
    check_recipe_fits,
    estimate_training_memory,
    load_trainable_config,
    load_trainable_model,
    make_untrained_model,
)
from tagger.training.pictures import draw_curves, draw_measures
from tagger.training.recipe import Recipe, choose_defaults
from tagger.training.splits import Split
from tagger.training.workspace import (
    EVALUATION_FILE,
    RECIPE_FILE,
    TrainingDescription,
    open_workspace,
    remove_temporary_folders,
    translate_workspace_errors,
    write_text_file,
)
from tagger.version import __version__

KNOWN_BROKEN_CLIPS = {"jazz.00054": "GTZAN's jazz.00054 is known to be broken"}
"""Clips that are broken in every copy of a data set, by the file name without suffix."""


class TrainingObserver(FinetuneObserver, Protocol):
    """Is told of the progress of a whole training. An error that it raises ends the training."""

    def on_decoded(self, done: int, total: int) -> None: ...
    def on_download(self, done: int, total: int) -> None: ...
    def on_evaluated(self, done: int, total: int) -> None: ...


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """A base model, a recipe, and where the result goes.

    settings: their model is the base model, their windows are the segments of the recipe. cache:
    the folder for decoded sound. repo: the id of the result on the Hub, if it is pushed.
    """

    source: ModelSource
    recipe: Recipe
    settings: Settings
    folder: Path
    cache: Path
    split_dataset: Callable[[Dataset], Split]
    repo: str = ""

    @property
    def base_name(self) -> str:
        """Return the name of the base model: an id on the Hub, or the name of a folder."""
        return self.source.identity.rpartition("@")[0]


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """All that a training needs. Only decoded sound was written for it.

    decoded: the windows of every clip, by the path of the clip. crop_sources: the same for random
    crops, empty without these. leaks: pairs of clips of one recording in two parts.
    """

    request: TrainingRequest
    recipe: Recipe
    config: PreTrainedConfig
    extractor: WindowFeatureExtractor
    dataset: Dataset
    failures: tuple[Failure, ...]
    split: Split
    decoded: Mapping[AnyPath, DecodedClip]
    crop_sources: Mapping[AnyPath, DecodedClip]
    leaks: tuple[tuple[Clip, Clip], ...]

    @property
    def published_recipe(self) -> dict[str, str]:
        """Return the options, with the base model by its name: its path is private."""
        return {**self.recipe.format_options(), "base-model": self.request.base_name}

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the labels in the order of their numbers. Only main labels are learned."""
        parts = (self.split.train, self.split.validation, self.split.test)
        return tuple(sorted({clip.labels[0] for clips in parts for clip in clips}))


def prepare_training(
    request: TrainingRequest, dataset: Dataset, observer: TrainingObserver, *, download: bool
) -> TrainingPlan:
    """Decode and split the clips. `download`: first download the missing files of the base model.

    Raises LibraryError if nothing can be learned from the data, and the errors of a model.
    """
    config, extractor = load_trainable_config(request.source, request.recipe, request.settings)
    choose_training_precision(request.settings)
    check_recipe_fits(config, request.recipe, trust=request.settings.trust_remote_code)
    request.split_dataset(dataset)  # raises its errors before the long work
    if download:
        download_missing(request.source, request.settings, observer.on_download)
    decode_plan = DecodePlan(extractor.rate_hz, extractor.window_s, extractor.window_count)
    kept, left_out, failures, decoded = [], list(dataset.left_out), [], {}
    results = _decode_clips(dataset.clips, decode_plan, request, observer)
    for clip, result in zip(dataset.clips, results, strict=True):
        if isinstance(result, DecodedClip):
            kept.append(clip)
            decoded[clip.track.path] = result
        elif reason := KNOWN_BROKEN_CLIPS.get(Path(clip.track.path).stem):
            left_out.append(Failure(clip.track, reason))
        else:
            failures.append(result)
    if not kept:
        raise LibraryError(f"{dataset.name} has no clip that can be decoded")
    decodable = replace(dataset, clips=tuple(kept), left_out=tuple(left_out))
    split = request.split_dataset(decodable)
    crop_sources = {}
    if request.recipe.random_crops:
        crop_plan = replace(decode_plan, window_s=max(CROP_SOURCE_S, extractor.window_s), count=1)
        crops = _decode_clips(split.train, crop_plan, request, observer)
        crop_sources = {crop.track.path: crop for crop in crops if isinstance(crop, DecodedClip)}
    defaults = choose_defaults(request.recipe.freeze, config.model_type)
    return TrainingPlan(
        request=request,
        recipe=request.recipe.resolve_auto(defaults),
        config=config,
        extractor=extractor,
        dataset=decodable,
        failures=tuple(failures),
        split=split,
        decoded=decoded,
        crop_sources=crop_sources,
        leaks=_find_leaking_clips(split, decoded),
    )


def _decode_clips(
    clips: Sequence[Clip], plan: DecodePlan, request: TrainingRequest, observer: TrainingObserver
) -> Iterator[DecodedClip | Failure]:
    tracks = [clip.track for clip in clips]
    results = decode_clips(tracks, plan, request.cache, request.settings)
    for number, result in enumerate(results, 1):
        observer.on_decoded(number, len(tracks))
        yield result


def _find_leaking_clips(
    split: Split, decoded: Mapping[AnyPath, DecodedClip]
) -> tuple[tuple[Clip, Clip], ...]:
    """Return the pairs of clips of one recording that are in different parts."""
    clips = [(clip, part) for part in PARTS for clip in getattr(split, part)]
    pairs = find_same_recordings([decoded[clip.track.path].fingerprint for clip, _ in clips])
    leaks = find_leaks(pairs, [part for _, part in clips])
    return tuple((clips[pair.first][0], clips[pair.second][0]) for pair in leaks)


def make_part_segments(
    clips: Sequence[Clip], plan: TrainingPlan, *, use_crops: bool = False
) -> PartSegments:
    """Return the segments of clips, clip by clip. `use_crops`: cut them from longer windows."""
    numbers = {label: number for number, label in enumerate(plan.labels)}
    counts = [plan.decoded[clip.track.path].windows for clip in clips]
    crop_sources = plan.crop_sources if use_crops else {}
    segments = []
    for clip, count in zip(clips, counts, strict=True):
        label, crop_source = numbers[clip.labels[0]], crop_sources.get(clip.track.path)
        file = (crop_source or plan.decoded[clip.track.path]).file
        segments += [Segment(file, 0 if crop_source else n, label) for n in range(count)]
    label_numbers = [frozenset(numbers[x] for x in clip.labels if x in numbers) for clip in clips]
    return PartSegments(tuple(segments), tuple(counts), tuple(label_numbers))


def estimate_memory(plan: TrainingPlan) -> TrainingMemory:
    """Estimate the memory for a training step, on an untrained network of the same shape."""
    trust = plan.request.settings.trust_remote_code
    model = make_untrained_model(plan.config, plan.labels, plan.recipe, trust=trust)
    dataset = SegmentDataset(make_part_segments(plan.split.train, plan).segments, plan.extractor)
    batch = [dataset[number % len(dataset)] for number in range(plan.recipe.batch_size)]
    inputs = SegmentCollator(plan.extractor)(batch)
    return estimate_training_memory(
        model, inputs, gradient_checkpointing=plan.recipe.gradient_checkpointing
    )


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The epochs of a training, the one that is kept, and its evaluation.

    keeps_last_epoch: whether the last epoch was kept, whatever the validation part said.
    """

    plan: TrainingPlan
    epochs: tuple[EpochMeasures, ...]
    kept_epoch: EpochMeasures
    keeps_last_epoch: bool
    evaluation: Evaluation


def describe_training(plan: TrainingPlan) -> TrainingDescription:
    """Return all on which the result of a training depends, for the file beside the result."""
    return {
        "tagger": __version__,  # first, because another version may have other options
        "recipe": plan.published_recipe,
        "base": plan.request.source.identity,
        "labels": list(plan.labels),
    }


def write_results(result: TrainingResult) -> None:
    """Write pictures, measures and the model card. None of them has the paths of the clips.

    Raises ReportError and ModelError if that fails.
    """
    folder, measures = result.plan.request.folder, result.evaluation.measures
    dataset = result.plan.dataset.title
    title = f"{folder.name} on {dataset}"
    draw_curves(result.epochs, result.kept_epoch, title, folder / "curves.png")
    draw_measures(measures, title, folder / "measures.png")
    values = {
        **make_evaluation_json(result.evaluation),
        "model": folder.name,
        "dataset": dataset,
        "left_out": _count_left_out(result.plan),
        "epochs": [asdict(epoch) for epoch in result.epochs],
    }
    write_card(folder, _make_card(result))
    write_text_file(folder / EVALUATION_FILE, json.dumps(values, indent=2) + "\n")


def _count_left_out(plan: TrainingPlan) -> int:
    return len(plan.dataset.left_out) + len(plan.failures)


def _make_card(result: TrainingResult) -> CardContent:
    plan, measures = result.plan, result.evaluation.measures
    split, accuracy = plan.split, measures.accuracy
    parts = {"training": split.train, "validation": split.validation, "test": split.test}
    return CardContent(
        name=plan.request.repo or plan.request.folder.name,
        base=plan.request.base_name,
        dataset=plan.dataset.title,
        model_type=plan.config.model_type,
        labels=plan.labels,
        scores=CardScores(
            accuracy=accuracy.value,
            low=accuracy.low,
            high=accuracy.high,
            clips=accuracy.clips,
            macro_f1=measures.macro_f1,
            ece=measures.ece,
            chose=not split.test and not result.keeps_last_epoch,
        ),
        data={name: len(clips) for name, clips in parts.items() if clips}
        | {"split": split.method, "left out": _count_left_out(plan)},
        recipe=plan.published_recipe,
        epochs=[
            {
                "epoch": epoch.number,
                "training loss": epoch.train_loss,
                "validation loss": epoch.validation_loss,
                "accuracy": epoch.accuracy,
            }
            for epoch in result.epochs
        ],
        genres=[asdict(row) for row in measures.genres],
        leaks=(f"Pairs of clips of one recording in two parts: {len(plan.leaks)}.",),
    )


def run_training(
    plan: TrainingPlan, observer: TrainingObserver, *, resume: bool, tensorboard: bool
) -> TrainingResult:
    """Fine-tune, keep one epoch, and measure it on the test part, or the validation part.

    Raises SettingsError if the folder holds another training, ReportError if it cannot be written,
    and what `finetune` and `evaluate` raise.
    """
    request, folder = plan.request, plan.request.folder
    model = load_trainable_model(
        request.source, plan.config, plan.labels, plan.recipe, request.settings
    )
    open_workspace(folder, describe_training(plan), plan.split)
    task = FinetuneTask(
        model=model,
        extractor=plan.extractor,
        train=make_part_segments(plan.split.train, plan, use_crops=plan.recipe.random_crops),
        validation=make_part_segments(plan.split.validation, plan),
        recipe=plan.recipe,
        folder=folder,
        settings=request.settings,
        tensorboard=tensorboard,
    )
    epochs = finetune(task, observer, resume=resume)
    with translate_workspace_errors(folder):
        _save_model(task)
    evaluation = _evaluate_result(plan, observer)
    result = TrainingResult(
        plan, epochs, task.choose_epoch(epochs), task.keeps_last_epoch, evaluation
    )
    with translate_workspace_errors(folder):
        write_results(result)
    remove_temporary_folders(folder)
    return result


def _save_model(task: FinetuneTask) -> None:
    features: Any = task.extractor.feature_extractor
    features.save_pretrained(task.folder)
    task.model.save_pretrained(task.folder)
    # safetensors lets only the owner read its files; other programs may run as another user
    mode = (task.folder / RECIPE_FILE).stat().st_mode
    for path in task.folder.glob("*.safetensors"):
        path.chmod(mode)


def _evaluate_result(plan: TrainingPlan, observer: TrainingObserver) -> Evaluation:
    """Evaluate the model in the folder of the result, in the same way as a scan uses it."""
    settings = replace(
        plan.request.settings,
        model=str(plan.request.folder),
        revision=None,
        window_seconds=None,
        genre_map={},
    )
    clips = plan.split.test or plan.split.validation
    return evaluate_model(
        Dataset(plan.dataset.name, clips, title=plan.dataset.title),
        find_model(settings),
        settings,
        observer.on_download,
        observer.on_evaluated,
    )
