"""Any Hugging Face audio-classification checkpoint, told apart by its configuration alone."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    ClapConfig,
    PreTrainedConfig,
)

from tagger.errors import ModelError, SettingsError
from tagger.models import musicnn
from tagger.models.extractor import SHORT_S, Extractor, make_extractor
from tagger.models.memory import suit_large_layers
from tagger.models.names import Source
from tagger.models.zero_shot import load_zero_shot
from tagger.records import Score
from tagger.settings import Settings

UNNAMED = re.compile(r"LABEL_\d+")
"""What transformers calls the labels of a model that has none."""

LOADING_ERRORS = (
    OSError, ValueError, KeyError, AttributeError, TypeError, ImportError, RuntimeError,
    MemoryError, SafetensorError,
)  # fmt: skip
"""What loading a checkpoint raises where files are missing, broken, or of another kind of model."""


@dataclass(frozen=True, slots=True)
class Classifier:
    """A loaded checkpoint. Pooling rule: a track's logits are the mean of its windows' logits."""

    identity: str
    labels: tuple[str, ...]
    multi_label: bool
    model: torch.nn.Module
    extractor: Extractor

    def scores(self, logits: torch.Tensor) -> tuple[Score, ...]:
        """Turn logits (labels,), of one window or pooled, into scores, best first."""
        probabilities = logits.sigmoid() if self.multi_label else logits.softmax(-1)
        ranked = probabilities.sort(descending=True, stable=True)
        pairs = zip(ranked.indices.tolist(), ranked.values.tolist(), strict=True)
        return tuple(Score(self.labels[index], probability) for index, probability in pairs)


def load_classifier(source: Source, settings: Settings) -> Classifier:
    """Load a checkpoint that `fetch` has seen to.

    Raises ModelError where it is broken or no audio classifier, SettingsError where the options do
    not suit it.
    """
    musicnn.register()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    trust = settings.trust_remote_code
    with _clear_errors(source):
        config = AutoConfig.from_pretrained(source.folder, trust_remote_code=trust)
        labels = _check_labels(source, config, settings)
        features = AutoFeatureExtractor.from_pretrained(source.folder, trust_remote_code=trust)
        extractor = make_extractor(features, settings.window_seconds)
        if extractor.window_s > SHORT_S:
            suit_large_layers()
        model, loading = _load(source, config, settings)
    untrained = sorted(map(str, [*loading["missing_keys"], *loading["mismatched_keys"]]))
    if untrained:
        raise ModelError(f"{source.name} is no trained audio classifier: it lacks {untrained[0]}")
    return Classifier(
        source.identity,
        labels,
        multi_label=getattr(config, "problem_type", None) == "multi_label_classification",
        model=model.eval(),
        extractor=extractor,
    )


def _load(
    source: Source, config: PreTrainedConfig, settings: Settings
) -> tuple[torch.nn.Module, dict[str, Any]]:
    use_safetensors = None if settings.allow_pickle else True
    if settings.labels:
        prompts = [label.prompt for label in settings.labels]
        return load_zero_shot(source.folder, prompts, use_safetensors=use_safetensors)
    loaded: tuple[torch.nn.Module, dict[str, Any]]
    loaded = AutoModelForAudioClassification.from_pretrained(
        source.folder,
        config=config,
        dtype=torch.float32,
        trust_remote_code=settings.trust_remote_code,
        use_safetensors=use_safetensors,
        output_loading_info=True,
    )
    return loaded


def _check_labels(source: Source, config: PreTrainedConfig, settings: Settings) -> tuple[str, ...]:
    """Return what the model can answer. Raises where that is nothing."""
    name = source.name
    if isinstance(config, ClapConfig):
        if not settings.labels:
            raise SettingsError(f"{name} is a CLAP model: say with --labels what to choose from")
        return tuple(label.name for label in settings.labels)
    if settings.labels:
        cure = "--model laion/clap-htsat-unfused"
        raise SettingsError(f"--labels needs a CLAP model, such as {cure}; {name} is none")
    kinds = config.architectures or [config.model_type]
    if not _is_audio(config) or not any("Classification" in kind for kind in kinds):
        raise ModelError(f"{name} is no audio classifier but something else: {', '.join(kinds)}")
    if config.problem_type == "regression":
        raise ModelError(f"{name} is no classifier: it estimates numbers (regression)")
    names: dict[Any, str] = dict(config.id2label or {})
    labels = tuple(_one_line(names[index]) for index in range(len(names)))
    if all(UNNAMED.fullmatch(label) for label in labels):
        raise ModelError(f"{name} is no classifier: its config.json names no labels (id2label)")
    return labels


def _is_audio(config: PreTrainedConfig) -> bool:
    own_code = getattr(config, "auto_map", None) or {}
    return (
        type(config) in MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING
        or AutoModelForAudioClassification.__name__ in own_code
    )


def _one_line(label: object) -> str:
    """Return a label without what a tag or a terminal would take for more than text."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(label)).split())


@contextmanager
def _clear_errors(source: Source) -> Iterator[None]:
    """Turn whatever goes wrong in loading into one line, and what only warns into none."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except LOADING_ERRORS as error:
        text = str(error).strip()
        if "trust_remote_code" in text:
            reason = "it brings code of its own, which --trust-remote-code would run"
        else:
            reason = text.splitlines()[0] if text else type(error).__name__
        raise ModelError(f"the model {source.name} cannot be loaded: {reason}") from error
