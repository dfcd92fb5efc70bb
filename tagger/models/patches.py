"""What the bundled networks have in common: their base, and clips cut into patches."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ClassifierOutput:
    """What a network says of clips; of clips of several patches, the means over the patches.

    logits: (clips, labels). The others are there where the network has them: tag_logits
    (clips, tags), embedding (clips, all embeddings), attribute_logits (clips, styles + moods +
    voices).
    """

    logits: Tensor
    tag_logits: Tensor | None = None
    embedding: Tensor | None = None
    attribute_logits: Tensor | None = None


class AudioClassifier(nn.Module):
    """A network without layers; `add_layers` adds them.

    The layers are no part of `__init__`, so that classes of transformers, which have an `__init__`
    of their own, can have the same layers (`tagger.models.pretrained`).
    """

    @abstractmethod
    def add_layers(self, config: Any, labels: int) -> None:
        """Add the layers. config: what the network is made of."""

    def forward(self, input_values: Tensor, attention_mask: Tensor | None = None) -> Any:
        """Classify clips, padded on the right; return a ClassifierOutput."""
        raise NotImplementedError


PatchCounts = int | Sequence[int]
"""The patches of each clip; one number where all clips have as many."""


def cut_patches(
    clips: Tensor, lengths: Tensor | None, frames: int, hop: int
) -> tuple[Tensor, PatchCounts]:
    """Cut clips (clips, frames in a clip, bands) into patches (sum of counts, frames, bands).

    Return the counts too. lengths: the frames of each clip, which is padded on the right; None
    means all, and then nothing waits for a GPU. A patch starts every `hop` frames, and is whole. A
    clip shorter than a patch is repeated to fill one.
    """
    sizes = [clips.shape[1]] if lengths is None else lengths.tolist()
    counts = [max(1, (size - frames) // hop + 1) for size in sizes]
    starts = torch.arange(max(counts), device=clips.device) * hop
    offsets = (starts.unsqueeze(1) + torch.arange(frames, device=clips.device)).flatten()
    if lengths is None:
        patches = clips[:, offsets % clips.shape[1]]
        return patches.unflatten(1, (-1, frames)).flatten(0, 1), counts[0]
    index = offsets % lengths.clamp(min=1).unsqueeze(1)
    patches = clips.gather(1, index.unsqueeze(2).expand(-1, -1, clips.shape[2]))
    is_present = torch.arange(len(starts)) < torch.tensor(counts).unsqueeze(1)
    return patches.unflatten(1, (len(starts), frames))[is_present], counts


def average_by_clip(values: Tensor, counts: PatchCounts) -> Tensor:
    """Average values (patches, size) clip by clip, always in the same order: (clips, size)."""
    if isinstance(counts, int):
        values = values.reshape(-1, counts, values.shape[1])
        return values.mean(1)
    return torch.stack([part.mean(0) for part in values.split(list(counts))])
