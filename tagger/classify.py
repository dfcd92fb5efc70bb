"""Single files through a model, to see its scores. Nothing is written: no tags, no state."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path

from tagger import decide
from tagger.audio import read_duration_s
from tagger.errors import AccessError, TrackError
from tagger.inference.engine import InferenceRequest, LocalEngine, open_engine
from tagger.isolation import IsolatedCaller, get_call_limits
from tagger.labels import get_label_names, relabel
from tagger.models import ModelSource, download_missing, find_model
from tagger.paths import AnyPath
from tagger.records import Failure, Prediction, Score, Track
from tagger.settings import EngineKind, Settings
from tagger.storage import find_file

MAX_TIMELINE_WINDOWS = 200
"""The default number of windows of a timeline. In longer files there are gaps between them."""

MIN_CLASSIFY_DURATION_S = 0.1
"""Files with less sound are refused. A spoken word may be shorter than the minimum for a genre."""

SONG_ENGINE = LocalEngine()
"""The engine of `classify_song`, which keeps the model from song to song."""


def run_classify(
    files: Sequence[AnyPath],
    source: ModelSource,
    settings: Settings,
    on_download: Callable[[int, int], None],
    *,
    timeline: bool = False,
) -> Iterator[Prediction | Failure]:
    """Yield the prediction or the failure of each file, in the given order.

    `on_download` gets the downloaded and the total bytes of a model. With `timeline`, a Prediction
    has the scores of each window as well. Raises the errors of a model that cannot be loaded.
    """
    found = [_find_track(path) for path in files]
    tracks = [track for track in found if isinstance(track, Track)]
    if tracks:
        download_missing(source, settings, on_download)
    with open_engine(settings) as predict:
        results = predict(tracks, _make_request(source, settings, timeline=timeline))
        for track in found:
            yield track if isinstance(track, Failure) else next(results)


def _make_request(source: ModelSource, settings: Settings, *, timeline: bool) -> InferenceRequest:
    if timeline and settings.windows is None:
        settings = replace(settings, windows=MAX_TIMELINE_WINDOWS)
    return InferenceRequest(source, settings, MIN_CLASSIFY_DURATION_S, timeline)


def classify_song(
    path: Path, settings: Settings, *, minutes: float, may_be_folder: bool
) -> Prediction:
    """Return the prediction of a file, with its timeline, for all labels that the user chose.

    The model stays loaded for the next call in this process. may_be_folder: whether the name of the
    model may be the path of a folder. Raises TrackError for a file that cannot be classified or is
    longer than `minutes`, and the errors of a model that cannot be loaded.
    """
    with closing(IsolatedCaller(get_call_limits(settings))) as isolated:
        if isolated.call(read_duration_s, path) > minutes * 60:
            raise TrackError(f"it is longer than {minutes:g} minutes")
    source = find_model(settings, may_be_folder=may_be_folder)
    download_missing(source, settings, lambda *_: None)
    request = _make_request(source, settings, timeline=True)
    is_local = settings.engine is EngineKind.LOCAL
    with nullcontext(SONG_ENGINE.predict_tracks) if is_local else open_engine(settings) as predict:
        (result,) = predict([find_file(path)], request)
    result = shape_result(result, source, replace(settings, top_k=len(source.labels)))
    if isinstance(result, Failure):
        raise TrackError(result.reason, result.kind)
    return result


def shape_result(
    result: Prediction | Failure, source: ModelSource, settings: Settings
) -> Prediction | Failure:
    """Return only the top k scores, with the labels of the genre map if the user gave one.

    Of the styles, only the likely ones of the best label stay.
    """
    if isinstance(result, Failure):
        return result
    genre_by_style = source.attribute_labels.styles
    best = [score.genre for score in result.scores[:1]]
    given = decide.choose_styles(result.attributes.styles, genre_by_style, best)
    styles = tuple(style for style in result.attributes.styles if style.genre in given)

    def choose(scores: tuple[Score, ...]) -> tuple[Score, ...]:
        if settings.genre_map:
            scores = relabel(scores, get_label_names(settings))
        return scores[: settings.top_k]

    timeline = tuple(replace(window, scores=choose(window.scores)) for window in result.timeline)
    return replace(
        result,
        scores=choose(result.scores),
        timeline=timeline,
        attributes=replace(result.attributes, styles=styles),
    )


def _find_track(path: AnyPath) -> Track | Failure:
    try:
        return find_file(path)
    except AccessError as error:
        return Failure.without_stat(path, str(error), error.kind)
