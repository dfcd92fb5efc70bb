"""Measure a model on labelled clips: accuracy, F1, confusion matrix, reliability."""

import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from tagger.decide import is_music
from tagger.errors import LibraryError
from tagger.inference.engine import InferenceRequest, open_engine
from tagger.labels import get_label_names, list_no_genres, relabel
from tagger.models import ModelSource, download_missing
from tagger.paths import display_path
from tagger.records import Failure, Score
from tagger.settings import Settings
from tagger.training.clips import Clip, Dataset, select_known_clips
from tagger.vocabulary import load_default_vocabulary

RELIABILITY_BINS = 10
"""The number of ranges of scores whose accuracy is compared; each is a tenth wide."""


@dataclass(frozen=True, slots=True)
class ClipScores:
    """The labels of a clip, and the scores of genres that a model gave it, best first.

    is_music: False where a scan would write no genre, because other sounds are more likely.
    """

    labels: tuple[str, ...]
    scores: tuple[Score, ...]
    is_music: bool = True

    @property
    def predicted_label(self) -> str:
        return self.scores[0].genre

    @property
    def is_correct(self) -> bool:
        return self.predicted_label in self.labels

    @property
    def true_label(self) -> str:
        """Return the predicted label if it is one of the clip's labels, else the main label."""
        return self.predicted_label if self.is_correct else self.labels[0]

    def restrict_to(self, labels: Collection[str]) -> "ClipScores":
        """Return the scores of a model that has only these labels; they sum to 1."""
        scores = [score for score in self.scores if score.genre in labels]
        total = sum(score.probability for score in scores) or 1.0
        shares = tuple(Score(score.genre, score.probability / total) for score in scores)
        return replace(self, scores=shares)


@dataclass(frozen=True, slots=True)
class Proportion:
    """A share of `clips` clips with its 95 % confidence interval (Wilson, 1927).

    The interval assumes that clips are independent. Clips of one artist or album are not quite.
    """

    value: float
    low: float
    high: float
    clips: int


@dataclass(frozen=True, slots=True)
class GenreMeasures:
    """The measures of one genre; `clips` have it as their true label."""

    genre: str
    clips: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The clips whose best score is in one range: their mean score and their accuracy."""

    clips: int
    score: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Measures:
    """How good predictions are.

    macro_f1: over the genres that occur. ece: expected calibration error (Naeini et al., 2015) of
    the best score. confusion: counts (true label, predicted label). `labels` names its rows and its
    columns: first the labels of `genres`, then those that were only predicted.
    """

    accuracy: Proportion
    macro_f1: float
    ece: float
    genres: tuple[GenreMeasures, ...]
    labels: tuple[str, ...]
    confusion: NDArray[np.int64]
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, slots=True)
class EpochMeasures:
    """The mean losses after an epoch of a training, and the accuracy on the validation part."""

    number: int
    train_loss: float
    validation_loss: float
    accuracy: float

    @property
    def rank(self) -> tuple[float, float]:
        """Sort key: the accuracy, then the lower validation loss.

        With few clips several epochs have the same accuracy.
        """
        return self.accuracy, -self.validation_loss


def compute_proportion(correct: int, clips: int) -> Proportion:
    interval = binomtest(correct, clips).proportion_ci(method="wilson")
    return Proportion(correct / clips, float(interval.low), float(interval.high), clips)


def compute_measures(predictions: Sequence[ClipScores]) -> Measures:
    """Measure one prediction or more."""
    true = [prediction.true_label for prediction in predictions]
    predicted = [prediction.predicted_label for prediction in predictions]
    occurring = sorted(set(true))
    labels = [*occurring, *sorted(set(predicted) - set(true))]
    precision, recall, f1, clips = precision_recall_fscore_support(
        true, predicted, labels=occurring, zero_division=0.0
    )
    rows = zip(occurring, clips.tolist(), precision, recall, f1, strict=True)
    bins = _compute_bins(predictions)
    errors = (each.clips * abs(each.accuracy - each.score) for each in bins)
    return Measures(
        accuracy=_compute_accuracy(predictions),
        macro_f1=float(f1.mean()),
        ece=sum(errors) / len(predictions),
        genres=tuple(
            GenreMeasures(name, n, float(p), float(r), float(f)) for name, n, p, r, f in rows
        ),
        labels=tuple(labels),
        confusion=_compute_confusion(true, predicted, labels),
        bins=bins,
    )


def _compute_accuracy(predictions: Sequence[ClipScores]) -> Proportion:
    return compute_proportion(sum(each.is_correct for each in predictions), len(predictions))


def _compute_confusion(
    true: Sequence[str], predicted: Sequence[str], labels: Sequence[str]
) -> NDArray[np.int64]:
    with warnings.catch_warnings(action="ignore"):  # scikit-learn warns if there is only one label
        counts: NDArray[np.int64] = confusion_matrix(true, predicted, labels=labels)
    return counts


def _compute_bins(predictions: Sequence[ClipScores]) -> tuple[ReliabilityBin, ...]:
    scores = np.array([prediction.scores[0].probability for prediction in predictions])
    correct = np.array([prediction.is_correct for prediction in predictions])
    index = np.minimum((scores * RELIABILITY_BINS).astype(int), RELIABILITY_BINS - 1)
    groups = [
        (scores[index == number], correct[index == number]) for number in range(RELIABILITY_BINS)
    ]
    return tuple(
        ReliabilityBin(len(s), float(s.mean()), float(c.mean())) for s, c in groups if len(s)
    )


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of an evaluation.

    restricted_measures: those of a model that chooses only among the labels of the data set.
    confident_accuracy: that of the clips of music whose best score is `--min-score` or more; None
    if there are none. unknown_labels: labels that the model does not have, with the number of their
    clips, which are not measured. clips_per_s: from the first prediction to the last, without the
    time for loading the model.
    """

    model: str
    dataset: Dataset
    measures: Measures
    restricted_measures: Measures
    confident_accuracy: Proportion | None
    unknown_labels: Mapping[str, int]
    failures: tuple[Failure, ...]
    clips_per_s: float


def evaluate_model(
    dataset: Dataset,
    source: ModelSource,
    settings: Settings,
    on_download: Callable[[int, int], None],
    on_evaluated: Callable[[int, int], None],
) -> Evaluation:
    """Predict the genres of the clips, and compare them with the labels.

    `on_download` is called with the downloaded bytes of a model and their total, `on_evaluated`
    with the evaluated clips and their total. Raises LibraryError if there is nothing to compare,
    and the errors of a model.
    """
    label_names = get_label_names(settings)
    renamed = (label_names.get(label.casefold(), label) for label in source.labels)
    vocabulary = settings.vocabulary or load_default_vocabulary()
    clips, unknown_labels = select_known_clips(dataset.clips, filter(None, renamed), vocabulary)
    if not clips:
        raise LibraryError(f"{dataset.name} has no clip with a label of {source.identity}")
    download_missing(source, settings, on_download)
    predictions: list[ClipScores] = []
    failures: list[Failure] = []
    times_s: list[float] = []
    for result in _predict_clips(clips, source, settings):
        times_s.append(time.monotonic())
        if isinstance(result, Failure):
            failures.append(result)
        else:
            predictions.append(result)
        on_evaluated(len(times_s), len(clips))
    if not predictions:
        raise LibraryError(f"{dataset.name} has no clip that can be decoded")
    labels = {label for clip in clips for label in clip.labels}
    confident = [
        each
        for each in predictions
        if each.is_music
        and each.scores[0].probability >= settings.min_score.get(each.predicted_label)
    ]
    seconds = times_s[-1] - times_s[0]
    return Evaluation(
        model=source.identity,
        dataset=dataset,
        measures=compute_measures(predictions),
        restricted_measures=compute_measures([each.restrict_to(labels) for each in predictions]),
        confident_accuracy=_compute_accuracy(confident) if confident else None,
        unknown_labels=unknown_labels,
        failures=tuple(failures),
        clips_per_s=(len(times_s) - 1) / seconds if seconds else 0.0,
    )


def _predict_clips(
    clips: Sequence[Clip], source: ModelSource, settings: Settings
) -> Iterator[ClipScores | Failure]:
    """Yield the scores of each clip.

    Labels of sound that is no music are no answers, as in a scan, unless a clip has such a label.
    """
    label_names = get_label_names(settings)
    labels = {label for clip in clips for label in clip.labels}
    no_genres = list_no_genres(source.not_music, settings) - labels
    with open_engine(settings) as predict:
        results = predict((clip.track for clip in clips), InferenceRequest(source, settings))
        for clip, result in zip(clips, results, strict=True):
            if isinstance(result, Failure):
                yield result
            else:
                scores = relabel(result.scores, label_names)
                yield ClipScores(
                    clip.labels,
                    tuple(score for score in scores if score.genre not in no_genres),
                    is_music=is_music(scores, no_genres, settings.min_score),
                )


def make_evaluation_json(evaluation: Evaluation) -> dict[str, object]:
    """Return all of an evaluation as values for JSON. Programs read these keys: they stay."""
    confident = evaluation.confident_accuracy
    left_out = [*evaluation.dataset.left_out, *evaluation.failures]
    return {
        "model": evaluation.model,
        "dataset": evaluation.dataset.name,
        **_make_measures_json(evaluation.measures),
        "among_its_labels": _make_measures_json(evaluation.restricted_measures),
        "sure": asdict(confident) if confident else None,
        "unknown_labels": dict(evaluation.unknown_labels),
        "failed": len(evaluation.failures),
        "left_out": [
            {"path": display_path(failure.track.path), "reason": failure.reason}
            for failure in left_out
        ],
        "clips_per_second": evaluation.clips_per_s,
    }


def _make_measures_json(measures: Measures) -> dict[str, object]:
    return {
        "accuracy": asdict(measures.accuracy),
        "macro_f1": measures.macro_f1,
        "ece": measures.ece,
        "genres": [asdict(row) for row in measures.genres],
        "confusion": {"labels": measures.labels, "counts": measures.confusion.tolist()},
        "reliability": [asdict(each) for each in measures.bins],
    }
