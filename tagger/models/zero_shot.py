"""CLAP over the user's own labels (Wu et al., 2023): how near a sound is to each description."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, ClapModel

from tagger.errors import ModelError


@dataclass(frozen=True, slots=True)
class Output:
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

    def forward(self, input_features: torch.Tensor, is_longer: torch.Tensor) -> Output:
        hidden = self.audio_model(input_features=input_features, is_longer=is_longer)
        audio = torch.nn.functional.normalize(self.projection(hidden.pooler_output), dim=-1)
        return Output(audio @ self.texts.T * self.scale.exp())


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
