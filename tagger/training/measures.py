"""How good answers are: accuracy, F1, confusion, calibration. Pure; scikit-learn does the sums."""

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from tagger.records import Score

BINS = 10
"""Into how many ranges of scores the calibration looks, each a tenth wide."""


@dataclass(frozen=True, slots=True)
class Answer:
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

    def among(self, labels: Collection[str]) -> "Answer":
        """Return the answer of a model that had only these labels to choose from."""
        scores = [score for score in self.scores if score.genre in labels]
        whole = sum(score.probability for score in scores) or 1.0
        return Answer(
            self.labels, tuple(Score(each.genre, each.probability / whole) for each in scores)
        )


@dataclass(frozen=True, slots=True)
class Share:
    """A share of clips with the 95 % confidence interval of Wilson (1927), and how many clips.

    The interval takes clips for independent; those of one artist or album are not quite.
    """

    value: float
    low: float
    high: float
    clips: int


@dataclass(frozen=True, slots=True)
class GenreRow:
    """How one genre fared."""

    genre: str
    clips: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class Bin:
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

    accuracy: Share
    macro_f1: float
    ece: float
    genres: tuple[GenreRow, ...]
    labels: tuple[str, ...]
    confusion: NDArray[np.int64]
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class Epoch:
    """How far the training was after an epoch: mean losses, accuracy on the validation half."""

    number: int
    train_loss: float
    validation_loss: float
    accuracy: float


def share(right: int, clips: int) -> Share:
    interval = binomtest(right, clips).proportion_ci(method="wilson")
    return Share(right / clips, float(interval.low), float(interval.high), clips)


def measure(answers: Sequence[Answer]) -> Measures:
    """Measure one answer or more."""
    truths = [answer.truth for answer in answers]
    guesses = [answer.guess for answer in answers]
    occurring = sorted(set(truths))
    labels = [*occurring, *sorted(set(guesses) - set(truths))]
    precision, recall, f1, clips = precision_recall_fscore_support(
        truths, guesses, labels=occurring, zero_division=0.0
    )
    rows = zip(occurring, clips.tolist(), precision, recall, f1, strict=True)
    bins = _bins(answers)
    return Measures(
        accuracy=share(sum(answer.is_right for answer in answers), len(answers)),
        macro_f1=float(f1.mean()),
        ece=sum(each.clips * abs(each.accuracy - each.score) for each in bins) / len(answers),
        genres=tuple(GenreRow(name, n, float(p), float(r), float(f)) for name, n, p, r, f in rows),
        labels=tuple(labels),
        confusion=_confusion(truths, guesses, labels),
        bins=bins,
    )


def _confusion(
    truths: Sequence[str], guesses: Sequence[str], labels: Sequence[str]
) -> NDArray[np.int64]:
    with warnings.catch_warnings(action="ignore"):  # of a matrix of one label, which is as asked
        counts: NDArray[np.int64] = confusion_matrix(truths, guesses, labels=labels)
    return counts


def _bins(answers: Sequence[Answer]) -> tuple[Bin, ...]:
    scores = np.array([answer.scores[0].probability for answer in answers])
    right = np.array([answer.is_right for answer in answers])
    index = np.minimum((scores * BINS).astype(int), BINS - 1)
    groups = [(scores[index == number], right[index == number]) for number in range(BINS)]
    return tuple(Bin(len(s), float(s.mean()), float(r.mean())) for s, r in groups if len(s))
