"""Load a model: a bundled one by torch alone, any other by transformers.

Importing transformers takes seconds, more than the bundled models need for a short scan.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from tagger.models.classifier import (
    Classifier,
    ModelInputs,
    WindowFeatureExtractor,
    make_classifier,
    prepare_memory,
    translate_load_errors,
    use_one_thread,
)
from tagger.models.musicnn.configuration import MusicnnArchitecture
from tagger.models.musicnn.feature_extraction import MusicnnFeatures
from tagger.models.musicnn.modeling import MusicnnClassifier
from tagger.models.musicnn_yamnet.configuration import MusicnnYamnetArchitecture
from tagger.models.musicnn_yamnet.modeling import MusicnnYamnetClassifier
from tagger.models.patches import AudioClassifier
from tagger.models.sources import ModelSource, read_config, read_json
from tagger.models.yamnet.configuration import YamnetArchitecture
from tagger.models.yamnet.modeling import YamnetClassifier
from tagger.settings import Settings

WEIGHTS_FILE, EXTRACTOR_FILE = "model.safetensors", "preprocessor_config.json"


@dataclass(frozen=True, slots=True)
class WaveformFeatures:
    """Hands samples to a network that makes its own frames."""

    sampling_rate: int
    chunk_length_s: float

    def __call__(self, clips: Sequence[NDArray[np.float32]], **_: object) -> ModelInputs:
        """Turn clips (n,) of one length into the input of the network."""
        return {"input_values": torch.tensor(np.stack(clips))}


@dataclass(frozen=True, slots=True)
class BundledNetwork:
    """The classes of a bundled network: what it is made of, the network, and its inputs."""

    architecture: type[Any]
    classifier: type[AudioClassifier]
    features: type[Any]


NETWORKS: Mapping[str, BundledNetwork] = {
    "musicnn-yamnet": BundledNetwork(
        MusicnnYamnetArchitecture, MusicnnYamnetClassifier, WaveformFeatures
    ),
    "musicnn": BundledNetwork(MusicnnArchitecture, MusicnnClassifier, MusicnnFeatures),
    "yamnet": BundledNetwork(YamnetArchitecture, YamnetClassifier, WaveformFeatures),
}
"""The networks of the bundled models by name."""


def load_classifier(source: ModelSource, settings: Settings) -> Classifier:
    """Load a model whose files `download_missing` has completed.

    Raises ModelError where it is broken or no audio classifier, SettingsError where the options do
    not suit it.
    """
    if source.name in NETWORKS:
        return _load_bundled(source, settings)
    from tagger.models.checkpoint import load_checkpoint  # imports transformers

    return load_checkpoint(source, settings)


def load_extractor(source: ModelSource, settings: Settings) -> WindowFeatureExtractor:
    """Load what makes the inputs of a model. Raises as `load_classifier`."""
    if source.name in NETWORKS:
        return _load_bundled_extractor(source, settings)
    from tagger.models.checkpoint import load_config_and_extractor  # imports transformers

    return load_config_and_extractor(source, settings)[1]


def _load_bundled(source: ModelSource, settings: Settings) -> Classifier:
    network, config = NETWORKS[source.name], read_config(source.folder)
    extractor = _load_bundled_extractor(source, settings)
    with translate_load_errors(source):
        prepare_memory(extractor)
        model = network.classifier()
        with torch.device("meta"):  # layers without memory: nothing is drawn at random in vain
            model.add_layers(_make(network.architecture, config), len(source.labels))
        weights = load_file(source.folder / WEIGHTS_FILE)
        # Copies, because the weights in the file begin at odd addresses.
        with use_one_thread():  # to start the others would take longer
            floats = {name: each.to(torch.float32, copy=True) for name, each in weights.items()}
        model.load_state_dict(floats, assign=True)
    return make_classifier(source, model, extractor, config.get("problem_type"))


def _load_bundled_extractor(source: ModelSource, settings: Settings) -> WindowFeatureExtractor:
    with translate_load_errors(source):
        features = _make(NETWORKS[source.name].features, read_json(source.folder / EXTRACTOR_FILE))
    window_s = settings.window_seconds or float(features.chunk_length_s)
    return WindowFeatureExtractor(features, features.sampling_rate, window_s, window_s)


def _make(kind: type[Any], values: Mapping[str, Any]) -> Any:
    """Make a record of those of the values that are its fields."""
    names = [each.name for each in fields(kind) if each.init]
    return kind(**{name: values[name] for name in names if name in values})
