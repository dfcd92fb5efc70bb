"""A checkpoint made ready to be trained: new head, frozen parts, dropout; and its head alone."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoModelForAudioClassification,
    PreTrainedConfig,
    PreTrainedModel,
    set_seed,
)

from tagger.errors import ModelError
from tagger.models import ModelSource
from tagger.models.checkpoint import (
    ModelInputs,
    WindowExtractor,
    load_config_and_extractor,
    load_network,
    translate_load_errors,
)
from tagger.settings import Settings
from tagger.training.recipe import Freeze, Recipe

TRAINING_ONLY_WEIGHTS = ("masked_spec_embed",)
"""Weights that some published checkpoints lack, and that are used in training alone."""


def load_trainable_description(
    source: ModelSource, recipe: Recipe, settings: Settings
) -> tuple[PreTrainedConfig, WindowExtractor]:
    """Load configuration and feature extractor of a checkpoint, as the recipe wants them.

    Raises ModelError where the checkpoint is broken or no audio model.
    """
    config, extractor = load_config_and_extractor(source, settings)
    features: Any = extractor.feature_extractor
    if config.model_type == "hubert":  # as the tutorial has it for DistilHuBERT
        features.do_normalize = features.return_attention_mask = True
    if recipe.segment_seconds:
        features.chunk_length_s = recipe.segment_seconds
    if recipe.dropout is not None:
        for name, value in config.to_dict().items():
            if name.endswith(("dropout", "dropout_prob")) and isinstance(value, float | int):
                setattr(config, name, recipe.dropout)
    return config, extractor


def load_trainable_model(
    source: ModelSource,
    config: PreTrainedConfig,
    labels: Sequence[str],
    recipe: Recipe,
    settings: Settings,
) -> PreTrainedModel:
    """Load a checkpoint with a head for these labels: its own, if it has the very same ones.

    Raises ModelError where it lacks weights below the head or cannot be frozen as asked.
    """
    wanted = _set_labels(config, labels)
    set_seed(recipe.seed)  # of the new head's weights
    with translate_load_errors(source):
        model: PreTrainedModel
        model, loading = load_network(source, wanted, settings, ignore_mismatched_sizes=True)
    name = find_backbone_name(model)
    lacking = [*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])]
    missing = [key for key in map(str, lacking) if key.startswith(f"{name}.")]
    missing = [key for key in missing if not key.endswith(TRAINING_ONLY_WEIGHTS)]
    if missing:
        raise ModelError(f"{source.name} cannot be fine-tuned: it lacks a fitting {min(missing)}")
    if config.id2label != wanted.id2label:
        set_seed(recipe.seed)
        fresh = type(model)(wanted)
        setattr(fresh, name, getattr(model, name))
        model = fresh
    _freeze_layers(model, recipe)
    return model


def check_recipe_fits(config: PreTrainedConfig, recipe: Recipe, *, trust: bool) -> None:
    """Raise ModelError where a network of this shape cannot do what the recipe wants."""
    with torch.device("meta"):
        model = make_untrained_model(config, ["one", "other"], recipe, trust=trust)
    if recipe.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise ModelError("this model cannot do --gradient-checkpointing")


def make_untrained_model(
    config: PreTrainedConfig, labels: Sequence[str], recipe: Recipe, *, trust: bool
) -> PreTrainedModel:
    """Return a network of the shape that `load_model` gives, without anything learned.

    trust: run code that the checkpoint brings along.
    """
    set_seed(recipe.seed)
    model: PreTrainedModel = AutoModelForAudioClassification.from_config(
        _set_labels(config, labels), trust_remote_code=trust
    )
    _freeze_layers(model, recipe)
    return model


def _set_labels(config: PreTrainedConfig, labels: Sequence[str]) -> PreTrainedConfig:
    wanted = copy.deepcopy(config)
    wanted.id2label = dict(enumerate(labels))
    wanted.label2id = {label: number for number, label in enumerate(labels)}
    wanted.problem_type = "single_label_classification"
    return wanted


def find_backbone_name(model: PreTrainedModel) -> str:
    """Return under which name a classifier keeps what is below its head."""
    names = (model.base_model_prefix, "encoder")
    found = next((name for name in names if name in dict(model.named_children())), None)
    if not found:
        raise ModelError("this model does not tell its head from what is below it")
    return found


def _freeze_layers(model: PreTrainedModel, recipe: Recipe) -> None:
    if recipe.freeze is Freeze.FEATURE_ENCODER:
        freeze: Any = getattr(model, "freeze_feature_encoder", None)
        if not freeze:
            raise ModelError("this model has no feature encoder to freeze")
        freeze()
    if recipe.freeze is Freeze.BACKBONE:
        getattr(model, find_backbone_name(model)).requires_grad_(False)


class HeadOnly(nn.Module):
    """The layers of a classifier above its backbone, over what the backbone made of a window.

    Works where they are linear up to the pooling over time, as in HuBERT, wav2vec2, WavLM, Whisper
    (mean of the projected frames) and musicnn, or come behind it, as in AST: then the mean over
    the frames can be taken first, and once for all epochs. `embed` makes sure of that.
    """

    def __init__(self, model: PreTrainedModel, backbone: str) -> None:
        super().__init__()
        layers = [layer for name, layer in model.named_children() if name != backbone]
        self.layers = nn.Sequential(*(layer for layer in layers if list(layer.parameters())))

    def forward(
        self, embeddings: Sequence[Tensor], labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Turn what the first layer takes, (n, size) each, into logits (n, labels)."""
        first, *others = self.layers.children()
        logits: Tensor = first(*embeddings)
        for layer in others:
            logits = layer(logits)
        loss = {} if labels is None else {"loss": functional.cross_entropy(logits, labels)}
        return loss | {"logits": logits}


@torch.inference_mode()
def compute_embeddings(
    model: PreTrainedModel, head: HeadOnly, windows: ModelInputs
) -> tuple[Tensor, ...]:
    """Return what the head gets of windows (n, …), (n, size) each, pooled over their time.

    Raises ModelError where the head makes other logits of that than the whole model of the windows.
    """
    caught: list[Tensor] = []
    hook = head.layers[0].register_forward_pre_hook(lambda _layer, args: caught.extend(args))
    try:
        whole = model.eval()(**windows).logits
    finally:
        hook.remove()
    pooled = tuple(each.reshape(len(whole), -1, each.shape[-1]).mean(1) for each in caught)
    if not torch.allclose(head.eval()(pooled)["logits"], whole, rtol=1e-3, atol=1e-3):
        raise ModelError("--freeze backbone cannot train the head of this model by itself")
    return pooled


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes: of weights, of gradients with AdamW's two moments, and of what layers leave behind."""

    weights: int
    optimizer: int
    layers: int


def estimate_training_memory(
    model: PreTrainedModel, batch: ModelInputs, *, gradient_checkpointing: bool
) -> TrainingMemory:
    """Estimate what a training step takes; the layers' part is measured on this batch."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    model.train()
    if gradient_checkpointing:
        model.gradient_checkpointing_enable()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(**batch)  # holds on to what is kept
    weights = {p.untyped_storage().data_ptr(): p.nbytes for p in model.parameters()}
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    layers = sum(size for place, size in kept.items() if place not in weights)
    del output
    return TrainingMemory(weights=sum(weights.values()), optimizer=3 * trained, layers=layers)
