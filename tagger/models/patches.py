"""What the bundled networks have in common: their base, and clips cut into patches."""

from abc import abstractmethod
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


def cut_patches(
    clips: Tensor, lengths: Tensor | None, frames: int, hop: int
) -> tuple[Tensor, Tensor]:
    """Cut clips (clips, frames in a clip, bands) into patches (sum of counts, frames, bands).

    Return also the counts (clips,): the whole patches of each clip. lengths: the frames of each
    clip, which is padded on the right; None means all. A patch starts every `hop` frames. A clip
    shorter than a patch is repeated to fill one.
    """
    if lengths is None:
        lengths = torch.full((len(clips),), clips.shape[1], device=clips.device)
    counts = ((lengths - frames) // hop + 1).clamp(min=1)
    starts = torch.arange(int(counts.max()), device=clips.device) * hop
    offsets = (starts.unsqueeze(1) + torch.arange(frames, device=clips.device)).flatten()
    index = offsets % lengths.clamp(min=1).unsqueeze(1)
    patches = clips.gather(1, index.unsqueeze(2).expand(-1, -1, clips.shape[2]))
    is_present = torch.arange(len(starts), device=clips.device) < counts.unsqueeze(1)
    return patches.unflatten(1, (len(starts), frames))[is_present], counts


def average_by_clip(values: Tensor, counts: Tensor) -> Tensor:
    """Average values (patches, size) clip by clip; counts (clips,): the patches of each clip."""
    clip_of_patch = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    sums = values.new_zeros(len(counts), values.shape[1]).index_add(0, clip_of_patch, values)
    return sums / counts.unsqueeze(1)
