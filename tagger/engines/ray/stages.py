"""What processes of a cluster do: the stages of the local engine, a few tracks at a time."""

import platform
from collections.abc import Sequence
from dataclasses import replace

import torch

from tagger.engines import Hearing, unchecked
from tagger.engines.local import breakdowns_told, open_predictor
from tagger.engines.ray.cluster import check_version
from tagger.errors import ModelError
from tagger.inference.dataset import Sample, TrackDataset
from tagger.models import fetch, find_source
from tagger.models.names import BUNDLED
from tagger.records import Failure, Prediction, Track


def portable(hearing: Hearing) -> Hearing:
    """Return what asks for the same on another machine, in another folder, when it is pickled."""
    source, settings = hearing.source, replace(hearing.settings, genre_map={}, notify_cmd="")
    if source.commit:
        settings = replace(settings, revision=source.commit)
    elif source.name not in BUNDLED:
        settings = replace(settings, model=str(source.folder.resolve()))
    return replace(hearing, settings=settings, check=unchecked)


def decode(version: str, dataset: TrackDataset, track: Track) -> tuple[bool, Sample | Failure]:
    """Return that all is well, and the windows of a track or why it has none; keeps nothing.

    The first is there to be asked for alone. Raises ClusterError.
    """
    check_version(version)
    return True, dataset[track]


class Predicting:
    """An actor that holds the model."""

    def load(self, hearing: Hearing, version: str, cpus: int) -> None:
        """Load the model from where this machine has it, on so many threads.

        Raises ModelError where it cannot be loaded or is another version here, ClusterError where
        this is another version of tagger.
        """
        check_version(version)
        torch.set_num_threads(cpus)
        source = find_source(hearing.settings)
        fetch(source, hearing.settings, lambda *_: None)
        if source.identity != hearing.source.identity:
            wanted = hearing.source.identity
            raise ModelError(
                f"{platform.node()} has {source.identity}, not the {wanted} of the scan"
            )
        self.settings = hearing.settings
        with breakdowns_told(hearing.settings):
            self.predictor = open_predictor(replace(hearing, source=source))

    def answer(self) -> None:
        """Be alive."""

    def predict(self, *items: Sample | Failure) -> Sequence[Prediction | Failure]:
        with breakdowns_told(self.settings):
            return list(self.predictor.predict(items))
