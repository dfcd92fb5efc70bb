r"""Every figure of how right the bundled model is, with 95 % intervals (Wilson).

    python -m tests.benchmarks.genres --features FEATURES.npz [--picture FILE.png]
    python -m tests.benchmarks.genres --labelled FOLDER
    python -m tests.benchmarks.genres FOLDER...

With features it fits the last layers anew with sources or artists left out, as docs/bundled_model
describes, and judges them on what was left out. A labelled folder, such as GTZAN's hundred clips,
has a folder for each genre. With other folders it counts what a scan would write into their files.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from docs.bundled_model import fit_attributes
from docs.bundled_model.fit_attributes import MOODS, STYLE_NAMES, STYLES, Recordings
from docs.bundled_model.fit_head import (
    LABELS,
    OTHER_SOUND,
    SPEECH,
    TAG_WEIGHTS,
    LabelledFeatures,
    compute_left_out_logits,
    compute_music_lead,
    fit_calibration_factor,
    make_left_out_groups,
    read_class_names,
    read_clips,
)
from tagger.classify import run_classify
from tagger.decide import MIN_STYLE_SCORE, is_music
from tagger.models import find_model
from tagger.models.classifier import use_one_thread
from tagger.records import MAX_NOT_MUSIC, Prediction, Score, normalize_label
from tagger.settings import Settings
from tagger.tags import EXTENSIONS
from tagger.training.calibrate import (
    JudgedTrack,
    Written,
    choose_bounds,
    cross_validate_bounds,
    make_curve,
)
from tagger.training.evaluate import ClipScores, Measures, compute_measures, compute_proportion
from tagger.training.pictures import draw_measures

COLLECTION = 27  # the source of most whole clips, which is left out by artist
MOOD_GROUPS = 10
WANTED_PRECISIONS = (0.7, 0.8, 0.9)
SURE = 0.6
Booleans = NDArray[np.bool_]


def format_share(name: str, is_right: Booleans) -> str:
    """Return `name  right / all  share (interval)`."""
    right, total = int(is_right.sum()), len(is_right)
    if not total:
        return f"{name:58} none"
    interval = compute_proportion(right, total)
    share = f"{interval.value:6.1%} ({interval.low:.0%} to {interval.high:.0%})"
    return f"{name:58} {right:4} of {total:4}  {share}"


def measure(
    probabilities: NDArray[np.float64], label: NDArray[np.int64], names: Sequence[str]
) -> Measures:
    """Measure probabilities (clips, names) as `tagger evaluate` does."""
    return compute_measures(
        [
            ClipScores(
                (names[true],),
                tuple(Score(names[n], float(row[n])) for n in np.argsort(-row, kind="stable")),
            )
            for row, true in zip(probabilities, label.tolist(), strict=True)
        ]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOutScores:
    """Probabilities (clips, labels), each clip's from a head that was fitted without its group."""

    clips: LabelledFeatures
    probabilities: NDArray[np.float64]

    @property
    def is_whole(self) -> Booleans:
        """Tell which clips are music and no short excerpts."""
        return self.clips.is_music & ~self.clips.excerpt

    @property
    def best(self) -> NDArray[np.float64]:
        return np.asarray(self.probabilities.max(1))

    @property
    def predicted(self) -> NDArray[np.int64]:
        return np.asarray(self.probabilities.argmax(1))

    @property
    def is_right(self) -> Booleans:
        return np.asarray(self.predicted == self.clips.label)

    @property
    def is_refused(self) -> Booleans:
        genres = len(TAG_WEIGHTS)
        return np.asarray(self.probabilities[:, genres:].sum(1) > MAX_NOT_MUSIC)


def compute_left_out_scores(clips: LabelledFeatures) -> LeftOutScores:
    """Score all clips as the shipped head would: calibrated, and with the lead of music."""
    logits = compute_left_out_logits(clips, make_left_out_groups(clips))
    logits = logits * fit_calibration_factor(clips, logits)
    logits[:, len(TAG_WEIGHTS) :] -= compute_music_lead(clips, logits)
    return LeftOutScores(clips=clips, probabilities=logits.softmax(1).numpy())


def format_genre_summary(scores: LeftOutScores) -> Iterator[str]:
    clips, whole = scores.clips, scores.is_whole
    other = whole & (clips.source != COLLECTION)
    written = whole & (scores.best >= Settings().min_score.default) & ~scores.is_refused
    yield format_share("music: the best label is right", scores.is_right[whole])
    yield format_share("the same, its whole source left out", scores.is_right[other])
    yield format_share("music: written (score of at least --min-score)", written[whole])
    yield format_share("written: right", scores.is_right[written])
    yield format_share(
        "written, its whole source left out: right", scores.is_right[written & other]
    )
    yield format_share("music taken for no music", scores.is_refused[whole])
    for name in (SPEECH, OTHER_SOUND):
        kind = clips.label == LABELS.index(name)
        yield format_share(f"{name}: recognised as no music", scores.is_refused[kind])
    error = measure(scores.probabilities[whole], clips.label[whole], LABELS).ece
    yield f"{'music: expected calibration error':58} {error:6.1%}"


def format_genre_table(
    label: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> Iterator[str]:
    """Yield rows in Markdown: recall, precision of all and of sure answers, mistakes.

    label: the true label of each clip. probabilities: (clips, labels).
    """
    predicted, sure = probabilities.argmax(1), probabilities.max(1) >= 0.5
    yield "| genre | clips | recall | precision | precision at 0.5 | mostly taken for |"
    yield "|---|---|---|---|---|---|"
    for number, name in enumerate(TAG_WEIGHTS):
        counts = np.bincount(predicted[label == number], minlength=len(LABELS))
        is_named = predicted == number
        if not counts.any() and not is_named.any():
            continue
        mistakes = [i for i in np.argsort(-counts, kind="stable") if i != number and counts[i]][:3]
        yield (
            f"| {name} | {counts.sum()} | {format_part(label == number, predicted == number)}"
            f" | {format_part(is_named, label == number)}"
            f" | {format_part(is_named & sure, label == number)}"
            f" | {', '.join(f'{LABELS[i]} {counts[i]}' for i in mistakes)} |"
        )


def format_bounds(scores: LeftOutScores) -> Iterator[str]:
    """Yield what bounds by genre do, chosen as `tagger calibrate` does: on artists left out."""
    clips, usual = scores.clips, Settings().min_score.default
    music = scores.probabilities[:, : len(TAG_WEIGHTS)]
    predicted, best = music.argmax(1), music.max(1)
    tracks = [
        JudgedTrack(
            "" if scores.is_refused[row] else LABELS[predicted[row]],
            float(best[row]),
            bool(predicted[row] == clips.label[row]),
            f"{clips.source[row]}/{clips.artist[row]}",
        )
        for row in np.flatnonzero(scores.is_whole)
    ]
    for point in make_curve(tracks):
        yield f"bound {point.bound:.2f} for all genres: {format_written(point.result)}"
    for precision in WANTED_PRECISIONS:
        check = cross_validate_bounds(tracks, usual=usual, precision=precision)
        assert check
        yield f"{precision:.0%} wanted, artists left out: {format_written(check.by_genre)}"
        yield f"  the same with one bound for all genres: {format_written(check.common)}"
        for each in choose_bounds(tracks, usual=usual, precision=precision).genres:
            result = format_written(each.chosen)
            yield f"  {each.genre:12} {each.bound:.2f} {each.verdict:11} {result}"


def format_written(result: Written) -> str:
    return f"written {result.share:.0%}, right {result.right} of {result.written}"


def format_part(chosen: Booleans, is_right: Booleans) -> str:
    """Return the share of the chosen ones that are right, and how many they are."""
    total = int(chosen.sum())
    return f"{is_right[chosen].mean():.0%} of {total}" if total else ""


def compute_left_out_moods(recordings: Recordings) -> NDArray[np.float64]:
    """Return the moods' probabilities (recordings with a mood, moods), artists left out."""
    rows = np.flatnonzero(recordings.mood >= 0)
    group = recordings.artist[rows] % MOOD_GROUPS
    logits = torch.zeros(len(rows), len(MOODS), dtype=torch.float64)
    for number in range(MOOD_GROUPS):
        weight, bias = fit_attributes.fit_moods(recordings, rows[group != number])
        is_out = torch.from_numpy(group == number)
        logits[is_out] = recordings.inputs[rows[group == number]] @ weight.T + bias
    return np.asarray(logits.softmax(1).numpy())


def format_moods(recordings: Recordings) -> Iterator[str]:
    probabilities = compute_left_out_moods(recordings)
    mood = recordings.mood[recordings.mood >= 0]
    predicted, best = probabilities.argmax(1), probabilities.max(1)
    is_right = predicted == mood
    yield format_share("moods: the best one is right, artists left out", is_right)
    yield format_share(f"the same, score of at least {SURE}", is_right[best >= SURE])
    arousal = np.isin(predicted, [0, 1]) == np.isin(mood, [0, 1])
    valence = np.isin(predicted, [0, 3]) == np.isin(mood, [0, 3])
    yield format_share("arousal (Happy, Tense against Sad, Calm)", arousal)
    yield format_share("valence (Happy, Calm against Tense, Sad)", valence)
    for number, name in enumerate(MOODS):
        sure = (best >= SURE) & (predicted == number)
        yield format_share(f"{name}: given (at least {SURE}) and right", is_right[sure])
    error = measure(probabilities, mood, MOODS).ece
    yield f"{'moods: expected calibration error':58} {error:6.1%}"


def format_voices(recordings: Recordings, classes: Sequence[str]) -> Iterator[str]:
    rows = fit_attributes.select_voice_rows(recordings)
    is_vocal = np.isin(recordings.genre[rows], fit_attributes.VOCAL_GENRES)
    heard = np.zeros(len(rows), bool)
    group = recordings.source[rows] * 10 + recordings.artist[rows] % 10
    for number in np.unique(group):
        weight, bias = fit_attributes.fit_vocals(recordings, rows[group != number], classes)
        logit = recordings.inputs[rows[group == number]] @ weight + bias
        heard[group == number] = (logit > 0).numpy()
    yield format_share("vocal genres heard as vocal, artists left out", heard[is_vocal])
    yield format_share("instrumental genres heard as instrumental", ~heard[~is_vocal])


def format_styles(recordings: Recordings) -> Iterator[str]:
    """Judge the styles on recordings with the name of one; nothing was fitted to these names.

    Only where recordings name several styles of a genre can one be taken for another.
    """
    scores = (recordings.log_lift - fit_attributes.STYLE_LOG_LIFT).sigmoid().numpy()
    names = STYLE_NAMES
    genres = {style.genre for style in STYLES.values() if style.data_name}
    for genre in sorted(genres):
        siblings = [n for n, name in enumerate(names) if STYLES[name].genre == genre]
        named = {STYLES[names[n]].data_name: n for n in siblings if STYLES[names[n]].data_name}
        if len(named) == 1:
            continue
        rows = np.flatnonzero(np.isin(recordings.genre, list(named)))
        true = np.array([named[name] for name in recordings.genre[rows].tolist()])
        best = np.array(siblings)[scores[rows][:, siblings].argmax(1)]
        given = scores[rows, best] >= MIN_STYLE_SCORE
        yield format_share(f"styles of {genre}: the best one is right", best == true)
        yield format_share("those that are given: right", (best == true)[given])


def report_features(features: Path, picture: Path | None) -> Iterator[str]:
    classes = read_class_names()
    with use_one_thread():
        scores = compute_left_out_scores(read_clips(features, classes))
        recordings = fit_attributes.read_recordings(features, classes)
        yield from format_genre_summary(scores)
        yield ""
        whole = scores.is_whole
        yield from format_genre_table(scores.clips.label[whole], scores.probabilities[whole])
        yield ""
        yield from format_bounds(scores)
        yield ""
        yield from format_moods(recordings)
        yield from format_voices(recordings, classes)
        yield from format_styles(recordings)
    if picture:
        measures = measure(scores.probabilities[whole], scores.clips.label[whole], LABELS)
        draw_measures(measures, "musicnn-yamnet: sources or artists left out", picture)


def predict_folder(folder: Path) -> Iterator[Prediction]:
    """Yield what the default model says about each audio file below a folder that it can read."""
    settings = Settings()
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
    results = run_classify(files, find_model(settings), settings, lambda *_: None)
    return (result for result in results if isinstance(result, Prediction))


def report_labelled(folder: Path) -> Iterator[str]:
    """Judge the default model on the files of a folder that has a folder for each genre."""
    numbers = {normalize_label(name): number for number, name in enumerate(LABELS)}
    label, rows = [], []
    for result in predict_folder(folder):
        label.append(numbers[normalize_label(Path(result.track.path).parent.name)])
        by_genre = {score.genre: score.probability for score in result.scores}
        rows.append([by_genre[name] for name in LABELS])
    true, probabilities = np.array(label), np.array(rows)
    is_right, sure = probabilities.argmax(1) == true, probabilities.max(1) >= 0.5
    yield format_share(f"{folder.name}: the best label is right", is_right)
    yield format_share("the same, score of at least 0.5", is_right[sure])
    yield ""
    yield from format_genre_table(true, probabilities)


def report_folders(folders: Sequence[Path]) -> Iterator[str]:
    """Count what a scan would write into the files of each folder."""
    settings = Settings()
    not_music = find_model(settings).not_music
    for folder in folders:
        counts: Counter[str] = Counter()
        for result in predict_folder(folder):
            best = next(score for score in result.scores if score.genre not in not_music)
            if not is_music(result.scores, not_music, settings.min_score):
                counts[f"no music: {result.scores[0].genre}"] += 1
            elif best.probability < settings.min_score.get(best.genre):
                counts["low score"] += 1
            else:
                counts[best.genre] += 1
        shown = ", ".join(f"{name} {count}" for name, count in counts.most_common())
        yield f"{folder.name} ({counts.total()}): {shown}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--features", type=Path)
    parser.add_argument("--labelled", type=Path, help="a folder with a folder for each genre")
    parser.add_argument("--picture", type=Path, help="confusion matrix and calibration curve")
    options = parser.parse_args(arguments)
    lines = report_folders(options.folders)
    if options.features:
        lines = report_features(options.features, options.picture)
    elif options.labelled:
        lines = report_labelled(options.labelled)
    for line in lines:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
