"""The network of Pons & Serra (2019), with a last layer of our own that scores genres.

Jordi Pons and Xavier Serra: "musicnn: pre-trained convolutional neural networks for music audio
tagging", arXiv 1909.06654. The layers are those of `models.py` in the wheel musicnn 0.1.0.

A direct port would be bound by memory on a CPU in fp32. Four choices make this one fast there:
- The convolutions of the front-end are matrix products on overlapping views of the frames, so
  nothing is unfolded into memory.
- Their maximum over the bands is taken before bias, ReLU and batch norm, which are monotonic. For
  filters with a negative batch-norm scale the weights are negated, since max(-x) = -min(x).
- Neighbouring positions of a timbral kernel share a quarter of their arithmetic.
- One patch after the other goes through the front-end, so that its maps stay in the CPU's cache.

Half precision (autocast) is for GPUs, and for CPUs with matrix units (Intel's AMX). There is less
to save there, and more to lose by rounding. So `forward_half` multiplies the kernel at each
position without such sharing, and keeps the running maximum.

Batch norms keep the statistics of the published checkpoints in training too (scale and shift are
trained), so the same code serves inference and fine-tuning.
"""

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tagger.models.musicnn.configuration import MusicnnArchitecture
from tagger.models.patches import AudioClassifier, ClassifierOutput, average_by_clip, cut_patches

# Patches that go through the front-end together, by type of device. Half precision takes half the
# memory and makes many small products, each of which costs a call: 256 patches instead of 16 make
# an H200 five times as fast.
FRONT_END_PATCHES = {"cpu": 1}
FRONT_END_PATCHES_HALF = {"cpu": 4, "cuda": 256}
DEFAULT_FRONT_END_PATCHES = 16  # for accelerators: memory is fast, starting a kernel is slow

VECTOR_LENGTH = 16  # floats in a vector register; matrix products of whole vectors are faster
TEMPORAL_FRAMES_AT_ONCE = (
    8  # frames that one product with a temporal kernel covers (half precision)
)
PROBABILITY_FLOOR = 1e-6


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
    """Convolution, ReLU, batch norm, and the maximum over all bands, in a faster order.

    weight: (filters, taps), each kernel as a row.
    """

    def __init__(self, taps: int, filters: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(filters, taps))
        self.bias = nn.Parameter(torch.zeros(filters))
        self.norm = FixedBatchNorm(filters, eps)

    def get_signs(self) -> Tensor:
        """Return -1 for filters whose batch norm reverses the order of values, else 1."""
        return torch.where(self.norm.weight.detach() < 0, -1.0, 1.0).to(self.weight.dtype)

    def get_signed_weight(self) -> Tensor:
        return self.weight * self.get_signs().unsqueeze(1)

    def activate(self, maxima: Tensor) -> Tensor:
        """Apply bias, ReLU and batch norm to the maxima (n, filters) of signed products."""
        activated: Tensor = self.norm(functional.relu(maxima * self.get_signs() + self.bias))
        return activated


class TimbralBlock(PooledConvolution):
    """Filters of 7 frames by many bands, which find a timbre at any pitch."""

    def __init__(self, config: MusicnnArchitecture, bands: int) -> None:
        taps = bands * config.timbral_frames
        super().__init__(taps, config.timbral_filters, config.batch_norm_eps)
        self.bands = bands
        self.positions = config.num_mel_bins - bands + 1

    def forward(self, shifted: Tensor) -> Tensor:
        """Turn frames shifted by 0 to 6, (bands + padding, 7, n), into (n, filters).

        The kernel is split into even and odd bands (k, l), and the frames likewise (x, y). Then the
        products at two neighbouring positions have one part in common, so three half products
        replace four:
            k x[p] + l y[p]     = (k + l) y[p] + k (x[p] - y[p])
            k y[p] + l x[p + 1] = (k + l) y[p] + l (x[p + 1] - y[p])
        """
        frames = shifted.shape[1]
        weight = functional.pad(self.get_signed_weight(), (0, self.bands % 2 * frames))
        pairs = weight.unflatten(1, (-1, 2, frames))
        even, odd = pairs[:, :, 0].flatten(1), pairs[:, :, 1].flatten(1)
        x, y = shifted[0::2], shifted[1::2]
        common = multiply_along_bands(even + odd, y, (self.positions + 1) // 2)
        at_even = multiply_along_bands(even, x - y, len(common), addend=common)
        odd_count = self.positions // 2
        at_odd = multiply_along_bands(odd, x[1:] - y[:-1], odd_count, addend=common[:odd_count])
        return self.activate(torch.maximum(at_even.amax(0), at_odd.amax(0)).T)

    def forward_half(self, rows: Tensor) -> Tensor:
        """Turn rows of a frame and its neighbours, (n, bands * 7), into (n, filters).

        For inference in the half precision of the rows.
        """
        kernel = self.get_signed_weight().to(rows.dtype).T
        taps, frames = len(kernel), len(kernel) // self.bands
        starts = range(0, self.positions * frames, frames)
        maxima = max_product((rows[:, start : start + taps] for start in starts), kernel)
        return self.activate(maxima.float())


def multiply_along_bands(
    kernel: Tensor, rows: Tensor, positions: int, addend: Tensor | None = None
) -> Tensor:
    """Multiply a kernel (filters, taps) with rows (bands, 7, n) at each position along the bands.

    The result is (positions, filters, n); `addend` is added to it. Each position is an overlapping
    view of the rows, not a copy.
    """
    views = rows.flatten(0, 1).unfold(0, kernel.shape[1], rows.shape[1])[:positions].mT
    kernels = kernel.expand(positions, -1, -1)
    return torch.bmm(kernels, views) if addend is None else torch.baddbmm(addend, kernels, views)


class TemporalBlock(PooledConvolution):
    """Long filters over the frames of one band, which find a rhythm in any band."""

    def __init__(self, config: MusicnnArchitecture, frames: int) -> None:
        super().__init__(frames, config.temporal_filters, config.batch_norm_eps)

    def forward(self, frames: Tensor) -> Tensor:
        """Turn frames (patches, n, bands) into (patches * n, filters)."""
        weight = self.get_signed_weight()
        taps = weight.shape[1]
        # TensorFlow's "same" pads an even kernel by one less on the left.
        padded = functional.pad(frames, (0, 0, (taps - 1) // 2, taps // 2))
        # (patches * n, taps, bands): a view for one patch, a copy for several.
        windows = padded.unfold(1, taps, 1).mT.flatten(0, 1)
        return self.activate(torch.bmm(weight.expand(len(windows), -1, -1), windows).amax(2))


def max_product(matrices: Iterable[Tensor], kernel: Tensor) -> Tensor:
    """Multiply each matrix (n, taps) with a kernel (taps, m); return the maxima (n, m).

    The maximum is updated in place after each product, in the CPU's cache. Not for training.
    """
    first, *others = matrices
    maxima = first @ kernel
    product = torch.empty_like(maxima)
    for matrix in others:
        torch.mm(matrix, kernel, out=product)
        torch.maximum(maxima, product, out=maxima)
    return maxima


def run_temporal_blocks_half(blocks: Sequence[TemporalBlock], frames: Tensor) -> list[Tensor]:
    """Return the output (patches, n, filters) of each block for frames (patches, n, bands).

    For inference in the half precision of the frames. One product serves all kernels: the shorter
    ones are filled up with zeros. It also serves TEMPORAL_FRAMES_AT_ONCE frames: the matrix has a
    copy of the kernels for each of these frames, one tap further down.
    """
    weights = [block.get_signed_weight() for block in blocks]
    taps = max(weight.shape[1] for weight in weights)
    left, length = (taps - 1) // 2, frames.shape[1]
    extra = -length % TEMPORAL_FRAMES_AT_ONCE
    filters = torch.cat([pad_kernel(weight, left, taps) for weight in weights]).to(frames.dtype)
    shifts = range(TEMPORAL_FRAMES_AT_ONCE)
    copies = [functional.pad(filters, (shift, shifts[-1] - shift)) for shift in shifts]
    kernel = torch.stack(copies).flatten(0, 1)
    padded = functional.pad(frames.permute(2, 0, 1), (left, taps // 2 + extra))
    rows = padded.unfold(2, kernel.shape[1], TEMPORAL_FRAMES_AT_ONCE).flatten(1, 2)
    maxima = max_product(rows, kernel.T).float().view(len(frames), length + extra, -1)
    parts = maxima[:, :length].split([len(weight) for weight in weights], 2)
    return [block.activate(part) for block, part in zip(blocks, parts, strict=True)]


def pad_kernel(kernel: Tensor, left: int, taps: int) -> Tensor:
    """Pad a kernel (filters, any) with zeros to `taps`, with `left` taps before its middle."""
    before = left - (kernel.shape[1] - 1) // 2
    return functional.pad(kernel, (before, taps - kernel.shape[1] - before))


class FrontEnd(nn.Module):
    """Two timbral and three temporal blocks in parallel on the normalised frames.

    In training each patch keeps some 25 MB of maps here, unless gradient checkpointing is on.
    """

    gradient_checkpointing = False  # transformers sets it where a layer has it

    def __init__(self, config: MusicnnArchitecture) -> None:
        super().__init__()
        self.norm = FixedBatchNorm(1, config.batch_norm_eps)
        self.timbral = nn.ModuleList(TimbralBlock(config, n) for n in config.timbral_bands)
        self.temporal = nn.ModuleList(TemporalBlock(config, n) for n in config.temporal_frames)
        self.timbral_frames = config.timbral_frames

    def forward(self, patches: Tensor) -> Tensor:
        """Turn patches (n, frames, bands) into (n, frames, features)."""
        if self.gradient_checkpointing and self.training:
            return cast("Tensor", checkpoint(self._compute_features, patches, use_reentrant=False))
        return self._compute_features(patches)

    def _compute_features(self, patches: Tensor) -> Tensor:
        frames = self.norm(patches)
        device_type = frames.device.type
        if torch.is_autocast_enabled(device_type) and not torch.is_grad_enabled():
            return self.forward_half(frames.to(torch.get_autocast_dtype(device_type)))
        shifted = self.stack_shifted(frames)
        timbral = [block(shifted) for block in self.timbral]
        timbral = [each.unflatten(0, (len(frames), -1))[:, : frames.shape[1]] for each in timbral]
        temporal = [block(frames).unflatten(0, frames.shape[:2]) for block in self.temporal]
        return torch.cat(timbral + temporal, 2)

    def forward_half(self, frames: Tensor) -> Tensor:
        """Do the same for normalised frames in half precision, for inference."""
        side = self.timbral_frames // 2
        padded = functional.pad(frames, (0, 0, side, side))
        rows = padded.unfold(1, self.timbral_frames, 1).flatten(2).flatten(0, 1)
        blocks = cast("list[TimbralBlock]", list(self.timbral))
        timbral = [block.forward_half(rows).unflatten(0, frames.shape[:2]) for block in blocks]
        temporal_blocks = cast("list[TemporalBlock]", list(self.temporal))
        return torch.cat(timbral + run_temporal_blocks_half(temporal_blocks, frames), 2)

    def stack_shifted(self, frames: Tensor) -> Tensor:
        """Stack frames (n, frames, bands), shifted by 0 to 6, as (bands + padding, 7, columns).

        columns: n * frames, after each patch is filled up to whole vectors.
        """
        _, length, bands = frames.shape
        side, extra = self.timbral_frames // 2, -length % VECTOR_LENGTH
        padded = functional.pad(frames, (0, 2 + bands % 2, side, side + extra))
        return padded.unfold(1, length + extra, 1).permute(2, 1, 0, 3).flatten(2)


class MusicnnTower(nn.Module):
    """One published network: patches (n, frames, bands) -> tag logits and embedding (n, 200)."""

    def __init__(self, config: MusicnnArchitecture, tags: int) -> None:
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
        device_type = patches.device.type
        is_half = torch.is_autocast_enabled(device_type)
        sizes = FRONT_END_PATCHES_HALF if is_half else FRONT_END_PATCHES
        chunks = patches.split(sizes.get(device_type, DEFAULT_FRONT_END_PATCHES))
        features = self.mid_end(torch.cat([self.front_end(chunk) for chunk in chunks]))
        # The dense layer was trained on this order: maximum and mean alternate, channel by channel.
        pooled = torch.stack([features.amax(1), features.mean(1)], 2).flatten(1)
        hidden = functional.relu(self.dense(self.dropout(self.pooled_norm(pooled))))
        embedding = self.embedding_norm(hidden)
        return self.output(self.dropout(embedding)), embedding

    def mid_end(self, features: Tensor) -> Tensor:
        """Append the outputs of the residual convolutions to features (n, frames, channels)."""
        device_type = features.device.type
        avoid_cudnn = device_type == "cuda" and not torch.is_autocast_enabled(device_type)
        layers = [features]
        convolutions = cast("list[nn.Conv1d]", list(self.convolutions))
        for convolution, norm in zip(convolutions, self.norms, strict=True):
            last = layers[-1]
            maps = convolve_frames(last, convolution) if avoid_cudnn else convolution(last.mT).mT
            new = norm(functional.relu(maps))
            layers.append(new if len(layers) == 1 else new + last)
        return torch.cat(layers, 2)


def convolve_frames(x: Tensor, layer: nn.Conv1d) -> Tensor:
    """Convolve (n, frames, channels) along the frames: one product, then a shifted sum per tap.

    For a single patch in fp32, cuDNN (with torch 2.11, on an H200) chooses an algorithm that takes
    0.2 s and 18 GB; this takes 0.2 ms and 3 MB.
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
    trained: near zero, the logarithm's gradient would be far larger than all others. A new head has
    a map of zeros, which adds the same to every label, and trains only `linear`.
    """

    tag_map: Tensor
    sharpness: Tensor

    def __init__(self, tags: int, embedding_size: int, labels: int) -> None:
        super().__init__()
        self.register_buffer("tag_map", torch.zeros(labels, tags))
        self.register_buffer("sharpness", torch.ones(()))
        self.linear: nn.Module = nn.Linear(tags + embedding_size, labels)

    def forward(self, tag_logits: Tensor, embedding: Tensor) -> Tensor:
        """Turn (n, tags) and (n, all embeddings) into float32 logits (n, labels)."""
        correction: Tensor = self.linear(torch.cat([tag_logits, embedding], 1)).float()
        with torch.autocast(tag_logits.device.type, enabled=False):  # 1e-6 needs float32
            mapped = tag_logits.float().sigmoid() @ self.tag_map.float().T
            logits: Tensor = self.sharpness.float() * (mapped + PROBABILITY_FLOOR).log()
            return logits + correction

    def score_clips(
        self, tag_logits: Tensor, embedding: Tensor, counts: Tensor
    ) -> ClassifierOutput:
        """Score patches, and average everything clip by clip; counts (clips,): their patches."""
        return ClassifierOutput(
            logits=average_by_clip(self(tag_logits, embedding), counts),
            tag_logits=average_by_clip(tag_logits, counts),
            embedding=average_by_clip(embedding, counts),
        )


class MusicnnModel(nn.Module):
    """Both towers in parallel: patches (n, frames, bands) -> tag logits and embedding (n, 400)."""

    def __init__(self, config: MusicnnArchitecture) -> None:
        super().__init__()
        towers = {name: MusicnnTower(config, len(tags)) for name, tags in config.towers.items()}
        self.towers = nn.ModuleDict(towers)

    def forward(self, input_values: Tensor) -> tuple[Tensor, Tensor]:
        tag_logits, embeddings = zip(*(t(input_values) for t in self.towers.values()), strict=True)
        return torch.cat(tag_logits, 1), torch.cat(embeddings, 1)


class MusicnnClassifier(AudioClassifier):
    """Genre logits of clips of any length: the mean over the patches of each clip.

    Logits are averaged, not probabilities, as in the pooling of a track's windows. So a track has
    the same scores whether its windows come as one input or as several, and one window with a clear
    genre counts among many unclear ones.
    """

    has_fast_half_precision = True

    def add_layers(self, config: MusicnnArchitecture, labels: int) -> None:
        self.patch_frames = config.patch_frames
        self.musicnn = MusicnnModel(config)
        size = len(config.towers) * config.embedding_size
        self.head = GenreHead(len(config.tags), size, labels)

    def forward(
        self, input_values: Tensor, attention_mask: Tensor | None = None
    ) -> ClassifierOutput:
        """Classify log-mel clips (clips, frames, bands), padded on the right."""
        frames = self.patch_frames
        lengths = None if attention_mask is None else attention_mask.sum(1)
        values = input_values.to(next(self.parameters()).dtype)
        patches, counts = cut_patches(values, lengths, frames, hop=frames)
        tag_logits, embedding = self.musicnn(patches)
        return self.head.score_clips(tag_logits, embedding, counts)
