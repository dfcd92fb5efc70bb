"""The bundled model: musicnn (Pons & Serra, 2019) as a Hugging Face audio classifier.

Importing this package is cheap; `register` is what imports torch and transformers.
"""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "checkpoint"
"""The bundled folder, for `from_pretrained` and `transformers.pipeline` after `register()`."""


def register() -> None:
    """Make transformers' Auto classes and pipelines know musicnn; twice does no harm."""
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForAudioClassification
    from transformers.models.auto.modeling_auto import MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES

    from tagger.models.musicnn.configuration import MusicnnConfig
    from tagger.models.musicnn.feature_extraction import MusicnnFeatureExtractor
    from tagger.models.musicnn.modeling import MusicnnForAudioClassification

    kind, model = MusicnnConfig.model_type, MusicnnForAudioClassification
    AutoConfig.register(kind, MusicnnConfig, exist_ok=True)
    AutoFeatureExtractor.register(MusicnnConfig, MusicnnFeatureExtractor, exist_ok=True)
    AutoModelForAudioClassification.register(MusicnnConfig, model, exist_ok=True)
    # The pipeline looks a model up by name here, and logs an error for one that it does not find.
    MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES.setdefault(kind, model.__name__)
