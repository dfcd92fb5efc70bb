"""What a training is going to do: clips decoded, parted and searched for leaks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from transformers import PreTrainedConfig

from tagger import __version__
from tagger.errors import LibraryError
from tagger.models import Source, fetch
from tagger.models.extractor import Extractor
from tagger.records import Failure
from tagger.settings import Settings
from tagger.training import examples
from tagger.training.clips import Clip, Dataset
from tagger.training.evaluate import Evaluation
from tagger.training.examples import Half
from tagger.training.finetune import precision_of
from tagger.training.measures import Epoch
from tagger.training.network import Memory, check, describe, memory_for, outline
from tagger.training.recipe import Recipe, defaults_for
from tagger.training.recordings import leaks, same_recordings
from tagger.training.sounds import (
    CROPPED_S,
    Collate,
    Decoded,
    Plan,
    Segment,
    SegmentDataset,
    decode,
)
from tagger.training.splits import Split

BROKEN = {"jazz.00054": "GTZAN's jazz.00054 is known to be broken"}
"""What everybody's copy of a data set lacks, by the name of the file without its suffix."""


class Tell(examples.Tell, Protocol):
    """Told how a whole training goes; an error of it ends the training."""

    def decoded(self, done: int, of: int) -> None: ...
    def fetching(self, done: int, total: int) -> None: ...
    def measured(self, done: int, of: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be trained: a base model and a recipe; `divide` makes the halves of the data.

    settings: with the base model as their model, and the recipe's segments as their windows.
    cache: where decoded sound is kept. repo: how the model will be called on the Hub, if it goes
    there.
    """

    source: Source
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
class Plans:
    """What a training is going to do; nothing but decoded sound was written for it.

    sounds: of every clip, by its path. crops: what random crops come out of, where they are wanted.
    """

    request: Request
    recipe: Recipe
    config: PreTrainedConfig
    extractor: Extractor
    dataset: Dataset
    failed: tuple[Failure, ...]
    split: Split
    sounds: Mapping[Path, Decoded]
    crops: Mapping[Path, Decoded]
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


def prepare(request: Request, dataset: Dataset, tell: Tell, *, download: bool) -> Plans:
    """Decode the clips and part them into halves; `download` what the base model lacks first.

    Raises LibraryError for data that nothing can be learned from, and the errors of a model.
    """
    config, extractor = describe(request.source, request.recipe, request.settings)
    precision_of(request.settings)
    check(config, request.recipe, trust=request.settings.trust_remote_code)
    request.divide(dataset)  # what cannot be divided is told before the long work
    if download:
        fetch(request.source, request.settings, tell.fetching)
    plan = Plan(extractor.rate_hz, extractor.window_s, extractor.windows)
    kept, left_out, failed, sounds = [], list(dataset.left_out), [], {}
    results = _decode(dataset.clips, plan, request, tell)
    for clip, result in zip(dataset.clips, results, strict=True):
        if isinstance(result, Decoded):
            kept.append(clip)
            sounds[clip.track.path] = result
        elif reason := BROKEN.get(clip.track.path.stem):
            left_out.append(Failure(clip.track, reason))
        else:
            failed.append(result)
    if not kept:
        raise LibraryError(f"{dataset.name} has no clip that can be listened to")
    whole = replace(dataset, clips=tuple(kept), left_out=tuple(left_out))
    split = request.divide(whole)
    crops = {}
    if request.recipe.random_crops:
        plan = replace(plan, window_s=max(CROPPED_S, extractor.window_s), count=1)
        found = _decode(split.train, plan, request, tell)
        crops = {each.track.path: each for each in found if isinstance(each, Decoded)}
    return Plans(
        request=request,
        recipe=request.recipe.settled(defaults_for(request.recipe.freeze, config.model_type)),
        config=config,
        extractor=extractor,
        dataset=whole,
        failed=tuple(failed),
        split=split,
        sounds=sounds,
        crops=crops,
        leaks=_leaks(split, sounds),
    )


def _decode(
    clips: Sequence[Clip], plan: Plan, request: Request, tell: Tell
) -> Iterator[Decoded | Failure]:
    tracks = [clip.track for clip in clips]
    results = decode(tracks, plan, request.cache, request.settings)
    for number, result in enumerate(results, 1):
        tell.decoded(number, len(tracks))
        yield result


def _leaks(split: Split, sounds: Mapping[Path, Decoded]) -> tuple[tuple[Clip, Clip], ...]:
    """Return the pairs of clips that are one recording, and stand in different halves."""
    halves = (split.train, split.validation, split.test)
    clips = [(clip, number) for number, half in enumerate(halves) for clip in half]
    pairs = same_recordings([sounds[clip.track.path].fingerprint for clip, _ in clips])
    straddling = leaks(pairs, [number for _, number in clips])
    return tuple((clips[pair.first][0], clips[pair.second][0]) for pair in straddling)


def half_of(clips: Sequence[Clip], plans: Plans, *, cropped: bool = False) -> Half:
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
    return Half(tuple(segments), tuple(counts), tuple(truths))


def estimate(plans: Plans) -> Memory:
    """Estimate what a step of the training takes, on a network of that shape."""
    trust = plans.request.settings.trust_remote_code
    model = outline(plans.config, plans.labels, plans.recipe, trust=trust)
    segments = half_of(plans.split.train, plans).segments
    dataset = SegmentDataset(segments, plans.extractor)
    batch = [dataset[number % len(dataset)] for number in range(plans.recipe.batch_size)]
    inputs = Collate(plans.extractor)(batch)
    return memory_for(model, inputs, gradient_checkpointing=plans.recipe.gradient_checkpointing)


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of a training: its epochs, and how good the best is on the clips held out."""

    plans: Plans
    epochs: tuple[Epoch, ...]
    evaluation: Evaluation

    @property
    def best(self) -> Epoch:
        return max(self.epochs, key=lambda epoch: epoch.accuracy)


def notes_on(plans: Plans) -> Mapping[str, object]:
    """Return what a training depends on, as it is kept beside the result."""
    return {
        "recipe": plans.noted_recipe,
        "base": plans.request.source.identity,
        "labels": list(plans.labels),
        "tagger": __version__,
    }
