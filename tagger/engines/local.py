"""The network on this machine: decoding in worker processes, the model in this one."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from tagger.engines import Hearing
from tagger.errors import ModelError, WorkerError
from tagger.inference.dataset import TrackDataset, Wanted, choose_jobs, load_tracks
from tagger.inference.devices import choose_devices, choose_mode
from tagger.inference.predict import Predictor
from tagger.isolation import limits_of
from tagger.models.checkpoint import load_classifier
from tagger.models.extractor import Extractor
from tagger.models.memory import return_memory
from tagger.records import Failure, Prediction, Track
from tagger.settings import Settings


def listen(tracks: Iterable[Track], hearing: Hearing) -> Iterator[Prediction | Failure]:
    """Hear the tracks; a `Listen`. A decoding process that dies is a WorkerError."""
    settings = hearing.settings
    with breakdowns_told(settings):
        predictor = open_predictor(hearing)
        dataset = open_dataset(predictor.classifier.extractor, hearing)
        jobs = choose_jobs(settings.jobs, slow=predictor.is_slow, gentle=settings.gentle)
        yield from predictor.predict(load_tracks(dataset, tracks, jobs=jobs))


def open_predictor(hearing: Hearing) -> Predictor:
    """Load the model onto the devices that were asked for. Raises ModelError."""
    settings = hearing.settings
    devices = choose_devices(settings.device)
    classifier = load_classifier(hearing.source, settings)
    predictor = Predictor(
        classifier,
        devices,
        choose_mode(settings, devices, classifier.model),
        batch_size=settings.batch_size,
        timeline=hearing.timeline,
    )
    if predictor.is_slow:
        return_memory()
    return predictor


def open_dataset(extractor: Extractor, hearing: Hearing) -> TrackDataset:
    settings = hearing.settings
    wanted = Wanted(settings.windows, hearing.shortest_s)
    return TrackDataset(extractor, wanted, limits_of(settings))


@contextmanager
def breakdowns_told(settings: Settings) -> Iterator[None]:
    """Turn what torch raises while it decodes and predicts into our errors."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ModelError("the device's memory is too small for a single window") from error
    # What torch makes of a worker that died, or that could not start a process of its own.
    except (RuntimeError, ConnectionError, EOFError, WorkerError) as error:
        last = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
        hint = " (try without --compile)" if settings.compile else ""
        raise WorkerError(f"decoding or the network broke down: {last}{hint}") from error
