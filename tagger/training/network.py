"""Prepare a checkpoint for training: a new head, frozen layers, dropout; or its head only."""

import copy
import warnings
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
from tagger.models.checkpoint import load_config_and_extractor, load_network
from tagger.models.classifier import ModelInputs, WindowFeatureExtractor, translate_load_errors
from tagger.models.pretrained import MusicnnYamnetConfig
from tagger.settings import Settings
from tagger.training.recipe import Freeze, Recipe

TRAINING_ONLY_WEIGHTS = ("masked_spec_embed",)
"""Weights that only a training uses. Some published checkpoints do not have them."""


def load_trainable_config(
    source: ModelSource, recipe: Recipe, settings: Settings
) -> tuple[PreTrainedConfig, WindowFeatureExtractor]:
    """Load the configuration and the feature extractor of a checkpoint, changed by the recipe.

    Raises ModelError if the checkpoint is broken, not an audio model, or has no dropout to set.
    """
    config, extractor = load_config_and_extractor(source, settings)
    features: Any = extractor.feature_extractor
    if config.model_type == "hubert":  # the tutorial does this for DistilHuBERT
        features.do_normalize = features.return_attention_mask = True
    if recipe.segment_seconds:
        features.chunk_length_s = recipe.segment_seconds
    if recipe.dropout is not None:
        _set_dropout(config, recipe.dropout)
    return config, extractor


def _set_dropout(config: PreTrainedConfig, dropout: float) -> None:
    if isinstance(config, MusicnnYamnetConfig):
        config.musicnn = {**config.musicnn, "dropout": dropout}  # YAMNet has none
        return
    names = [
        name
        for name, value in config.to_dict().items()
        if name.endswith(("dropout", "dropout_prob")) and isinstance(value, float | int)
    ]
    if not names:
        raise ModelError("this model has no dropout to set (--dropout)")
    for name in names:
        setattr(config, name, dropout)


def load_trainable_model(
    source: ModelSource,
    config: PreTrainedConfig,
    labels: Sequence[str],
    recipe: Recipe,
    settings: Settings,
) -> PreTrainedModel:
    """Load a checkpoint with a head for these labels. A head for the same labels is kept.

    Raises ModelError if weights below the head are missing, or the recipe cannot freeze the model.
    """
    new_config = _set_labels(config, labels)
    set_seed(recipe.seed)  # for the weights of the new head
    with translate_load_errors(source):
        model: PreTrainedModel
        model, loading = load_network(source, new_config, settings, ignore_mismatched_sizes=True)
    name = find_backbone_name(model)
    unloaded = [*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])]
    missing = [key for key in map(str, unloaded) if key.startswith(f"{name}.")]
    missing = [key for key in missing if not key.endswith(TRAINING_ONLY_WEIGHTS)]
    if missing:
        raise ModelError(
            f"{source.name} cannot be fine-tuned: the weights {min(missing)} are missing or have"
            " another shape"
        )
    if config.id2label != new_config.id2label:
        set_seed(recipe.seed)
        new_model = type(model)(new_config)
        setattr(new_model, name, getattr(model, name))
        model = new_model
    _freeze_layers(model, recipe)
    return model


def check_recipe_fits(config: PreTrainedConfig, recipe: Recipe, *, trust: bool) -> None:
    """Raise ModelError if a network of this shape cannot be trained by the recipe."""
    with torch.device("meta"):
        model = make_untrained_model(config, ["first", "second"], recipe, trust=trust)
    if recipe.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise ModelError("this model does not support --gradient-checkpointing")


def make_untrained_model(
    config: PreTrainedConfig, labels: Sequence[str], recipe: Recipe, *, trust: bool
) -> PreTrainedModel:
    """Return a network as `load_trainable_model` does, with random weights.

    trust: run the code that the checkpoint contains.
    """
    set_seed(recipe.seed)
    model: PreTrainedModel = AutoModelForAudioClassification.from_config(
        _set_labels(config, labels), trust_remote_code=trust
    )
    _freeze_layers(model, recipe)
    return model


def _set_labels(config: PreTrainedConfig, labels: Sequence[str]) -> PreTrainedConfig:
    new_config = copy.deepcopy(config)
    new_config.id2label = dict(enumerate(labels))
    new_config.label2id = {label: number for number, label in enumerate(labels)}
    new_config.problem_type = "single_label_classification"
    return new_config


def find_backbone_name(model: PreTrainedModel) -> str:
    """Return the name of the attribute that has the layers below the head of a classifier."""
    children = dict(model.named_children())
    for name in (model.base_model_prefix, "encoder"):
        if name in children:
            return name
    raise ModelError("this model has no backbone that can be separated from its head")


def _freeze_layers(model: PreTrainedModel, recipe: Recipe) -> None:
    if recipe.freeze is Freeze.FEATURE_ENCODER:
        freeze: Any = getattr(model, "freeze_feature_encoder", None)
        if not freeze:
            raise ModelError("this model has no feature encoder to freeze")
        freeze()
    if recipe.freeze is Freeze.BACKBONE:
        getattr(model, find_backbone_name(model)).requires_grad_(False)


class ClassifierHead(nn.Module):
    """The layers of a classifier above its backbone. Its inputs are the outputs of the backbone.

    The mean over the frames is taken before the head, once for all epochs. This is correct if the
    layers before the pooling over time are linear, as in HuBERT, wav2vec2, WavLM, Whisper (mean of
    the projected frames) and musicnn, or if the head follows the pooling, as in AST.
    `compute_embeddings` checks it.
    """

    def __init__(self, model: PreTrainedModel, backbone: str) -> None:
        super().__init__()
        layers = [layer for name, layer in model.named_children() if name != backbone]
        self.layers = nn.Sequential(*(layer for layer in layers if list(layer.parameters())))

    def forward(
        self, embeddings: Sequence[Tensor], labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Turn the inputs of the first layer, each (n, size), into logits (n, labels)."""
        first, *others = self.layers.children()
        logits: Tensor = first(*embeddings)
        for layer in others:
            logits = layer(logits)
        loss = {} if labels is None else {"loss": functional.cross_entropy(logits, labels)}
        return loss | {"logits": logits}


@torch.inference_mode()
def compute_embeddings(
    model: PreTrainedModel, head: ClassifierHead, windows: ModelInputs
) -> tuple[Tensor, ...]:
    """Return the inputs of the head for windows (n, …), each (n, size), pooled over time.

    Raises ModelError if the head gives other logits for them than the whole model for the windows.
    """
    head_inputs: list[Tensor] = []
    hook = head.layers[0].register_forward_pre_hook(lambda _layer, args: head_inputs.extend(args))
    try:
        logits = model.eval()(**windows).logits
    finally:
        hook.remove()
    pooled = tuple(x.reshape(len(logits), -1, x.shape[-1]).mean(1) for x in head_inputs)
    if not torch.allclose(head.eval()(pooled)["logits"], logits, rtol=1e-3, atol=1e-3):
        raise ModelError("--freeze backbone cannot train the head of this model by itself")
    return pooled


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes of the weights, of gradients with AdamW's two moments, and of the layers' outputs."""

    weights: int
    optimizer: int
    layers: int


def estimate_training_memory(
    model: PreTrainedModel, batch: ModelInputs, *, gradient_checkpointing: bool
) -> TrainingMemory:
    """Estimate the memory for a training step. That of the layers is measured on this batch."""
    saved: dict[int, int] = {}

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    model.train()
    if gradient_checkpointing:
        # transformers renamed this in the course of its version 5, and warns of the old name.
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            model.gradient_checkpointing_enable()
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        output = model(**batch)  # keeps the saved tensors, so that no address is used twice
    weights = {p.untyped_storage().data_ptr(): p.nbytes for p in model.parameters()}
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    layers = sum(size for address, size in saved.items() if address not in weights)
    del output
    return TrainingMemory(weights=sum(weights.values()), optimizer=3 * trained, layers=layers)
