"""Tiny checkpoints with random weights of the real architectures, as transformers saves them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    HubertConfig,
    HubertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForSequenceClassification,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    WavLMConfig,
    WavLMForSequenceClassification,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForAudioClassification,
)

LABELS = {0: "rock", 1: "jazz", 2: "hiphop"}

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "id2label": LABELS,
}
WAVE: dict[str, Any] = SIZES | {
    "conv_dim": (8, 8),
    "conv_kernel": (20, 8),  # a hundred frames a second: the real models have fifty
    "conv_stride": (20, 8),
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}


def hubert() -> tuple[PreTrainedModel, Any]:
    """Make a model as DistilHuBERT fine-tuned on GTZAN: group norm, and a mask all the same."""
    return (
        HubertForSequenceClassification(HubertConfig(**WAVE)),
        Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True),
    )


def wav2vec2() -> tuple[PreTrainedModel, Any]:
    return Wav2Vec2ForSequenceClassification(Wav2Vec2Config(**WAVE)), Wav2Vec2FeatureExtractor()


def xlsr() -> tuple[PreTrainedModel, Any]:
    config = Wav2Vec2Config(
        **WAVE, feat_extract_norm="layer", do_stable_layer_norm=True, use_weighted_layer_sum=True
    )
    return (
        Wav2Vec2ForSequenceClassification(config),
        Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True),
    )


def wavlm() -> tuple[PreTrainedModel, Any]:
    return (
        WavLMForSequenceClassification(WavLMConfig(**WAVE)),
        Wav2Vec2FeatureExtractor(do_normalize=False),
    )


def wav2vec2_bert() -> tuple[PreTrainedModel, Any]:
    config = Wav2Vec2BertConfig(**SIZES, feature_projection_input_dim=160, output_hidden_size=16)
    return Wav2Vec2BertForSequenceClassification(config), SeamlessM4TFeatureExtractor()


def ast() -> tuple[PreTrainedModel, Any]:
    """Make a model with several labels at once, as sound events are."""
    config = ASTConfig(**SIZES, problem_type="multi_label_classification")
    return ASTForAudioClassification(config), ASTFeatureExtractor()


def whisper() -> tuple[PreTrainedModel, Any]:
    config = WhisperConfig(
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        classifier_proj_size=16,
        id2label=LABELS,
    )
    return WhisperForAudioClassification(config), WhisperFeatureExtractor()


SHARPER = {"ast": 2, "whisper": 40}
"""How far the last layers are scaled up, where it is not eightfold."""

CLASSIFIERS: dict[str, Callable[[], tuple[PreTrainedModel, Any]]] = {
    make.__name__: make for make in (hubert, wav2vec2, xlsr, wavlm, wav2vec2_bert, ast, whisper)
}


def clap(*, fused: bool) -> tuple[PreTrainedModel, Any]:
    text = {
        "vocab_size": 260,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 80,
    }
    audio = {
        "hidden_size": 64,
        "patch_embeds_hidden_size": 8,
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 1, 2, 2],
        "enable_fusion": fused,
        "aff_block_r": 2,
    }
    config = ClapConfig(text_config=text, audio_config=audio, projection_dim=16)
    truncation = "fusion" if fused else "rand_trunc"
    return ClapModel(config), ClapFeatureExtractor(truncation=truncation)


def tokenizer() -> PreTrainedTokenizerFast:
    """Make RoBERTa's tokenizer without its merges: a token for each byte."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    names = special + sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {name: number for number, name in enumerate(names)}
    tokens = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    tokens.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokens, bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        pad_token="<pad>", model_max_length=64,
    )  # fmt: skip


def save(folder: Path, kind: str) -> Path:
    """Save a checkpoint of one kind: a name in CLASSIFIERS, `clap` or `clap-fused`."""
    torch.manual_seed(0)
    is_clap = kind.startswith("clap")
    model, extractor = clap(fused=kind == "clap-fused") if is_clap else CLASSIFIERS[kind]()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith(("classifier", "projector", "audio_projection", "text_projection")):
                weight.mul_(SHARPER.get(kind, 8))  # else all labels would score about the same
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    if is_clap:
        tokenizer().save_pretrained(folder)
    return folder


def edit(folder: Path, name: str = "config.json", /, **values: object) -> None:
    """Change what a JSON file of a checkpoint says; None takes an entry out."""
    path = folder / name
    config = json.loads(path.read_text("utf-8")) | values
    path.write_text(
        json.dumps({key: value for key, value in config.items() if value is not None}), "utf-8"
    )
