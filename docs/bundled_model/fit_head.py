"""Fit the bundled model's last layer: from the tags of musicnn's two towers to genres.

The README beside this file describes the method, its results and its limits.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tagger.inference.devices import use_one_thread
from tagger.models.musicnn.configuration import get_published_towers

TAG_WEIGHTS: dict[str, dict[str, float]] = {
    "Ambient": {
        "msd ambient": 1,
        "mtt ambient": 1,
        "mtt new age": 1,
        "msd chillout": 0.3,
        "msd chill": 0.2,
    },
    "Blues": {"msd blues": 1.5},
    "Classical": {
        "mtt classical": 1,
        "mtt opera": 1,
        "mtt harpsichord": 1,
        "mtt cello": 0.7,
        "mtt classic": 0.6,
        "mtt choir": 0.6,
        "mtt choral": 0.6,
        "mtt violin": 0.5,
        "mtt strings": 0.4,
        "mtt harp": 0.3,
        "mtt flute": 0.2,
        "mtt piano": 0.2,
        "mtt solo": 0.2,
        "msd instrumental": 0.2,
    },
    "Country": {
        "msd country": 1.3,
        "mtt country": 0.6,
        "msd oldies": 0.15,
        "msd 60s": 0.1,
    },
    "Disco": {  # no tag of its own
        "msd 70s": 0.5,
        "msd funk": 0.4,
        "msd party": 0.4,
        "msd 80s": 0.3,
        "msd dance": 0.3,
        "mtt dance": 0.2,
    },
    "Electronic": {
        "msd House": 1,
        "msd electronica": 0.8,
        "msd electronic": 0.7,
        "msd electro": 0.7,
        "mtt techno": 0.6,
        "mtt electronic": 0.4,
        "msd dance": 0.3,
        "mtt dance": 0.3,
        "mtt synth": 0.2,
        "mtt beats": 0.2,
    },
    "Folk": {
        "msd folk": 1.2,
        "msd acoustic": 0.6,
        "msd country": 0.1,
    },
    "Funk": {"msd funk": 1.2},
    "Hip-Hop": {"msd Hip-Hop": 2},
    "Indie": {"msd indie pop": 1, "msd indie": 0.6, "msd indie rock": 0.6},
    "Jazz": {"msd jazz": 1.2, "msd easy listening": 0.2, "mtt piano": 0.05},
    "Metal": {
        "msd metal": 1,
        "msd heavy metal": 1,
        "mtt metal": 0.6,
        "msd hard rock": 0.2,
    },
    "Pop": {
        "msd pop": 0.8,
        "msd catchy": 0.5,
        "mtt pop": 0.3,
        "msd female vocalists": 0.3,
        "msd dance": 0.2,
        "msd 80s": 0.2,
    },
    "Punk": {"msd punk": 1.2, "mtt metal": 0.2, "msd alternative rock": 0.1},
    "R&B": {"msd rnb": 1.3},
    "Reggae": {  # no tag of its own
        "msd funk": 0.3,
        "mtt beats": 0.3,
        "msd soul": 0.2,
        "mtt beat": 0.2,
        "msd 70s": 0.2,
        "mtt drums": 0.1,
        "msd Hip-Hop": 0.1,
    },
    "Rock": {
        "msd classic rock": 0.8,
        "msd rock": 0.7,
        "msd hard rock": 0.6,
        "msd Progressive rock": 0.6,
        "msd alternative rock": 0.5,
        "msd alternative": 0.4,
        "mtt rock": 0.4,
        "msd indie rock": 0.3,
        "msd indie": 0.2,
    },
    "Soul": {"msd soul": 1.2},
}
"""Genre -> the tags that count for it, chosen by hand, and their weights."""

GENRE_LABELS = tuple(TAG_WEIGHTS)
GENRE_BY_DATA_NAME = {"hiphop": "Hip-Hop", "rnb": "R&B"}  # other names are labels in lower case

PROBABILITY_FLOOR = 1e-6  # as in the model's forward pass
COMMON_TAG_POWER = 0.25  # a tag's weight is divided by its mean probability to this power
EXCERPT_WEIGHT = 0.5
SOURCE_BALANCE, ARTIST_BALANCE, GENRE_BALANCE = 0.4, 0.3, 0.3  # 0: clips count alike; 1: groups do
PENALTY, BIAS_PENALTY, SHARPNESS_PENALTY = 0.7, 0.001, 0.01
COVARIANCE_SHRINKAGE = 0.1
INDIE_SHARE = 0.05  # of the Rock clips, which may go to Indie
OVERLAPPING = ("Ambient", "Funk", "Indie", "R&B", "Soul")
OVERLAP_LEAD = 0.4  # in logits, by which an overlapping label must lead


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledFeatures:
    """Labelled clips, one row each in every array. Clips of other genres are left out."""

    label: NDArray[np.int64]
    source: NDArray[np.int64]
    artist: NDArray[np.int64]
    excerpt: NDArray[np.bool_]
    mapped: Tensor
    """(clips, labels) mean over the windows of the logarithm of the mapped tags, float64."""
    inputs: Tensor
    """(clips, 500) mean over the windows of tag logits and embedding, float64."""
    tag_map: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadWeights:
    sharpness: float
    weight: Tensor
    bias: Tensor

    def compute_logits(self, clips: LabelledFeatures) -> Tensor:
        return self.sharpness * clips.mapped + clips.inputs @ self.weight.T + self.bias

    def scale(self, factor: float) -> "HeadWeights":
        return HeadWeights(
            sharpness=self.sharpness * factor, weight=self.weight * factor, bias=self.bias * factor
        )


def make_tag_map(mean_probability: Tensor) -> Tensor:
    """Return `TAG_WEIGHTS` as (labels, tags), with lower weights for common tags."""
    tags = [f"{tower} {tag}" for tower, names in get_published_towers().items() for tag in names]
    weights = torch.zeros(len(GENRE_LABELS), len(tags), dtype=torch.float64)
    for row, tag_weights in enumerate(TAG_WEIGHTS.values()):
        for tag, weight in tag_weights.items():
            weights[row, tags.index(tag)] = weight
    return weights / mean_probability**COMMON_TAG_POWER


def read_clips(features: Path) -> LabelledFeatures:
    """Read labelled features (the README lists the arrays) and pool the windows of each clip."""
    with np.load(features) as file:
        data = {name: file[name] for name in file.files}
    counts = data["clip_windows"].tolist()

    def pool(windows: Tensor) -> Tensor:
        return torch.stack([part.mean(0) for part in windows.split(counts)])

    tag_logits = torch.from_numpy(data["window_logits"].astype(np.float64))
    embedding = torch.from_numpy(data["window_embedding"].astype(np.float64))
    probabilities = tag_logits.sigmoid()
    tag_map = make_tag_map(pool(probabilities).mean(0))
    mapped = pool((probabilities @ tag_map.T + PROBABILITY_FLOOR).log())
    inputs = torch.cat([pool(tag_logits), pool(embedding)], 1)
    names = [GENRE_BY_DATA_NAME.get(name, name.capitalize()) for name in data["genres"].tolist()]
    known = np.array([GENRE_LABELS.index(name) if name in GENRE_LABELS else -1 for name in names])
    label = known[data["clip_genre"]]
    kept = label >= 0
    return LabelledFeatures(
        label=label[kept],
        source=data["clip_source"][kept].astype(np.int64),
        artist=data["clip_artist"][kept].astype(np.int64),
        excerpt=data["gtzan_excerpt"][kept].astype(np.bool_),
        mapped=mapped[torch.from_numpy(kept)],
        inputs=inputs[torch.from_numpy(kept)],
        tag_map=tag_map,
    )


def make_clip_weights(clips: LabelledFeatures, rows: NDArray[np.int64]) -> Tensor:
    """Weigh the clips so that no source, artist or genre dominates; the sum is 1."""
    weights = np.where(clips.excerpt[rows], EXCERPT_WEIGHT, 1.0)
    balances = (
        (clips.source, SOURCE_BALANCE),
        (clips.artist, ARTIST_BALANCE),
        (clips.label, GENRE_BALANCE),
    )
    for groups, power in balances:
        _, group = np.unique(groups[rows], return_inverse=True)
        size = np.bincount(group, weights=weights)
        weights = weights * (size[group] / size.mean()) ** -power
    return torch.from_numpy(weights / weights.sum())


def factor_covariance(values: Tensor, label: Tensor, weights: Tensor) -> Tensor:
    """Return L: L @ L.T (500, 500) is the covariance within genres, with a mean diagonal of 1."""
    one_hot = torch.nn.functional.one_hot(label, len(GENRE_LABELS)).double() * weights[:, None]
    centres = (one_hot.T @ values) / one_hot.sum(0).clamp(min=1e-12)[:, None]
    inner = (values - centres[label]) * weights.sqrt()[:, None]
    covariance = inner.T @ inner
    covariance = covariance / covariance.diagonal().mean()
    ridge = COVARIANCE_SHRINKAGE * torch.eye(len(covariance), dtype=torch.float64)
    factor: Tensor = torch.linalg.cholesky((covariance + ridge) / (1 + COVARIANCE_SHRINKAGE))
    return factor


def minimise_loss(
    mapped: Tensor, values: Tensor, label: Tensor, weights: Tensor, penalty: float
) -> HeadWeights:
    """Return the head with the least penalised cross-entropy; genres without clips keep the map."""
    absent = torch.bincount(label, minlength=len(GENRE_LABELS)) == 0
    sharpness = torch.ones((), dtype=torch.float64, requires_grad=True)
    weight = torch.zeros(
        len(GENRE_LABELS), values.shape[1], dtype=torch.float64, requires_grad=True
    )
    bias = torch.zeros(len(GENRE_LABELS), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [sharpness, weight, bias],
        max_iter=200,
        tolerance_grad=1e-7,
        tolerance_change=1e-10,
        line_search_fn="strong_wolfe",
    )

    def compute_loss() -> Tensor:
        optimizer.zero_grad()
        logits = sharpness * mapped + values @ weight.T + bias
        scores = logits.masked_fill(absent, -torch.inf).log_softmax(1)
        total: Tensor = -(scores.gather(1, label[:, None])[:, 0] * weights).sum()
        total = total + penalty / 2 * weight.square().sum() + BIAS_PENALTY / 2 * bias.square().sum()
        total = total + SHARPNESS_PENALTY / 2 * (sharpness - 1).square()
        total.backward()
        return total

    optimizer.step(compute_loss)
    return HeadWeights(sharpness=sharpness.item(), weight=weight.detach(), bias=bias.detach())


def fit_head_weights(
    clips: LabelledFeatures,
    rows: NDArray[np.int64],
    penalty: float = PENALTY,
    lead: float = OVERLAP_LEAD,
) -> HeadWeights:
    """Fit sharpness, biases and correction to some clips, for the genres of these clips."""
    label = torch.from_numpy(clips.label[rows])
    mapped, inputs = clips.mapped[rows], clips.inputs[rows]
    weights = make_clip_weights(clips, rows)
    mean, scale = inputs.mean(0), inputs.std(0, correction=0) + 1e-3
    values = (inputs - mean) / scale
    factor = factor_covariance(values, label, weights)
    values = torch.linalg.solve_triangular(factor, values.T, upper=False).T
    head = minimise_loss(mapped, values, label, weights, penalty)
    weight = torch.linalg.solve_triangular(factor.T, head.weight.T, upper=True).T / scale
    without_indie = HeadWeights(
        sharpness=head.sharpness, weight=weight, bias=head.bias - weight @ mean
    )
    head = add_indie(without_indie, mapped[label == GENRE_LABELS.index("Rock")])
    leads = [lead if name in OVERLAPPING else 0.0 for name in GENRE_LABELS]
    return replace(head, bias=head.bias - torch.tensor(leads, dtype=torch.float64))


def add_indie(head: HeadWeights, mapped_of_rock: Tensor) -> HeadWeights:
    """Give Indie the correction of Rock, and a bias that lets INDIE_SHARE of Rock's clips win."""
    indie, rock = GENRE_LABELS.index("Indie"), GENRE_LABELS.index("Rock")
    weight, bias = head.weight.clone(), head.bias.clone()
    weight[indie] = weight[rock]
    lead = head.sharpness * (mapped_of_rock[:, rock] - mapped_of_rock[:, indie])
    bias[indie] = bias[rock] + (lead.quantile(INDIE_SHARE) if len(lead) else 0)
    return HeadWeights(sharpness=head.sharpness, weight=weight, bias=bias)


def compute_left_out_logits(
    clips: LabelledFeatures,
    group: NDArray[np.int64],
    penalty: float = PENALTY,
    lead: float = OVERLAP_LEAD,
) -> Tensor:
    """Return logits (clips, labels), each clip's from a head that was fitted without its group."""
    logits = torch.zeros_like(clips.mapped)
    for number in np.unique(group):
        is_out = group == number
        head = fit_head_weights(clips, np.flatnonzero(~is_out), penalty, lead)
        logits[torch.from_numpy(is_out)] = head.compute_logits(clips)[torch.from_numpy(is_out)]
    return logits


def fit_calibration_factor(clips: LabelledFeatures, logits: Tensor) -> float:
    """Return the factor for logits at which the mean best score equals the accuracy."""
    whole = torch.from_numpy(~clips.excerpt)
    accuracy = (logits.argmax(1) == torch.from_numpy(clips.label))[whole].double().mean()
    factors = torch.arange(50, 201, dtype=torch.float64) / 100
    best = (factors[:, None, None] * logits[whole]).softmax(2).amax(2).mean(1)
    return float(factors[(best - accuracy).abs().argmin()])


def fit_head(features: Path) -> dict[str, NDArray[np.float32]]:
    """Fit the head to labelled features; return float32 weights, the same bits every time.

    tag_map (labels, 100), sharpness (), linear.weight (labels, 500), linear.bias (labels,).
    """
    with use_one_thread():
        clips = read_clips(features)
        factor = fit_calibration_factor(clips, compute_left_out_logits(clips, clips.source))
        head = fit_head_weights(clips, np.arange(len(clips.label))).scale(factor)
    return {
        "tag_map": clips.tag_map.numpy().astype(np.float32),
        "sharpness": np.array(head.sharpness, np.float32),
        "linear.weight": head.weight.numpy().astype(np.float32),
        "linear.bias": head.bias.numpy().astype(np.float32),
    }
