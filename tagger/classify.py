"""Single files through a model, for people who want to see what it hears: no tags, no state."""

import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from tagger import decide
from tagger.audio import read_duration_s
from tagger.engines import Hearing, open_engine
from tagger.errors import AccessError, TrackError
from tagger.isolation import Guard, limits_of
from tagger.models import Source, fetch, find_source
from tagger.paths import RemotePath
from tagger.records import Failure, Prediction, Score, Track
from tagger.settings import Settings
from tagger.storage import look_at

TIMELINE_WINDOWS = 200
"""How many windows a timeline has by default, at most; in a longer file they lie apart."""

SHORTEST_S = 0.1
"""Less sound than this is refused; a spoken word may be shorter than what a genre needs."""


def run_classify(
    files: Sequence[Path],
    source: Source,
    settings: Settings,
    fetching: Callable[[int, int], None],
    *,
    timeline: bool = False,
) -> Iterator[Prediction | Failure]:
    """Yield what the model hears in each file, or why it hears nothing, in the order given.

    `fetching` is told how many bytes of a model were downloaded. With `timeline` a Prediction has
    the scores of each window as well. Raises the errors of a model that cannot be loaded.
    """
    found = [_look_at(path) for path in files]
    tracks = [track for track in found if isinstance(track, Track)]
    if tracks:
        fetch(source, settings, fetching)
        if timeline and settings.windows is None:
            settings = replace(settings, windows=TIMELINE_WINDOWS)
    with open_engine(settings) as listen:
        heard = listen(tracks, Hearing(source, settings, SHORTEST_S, timeline))
        for track in found:
            yield track if isinstance(track, Failure) else next(heard)


def hear_song(path: Path, settings: Settings, minutes: float) -> Prediction:
    """Return what the model hears in a file and in each window of it, named as the user asked.

    Raises TrackError for a file that cannot be heard or is longer than `minutes`, and the errors of
    a model that cannot be loaded.
    """
    with closing(Guard(limits_of(settings))) as guard:
        if guard.call(read_duration_s, path) > minutes * 60:
            raise TrackError(f"it is longer than {minutes:g} minutes")
    source = find_source(settings)
    (result,) = run_classify([path], source, settings, lambda *_: None, timeline=True)
    result = named_by_user(result, settings)
    if isinstance(result, Failure):
        raise TrackError(result.reason)
    return result


def named_by_user(result: Prediction | Failure, settings: Settings) -> Prediction | Failure:
    """Return the top k, renamed only if the user asked: else they are what the model says."""
    if isinstance(result, Failure):
        return result

    def top(scores: tuple[Score, ...]) -> tuple[Score, ...]:
        if settings.genre_map:
            scores = decide.relabel(scores, decide.names_for(settings))
        return scores[: settings.top_k]

    timeline = tuple(replace(each, scores=top(each.scores)) for each in result.timeline)
    return replace(result, scores=top(result.scores), timeline=timeline)


def _look_at(path: Path) -> Track | Failure:
    if isinstance(path, RemotePath):
        return _look_elsewhere(path)
    try:
        status = path.stat()
    except OSError as error:
        return Failure.unseen(path, f"cannot open: {error.strerror}")
    if stat.S_ISDIR(status.st_mode):
        return Failure.unseen(path, "is a folder (tagger scan goes through folders)")
    if not stat.S_ISREG(status.st_mode):
        return Failure.unseen(path, "is no file (- reads from standard input)")
    return Track.from_stat(path, status)


def _look_elsewhere(path: RemotePath) -> Track | Failure:
    try:
        return look_at(path) or Failure.unseen(path, "cannot open: it is not there")
    except AccessError as error:
        return Failure.unseen(path, str(error))
