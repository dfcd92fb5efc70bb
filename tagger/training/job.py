"""A whole training: prepare, fine-tune, evaluate, write the results."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from transformers import PreTrainedConfig

from tagger import __version__
from tagger.errors import LibraryError
from tagger.models import ModelSource, download_missing, find_model
from tagger.models.card import CardContent, CardScores, write_card
from tagger.models.extractor import WindowExtractor
from tagger.paths import AnyPath
from tagger.records import Failure
from tagger.settings import Settings
from tagger.training.clips import Clip, Dataset
from tagger.training.decoding import (
    CROP_SOURCE_S,
    DecodedClip,
    DecodePlan,
    Segment,
    SegmentCollator,
    SegmentDataset,
    decode_clips,
)
from tagger.training.evaluate import EpochMeasures, Evaluation, evaluate, evaluation_as_json
from tagger.training.finetune import (
    FinetuneObserver,
    FinetuneTask,
    SplitSegments,
    choose_training_precision,
    finetune,
)
from tagger.training.fingerprints import find_leaks, find_same_recordings
from tagger.training.network import (
    TrainingMemory,
    check_recipe_fits,
    estimate_training_memory,
    load_trainable_description,
    load_trainable_model,
    make_untrained_model,
)
from tagger.training.pictures import draw_curves, draw_measures
from tagger.training.recipe import Recipe, choose_defaults
from tagger.training.splits import Split
from tagger.training.workspace import (
    NOTES_FILE,
    RESULTS_FILE,
    open_workspace,
    remove_temporary_folders,
    translate_workspace_errors,
    write_text_file,
)

KNOWN_BROKEN_CLIPS = {"jazz.00054": "GTZAN's jazz.00054 is known to be broken"}
"""What everybody's copy of a data set lacks, by the name of the file without its suffix."""


class TrainingObserver(FinetuneObserver, Protocol):
    """Told how a whole training goes; an error of it ends the training."""

    def on_decoded(self, done: int, of: int) -> None: ...
    def on_download(self, done: int, total: int) -> None: ...
    def on_evaluated(self, done: int, of: int) -> None: ...


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """What is to be trained: a base model and a recipe; `divide` makes the halves of the data.

    settings: with the base model as their model, and the recipe's segments as their windows.
    cache: where decoded sound is kept. repo: how the model will be called on the Hub, if it goes
    there.
    """

    source: ModelSource
    recipe: Recipe
    settings: Settings
    folder: Path
    cache: Path
    divide: Callable[[Dataset], Split]
    repo: str = ""

    @property
    def base(self) -> str:
        """Return what the base model is called: an id on the Hub, or the name of a folder."""
        return self.source.identity.rpartition("@")[0]


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What a training is going to do; nothing but decoded sound was written for it.

    sounds: of every clip, by its path. crops: what random crops come out of, where they are wanted.
    """

    request: TrainingRequest
    recipe: Recipe
    config: PreTrainedConfig
    extractor: WindowExtractor
    dataset: Dataset
    failed: tuple[Failure, ...]
    split: Split
    sounds: Mapping[AnyPath, DecodedClip]
    crops: Mapping[AnyPath, DecodedClip]
    leaks: tuple[tuple[Clip, Clip], ...]

    @property
    def noted_recipe(self) -> dict[str, str]:
        """Return the options; the base model by its name, since paths are nobody's business."""
        return {**self.recipe.as_text(), "base-model": self.request.base}

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the labels by their numbers; of several, a clip teaches its main one."""
        halves = (self.split.train, self.split.validation, self.split.test)
        return tuple(sorted({clip.labels[0] for half in halves for clip in half}))


def prepare_training(
    request: TrainingRequest, dataset: Dataset, observer: TrainingObserver, *, download: bool
) -> TrainingPlan:
    """Decode the clips and part them into halves; `download` what the base model lacks first.

    Raises LibraryError for data that nothing can be learned from, and the errors of a model.
    """
    config, extractor = load_trainable_description(request.source, request.recipe, request.settings)
    choose_training_precision(request.settings)
    check_recipe_fits(config, request.recipe, trust=request.settings.trust_remote_code)
    request.divide(dataset)  # what cannot be divided is told before the long work
    if download:
        download_missing(request.source, request.settings, observer.on_download)
    plan = DecodePlan(extractor.rate_hz, extractor.window_s, extractor.windows)
    kept, left_out, failed, sounds = [], list(dataset.left_out), [], {}
    results = _decode_clips(dataset.clips, plan, request, observer)
    for clip, result in zip(dataset.clips, results, strict=True):
        if isinstance(result, DecodedClip):
            kept.append(clip)
            sounds[clip.track.path] = result
        elif reason := KNOWN_BROKEN_CLIPS.get(Path(clip.track.path).stem):
            left_out.append(Failure(clip.track, reason))
        else:
            failed.append(result)
    if not kept:
        raise LibraryError(f"{dataset.name} has no clip that can be listened to")
    whole = replace(dataset, clips=tuple(kept), left_out=tuple(left_out))
    split = request.divide(whole)
    crops = {}
    if request.recipe.random_crops:
        plan = replace(plan, window_s=max(CROP_SOURCE_S, extractor.window_s), count=1)
        found = _decode_clips(split.train, plan, request, observer)
        crops = {each.track.path: each for each in found if isinstance(each, DecodedClip)}
    return TrainingPlan(
        request=request,
        recipe=request.recipe.settled(choose_defaults(request.recipe.freeze, config.model_type)),
        config=config,
        extractor=extractor,
        dataset=whole,
        failed=tuple(failed),
        split=split,
        sounds=sounds,
        crops=crops,
        leaks=_find_leaks(split, sounds),
    )


def _decode_clips(
    clips: Sequence[Clip], plan: DecodePlan, request: TrainingRequest, observer: TrainingObserver
) -> Iterator[DecodedClip | Failure]:
    tracks = [clip.track for clip in clips]
    results = decode_clips(tracks, plan, request.cache, request.settings)
    for number, result in enumerate(results, 1):
        observer.on_decoded(number, len(tracks))
        yield result


def _find_leaks(
    split: Split, sounds: Mapping[AnyPath, DecodedClip]
) -> tuple[tuple[Clip, Clip], ...]:
    """Return the pairs of clips that are one recording, and stand in different halves."""
    halves = (split.train, split.validation, split.test)
    clips = [(clip, number) for number, half in enumerate(halves) for clip in half]
    pairs = find_same_recordings([sounds[clip.track.path].fingerprint for clip, _ in clips])
    straddling = find_leaks(pairs, [number for _, number in clips])
    return tuple((clips[pair.first][0], clips[pair.second][0]) for pair in straddling)


def make_split_segments(
    clips: Sequence[Clip], plans: TrainingPlan, *, cropped: bool = False
) -> SplitSegments:
    """Return the segments of clips, clip by clip; `cropped` ones are to be cut out of more."""
    numbers = {label: number for number, label in enumerate(plans.labels)}
    counts = [plans.sounds[clip.track.path].windows for clip in clips]
    crops = plans.crops if cropped else {}
    segments = []
    for clip, count in zip(clips, counts, strict=True):
        label, crop = numbers[clip.labels[0]], crops.get(clip.track.path)
        file = (crop or plans.sounds[clip.track.path]).file
        segments += [Segment(file, 0 if crop else n, label) for n in range(count)]
    truths = [frozenset(numbers[x] for x in clip.labels if x in numbers) for clip in clips]
    return SplitSegments(tuple(segments), tuple(counts), tuple(truths))


def estimate_memory(plans: TrainingPlan) -> TrainingMemory:
    """Estimate what a step of the training takes, on a network of that shape."""
    trust = plans.request.settings.trust_remote_code
    model = make_untrained_model(plans.config, plans.labels, plans.recipe, trust=trust)
    segments = make_split_segments(plans.split.train, plans).segments
    dataset = SegmentDataset(segments, plans.extractor)
    batch = [dataset[number % len(dataset)] for number in range(plans.recipe.batch_size)]
    inputs = SegmentCollator(plans.extractor)(batch)
    return estimate_training_memory(
        model, inputs, gradient_checkpointing=plans.recipe.gradient_checkpointing
    )


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What came of a training: its epochs, and how good the best is on the clips held out."""

    plans: TrainingPlan
    epochs: tuple[EpochMeasures, ...]
    evaluation: Evaluation

    @property
    def best(self) -> EpochMeasures:
        return max(self.epochs, key=lambda epoch: epoch.accuracy)


def make_notes(plans: TrainingPlan) -> Mapping[str, object]:
    """Return what a training depends on, as it is kept beside the result."""
    return {
        "recipe": plans.noted_recipe,
        "base": plans.request.source.identity,
        "labels": list(plans.labels),
        "tagger": __version__,
    }


def write_results(trained: TrainingResult) -> None:
    """Put beside the model what it is worth; nothing of it tells where the clips lie.

    Raises ReportError and ModelError where that cannot be written.
    """
    folder, measures = trained.plans.request.folder, trained.evaluation.measures
    dataset = trained.plans.dataset.title
    title = f"{folder.name} on {dataset}"
    draw_curves(trained.epochs, title, folder / "curves.png")
    draw_measures(measures, title, folder / "measures.png")
    numbers = {
        **evaluation_as_json(trained.evaluation),
        "model": folder.name,
        "dataset": dataset,
        "left_out": _count_left_out(trained),
        "epochs": [asdict(epoch) for epoch in trained.epochs],
    }
    write_card(folder, _make_card(trained))
    write_text_file(folder / RESULTS_FILE, json.dumps(numbers, indent=2) + "\n")


def _count_left_out(trained: TrainingResult) -> int:
    return len(trained.plans.dataset.left_out) + len(trained.plans.failed)


def _make_card(trained: TrainingResult) -> CardContent:
    plans, measures = trained.plans, trained.evaluation.measures
    split, share = plans.split, measures.accuracy
    halves = {"learned from": split.train, "validation": split.validation, "test": split.test}
    return CardContent(
        name=plans.request.repo or plans.request.folder.name,
        base=plans.request.base,
        dataset=plans.dataset.title,
        model_type=plans.config.model_type,
        labels=plans.labels,
        scores=CardScores(
            accuracy=share.value,
            low=share.low,
            high=share.high,
            clips=share.clips,
            macro_f1=measures.macro_f1,
            ece=measures.ece,
            chose=not split.test,
        ),
        data={name: len(clips) for name, clips in halves.items() if clips}
        | {"halves": split.how, "left out": _count_left_out(trained)},
        recipe=plans.noted_recipe,
        epochs=[
            {
                "epoch": epoch.number,
                "training loss": epoch.train_loss,
                "validation loss": epoch.validation_loss,
                "accuracy": epoch.accuracy,
            }
            for epoch in trained.epochs
        ],
        genres=[asdict(row) for row in measures.genres],
        leaks=(f"Pairs of clips that are one recording in two halves: {len(plans.leaks)}.",),
    )


def run_training(
    plans: TrainingPlan, observer: TrainingObserver, *, resume: bool, tensorboard: bool
) -> TrainingResult:
    """Fine-tune, keep the best epoch, and measure it on the half that is held out for that.

    Raises SettingsError where the folder holds another training, ReportError where it cannot be
    written, and what `finetune` and `evaluate` raise.
    """
    request, folder = plans.request, plans.request.folder
    model = load_trainable_model(
        request.source, plans.config, plans.labels, plans.recipe, request.settings
    )
    open_workspace(folder, make_notes(plans), plans.split)
    task = FinetuneTask(
        model=model,
        extractor=plans.extractor,
        train=make_split_segments(plans.split.train, plans, cropped=plans.recipe.random_crops),
        validation=make_split_segments(plans.split.validation, plans),
        recipe=plans.recipe,
        folder=folder,
        settings=request.settings,
        tensorboard=tensorboard,
    )
    epochs = finetune(task, observer, resume=resume)
    with translate_workspace_errors(folder):
        features: Any = plans.extractor.feature_extractor
        features.save_pretrained(folder)
        task.model.save_pretrained(folder)
        for path in folder.glob("*.safetensors"):
            path.chmod(
                (folder / NOTES_FILE).stat().st_mode
            )  # safetensors lets nobody else read them
    trained = TrainingResult(plans, epochs, _evaluate_result(plans, observer))
    with translate_workspace_errors(folder):
        write_results(trained)
    remove_temporary_folders(folder)
    return trained


def _evaluate_result(plans: TrainingPlan, observer: TrainingObserver) -> Evaluation:
    """Hear the clips held out as a scan hears them, with the folder that is the result."""
    settings = replace(
        plans.request.settings,
        model=str(plans.request.folder),
        revision=None,
        window_seconds=None,
        genre_map={},
    )
    clips = plans.split.test or plans.split.validation
    return evaluate(
        Dataset(plans.dataset.name, clips, title=plans.dataset.title),
        find_model(settings),
        settings,
        observer.on_download,
        lambda done: observer.on_evaluated(done, len(clips)),
    )
