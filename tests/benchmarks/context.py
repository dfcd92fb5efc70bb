r"""What `--context` does: its weights, and how right tagger is without it and with it.

The intervals are of 95 %.

    python -m tests.benchmarks.context --features FEATURES.npz [--repeats 20]

The labelled recordings stand in for a library. A part of their genres is hidden, and judged; the
others are what people gave. The scores are those of last layers that were fitted without the source
or artist (as in genres.py). The weights are fitted anew for each fifth of the artists, without it.
Intervals are bootstrapped over artists, because the recordings of one artist are alike.

How a label was found matters. "artist": the label says what the artist is known for, so that all
recordings of the artist have it by construction. "allmusic": the genre of the album. "track": the
genre stood in the tags or the name of the file, or in a table. Weights are not fitted to "artist".
"""

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from docs.bundled_model.fit_head import (
    LABELS,
    NOT_MUSIC,
    load_features,
    read_class_names,
    read_clips,
)
from tagger.evidence import ContextWeights, Evidence, pool_with_evidence
from tagger.models.classifier import use_one_thread
from tagger.records import Score
from tagger.settings import Settings
from tests.benchmarks.genres import compute_left_out_scores

HIDDEN_SHARES = (0.3, 0.5, 0.7)
FOLDS = 5
RESAMPLES = 2000
SEED = 20
WRONG_GENRES = 0.2
BY_ARTIST, BY_ALBUM = "artist", "allmusic"
STRANGERS, STRANGER_SHARE = 5, 0.2
FITTING_REPEATS = 4
MUSIC = tuple(label for label in LABELS if label not in NOT_MUSIC)
START = ContextWeights(scores=0.5, scores_smoothing=4.0, genres=1.0, genres_smoothing=4.0)
PENALTY = 0.02
NOTHING = ContextWeights(scores=0.0, scores_smoothing=1.0, genres=0.0, genres_smoothing=1.0)


@dataclass(frozen=True, slots=True)
class Recording:
    """A labelled recording. artist: its number. origin: how the label was found (see above)."""

    artist: int
    label: str
    origin: str
    scores: tuple[Score, ...]

    @property
    def evidence_of_scores(self) -> Evidence:
        return Evidence(scored=1, scores={each.genre: each.probability for each in self.scores})


@dataclass(frozen=True, slots=True)
class Case:
    """A recording whose genre is hidden, and what the others of its artist say."""

    recording: Recording
    evidence: Evidence

    @property
    def without_genres(self) -> "Case":
        return replace(self, evidence=replace(self.evidence, named=0, genres={}))

    @property
    def without_scores(self) -> "Case":
        return replace(self, evidence=replace(self.evidence, scored=0, scores={}))

    def pool(self, weights: ContextWeights) -> tuple[Score, ...]:
        return pool_with_evidence(self.recording.scores, self.evidence, NOT_MUSIC, weights)


def read_recordings(features: Path) -> list[Recording]:
    """Return the whole pieces of music whose genre is a label, with scores left out."""
    with use_one_thread():
        left_out = compute_left_out_scores(read_clips(features, read_class_names()))
    clips = left_out.clips
    origins = load_features(features)["label_from"][clips.number].tolist()
    recordings = []
    for number in np.flatnonzero(left_out.is_whole).tolist():
        row = left_out.probabilities[number]
        scores = [Score(label, float(row[n])) for n, label in enumerate(LABELS)]
        recordings.append(
            Recording(
                int(clips.artist[number]),
                LABELS[clips.label[number]],
                origins[number],
                tuple(sorted(scores, key=lambda score: -score.probability)),
            )
        )
    return recordings


def make_cases(
    recordings: Sequence[Recording],
    hidden_share: float,
    random: np.random.Generator,
    *,
    wrong_share: float = 0.0,
) -> list[Case]:
    """Hide genres at random; return a case for each hidden one whose artist has other recordings.

    wrong_share: how many of the other genres are replaced by any other.
    """
    groups: dict[int, list[Recording]] = defaultdict(list)
    for recording in recordings:
        groups[recording.artist].append(recording)
    cases = []
    for group in groups.values():
        hidden = random.random(len(group)) < hidden_share
        given = [
            str(random.choice(MUSIC)) if random.random() < wrong_share else each.label
            for each in group
        ]
        for number in np.flatnonzero(hidden).tolist() if len(group) > 1 else []:
            others = [n for n in range(len(group)) if n != number]
            genres = Counter(given[n] for n in others if not hidden[n])
            evidence = sum((group[n].evidence_of_scores for n in others), Evidence())
            evidence = replace(evidence, named=genres.total(), genres=genres)
            cases.append(Case(group[number], evidence))
    return cases


def make_strangers(recordings: Sequence[Recording], random: np.random.Generator) -> list[Recording]:
    """Return the recordings in groups of any others, as if their artist were a wrong one."""
    order = random.permutation(len(recordings)).tolist()
    return [
        replace(recordings[row], artist=number // STRANGERS) for number, row in enumerate(order)
    ]


def compute_loss(cases: Iterable[Case], weights: ContextWeights) -> float:
    """Return the mean of -log p of the true labels."""
    losses = []
    for case in cases:
        pooled = {each.genre: each.probability for each in case.pool(weights)}
        losses.append(-np.log(max(pooled[case.recording.label], 1e-6)))
    return float(np.mean(losses))


def fit_weights(cases: Sequence[Case]) -> ContextWeights:
    """Return the weights with the least loss. They are positive, so their logarithms are fitted.

    A penalty draws them to START, because a few dozen artists say little about four numbers.
    """

    def unpack(values: NDArray[np.float64]) -> ContextWeights:
        return ContextWeights(*np.exp(np.clip(values, -6, 6)).tolist())

    start = np.log([START.scores, START.scores_smoothing, START.genres, START.genres_smoothing])
    found = minimize(
        lambda values: (
            compute_loss(cases, unpack(values)) + PENALTY * np.square(values - start).sum()
        ),
        start,
        method="Nelder-Mead",
        options={"maxfev": 150, "xatol": 0.05, "fatol": 1e-4},
    )
    return unpack(found.x)


@dataclass(frozen=True, slots=True)
class Answers:
    """What is said about each case: rightness alone and with context, and the best scores."""

    artist: NDArray[np.int64]
    is_right: dict[str, NDArray[np.float64]]
    best: dict[str, NDArray[np.float64]]

    def select(self, rows: NDArray[np.bool_]) -> "Answers":
        return Answers(
            self.artist[rows],
            {name: values[rows] for name, values in self.is_right.items()},
            {name: values[rows] for name, values in self.best.items()},
        )


def answer(cases: Sequence[Case], weights: dict[int, ContextWeights]) -> Answers:
    """Judge the cases alone, with scores, with genres, and with both. weights: by artist."""
    ways: dict[str, Callable[[Case], tuple[Score, ...]]] = {
        "alone": lambda case: case.pool(NOTHING),
        "scores": lambda case: case.without_genres.pool(weights[case.recording.artist]),
        "genres": lambda case: case.without_scores.pool(weights[case.recording.artist]),
        "both": lambda case: case.pool(weights[case.recording.artist]),
    }
    is_right: dict[str, NDArray[np.float64]] = {}
    best: dict[str, NDArray[np.float64]] = {}
    for name, way in ways.items():
        tops = [next(each for each in way(case) if each.genre in MUSIC) for case in cases]
        pairs = zip(tops, cases, strict=True)
        is_right[name] = np.array([float(top.genre == case.recording.label) for top, case in pairs])
        best[name] = np.array([top.probability for top in tops])
    return Answers(np.array([case.recording.artist for case in cases]), is_right, best)


def format_interval(values: NDArray[np.float64], artist: NDArray[np.int64]) -> str:
    """Return the mean in per cent, and its interval over resampled artists."""
    if not len(values):
        return "none"
    _, group = np.unique(artist, return_inverse=True)
    sums, sizes = np.bincount(group, weights=values), np.bincount(group)
    drawn = np.random.default_rng(SEED).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{values.mean():.1%} ({low:.1%} to {high:.1%})"


def format_row(name: str, answers: Answers, recordings: int) -> str:
    right = answers.is_right
    cells = [format_interval(values, answers.artist) for values in right.values()]
    gain = format_interval(right["both"] - right["alone"], answers.artist)
    artists = len(np.unique(answers.artist))
    return f"| {name} | {recordings} of {artists} | {' | '.join(cells)} | {gain} |"


def format_written(answers: Answers) -> Iterator[str]:
    """Yield how many are written, and how many of these are right, alone and with both."""
    least = Settings().min_score.default
    for name in ("alone", "both"):
        written = answers.best[name] >= least
        share = format_interval(written.astype(float), answers.artist)
        right = format_interval(answers.is_right[name][written], answers.artist[written])
        off = answers.best[name].mean() - answers.is_right[name].mean()
        yield f"written, {name}: {share}; of these right: {right}; score - accuracy: {off:+.3f}"


HEADER = """| genres hidden | recordings of artists | alone | + scores | + genres | + both | gain |
|---|---|---|---|---|---|---|"""


def make_fitting_cases(recordings: Sequence[Recording], random: np.random.Generator) -> list[Case]:
    """Return cases to fit to; of a fifth of them the other recordings are by anybody.

    So the weights leave room for artist tags that mean little, as those of compilers and labels.
    """
    cases = [
        case
        for share in HIDDEN_SHARES
        for _ in range(FITTING_REPEATS)
        for case in make_cases(recordings, share, random)
        if case.recording.origin != BY_ARTIST
    ]
    strangers = make_cases(make_strangers(recordings, random), 0.5, random)
    return cases + strangers[: round(len(cases) * STRANGER_SHARE / (1 - STRANGER_SHARE))]


def fit_by_fold(
    recordings: Sequence[Recording], random: np.random.Generator
) -> tuple[dict[int, ContextWeights], ContextWeights]:
    """Return the weights for each artist, fitted without its fold, and those of all artists."""
    weights: dict[int, ContextWeights] = {}
    for fold in range(FOLDS):
        others = [each for each in recordings if each.artist % FOLDS != fold]
        fitted = fit_weights(make_fitting_cases(others, random))
        weights |= {each.artist: fitted for each in recordings if each.artist % FOLDS == fold}
    return weights, fit_weights(make_fitting_cases(recordings, random))


def format_parts(
    name: str, cases: Sequence[Case], weights: dict[int, ContextWeights], mixed: set[int]
) -> Iterator[str]:
    """Yield a row for each way that a label was found, and for artists of several genres."""
    answers = answer(cases, weights)
    origins = np.array([case.recording.origin for case in cases])
    parts = {
        "label of the artist": origins == BY_ARTIST,
        "label of the album": origins == BY_ALBUM,
        "label of the track": ~np.isin(origins, [BY_ARTIST, BY_ALBUM]),
        "label of album or track": origins != BY_ARTIST,
        "artists of several genres": np.array([each.recording.artist in mixed for each in cases]),
    }
    for part, rows in parts.items():
        yield format_row(f"{name}, {part}", answers.select(rows), count_recordings(cases, rows))
    yield from format_written(answers.select(origins != BY_ARTIST))


def count_recordings(cases: Sequence[Case], rows: NDArray[np.bool_]) -> int:
    return len({id(case.recording) for case, row in zip(cases, rows, strict=True) if row})


def find_mixed_artists(recordings: Iterable[Recording]) -> set[int]:
    labels: dict[int, set[str]] = defaultdict(set)
    for recording in recordings:
        labels[recording.artist].add(recording.label)
    return {artist for artist, found in labels.items() if len(found) > 1}


def report(recordings: Sequence[Recording], repeats: int) -> Iterator[str]:
    random = np.random.default_rng(SEED)
    weights, fitted = fit_by_fold(recordings, random)
    yield from (f"without a fold: {each}" for each in dict.fromkeys(weights.values()))
    yield f"of all artists: {fitted}"
    yield HEADER
    mixed = find_mixed_artists(recordings)
    for share in HIDDEN_SHARES:
        cases = [c for _ in range(repeats) for c in make_cases(recordings, share, random)]
        yield from format_parts(f"{share:.0%}", cases, weights, mixed)
    cases = [
        case
        for _ in range(repeats)
        for case in make_cases(recordings, 0.5, random, wrong_share=WRONG_GENRES)
    ]
    yield from format_parts(f"50%, {WRONG_GENRES:.0%} of them wrong", cases, weights, mixed)
    strangers = make_strangers(recordings, random)
    cases = make_cases(strangers, 0.5, random)
    of_all = dict.fromkeys((each.artist for each in strangers), fitted)
    yield format_row("50%, any five recordings", answer(cases, of_all), len(cases))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args(arguments)
    for line in report(read_recordings(options.features), options.repeats):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
