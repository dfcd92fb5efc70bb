"""Make transformers know classes that are not its own."""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    PreTrainedConfig,
    PreTrainedModel,
    SequenceFeatureExtractor,
    Wav2Vec2FeatureExtractor,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES


def register_classifier(
    config: type[PreTrainedConfig],
    model: type[PreTrainedModel],
    feature_extractor: type[SequenceFeatureExtractor] = Wav2Vec2FeatureExtractor,
) -> None:
    """Register an audio classifier with the Auto classes and pipelines; may be called twice."""
    AutoConfig.register(config.model_type, config, exist_ok=True)
    AutoFeatureExtractor.register(config, feature_extractor, exist_ok=True)
    AutoModelForAudioClassification.register(config, model, exist_ok=True)
    # The pipeline looks up the class name here, and logs an error where it is missing.
    MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES.setdefault(config.model_type, model.__name__)
