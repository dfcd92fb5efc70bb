"""What a model makes of labelled music."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from tagger import decide
from tagger.engines import Hearing, open_engine
from tagger.errors import LibraryError
from tagger.models import Source, fetch
from tagger.paths import displayed
from tagger.records import Failure, plain
from tagger.settings import Settings
from tagger.training.clips import Clip, Dataset
from tagger.training.measures import Answer, Measures, Share, measure, share


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
    sure: Share | None
    unknown: Mapping[str, int]
    failed: tuple[Failure, ...]
    clips_per_s: float


def evaluate(
    dataset: Dataset,
    source: Source,
    settings: Settings,
    fetching: Callable[[int, int], None],
    done: Callable[[int], None],
) -> Evaluation:
    """Listen to the clips and compare; `done` is told how many are behind it.

    `fetching` is told how many bytes of a model were downloaded. Raises LibraryError where nothing
    can be compared, and the errors of a model.
    """
    clips, unknown = _comparable(dataset.clips, source, settings)
    if not clips:
        raise LibraryError(f"{dataset.name} has no clip with a label of {source.identity}")
    fetch(source, settings, fetching)
    answers: list[Answer] = []
    failed: list[Failure] = []
    times_s: list[float] = []
    for result in _heard(clips, source, settings):
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
        measures=measure(answers),
        among=measure([answer.among(occurring) for answer in answers]),
        sure=share(sum(answer.is_right for answer in sure), len(sure)) if sure else None,
        unknown=unknown,
        failed=tuple(failed),
        clips_per_s=(len(times_s) - 1) / seconds if seconds else 0.0,
    )


def _heard(clips: Sequence[Clip], source: Source, settings: Settings) -> Iterator[Answer | Failure]:
    names = decide.names_for(settings)
    with open_engine(settings) as listen:
        heard = listen((clip.track for clip in clips), Hearing(source, settings))
        for clip, result in zip(clips, heard, strict=True):
            if isinstance(result, Failure):
                yield result
            else:
                yield Answer(clip.labels, decide.relabel(result.scores, names))


def _comparable(
    clips: Sequence[Clip], source: Source, settings: Settings
) -> tuple[list[Clip], Counter[str]]:
    """Give the clips' labels the model's spelling; count those that it does not have."""
    names = decide.names_for(settings)
    renamed = [names.get(label.casefold(), label) for label in source.labels]
    own = {plain(name): name for name in renamed if name}
    found, unknown = [], Counter[str]()
    for clip in clips:
        known = [own[plain(label)] for label in clip.labels if plain(label) in own]
        if known:
            found.append(Clip(clip.track, tuple(known)))
        else:
            unknown[clip.labels[0]] += 1
    return found, unknown


def as_json(found: Evaluation) -> dict[str, object]:
    """Return all of it as JSON takes it."""
    left_out = [*found.dataset.left_out, *found.failed]
    return {
        "model": found.model,
        "dataset": found.dataset.name,
        **_numbers(found.measures),
        "among_its_labels": _numbers(found.among),
        "sure": asdict(found.sure) if found.sure else None,
        "unknown_labels": dict(found.unknown),
        "failed": len(found.failed),
        "left_out": [
            {"path": displayed(each.track.path), "reason": each.reason} for each in left_out
        ],
        "clips_per_second": found.clips_per_s,
    }


def _numbers(measures: Measures) -> dict[str, object]:
    return {
        "accuracy": asdict(measures.accuracy),
        "macro_f1": measures.macro_f1,
        "ece": measures.ece,
        "genres": [asdict(row) for row in measures.genres],
        "confusion": {"labels": measures.labels, "counts": measures.confusion.tolist()},
        "reliability": [asdict(each) for each in measures.bins],
    }
