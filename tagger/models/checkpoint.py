"""Load a checkpoint: the network of an audio classifier or of CLAP, and its feature extractor."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
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

from tagger.errors import ModelError, SettingsError, TaggerError
from tagger.models.sources import AUTO_CLASS, ModelSource, register_bundled_models
from tagger.records import MAX_NOT_MUSIC, AttributeLabels, Attributes, Score
from tagger.settings import Settings

DEFAULT_WINDOW_S = 30.0
"""The window length where the checkpoint names none, as long as GTZAN's clips."""

MAX_SHORT_INPUT_S = 5.0
"""Inputs up to this length make small layers, so that each CPU core can have its own."""

AST_FRAME_S = 0.01
"""AST counts its input in frames of Kaldi's filter bank, one every 10 ms."""

VALID_RATES_HZ = range(1_000, 400_000)
MAX_INPUT_S = 3600.0
"""Values beyond these two mean that the checkpoint's configuration is broken."""

DEFAULT_TOTAL_S = 30.0
MAX_DEFAULT_WINDOWS = 8
"""By default a track is predicted from half a minute of sound, in a limited number of windows."""

LARGE_PAGES_VARIABLE = "THP_MEM_ALLOC_ENABLE"
"""Makes torch put large blocks into large pages (Linux); read when torch first takes memory."""

ModelInputs = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class WindowExtractor:
    """A checkpoint's feature extractor, and the sound that it takes; small and picklable.

    input_s: the length of the network's input for each window; some extractors pad the window to a
    fixed length.
    """

    feature_extractor: Callable[..., Any]
    rate_hz: int
    window_s: float
    input_s: float

    @property
    def window_count(self) -> int:
        """The number of windows of a track, where the user does not say."""
        return max(1, min(MAX_DEFAULT_WINDOWS, round(DEFAULT_TOTAL_S / self.window_s)))

    def __call__(self, windows: Sequence[NDArray[np.float32]]) -> ModelInputs:
        """Turn windows (n,) of one length into tensors whose first axis counts the windows.

        Each window goes through the extractor alone. Of several windows, CLAP's extractor picks one
        at random to count as a long one, and other extractors pad.
        """
        features = [
            self.feature_extractor([window], sampling_rate=self.rate_hz, return_tensors="pt")
            for window in windows
        ]
        return {name: torch.cat([each[name] for each in features]) for name in features[0]}


def make_extractor(feature_extractor: Any, window_s: float | None) -> WindowExtractor:
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
    return WindowExtractor(feature_extractor, rate_hz, window_s, fixed_s or window_s)


def _get_fixed_input_s(feature_extractor: Any, rate_hz: int) -> float | None:
    """Return the input length that is the same for all sounds; None where it varies."""
    if isinstance(feature_extractor, ASTFeatureExtractor):
        return float(feature_extractor.max_length * AST_FRAME_S)
    for name in ("n_samples", "nb_max_samples"):  # Whisper's, CLAP's
        samples = getattr(feature_extractor, name, None)
        if samples is not None:
            return float(samples / rate_hz)
    return None


@dataclass(frozen=True, slots=True)
class ClapOutput:
    """The part of transformers' classifier outputs that tagger uses: logits (n, labels)."""

    logits: torch.Tensor


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

    def forward(self, input_features: torch.Tensor, is_longer: torch.Tensor) -> ClapOutput:
        hidden = self.audio_model(input_features=input_features, is_longer=is_longer)
        audio = torch.nn.functional.normalize(self.projection(hidden.pooler_output), dim=-1)
        return ClapOutput(audio @ self.texts.T * self.scale.exp())


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


@dataclass(frozen=True, slots=True)
class Classifier:
    """A loaded checkpoint.

    not_music: the labels of sound that is no music, in few models. The logits are those of the
    labels, then those of the attribute_labels, if there are any.
    """

    identity: str
    labels: tuple[str, ...]
    multi_label: bool
    model: torch.nn.Module
    extractor: WindowExtractor
    not_music: frozenset[str] = frozenset()
    attribute_labels: AttributeLabels = field(default_factory=AttributeLabels)

    def pool(self, logits: torch.Tensor) -> torch.Tensor:
        """Pool the logits (windows, all labels) of a track: their mean, (all labels,).

        Windows without music do not count among others with music, unless they are the majority.
        Then only they count.
        """
        if not self.not_music:
            return logits.mean(0)
        other = [number for number, label in enumerate(self.labels) if label in self.not_music]
        probabilities = logits[:, : len(self.labels)].softmax(-1)
        has_music = probabilities[:, other].sum(-1) <= MAX_NOT_MUSIC
        is_music = 2 * int(has_music.sum()) >= len(logits)
        return logits[has_music == is_music].mean(0)

    def make_scores(self, logits: torch.Tensor) -> tuple[Score, ...]:
        """Turn logits (all labels,), of one window or pooled, into scores, best first."""
        own = logits[: len(self.labels)]
        return _rank(self.labels, own.sigmoid() if self.multi_label else own.softmax(-1))

    def make_attributes(self, logits: torch.Tensor) -> Attributes:
        """Turn logits (all labels,) into styles, moods and voices."""
        styles, moods, voices = (
            tuple(self.attribute_labels.styles),
            self.attribute_labels.moods,
            self.attribute_labels.voices,
        )
        sizes = [len(self.labels), len(styles), len(moods), len(voices)]
        _, style, mood, voice = logits.split(sizes)
        return Attributes(
            _rank(styles, style.sigmoid()),
            _rank(moods, mood.softmax(-1)),
            _rank(voices, voice.softmax(-1)),
        )


def _rank(labels: Sequence[str], probabilities: torch.Tensor) -> tuple[Score, ...]:
    ranked = probabilities.sort(descending=True, stable=True)
    pairs = zip(ranked.indices.tolist(), ranked.values.tolist(), strict=True)
    return tuple(Score(labels[index], probability) for index, probability in pairs)


def load_classifier(source: ModelSource, settings: Settings) -> Classifier:
    """Load a checkpoint whose files `download_missing` has completed.

    Raises ModelError where it is broken or no audio classifier, SettingsError where the options do
    not suit it.
    """
    config, extractor = load_config_and_extractor(source, settings)
    with translate_load_errors(source):
        if extractor.input_s > MAX_SHORT_INPUT_S:
            os.environ.setdefault(LARGE_PAGES_VARIABLE, "1")  # before torch allocates the weights
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
    return Classifier(
        source.identity,
        source.labels,
        multi_label=getattr(config, "problem_type", None) == "multi_label_classification",
        model=model.eval(),
        extractor=extractor,
        not_music=source.not_music,
        attribute_labels=source.attribute_labels,
    )


def load_config_and_extractor(
    source: ModelSource, settings: Settings
) -> tuple[PreTrainedConfig, WindowExtractor]:
    """Load all of a checkpoint but its weights. Raises as `load_classifier`."""
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


LOAD_ERROR_REASONS = {
    "trust_remote_code": "it brings code of its own, which --trust-remote-code would run",
    "ignore_mismatched_sizes": "its weights do not fit its configuration",
    "Weights only load failed": "its pickled weights hold more than weights",
}
"""Phrase in an error of transformers or torch that is long or gives bad advice -> our reason."""


@contextmanager
def translate_load_errors(source: ModelSource) -> Iterator[None]:
    """Turn any error of loading into a ModelError of one line; suppress warnings."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except TaggerError:
        raise
    except Exception as error:
        text = str(error).strip() or type(error).__name__
        first_lines = "; ".join(line.strip() for line in text.splitlines()[:2] if line.strip())
        reasons = (reason for phrase, reason in LOAD_ERROR_REASONS.items() if phrase in text)
        reason = next(reasons, first_lines)
        raise ModelError(f"the model {source.name} cannot be loaded: {reason}") from error
