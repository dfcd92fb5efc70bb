"""What processes of a cluster do: the stages of the local engine, a few tracks at a time."""

import platform
from collections.abc import Sequence
from dataclasses import replace

import torch

from tagger import __version__
from tagger.engines import Hearing
from tagger.engines.local import breakdowns_told, open_predictor
from tagger.errors import ClusterError, ModelError
from tagger.inference.dataset import Sample, TrackDataset
from tagger.models import fetch, find_source
from tagger.models.names import BUNDLED
from tagger.records import Failure, Prediction, Track


def portable(hearing: Hearing) -> Hearing:
    """Return what asks for the same on another machine, in another folder, when it is pickled."""
    source, settings = hearing.source, replace(hearing.settings, genre_map={})
    if source.commit:
        settings = replace(settings, revision=source.commit)
    elif source.name not in BUNDLED:
        settings = replace(settings, model=str(source.folder.resolve()))
    return replace(hearing, settings=settings)


def decode(dataset: TrackDataset, track: Track) -> Sample | Failure:
    """Return the windows of a track, or why it has none; a stage that keeps nothing."""
    return dataset[track]


class Predicting:
    """An actor that holds the model."""

    def load(self, hearing: Hearing, version: str, cpus: int) -> None:
        """Load the model from where this machine has it, on so many threads.

        Raises ModelError where it cannot be loaded or is another version here, ClusterError where
        this is another version of tagger.
        """
        here = platform.node()
        if version != __version__:
            raise ClusterError(f"{here} has tagger {__version__}, and the scan runs on {version}")
        torch.set_num_threads(cpus)
        source = find_source(hearing.settings)
        fetch(source, hearing.settings, lambda *_: None)
        if source.identity != hearing.source.identity:
            raise ModelError(
                f"{here} has {source.identity}, and the scan runs on {hearing.source.identity}"
            )
        self.settings = hearing.settings
        with breakdowns_told(hearing.settings):
            self.predictor = open_predictor(replace(hearing, source=source))

    def predict(self, *items: Sample | Failure) -> Sequence[Prediction | Failure]:
        with breakdowns_told(self.settings):
            return list(self.predictor.predict(items))
