"""Single files through a model, for people who want to see what it hears: no tags, no state."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from tagger import decide
from tagger.audio import read_duration_s
from tagger.errors import AccessError, TrackError
from tagger.inference.engine import InferenceRequest, open_engine
from tagger.isolation import IsolatedCaller, get_call_limits
from tagger.models import ModelSource, download_missing, find_model
from tagger.paths import AnyPath
from tagger.records import Failure, Prediction, Score, Track
from tagger.settings import Settings
from tagger.storage import find_file

MAX_TIMELINE_WINDOWS = 200
"""How many windows a timeline has by default, at most; in a longer file they lie apart."""

MIN_CLASSIFY_DURATION_S = 0.1
"""Less sound than this is refused; a spoken word may be shorter than what a genre needs."""


def run_classify(
    files: Sequence[AnyPath],
    source: ModelSource,
    settings: Settings,
    on_download: Callable[[int, int], None],
    *,
    timeline: bool = False,
) -> Iterator[Prediction | Failure]:
    """Yield what the model hears in each file, or why it hears nothing, in the order given.

    `on_download` is told how many bytes of a model were downloaded. With `timeline` a Prediction
    has the scores of each window as well. Raises the errors of a model that cannot be loaded.
    """
    found = [_look_up_path(path) for path in files]
    tracks = [track for track in found if isinstance(track, Track)]
    if tracks:
        download_missing(source, settings, on_download)
        if timeline and settings.windows is None:
            settings = replace(settings, windows=MAX_TIMELINE_WINDOWS)
    with open_engine(settings) as listen:
        heard = listen(
            tracks, InferenceRequest(source, settings, MIN_CLASSIFY_DURATION_S, timeline)
        )
        for track in found:
            yield track if isinstance(track, Failure) else next(heard)


def classify_song(path: Path, settings: Settings, minutes: float) -> Prediction:
    """Return what the model hears in a file and in each window of it, named as the user asked.

    Raises TrackError for a file that cannot be heard or is longer than `minutes`, and the errors of
    a model that cannot be loaded.
    """
    with closing(IsolatedCaller(get_call_limits(settings))) as isolated:
        if isolated.call(read_duration_s, path) > minutes * 60:
            raise TrackError(f"it is longer than {minutes:g} minutes")
    source = find_model(settings)
    (result,) = run_classify([path], source, settings, lambda *_: None, timeline=True)
    result = apply_user_names(result, settings)
    if isinstance(result, Failure):
        raise TrackError(result.reason)
    return result


def apply_user_names(result: Prediction | Failure, settings: Settings) -> Prediction | Failure:
    """Return the top k, renamed only if the user asked: else they are what the model says."""
    if isinstance(result, Failure):
        return result

    def top(scores: tuple[Score, ...]) -> tuple[Score, ...]:
        if settings.genre_map:
            scores = decide.relabel(scores, decide.get_label_names(settings))
        return scores[: settings.top_k]

    timeline = tuple(replace(each, scores=top(each.scores)) for each in result.timeline)
    return replace(result, scores=top(result.scores), timeline=timeline)


def _look_up_path(path: AnyPath) -> Track | Failure:
    try:
        return find_file(path)
    except AccessError as error:
        return Failure.without_stat(path, str(error), error.kind)
