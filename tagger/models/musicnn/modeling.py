"""The network of Pons & Serra (2019), with a last layer of our own that scores genres.

Jordi Pons and Xavier Serra: "musicnn: pre-trained convolutional neural networks for music audio
tagging", arXiv 1909.06654. The layers are those of `models.py` in the wheel musicnn 0.1.0.

A direct port would be slow on a CPU. Three choices make this one fast there:
- The timbral convolutions slide along the bands too. There they are products of spectra (the
  convolution theorem), which takes a third of the arithmetic (`TimbralBlock`).
- The maximum over the bands is taken before bias, ReLU and batch norm, which are monotonic. For
  filters with a negative batch-norm scale the weights are negated, since max(-x) = -min(x).
- Everything up to this maximum is done for a few frames at a time, in the CPU's cache.

Half precision (autocast) is for GPUs, and for CPUs with matrix units (Intel's AMX). There is less
to save there, and more to lose by rounding. So `forward_half` multiplies the kernel at each
position, and keeps the running maximum.

Batch norms keep the statistics of the published checkpoints in training too (scale and shift are
trained), so the same code serves inference and fine-tuning.
"""

import math
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tagger.models.musicnn.configuration import MusicnnArchitecture
from tagger.models.patches import (
    AudioClassifier,
    ClassifierOutput,
    PatchCounts,
    average_by_clip,
    cut_patches,
)

FRONT_END_PATCHES = 16
"""Patches that go through the front-end together."""
FRONT_END_PATCHES_HALF = {"cpu": 4, "cuda": 256}
"""The same for half precision, by type of device. It takes half the memory and makes many small
products, each of which costs a call: 256 patches make an H200 five times as fast."""

TIMBRAL_FRAMES_AT_ONCE = {"cpu": 24}
TEMPORAL_PATCHES_AT_ONCE = {"cpu": 1}
"""What one product covers, by type of device, so that its result stays in the CPU's cache. Other
devices have fast memory and start slowly: they take everything at once."""
TEMPORAL_FRAMES_AT_ONCE = 8
"""Frames that one product with a temporal kernel covers in half precision."""
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
    """Filters of 7 frames by many bands, which find a timbre at any pitch.

    `forward` multiplies spectra along the bands and transforms the products back, but only to the
    positions at which the kernel lies within the frame. These are counted from the middle one. Then
    the positions p and -p of a filter are even + odd and even - odd: sums of cosines and of sines.
    The greater of the two is even + |odd|.
    """

    def __init__(self, config: MusicnnArchitecture, bands: int) -> None:
        taps = bands * config.timbral_frames
        super().__init__(taps, config.timbral_filters, config.batch_norm_eps)
        self.bands = bands
        self.frame_bands = config.num_mel_bins
        self.positions = config.num_mel_bins - bands + 1

    def forward(self, spectra: Tensor) -> Tensor:
        """Turn spectra of a frame and its neighbours, (frequencies, n, 7 * 2), into (n, filters).

        Real and imaginary parts alternate.
        """
        real_kernels, imaginary_kernels = self.compute_kernel_spectra()
        # From the middle position outwards. Twice the offset is a whole number.
        doubled = torch.arange(1 - self.positions % 2, self.positions, 2, device=spectra.device)
        angles = self.make_angles(doubled)
        cosines, sines = angles.cos(), angles.sin()
        size = TIMBRAL_FRAMES_AT_ONCE.get(spectra.device.type, spectra.shape[1])
        maxima = []
        for part in spectra.split(size, 1):
            even = cosines @ torch.bmm(part, real_kernels).flatten(1)
            odd = sines @ torch.bmm(part, imaginary_kernels).flatten(1)
            maxima.append((even + odd.abs()).amax(0).unflatten(0, (part.shape[1], -1)))
        return self.activate(torch.cat(maxima).to(self.bias.dtype))

    def compute_kernel_spectra(self) -> tuple[Tensor, Tensor]:
        """Return what gives the real and the imaginary part of the products.

        Both (frequencies, 7 * 2, filters). They have the scale of the transform back, and the phase
        that moves its origin to the middle position.
        """
        kernel = self.get_signed_weight().float().unflatten(1, (self.bands, -1))
        spectrum = torch.fft.rfft(kernel, self.frame_bands, dim=1)
        scale = torch.full(spectrum.shape[1:2], 2 / self.frame_bands, device=kernel.device)
        scale[0] /= 2
        if self.frame_bands % 2 == 0:
            scale[-1] /= 2  # of the other frequencies, half are not in the spectrum
        middle = torch.tensor([self.positions - 1], device=kernel.device)
        phase = torch.polar(scale, -self.make_angles(middle)[0])
        spectrum = (spectrum * phase.unsqueeze(1)).permute(1, 2, 0)
        parts = torch.view_as_real(spectrum), torch.view_as_real(1j * spectrum)
        real, imaginary = (part.mT.flatten(1, 2) for part in parts)
        return real, imaginary

    def make_angles(self, doubled: Tensor) -> Tensor:
        """Return the angle of each frequency at each position (positions, frequencies).

        doubled: twice the positions, whole numbers.
        """
        frequencies = torch.arange(self.frame_bands // 2 + 1, device=doubled.device)
        turns = doubled.unsqueeze(1) * frequencies % (2 * self.frame_bands)
        return turns * (math.pi / self.frame_bands)

    def forward_half(self, rows: Tensor) -> Tensor:
        """Turn rows of a frame and its neighbours, (n, bands * 7), into (n, filters).

        For inference in the half precision of the rows.
        """
        kernel = self.get_signed_weight().to(rows.dtype).T
        taps, frames = len(kernel), len(kernel) // self.bands
        starts = range(0, self.positions * frames, frames)
        maxima = max_product((rows[:, start : start + taps] for start in starts), kernel)
        return self.activate(maxima.float())


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
        size = TEMPORAL_PATCHES_AT_ONCE.get(frames.device.type, len(frames))
        maxima = []
        for part in padded.split(size):
            # (patches * n, taps, bands): a view for one patch, a copy for several.
            windows = part.unfold(1, taps, 1).mT.flatten(0, 1)
            maxima.append(torch.bmm(weight.expand(len(windows), -1, -1), windows).amax(2))
        return self.activate(torch.cat(maxima))


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
        spectra = self.compute_spectra(frames)
        timbral = [block(spectra).unflatten(0, frames.shape[:2]) for block in self.timbral]
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

    def compute_spectra(self, frames: Tensor) -> Tensor:
        """Return the spectra along the bands of each frame and its neighbours.

        frames: (n, frames, bands). The result is (frequencies, n * frames, 7 * 2).
        """
        side = self.timbral_frames // 2
        padded = functional.pad(frames, (0, 0, side, side))
        spectra = torch.view_as_real(torch.fft.rfft(padded.float()))
        neighbours = spectra.unfold(1, self.timbral_frames, 1)
        return neighbours.permute(2, 0, 1, 4, 3).flatten(3).flatten(1, 2)


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
        size = FRONT_END_PATCHES_HALF.get(device_type) if is_half else None
        chunks = patches.split(size or FRONT_END_PATCHES)
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
        self, tag_logits: Tensor, embedding: Tensor, counts: PatchCounts
    ) -> ClassifierOutput:
        """Score patches, and average everything clip by clip."""
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
