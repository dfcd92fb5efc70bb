"""Measure a model on labelled clips: accuracy, F1, confusion, calibration."""

import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from tagger import decide
from tagger.errors import LibraryError
from tagger.inference.engine import InferenceRequest, open_engine
from tagger.models import ModelSource, download_missing
from tagger.paths import display_path
from tagger.records import Failure, Score, normalize_label
from tagger.settings import Settings
from tagger.training.clips import Clip, Dataset

CALIBRATION_BINS = 10
"""Into how many ranges of scores the calibration looks, each a tenth wide."""


@dataclass(frozen=True, slots=True)
class ClipScores:
    """What a clip is, and what a model heard in it, best first."""

    labels: tuple[str, ...]
    scores: tuple[Score, ...]

    @property
    def guess(self) -> str:
        return self.scores[0].genre

    @property
    def is_right(self) -> bool:
        return self.guess in self.labels

    @property
    def truth(self) -> str:
        """Return the label that the answer is held against: the one it met, else the main one."""
        return self.guess if self.is_right else self.labels[0]

    def among(self, labels: Collection[str]) -> "ClipScores":
        """Return the answer of a model that had only these labels to choose from."""
        scores = [score for score in self.scores if score.genre in labels]
        whole = sum(score.probability for score in scores) or 1.0
        return ClipScores(
            self.labels, tuple(Score(each.genre, each.probability / whole) for each in scores)
        )


@dataclass(frozen=True, slots=True)
class Proportion:
    """A share of clips with the 95 % confidence interval of Wilson (1927), and how many clips.

    The interval takes clips for independent; those of one artist or album are not quite.
    """

    value: float
    low: float
    high: float
    clips: int


@dataclass(frozen=True, slots=True)
class GenreMeasures:
    """How one genre fared."""

    genre: str
    clips: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """The answers with scores in one range: their mean score, and how many of them are right."""

    clips: int
    score: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Measures:
    """What answers are worth.

    ece: expected calibration error (Naeini et al., 2015) of the best genre's score.
    confusion: counts (truth, guess), over `labels` both ways: those of `genres`, then those that
    were only heard. macro_f1: over the genres that occur.
    """

    accuracy: Proportion
    macro_f1: float
    ece: float
    genres: tuple[GenreMeasures, ...]
    labels: tuple[str, ...]
    confusion: NDArray[np.int64]
    bins: tuple[CalibrationBin, ...]


@dataclass(frozen=True, slots=True)
class EpochMeasures:
    """How far the training was after an epoch: mean losses, accuracy on the validation half."""

    number: int
    train_loss: float
    validation_loss: float
    accuracy: float


def compute_proportion(right: int, clips: int) -> Proportion:
    interval = binomtest(right, clips).proportion_ci(method="wilson")
    return Proportion(right / clips, float(interval.low), float(interval.high), clips)


def compute_measures(answers: Sequence[ClipScores]) -> Measures:
    """Measure one answer or more."""
    truths = [answer.truth for answer in answers]
    guesses = [answer.guess for answer in answers]
    occurring = sorted(set(truths))
    labels = [*occurring, *sorted(set(guesses) - set(truths))]
    precision, recall, f1, clips = precision_recall_fscore_support(
        truths, guesses, labels=occurring, zero_division=0.0
    )
    rows = zip(occurring, clips.tolist(), precision, recall, f1, strict=True)
    bins = _compute_bins(answers)
    return Measures(
        accuracy=compute_proportion(sum(answer.is_right for answer in answers), len(answers)),
        macro_f1=float(f1.mean()),
        ece=sum(each.clips * abs(each.accuracy - each.score) for each in bins) / len(answers),
        genres=tuple(
            GenreMeasures(name, n, float(p), float(r), float(f)) for name, n, p, r, f in rows
        ),
        labels=tuple(labels),
        confusion=_compute_confusion(truths, guesses, labels),
        bins=bins,
    )


def _compute_confusion(
    truths: Sequence[str], guesses: Sequence[str], labels: Sequence[str]
) -> NDArray[np.int64]:
    with warnings.catch_warnings(action="ignore"):  # of a matrix of one label, which is as asked
        counts: NDArray[np.int64] = confusion_matrix(truths, guesses, labels=labels)
    return counts


def _compute_bins(answers: Sequence[ClipScores]) -> tuple[CalibrationBin, ...]:
    scores = np.array([answer.scores[0].probability for answer in answers])
    right = np.array([answer.is_right for answer in answers])
    index = np.minimum((scores * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    groups = [
        (scores[index == number], right[index == number]) for number in range(CALIBRATION_BINS)
    ]
    return tuple(
        CalibrationBin(len(s), float(s.mean()), float(r.mean())) for s, r in groups if len(s)
    )


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came of it.

    among: the measures of a model that chooses only among the labels of the dataset. sure: the
    share of right answers where the best score is `--min-score` or more, None where none is.
    unknown: labels that the model does not have, and on how many clips; those count nowhere.
    clips_per_s: from the first answer to the last, so that loading the model does not count.
    """

    model: str
    dataset: Dataset
    measures: Measures
    among: Measures
    sure: Proportion | None
    unknown: Mapping[str, int]
    failed: tuple[Failure, ...]
    clips_per_s: float


def evaluate(
    dataset: Dataset,
    source: ModelSource,
    settings: Settings,
    on_download: Callable[[int, int], None],
    done: Callable[[int], None],
) -> Evaluation:
    """Listen to the clips and compare; `done` is told how many are behind it.

    `on_download` is told how many bytes of a model were downloaded. Raises LibraryError where
    nothing can be compared, and the errors of a model.
    """
    clips, unknown = _find_comparable(dataset.clips, source, settings)
    if not clips:
        raise LibraryError(f"{dataset.name} has no clip with a label of {source.identity}")
    download_missing(source, settings, on_download)
    answers: list[ClipScores] = []
    failed: list[Failure] = []
    times_s: list[float] = []
    for result in _predict_clips(clips, source, settings):
        times_s.append(time.monotonic())
        if isinstance(result, Failure):
            failed.append(result)
        else:
            answers.append(result)
        done(len(times_s))
    if not answers:
        raise LibraryError(f"{dataset.name} has no clip that can be listened to")
    occurring = {label for clip in clips for label in clip.labels}
    sure = [each for each in answers if each.scores[0].probability >= settings.min_score]
    seconds = times_s[-1] - times_s[0]
    return Evaluation(
        model=source.identity,
        dataset=dataset,
        measures=compute_measures(answers),
        among=compute_measures([answer.among(occurring) for answer in answers]),
        sure=compute_proportion(sum(answer.is_right for answer in sure), len(sure))
        if sure
        else None,
        unknown=unknown,
        failed=tuple(failed),
        clips_per_s=(len(times_s) - 1) / seconds if seconds else 0.0,
    )


def _predict_clips(
    clips: Sequence[Clip], source: ModelSource, settings: Settings
) -> Iterator[ClipScores | Failure]:
    names = decide.get_label_names(settings)
    with open_engine(settings) as listen:
        heard = listen((clip.track for clip in clips), InferenceRequest(source, settings))
        for clip, result in zip(clips, heard, strict=True):
            if isinstance(result, Failure):
                yield result
            else:
                yield ClipScores(clip.labels, decide.relabel(result.scores, names))


def _find_comparable(
    clips: Sequence[Clip], source: ModelSource, settings: Settings
) -> tuple[list[Clip], Counter[str]]:
    """Give the clips' labels the model's spelling; count those that it does not have."""
    names = decide.get_label_names(settings)
    renamed = [names.get(label.casefold(), label) for label in source.labels]
    own = {normalize_label(name): name for name in renamed if name}
    found, unknown = [], Counter[str]()
    for clip in clips:
        known = [
            own[normalize_label(label)] for label in clip.labels if normalize_label(label) in own
        ]
        if known:
            found.append(Clip(clip.track, tuple(known)))
        else:
            unknown[clip.labels[0]] += 1
    return found, unknown


def evaluation_as_json(found: Evaluation) -> dict[str, object]:
    """Return all of it as JSON takes it."""
    left_out = [*found.dataset.left_out, *found.failed]
    return {
        "model": found.model,
        "dataset": found.dataset.name,
        **_measures_as_json(found.measures),
        "among_its_labels": _measures_as_json(found.among),
        "sure": asdict(found.sure) if found.sure else None,
        "unknown_labels": dict(found.unknown),
        "failed": len(found.failed),
        "left_out": [
            {"path": display_path(each.track.path), "reason": each.reason} for each in left_out
        ],
        "clips_per_second": found.clips_per_s,
    }


def _measures_as_json(measures: Measures) -> dict[str, object]:
    return {
        "accuracy": asdict(measures.accuracy),
        "macro_f1": measures.macro_f1,
        "ece": measures.ece,
        "genres": [asdict(row) for row in measures.genres],
        "confusion": {"labels": measures.labels, "counts": measures.confusion.tolist()},
        "reliability": [asdict(each) for each in measures.bins],
    }
