"""The bundled model: musicnn (Pons & Serra, 2019) as a Hugging Face audio classifier.

Importing this package is cheap; only `register` imports torch and transformers.
"""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "checkpoint"
"""The bundled folder. After `register()`, `from_pretrained` and `transformers.pipeline` take it."""


def register() -> None:
    """Make transformers' Auto classes and pipelines know musicnn; may be called twice."""
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForAudioClassification
    from transformers.models.auto.modeling_auto import MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES

    from tagger.models.musicnn.configuration import MusicnnConfig
    from tagger.models.musicnn.feature_extraction import MusicnnFeatureExtractor
    from tagger.models.musicnn.modeling import MusicnnForAudioClassification

    model_type, model = MusicnnConfig.model_type, MusicnnForAudioClassification
    AutoConfig.register(model_type, MusicnnConfig, exist_ok=True)
    AutoFeatureExtractor.register(MusicnnConfig, MusicnnFeatureExtractor, exist_ok=True)
    AutoModelForAudioClassification.register(MusicnnConfig, model, exist_ok=True)
    # The pipeline looks up the class name here, and logs an error where it is missing.
    MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES.setdefault(model_type, model.__name__)
