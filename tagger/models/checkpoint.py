"""Load an audio-classification checkpoint, or a CLAP checkpoint for zero-shot labels."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    AutoTokenizer,
    ClapConfig,
    ClapModel,
    PreTrainedConfig,
)

from tagger.errors import ModelError, TaggerError
from tagger.models import musicnn
from tagger.models.extractor import MAX_SHORT_INPUT_S, WindowExtractor, make_extractor
from tagger.models.runtime import use_large_pages
from tagger.models.sources import AUTO_CLASS, ModelSource
from tagger.records import Score
from tagger.settings import Settings


@dataclass(frozen=True, slots=True)
class ClapOutput:
    """What audio classifiers of transformers return, as far as it is used: logits (n, labels)."""

    logits: torch.Tensor


class ClapClassifier(torch.nn.Module):
    """The audio half of a CLAP model before fixed labels; the text half has done its work.

    Its logits are CLAP's `logits_per_audio`: cosine similarities times the learnt scale.
    """

    texts: torch.Tensor

    def __init__(self, clap: ClapModel, texts: torch.Tensor) -> None:
        """Take the embeddings (labels, dimensions) of the labels' descriptions."""
        super().__init__()
        self.audio_model = clap.audio_model
        self.projection = clap.audio_projection
        self.scale = clap.logit_scale_a
        self.register_buffer("texts", torch.nn.functional.normalize(texts, dim=-1))

    def forward(self, input_features: torch.Tensor, is_longer: torch.Tensor) -> ClapOutput:
        hidden = self.audio_model(input_features=input_features, is_longer=is_longer)
        audio = torch.nn.functional.normalize(self.projection(hidden.pooler_output), dim=-1)
        return ClapOutput(audio @ self.texts.T * self.scale.exp())


def load_zero_shot(
    folder: Path, prompts: list[str], *, use_safetensors: bool | None
) -> tuple[ClapClassifier, dict[str, Any]]:
    """Load a CLAP checkpoint and embed the descriptions, once; give also what loading found."""
    loaded: Any = ClapModel.from_pretrained(
        folder,
        dtype=torch.float32,
        local_files_only=True,
        use_safetensors=use_safetensors,
        output_loading_info=True,
    )
    clap, loading = loaded
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    tokens = tokenizer(prompts, return_tensors="pt", padding=True, truncation=True)
    if len(tokens["input_ids"].unique(dim=0)) < len(set(prompts)):
        raise ModelError("its tokenizer takes two of the labels for the same text")
    with torch.inference_mode():
        texts = clap.eval().get_text_features(**tokens).pooler_output
    return ClapClassifier(clap, texts.clone()), loading


LOAD_ERROR_HINTS = {
    "trust_remote_code": "it brings code of its own, which --trust-remote-code would run",
    "ignore_mismatched_sizes": "its weights do not fit its configuration",
    "Weights only load failed": "its pickled weights hold more than weights",
}
"""What is behind an error of transformers or torch that says so at length, or gives bad advice."""


@dataclass(frozen=True, slots=True)
class Classifier:
    """A loaded checkpoint. Pooling rule: a track's logits are the mean of its windows' logits."""

    identity: str
    labels: tuple[str, ...]
    multi_label: bool
    model: torch.nn.Module
    extractor: WindowExtractor

    def scores(self, logits: torch.Tensor) -> tuple[Score, ...]:
        """Turn logits (labels,), of one window or pooled, into scores, best first."""
        probabilities = logits.sigmoid() if self.multi_label else logits.softmax(-1)
        ranked = probabilities.sort(descending=True, stable=True)
        pairs = zip(ranked.indices.tolist(), ranked.values.tolist(), strict=True)
        return tuple(Score(self.labels[index], probability) for index, probability in pairs)


def load_classifier(source: ModelSource, settings: Settings) -> Classifier:
    """Load a checkpoint that `fetch` has seen to.

    Raises ModelError where it is broken or no audio classifier, SettingsError where the options do
    not suit it.
    """
    config, extractor = load_description(source, settings)
    with translate_load_errors(source):
        if extractor.input_s > MAX_SHORT_INPUT_S:
            use_large_pages()
        model, loading = _load_model(source, config, settings)
    untrained = sorted(map(str, [*loading["missing_keys"], *loading["mismatched_keys"]]))
    if untrained:
        raise ModelError(f"{source.name} is no trained audio classifier: it lacks {untrained[0]}")
    return Classifier(
        source.identity,
        source.labels,
        multi_label=getattr(config, "problem_type", None) == "multi_label_classification",
        model=model.eval(),
        extractor=extractor,
    )


def load_description(
    source: ModelSource, settings: Settings
) -> tuple[PreTrainedConfig, WindowExtractor]:
    """Load what a checkpoint says of itself, without its weights. Raises as `load_classifier`."""
    musicnn.register()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    where: dict[str, Any] = {
        "trust_remote_code": settings.trust_remote_code,
        "local_files_only": True,
    }
    with translate_load_errors(source):
        config = AutoConfig.from_pretrained(source.folder, **where)
        _check_model_class(source, config)
        config.return_dict = True  # outputs with names, whatever the checkpoint was saved with
        features = AutoFeatureExtractor.from_pretrained(source.folder, **where)
        return config, make_extractor(features, settings.window_seconds)


def _load_model(
    source: ModelSource, config: PreTrainedConfig, settings: Settings
) -> tuple[torch.nn.Module, dict[str, Any]]:
    if settings.labels:
        prompts = [label.prompt for label in settings.labels]
        return load_zero_shot(source.folder, prompts, use_safetensors=_use_safetensors(settings))
    return load_network(source, config, settings)


def load_network(
    source: ModelSource, config: PreTrainedConfig, settings: Settings, **more: Any
) -> tuple[Any, dict[str, Any]]:
    """Load a network and what transformers says of the loading (missing_keys and such)."""
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
    return None if settings.allow_pickle else True


def _check_model_class(source: ModelSource, config: PreTrainedConfig) -> None:
    known = isinstance(config, ClapConfig) or type(config) in MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING
    if not known and AUTO_CLASS not in (getattr(config, "auto_map", None) or {}):
        what = ", ".join(config.architectures or [config.model_type])
        raise ModelError(f"{source.name} is no audio classifier but something else: {what}")


@contextmanager
def translate_load_errors(source: ModelSource) -> Iterator[None]:
    """Turn whatever goes wrong in loading into one line, and what only warns into none."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except TaggerError:
        raise
    except Exception as error:
        text = str(error).strip() or type(error).__name__
        usual = "; ".join(line.strip() for line in text.splitlines()[:2] if line.strip())
        reason = next((cure for words, cure in LOAD_ERROR_HINTS.items() if words in text), usual)
        raise ModelError(f"the model {source.name} cannot be loaded: {reason}") from error
