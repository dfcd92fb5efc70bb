"""The bundled model: musicnn (Pons & Serra, 2019) as a Hugging Face audio classifier.

Importing this package is cheap; only `register` imports torch and transformers.
"""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "checkpoint"
"""The bundled folder. After `register()`, `from_pretrained` and `transformers.pipeline` take it."""


def register() -> None:
    """Make transformers' Auto classes and pipelines know musicnn; may be called twice."""
    from tagger.models.musicnn.configuration import MusicnnConfig
    from tagger.models.musicnn.feature_extraction import MusicnnFeatureExtractor
    from tagger.models.musicnn.modeling import MusicnnForAudioClassification
    from tagger.models.registration import register_classifier

    register_classifier(MusicnnConfig, MusicnnForAudioClassification, MusicnnFeatureExtractor)
