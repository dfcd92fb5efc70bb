"""Load any checkpoint by transformers: an audio classifier or CLAP, and its feature extractor."""

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING,
    ASTFeatureExtractor,
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    AutoTokenizer,
    ClapConfig,
    ClapModel,
    PreTrainedConfig,
)

from tagger.errors import ModelError, SettingsError
from tagger.models.classifier import (
    Classifier,
    WindowFeatureExtractor,
    make_classifier,
    prepare_memory,
    translate_load_errors,
)
from tagger.models.patches import ClassifierOutput
from tagger.models.sources import AUTO_CLASS, ModelSource, register_bundled_models
from tagger.settings import Settings

DEFAULT_WINDOW_S = 30.0
"""The window length where the checkpoint names none, as long as GTZAN's clips."""

AST_FRAME_S = 0.01
"""AST counts its input in frames of Kaldi's filter bank, one every 10 ms."""

VALID_RATES_HZ = range(1_000, 400_000)
MAX_INPUT_S = 3600.0
"""Values beyond these two mean that the checkpoint's configuration is broken."""


def make_extractor(feature_extractor: Any, window_s: float | None) -> WindowFeatureExtractor:
    """Return the extractor with this window length, or with the checkpoint's own for None.

    Raises SettingsError for a window longer than the input: the extractor would cut it, CLAP's at
    random. Raises ModelError where the sampling rate or the input length is impossible.
    """
    rate_hz = feature_extractor.sampling_rate
    if not isinstance(rate_hz, int) or rate_hz not in VALID_RATES_HZ:
        raise ModelError(f"no model listens to sound with a sampling rate of {rate_hz!r} Hz")
    fixed_s = _get_fixed_input_s(feature_extractor, rate_hz)
    if fixed_s is not None and not 0 < fixed_s <= MAX_INPUT_S:
        raise ModelError(f"no model listens to {fixed_s:g} s of sound at once")
    if window_s and fixed_s and window_s > fixed_s:
        raise SettingsError(f"this model listens to {fixed_s:g} s at once, not to {window_s:g} s")
    own_s = fixed_s or getattr(feature_extractor, "chunk_length_s", None) or DEFAULT_WINDOW_S
    window_s = window_s or float(own_s)
    return WindowFeatureExtractor(feature_extractor, rate_hz, window_s, fixed_s or window_s)


def _get_fixed_input_s(feature_extractor: Any, rate_hz: int) -> float | None:
    """Return the input length that is the same for all sounds; None where it varies."""
    if isinstance(feature_extractor, ASTFeatureExtractor):
        return float(feature_extractor.max_length * AST_FRAME_S)
    for name in ("n_samples", "nb_max_samples"):  # Whisper's, CLAP's
        samples = getattr(feature_extractor, name, None)
        if samples is not None:
            return float(samples / rate_hz)
    return None


class ClapClassifier(torch.nn.Module):
    """A zero-shot classifier: CLAP's audio tower, and embedded descriptions of the labels.

    Its logits are CLAP's `logits_per_audio` (Wu et al., 2023): cosine similarities times the
    learnt scale.
    """

    texts: torch.Tensor

    def __init__(self, clap: ClapModel, texts: torch.Tensor) -> None:
        """Take the embeddings (labels, dimensions) of the labels' descriptions."""
        super().__init__()
        self.audio_model = clap.audio_model
        self.projection = clap.audio_projection
        self.scale = clap.logit_scale_a
        self.register_buffer("texts", torch.nn.functional.normalize(texts, dim=-1))

    def forward(self, input_features: torch.Tensor, is_longer: torch.Tensor) -> ClassifierOutput:
        hidden = self.audio_model(input_features=input_features, is_longer=is_longer)
        projected = self.projection(hidden.pooler_output)
        with torch.autocast(projected.device.type, enabled=False):  # similarities need float32
            audio = torch.nn.functional.normalize(projected.float(), dim=-1)
            return ClassifierOutput(audio @ self.texts.T * self.scale.exp())


def load_clap_classifier(
    folder: Path, prompts: list[str], *, use_safetensors: bool | None
) -> tuple[ClapClassifier, dict[str, Any]]:
    """Load a CLAP checkpoint and embed the descriptions; return also transformers' loading info."""
    loaded: Any = ClapModel.from_pretrained(
        folder,
        dtype=torch.float32,
        local_files_only=True,
        use_safetensors=use_safetensors,
        output_loading_info=True,
    )
    clap, loading_info = loaded
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    tokens = tokenizer(prompts, return_tensors="pt", padding=True, truncation=True)
    if len(tokens["input_ids"].unique(dim=0)) < len(set(prompts)):
        raise ModelError("its tokenizer takes two of the labels for the same text")
    with torch.inference_mode():
        texts = clap.eval().get_text_features(**tokens).pooler_output
    return ClapClassifier(clap, texts.clone()), loading_info


def load_checkpoint(source: ModelSource, settings: Settings) -> Classifier:
    """Load a checkpoint whose files `download_missing` has completed.

    Raises ModelError where it is broken or no audio classifier, SettingsError where the options do
    not suit it.
    """
    config, extractor = load_config_and_extractor(source, settings)
    with translate_load_errors(source):
        prepare_memory(extractor)
        if settings.labels:
            prompts = [label.prompt for label in settings.labels]
            model, loading_info = load_clap_classifier(
                source.folder, prompts, use_safetensors=_use_safetensors(settings)
            )
        else:
            model, loading_info = load_network(source, config, settings)
    untrained = sorted(map(str, [*loading_info["missing_keys"], *loading_info["mismatched_keys"]]))
    if untrained:
        raise ModelError(f"{source.name} is no trained audio classifier: it lacks {untrained[0]}")
    return make_classifier(source, model, extractor, getattr(config, "problem_type", None))


def load_config_and_extractor(
    source: ModelSource, settings: Settings
) -> tuple[PreTrainedConfig, WindowFeatureExtractor]:
    """Load all of a checkpoint but its weights. Raises as `load_checkpoint`."""
    register_bundled_models()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    options: dict[str, Any] = {
        "trust_remote_code": settings.trust_remote_code,
        "local_files_only": True,
    }
    with translate_load_errors(source):
        config = AutoConfig.from_pretrained(source.folder, **options)
        _check_model_class(source, config)
        config.return_dict = True  # whatever the checkpoint says, outputs have names
        feature_extractor = AutoFeatureExtractor.from_pretrained(source.folder, **options)
        return config, make_extractor(feature_extractor, settings.window_seconds)


def load_network(
    source: ModelSource, config: PreTrainedConfig, settings: Settings, **more: Any
) -> tuple[Any, dict[str, Any]]:
    """Load a network; return also transformers' loading info (missing_keys and so on)."""
    loaded: tuple[Any, dict[str, Any]] = AutoModelForAudioClassification.from_pretrained(
        source.folder,
        config=config,
        dtype=torch.float32,
        local_files_only=True,
        trust_remote_code=settings.trust_remote_code,
        use_safetensors=_use_safetensors(settings),
        output_loading_info=True,
        **more,
    )
    return loaded


def _use_safetensors(settings: Settings) -> bool | None:
    """Return transformers' option: True refuses pickled weights, None takes what is there."""
    return None if settings.allow_pickle else True


def _check_model_class(source: ModelSource, config: PreTrainedConfig) -> None:
    known = isinstance(config, ClapConfig) or type(config) in MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING
    if not known and AUTO_CLASS not in (getattr(config, "auto_map", None) or {}):
        architectures = ", ".join(config.architectures or [config.model_type])
        raise ModelError(f"{source.name} is not an audio classifier but {architectures}")
