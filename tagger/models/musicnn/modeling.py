"""The network of Pons & Serra (2019), with a last layer of our own that names genres.

Jordi Pons and Xavier Serra: "musicnn: pre-trained convolutional neural networks for music audio
tagging", arXiv 1909.06654; the layers are those of `models.py` in the wheel musicnn 0.1.0.

Four choices make it quick on a CPU in fp32, where the obvious port is bound by memory:
- The convolutions of the front-end are matrix products on overlapping views of the frames;
  nothing is unfolded into memory.
- Their maximum over the bands is taken before bias, ReLU and batch norm, which are monotonic; for
  filters with a negative batch-norm scale the weights are negated, since max(-x) = -min(x).
- Neighbouring positions of a timbral kernel share a quarter of their arithmetic.
- One patch after the other goes through the front-end, so that its map stays in the CPU's cache.

In half precision (autocast), which is for processors with units for just such products (Intel's
AMX) and GPUs, there is less to save and more to lose by rounding: `coarsely` multiplies plainly,
place by place, and keeps the maximum as it goes.

Batch norms keep the statistics of the published checkpoints in training too (scale and shift are
trained); the same code therefore serves inference and fine-tuning.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, initialization
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils.generic import ModelOutput

from tagger.models.musicnn.configuration import MusicnnConfig

PATCHES_AT_ONCE = {"cpu": 1}
# Half as large, and each call of its many small products costs: on an H200, five times the speed.
PATCHES_IN_HALF = {"cpu": 4, "cuda": 256}
MANY_PATCHES = 16  # for accelerators, where memory is quick and the start of a kernel is not
LANES = 16  # numbers that a matrix product takes at once: whole lanes are quicker
FRAMES_AT_ONCE = 8  # of a temporal kernel in half precision
PROBABILITY_FLOOR = 1e-6


@dataclass
class MusicnnOutput(ModelOutput):
    """What the model says about each clip: means over the clip's patches.

    logits: (clips, labels). tag_logits: (clips, 100). embedding: (clips, 400).
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    tag_logits: Tensor | None = None
    embedding: Tensor | None = None


class FixedBatchNorm(nn.Module):
    """Batch norm over the last axis with fixed statistics, in training too."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.register_buffer("running_mean", torch.zeros(size))
        self.register_buffer("running_var", torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return x * scale + (self.bias - self.running_mean * scale)


class PooledConvolution(nn.Module):
    """Convolution, ReLU, batch norm, and the maximum over all bands, in a quicker order.

    weight: (filters, taps), the kernels as the rows of a matrix.
    """

    def __init__(self, taps: int, filters: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(filters, taps))
        self.bias = nn.Parameter(torch.zeros(filters))
        self.norm = FixedBatchNorm(filters, eps)

    def signs(self) -> Tensor:
        """Give -1 where batch norm turns the order round, so that its maximum is our minimum."""
        return torch.where(self.norm.weight.detach() < 0, -1.0, 1.0).to(self.weight.dtype)

    def signed_weight(self) -> Tensor:
        return self.weight * self.signs().unsqueeze(1)

    def finish(self, peaks: Tensor) -> Tensor:
        """Turn the signed maxima (n, filters) into what pooling after the batch norm gives."""
        pooled: Tensor = self.norm(functional.relu(peaks * self.signs() + self.bias))
        return pooled


class TimbralBlock(PooledConvolution):
    """Filters of 7 frames by many bands: how a sound is coloured, at whatever pitch it is."""

    def __init__(self, config: MusicnnConfig, bands: int) -> None:
        taps = bands * config.timbral_frames
        super().__init__(taps, config.timbral_filters, config.batch_norm_eps)
        self.bands = bands
        self.positions = config.num_mel_bins - bands + 1

    def forward(self, shifted: Tensor) -> Tensor:
        """Turn frames shifted by 0 to 6, (bands + padding, 7, n), into (n, filters).

        With the kernel split into even and odd bands (k, l), and the sound likewise (x, y), the
        products at two neighbouring positions have a part in common, so three halves do for four:
            k x[p] + l y[p]     = (k + l) y[p] + k (x[p] - y[p])
            k y[p] + l x[p + 1] = (k + l) y[p] + l (x[p + 1] - y[p])
        """
        frames = shifted.shape[1]
        weight = functional.pad(self.signed_weight(), (0, self.bands % 2 * frames))
        pairs = weight.unflatten(1, (-1, 2, frames))
        even, odd = pairs[:, :, 0].flatten(1), pairs[:, :, 1].flatten(1)
        low, high = shifted[0::2], shifted[1::2]
        common = slide(even + odd, high, (self.positions + 1) // 2)
        first = slide(even, low - high, len(common), onto=common)
        others = self.positions // 2
        second = slide(odd, low[1:] - high[:-1], others, onto=common[:others])
        return self.finish(torch.maximum(first.amax(0), second.amax(0)).T)

    def coarsely(self, rows: Tensor) -> Tensor:
        """Turn frames each beside its neighbours, (n, bands * 7) in half precision, likewise."""
        kernel = self.signed_weight().to(rows.dtype).T
        taps, frames = len(kernel), len(kernel) // self.bands
        starts = range(0, self.positions * frames, frames)
        peaks = highest_product((rows[:, start : start + taps] for start in starts), kernel)
        return self.finish(peaks.float())


def slide(kernel: Tensor, rows: Tensor, positions: int, onto: Tensor | None = None) -> Tensor:
    """Multiply a kernel (filters, taps) with rows (bands, 7, n), moved band by band; add `onto`.

    The result is (positions, filters, n). Each position sees an overlapping view, not a copy.
    """
    windows = rows.flatten(0, 1).unfold(0, kernel.shape[1], rows.shape[1])[:positions].mT
    kernels = kernel.expand(positions, -1, -1)
    return torch.bmm(kernels, windows) if onto is None else torch.baddbmm(onto, kernels, windows)


class TemporalBlock(PooledConvolution):
    """Long filters over the frames of one band: rhythm, in whichever band it is."""

    def __init__(self, config: MusicnnConfig, frames: int) -> None:
        super().__init__(frames, config.temporal_filters, config.batch_norm_eps)

    def forward(self, frames: Tensor) -> Tensor:
        """Turn frames (patches, n, bands) into (patches * n, filters)."""
        weight = self.signed_weight()
        taps = weight.shape[1]
        # TensorFlow's "same" pads an even kernel by one less on the left.
        padded = functional.pad(frames, (0, 0, (taps - 1) // 2, taps // 2))
        # (patches * n, taps, bands): a view for one patch, a copy for several.
        windows = padded.unfold(1, taps, 1).mT.flatten(0, 1)
        return self.finish(torch.bmm(weight.expand(len(windows), -1, -1), windows).amax(2))


def highest_product(places: Iterable[Tensor], kernel: Tensor) -> Tensor:
    """Multiply each place (n, taps) with a kernel (taps, m); return the highest values (n, m).

    The maximum is taken as it goes, in the cache. Not for training.
    """
    first, *others = places
    best = first @ kernel
    product = torch.empty_like(best)
    for place in others:
        torch.mm(place, kernel, out=product)
        torch.maximum(best, product, out=best)
    return best


def coarsely(blocks: Sequence[TemporalBlock], frames: Tensor) -> list[Tensor]:
    """Turn frames (patches, n, bands) in half precision into what each block makes of them.

    One product serves all kernels, the shorter ones filled up with zeros, and FRAMES_AT_ONCE
    frames, for which the kernel stands in so many columns, each a tap further down.
    """
    weights = [block.signed_weight() for block in blocks]
    taps = max(weight.shape[1] for weight in weights)
    left, length, lanes = (taps - 1) // 2, frames.shape[1], -frames.shape[1] % FRAMES_AT_ONCE
    filters = torch.cat([centred(weight, left, taps) for weight in weights]).to(frames.dtype)
    kernel = torch.stack(
        [functional.pad(filters, (at, FRAMES_AT_ONCE - 1 - at)) for at in range(FRAMES_AT_ONCE)]
    ).flatten(0, 1)
    padded = functional.pad(frames.permute(2, 0, 1), (left, taps // 2 + lanes))
    rows = padded.unfold(2, kernel.shape[1], FRAMES_AT_ONCE).flatten(1, 2)
    peaks = highest_product(rows, kernel.T).float().view(len(frames), length + lanes, -1)
    parts = peaks[:, :length].split([len(weight) for weight in weights], 2)
    return [block.finish(part) for block, part in zip(blocks, parts, strict=True)]


def centred(kernel: Tensor, left: int, taps: int) -> Tensor:
    """Fill up a kernel (filters, any) with zeros, so that its middle has `left` taps before it."""
    before = left - (kernel.shape[1] - 1) // 2
    return functional.pad(kernel, (before, taps - kernel.shape[1] - before))


class FrontEnd(GradientCheckpointingLayer):
    """Two timbral and three temporal blocks side by side on the normalised frames.

    In training each patch keeps some 25 MB of maps here, unless gradient checkpointing is on.
    """

    def __init__(self, config: MusicnnConfig) -> None:
        super().__init__()
        self.norm = FixedBatchNorm(1, config.batch_norm_eps)
        self.timbral = nn.ModuleList(TimbralBlock(config, n) for n in config.timbral_bands)
        self.temporal = nn.ModuleList(TemporalBlock(config, n) for n in config.temporal_frames)
        self.window = config.timbral_frames

    def forward(self, patches: Tensor) -> Tensor:
        """Turn patches (n, frames, bands) into (n, frames, features)."""
        frames = self.norm(patches)
        kind = frames.device.type
        if torch.is_autocast_enabled(kind) and not torch.is_grad_enabled():
            return self.coarsely(frames.to(torch.get_autocast_dtype(kind)))
        shifted = self.shifted(frames)
        timbral = [block(shifted) for block in self.timbral]
        timbral = [each.unflatten(0, (len(frames), -1))[:, : frames.shape[1]] for each in timbral]
        temporal = [block(frames).unflatten(0, frames.shape[:2]) for block in self.temporal]
        return torch.cat(timbral + temporal, 2)

    def coarsely(self, frames: Tensor) -> Tensor:
        """Do the same in the half precision of the frames (n, frames, bands), for inference."""
        side = self.window // 2
        neighbours = functional.pad(frames, (0, 0, side, side)).unfold(1, self.window, 1)
        rows = neighbours.flatten(2).flatten(0, 1)
        blocks = cast("list[TimbralBlock]", list(self.timbral))
        timbral = [block.coarsely(rows).unflatten(0, frames.shape[:2]) for block in blocks]
        temporal = coarsely(cast("list[TemporalBlock]", list(self.temporal)), frames)
        return torch.cat(timbral + temporal, 2)

    def shifted(self, frames: Tensor) -> Tensor:
        """Lay out frames (n, frames, bands) as (bands + padding, 7, n * frames in whole lanes)."""
        _, length, bands = frames.shape
        around, lanes = self.window // 2, -length % LANES
        padded = functional.pad(frames, (0, 2 + bands % 2, around, around + lanes))
        return padded.unfold(1, length + lanes, 1).permute(2, 1, 0, 3).flatten(2)


class MusicnnTower(nn.Module):
    """One published network: patches (n, frames, bands) -> tag logits and embedding (n, 200)."""

    def __init__(self, config: MusicnnConfig, tags: int) -> None:
        super().__init__()
        eps, filters = config.batch_norm_eps, config.midend_filters
        size = len(config.timbral_bands) * config.timbral_filters
        size += len(config.temporal_frames) * config.temporal_filters
        pooled = 2 * (size + config.midend_layers * filters)
        self.front_end = FrontEnd(config)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(filters if i else size, filters, config.midend_frames, padding="same")
            for i in range(config.midend_layers)
        )
        self.norms = nn.ModuleList(FixedBatchNorm(filters, eps) for _ in self.convolutions)
        self.pooled_norm = FixedBatchNorm(pooled, eps)
        self.dense = nn.Linear(pooled, config.embedding_size)
        self.embedding_norm = FixedBatchNorm(config.embedding_size, eps)
        self.output = nn.Linear(config.embedding_size, tags)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        kind = patches.device.type
        at_once = PATCHES_IN_HALF if torch.is_autocast_enabled(kind) else PATCHES_AT_ONCE
        chunks = patches.split(at_once.get(kind, MANY_PATCHES))
        features = self.mid_end(torch.cat([self.front_end(chunk) for chunk in chunks]))
        # Maximum and mean alternate, channel by channel, in the order that the dense layer learnt.
        pooled = torch.stack([features.amax(1), features.mean(1)], 2).flatten(1)
        hidden = functional.relu(self.dense(self.dropout(self.pooled_norm(pooled))))
        embedding = self.embedding_norm(hidden)
        return self.output(self.dropout(embedding)), embedding

    def mid_end(self, features: Tensor) -> Tensor:
        """Put the outputs of the residual convolutions beside features (n, frames, channels)."""
        kind = features.device.type
        plain = kind == "cuda" and not torch.is_autocast_enabled(kind)
        layers = [features]
        convolutions = cast("list[nn.Conv1d]", list(self.convolutions))
        for convolution, norm in zip(convolutions, self.norms, strict=True):
            heard = convolve(layers[-1], convolution) if plain else convolution(layers[-1].mT).mT
            new = norm(functional.relu(heard))
            layers.append(new if len(layers) == 1 else new + layers[-1])
        return torch.cat(layers, 2)


def convolve(x: Tensor, layer: nn.Conv1d) -> Tensor:
    """Convolve (n, frames, channels) along the frames: one product, and a moved sum for each tap.

    For a single patch in fp32, cuDNN (with torch 2.11, on an H200) chooses a way that takes 0.2 s
    and 18 GB, for 0.2 ms and 3 MB here.
    """
    weight, bias = layer.weight, layer.bias
    assert bias is not None
    filters, _, taps = weight.shape
    padded = functional.pad(x, (0, 0, (taps - 1) // 2, taps // 2))
    products = functional.linear(padded, weight.permute(2, 0, 1).flatten(0, 1))
    parts = products.unflatten(2, (taps, filters))
    total = bias
    for tap in range(taps):
        total = total + parts[:, tap : tap + x.shape[1], tap]
    return total


class GenreHead(nn.Module):
    """Genre logits of a patch: the logarithm of a map from tags to genres, plus a correction.

    `tag_map` (labels, tags), not negative, and `sharpness` come with the checkpoint and are not
    trained: a gradient through the logarithm of a map still near zero would drown all others.
    A fresh head has an empty map, which adds the same to every label, and learns `linear` alone.
    """

    tag_map: Tensor
    sharpness: Tensor

    def __init__(self, config: MusicnnConfig) -> None:
        super().__init__()
        tags, labels = len(config.tags), config.num_labels or 0
        self.register_buffer("tag_map", torch.zeros(labels, tags))
        self.register_buffer("sharpness", torch.ones(()))
        size = tags + len(config.towers) * config.embedding_size
        self.linear = nn.Linear(size, labels)

    def forward(self, tag_logits: Tensor, embedding: Tensor) -> Tensor:
        """Turn (n, tags) and (n, sizes of all embeddings) into float32 logits (n, labels)."""
        correction: Tensor = self.linear(torch.cat([tag_logits, embedding], 1)).float()
        with torch.autocast(tag_logits.device.type, enabled=False):  # 1e-6 needs float32
            mapped = tag_logits.float().sigmoid() @ self.tag_map.float().T
            logits: Tensor = self.sharpness.float() * (mapped + PROBABILITY_FLOOR).log()
            return logits + correction


class MusicnnPreTrainedModel(PreTrainedModel):
    """What all models of this family share: configuration, names, first values of the weights."""

    config_class = MusicnnConfig
    base_model_prefix = "musicnn"
    main_input_name = "input_values"
    quick_in_half = True
    supports_gradient_checkpointing = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, PooledConvolution | nn.Conv1d | nn.Linear):
            initialization.normal_(module.weight, std=self.config.initializer_range)
            if module.bias is not None:
                initialization.zeros_(module.bias)
        elif isinstance(module, FixedBatchNorm):
            for tensor in (module.weight, module.running_var):
                initialization.ones_(tensor)
            for tensor in (module.bias, module.running_mean):
                initialization.zeros_(tensor)
        elif isinstance(module, GenreHead):
            initialization.zeros_(module.tag_map)
            initialization.ones_(module.sharpness)


class MusicnnModel(MusicnnPreTrainedModel):
    """The towers side by side: patches (n, frames, bands) -> tag logits and embedding (n, 400)."""

    def __init__(self, config: MusicnnConfig) -> None:
        super().__init__(config)
        towers = {name: MusicnnTower(config, len(tags)) for name, tags in config.towers.items()}
        self.towers = nn.ModuleDict(towers)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, input_values: Tensor) -> tuple[Tensor, Tensor]:
        tag_logits, embeddings = zip(*(t(input_values) for t in self.towers.values()), strict=True)
        return torch.cat(tag_logits, 1), torch.cat(embeddings, 1)


class MusicnnForAudioClassification(MusicnnPreTrainedModel):
    """Genres of clips of any length: genre logits per patch, averaged over the patches of the clip.

    Logits, not probabilities, are averaged, here and wherever the windows of a track are pooled. A
    track thus scores the same whether its windows come as one input or as several, and one window
    that is sure of its genre is heard among many that are not.
    """

    def __init__(self, config: MusicnnConfig) -> None:
        super().__init__(config)
        self.musicnn = MusicnnModel(config)
        self.head = GenreHead(config)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> MusicnnOutput:
        """Classify log-mel clips (clips, frames, bands), padded on the right; labels: (clips,)."""
        frames = self.config.patch_frames
        patches, counts = cut_patches(input_values.to(self.dtype), attention_mask, frames)
        tag_logits, embedding = self.musicnn(patches)
        logits = average(self.head(tag_logits, embedding), counts)
        loss = None if labels is None else functional.cross_entropy(logits, labels)
        tag_logits, embedding = average(tag_logits, counts), average(embedding, counts)
        return MusicnnOutput(loss=loss, logits=logits, tag_logits=tag_logits, embedding=embedding)


def cut_patches(clips: Tensor, mask: Tensor | None, frames: int) -> tuple[Tensor, Tensor]:
    """Cut clips (n, any, bands) into whole patches (all, frames, bands); count them per clip.

    A patch counts where the mask covers all of it. A clip with fewer frames than a patch is
    repeated to fill one.
    """
    if mask is None:
        lengths = torch.full((len(clips),), clips.shape[1], device=clips.device)
    else:
        lengths = mask.sum(1)
    counts = (lengths // frames).clamp(min=1)
    most = int(counts.max())
    index = torch.arange(most * frames, device=clips.device) % lengths.clamp(min=1).unsqueeze(1)
    patches = clips.gather(1, index.unsqueeze(2).expand(-1, -1, clips.shape[2]))
    present = torch.arange(most, device=clips.device) < counts.unsqueeze(1)
    return patches.unflatten(1, (most, frames))[present], counts


def average(values: Tensor, counts: Tensor) -> Tensor:
    """Average values (patches, any) clip by clip; counts (clips,) says how many each clip has."""
    owner = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    sums = values.new_zeros(len(counts), values.shape[1]).index_add(0, owner, values)
    return sums / counts.unsqueeze(1)
