"""The network on this machine: decoding in worker processes, the model in this one."""

from collections.abc import Iterable, Iterator

from tagger.inference.dataset import TrackDataset, choose_jobs, load_tracks
from tagger.inference.predict import Predictor, choose_device, choose_precision
from tagger.models.checkpoint import load_classifier
from tagger.records import Failure, Prediction, Track
from tagger.settings import Settings


def listen(tracks: Iterable[Track], settings: Settings) -> Iterator[Prediction | Failure]:
    """Yield what the model hears in each track, or why it heard nothing, in the order given.

    Raises ModelError where the model cannot be loaded or the device is not there.
    """
    device = choose_device(settings.device)
    classifier = load_classifier(settings.model)
    predictor = Predictor(
        classifier,
        device=device,
        dtype=choose_precision(settings.precision, device),
        batch_size=settings.batch_size,
    )
    dataset = TrackDataset(classifier.extractor, windows=settings.windows)
    return predictor.predict(load_tracks(dataset, tracks, jobs=choose_jobs(settings.jobs)))
