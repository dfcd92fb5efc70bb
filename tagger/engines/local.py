"""The network on this machine: decoding in worker processes, the model in this one."""

from collections.abc import Iterable, Iterator

import torch

from tagger.audio import SHORTEST_S
from tagger.errors import ModelError, WorkerError
from tagger.inference.dataset import TrackDataset, Wanted, choose_jobs, load_tracks
from tagger.inference.devices import choose_devices, choose_mode
from tagger.inference.predict import Predictor
from tagger.isolation import limits_of
from tagger.models import Source
from tagger.models.checkpoint import load_classifier
from tagger.models.extractor import SHORT_S
from tagger.models.memory import return_memory
from tagger.records import Failure, Prediction, Track
from tagger.settings import Settings


def listen(
    tracks: Iterable[Track],
    source: Source,
    settings: Settings,
    *,
    shortest_s: float = SHORTEST_S,
    timeline: bool = False,
) -> Iterator[Prediction | Failure]:
    """Yield what the model hears in each track, or why it heard nothing, in the order given.

    Raises ModelError where the model cannot be loaded, the device is not there or its memory is too
    small, WorkerError where a decoding process dies.
    """
    devices = choose_devices(settings.device)
    classifier = load_classifier(source, settings)
    predictor = Predictor(
        classifier,
        devices,
        choose_mode(settings, devices, classifier.model),
        batch_size=settings.batch_size,
        timeline=timeline,
    )
    dataset = TrackDataset(
        classifier.extractor, Wanted(settings.windows, shortest_s), limits_of(settings)
    )
    is_slow = devices[0].type == "cpu" and classifier.extractor.input_s > SHORT_S
    if is_slow:
        return_memory()
    jobs = choose_jobs(settings.jobs, slow=is_slow, gentle=settings.gentle)
    try:
        yield from predictor.predict(load_tracks(dataset, tracks, jobs=jobs))
    except torch.OutOfMemoryError as error:
        raise ModelError("the device's memory is too small for a single window") from error
    # What torch makes of a worker that died, or that could not start a process of its own.
    except (RuntimeError, ConnectionError, EOFError, WorkerError) as error:
        last = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
        hint = " (try without --compile)" if settings.compile else ""
        raise WorkerError(f"decoding or the network broke down: {last}{hint}") from error
