"""Fit the last layer of the bundled model: from the tags of musicnn and YAMNet to genres.

The README beside this file describes the method, its results and its limits.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tagger.models.classifier import use_one_thread
from tagger.models.musicnn.configuration import get_published_towers
from tagger.models.yamnet import CHECKPOINT

TAG_WEIGHTS: dict[str, dict[str, float]] = {
    "Ambient": {
        "msd ambient": 1,
        "mtt ambient": 1,
        "mtt new age": 1,
        "msd chillout": 0.3,
        "msd chill": 0.2,
        "yamnet Ambient music": 1,
    },
    "Blues": {
        "msd blues": 1.5,
        "yamnet Blues": 1,
    },
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
        "yamnet Classical music": 1,
        "yamnet Opera": 1,
        "yamnet Orchestra": 0.3,
        "yamnet String section": 0.2,
    },
    "Country": {
        "msd country": 1.3,
        "mtt country": 0.6,
        "msd oldies": 0.15,
        "msd 60s": 0.1,
        "yamnet Country": 1,
        "yamnet Bluegrass": 1,
    },
    "Disco": {
        "msd 70s": 0.5,
        "msd funk": 0.4,
        "msd party": 0.4,
        "msd 80s": 0.3,
        "msd dance": 0.3,
        "mtt dance": 0.2,
        "yamnet Disco": 1,
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
        "yamnet Electronic music": 0.7,
        "yamnet House music": 1,
        "yamnet Techno": 1,
        "yamnet Dubstep": 1,
        "yamnet Drum and bass": 1,
        "yamnet Electronica": 0.7,
        "yamnet Electronic dance music": 0.8,
        "yamnet Trance music": 1,
    },
    "Folk": {
        "msd folk": 1.2,
        "msd acoustic": 0.6,
        "msd country": 0.1,
        "yamnet Folk music": 1,
        "yamnet Traditional music": 0.3,
    },
    "Hip-Hop": {
        "msd Hip-Hop": 2,
        "yamnet Hip hop music": 1,
        "yamnet Rapping": 0.6,
    },
    "Jazz": {
        "msd jazz": 1.2,
        "msd easy listening": 0.2,
        "mtt piano": 0.05,
        "yamnet Jazz": 1,
        "yamnet Swing music": 0.8,
    },
    "Latin": {
        "yamnet Music of Latin America": 1,
        "yamnet Salsa music": 1,
    },
    "Metal": {
        "msd metal": 1,
        "msd heavy metal": 1,
        "mtt metal": 0.6,
        "msd hard rock": 0.2,
        "yamnet Heavy metal": 1,
    },
    "Pop": {
        "msd pop": 0.8,
        "msd catchy": 0.5,
        "mtt pop": 0.3,
        "msd female vocalists": 0.3,
        "msd dance": 0.2,
        "msd 80s": 0.2,
        "yamnet Pop music": 1,
    },
    "Punk": {
        "msd punk": 1.2,
        "mtt metal": 0.2,
        "msd alternative rock": 0.1,
        "yamnet Punk rock": 1,
    },
    "Reggae": {
        "msd funk": 0.3,
        "mtt beats": 0.3,
        "msd soul": 0.2,
        "mtt beat": 0.2,
        "msd 70s": 0.2,
        "mtt drums": 0.1,
        "msd Hip-Hop": 0.1,
        "yamnet Reggae": 1,
        "yamnet Ska": 0.5,
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
        "yamnet Rock music": 0.7,
        "yamnet Rock and roll": 0.8,
        "yamnet Grunge": 0.8,
        "yamnet Progressive rock": 0.8,
        "yamnet Psychedelic rock": 0.8,
    },
}
"""Genre -> the tags that count for it, chosen by hand, and their weights.

msd, mtt: tags of musicnn's towers. yamnet: classes of AudioSet.
"""

SPEECH, OTHER_SOUND = "Speech", "Other sound"
NOT_MUSIC = (SPEECH, OTHER_SOUND)
SPEECH_WEIGHTS = {"Speech": 1.0, "Narration, monologue": 0.5}
OTHER_SOUND_WEIGHT = 0.5
MUSIC_CLASSES = frozenset([*range(6), *range(24, 36), *range(132, 277)])
"""AudioSet's classes of voices that speak or sing, instruments, genres and moods. All others count
for "Other sound"."""

LABELS = (*TAG_WEIGHTS, *NOT_MUSIC)
LABEL_BY_DATA_NAME = {
    "hiphop": "Hip-Hop", "trap": "Hip-Hop", "speech": SPEECH, "sound": OTHER_SOUND,
    "reggaeton": "Latin", "bailefunk": "Latin", "synthpop": "Pop", "kpop": "Pop", "jpop": "Pop",
} | dict.fromkeys((
    "techno", "house", "trance", "dubstep", "drumandbass", "synthwave", "hardcore", "hardstyle",
    "triphop", "electroswing", "eurobeat", "chiptune",
), "Electronic")  # fmt: skip
"""Other names are labels in lower case, or clips that are left out."""

PROBABILITY_FLOOR = 1e-6  # as in the model's forward pass
RARE_TAG_FLOOR = 1e-5  # added to a tag's mean probability
COMMON_TAG_POWER = 0.25  # a tag's weight is divided by its mean probability to this power
EXCERPT_WEIGHT = 1.0
SOURCE_BALANCE, ARTIST_BALANCE, GENRE_BALANCE = 0.4, 0.3, 0.3  # 0: clips count alike; 1: groups do
PENALTY, BIAS_PENALTY, SHARPNESS_PENALTY = 0.7, 0.001, 0.01
COVARIANCE_SHRINKAGE = 0.1
LEFT_OUT_GROUPS = 8
MAX_REFUSED_MUSIC = 0.005  # the share of music that may be taken for no music


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledFeatures:
    """Labelled clips, one row each in every array. Clips of other genres are left out.

    number: the row of each clip in the file of features.
    """

    number: NDArray[np.int64]
    label: NDArray[np.int64]
    source: NDArray[np.int64]
    artist: NDArray[np.int64]
    excerpt: NDArray[np.bool_]
    mapped: Tensor
    """(clips, labels) mean over the windows of the logarithm of the mapped tags, float64."""
    inputs: Tensor
    """(clips, 2045) mean over the windows of tag logits and embedding, float64."""
    tag_map: Tensor

    @property
    def is_music(self) -> NDArray[np.bool_]:
        return self.label < len(TAG_WEIGHTS)


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


def read_class_names() -> list[str]:
    """Return the names of AudioSet's classes in the order of YAMNet's logits."""
    label_by_class = json.loads((CHECKPOINT / "config.json").read_text("utf-8"))["id2label"]
    return [label_by_class[str(number)] for number in range(len(label_by_class))]


def list_tags(classes: Sequence[str]) -> list[str]:
    """Return the tags of both networks in the order of their logits. classes: AudioSet's names."""
    towers = get_published_towers().items()
    tags = [f"{tower} {tag}" for tower, names in towers for tag in names]
    return tags + [f"yamnet {name}" for name in classes]


def load_features(features: Path) -> dict[str, NDArray[Any]]:
    """Load labelled features (the README lists the arrays).

    tag_logits (windows, 621) and embedding (windows, 1424) of both networks are added, float64.
    """
    with np.load(features) as file:
        data = {name: file[name] for name in file.files}
    for added, kind in (("tag_logits", "logits"), ("embedding", "embedding")):
        parts = [data[f"{network}_{kind}"].astype(np.float64) for network in ("musicnn", "yamnet")]
        data[added] = np.concatenate(parts, 1)
    return data


def pool_windows(windows: Tensor, counts: list[int]) -> Tensor:
    """Return the mean over the windows of each clip. counts: their numbers of windows."""
    return torch.stack([part.mean(0) for part in windows.split(counts)])


def make_tag_map(mean_probability: Tensor, classes: Sequence[str]) -> Tensor:
    """Return the weights as (labels, tags), lower for common tags. classes: AudioSet's names."""
    tags = list_tags(classes)
    other = {
        f"yamnet {name}": OTHER_SOUND_WEIGHT
        for number, name in enumerate(classes)
        if number not in MUSIC_CLASSES
    }
    speech = {f"yamnet {name}": weight for name, weight in SPEECH_WEIGHTS.items()}
    weights = torch.zeros(len(LABELS), len(tags), dtype=torch.float64)
    for row, tag_weights in enumerate([*TAG_WEIGHTS.values(), speech, other]):
        for tag, weight in tag_weights.items():
            weights[row, tags.index(tag)] = weight
    return weights / (mean_probability + RARE_TAG_FLOOR) ** COMMON_TAG_POWER


def read_clips(features: Path, classes: Sequence[str]) -> LabelledFeatures:
    """Read labelled features and pool the windows of each clip."""
    data = load_features(features)
    counts = data["windows"].tolist()
    names = data["genre"].tolist()
    found = [LABEL_BY_DATA_NAME.get(name, name.capitalize()) for name in names]
    label = np.array([LABELS.index(name) if name in LABELS else -1 for name in found])
    is_music = torch.from_numpy(~np.isin(data["genre"], ["speech", "sound"]))
    tag_logits, embedding = map(torch.from_numpy, (data["tag_logits"], data["embedding"]))
    probabilities = tag_logits.sigmoid()
    tag_map = make_tag_map(pool_windows(probabilities, counts)[is_music].mean(0), classes)
    mapped = pool_windows((probabilities @ tag_map.T + PROBABILITY_FLOOR).log(), counts)
    inputs = pool_windows(torch.cat([tag_logits, embedding], 1), counts)
    kept = label >= 0
    return LabelledFeatures(
        number=np.flatnonzero(kept),
        label=label[kept],
        source=data["source"][kept].astype(np.int64),
        artist=data["artist"][kept].astype(np.int64),
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
    """Return L: L @ L.T (2045, 2045) is the covariance within labels, with a mean diagonal of 1."""
    one_hot = torch.nn.functional.one_hot(label, len(LABELS)).double() * weights[:, None]
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
    absent = torch.bincount(label, minlength=len(LABELS)) == 0
    sharpness = torch.ones((), dtype=torch.float64, requires_grad=True)
    weight = torch.zeros(len(LABELS), values.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(LABELS), dtype=torch.float64, requires_grad=True)
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
    clips: LabelledFeatures, rows: NDArray[np.int64], penalty: float = PENALTY
) -> HeadWeights:
    """Fit sharpness, biases and correction to some clips, for the labels of these clips."""
    label = torch.from_numpy(clips.label[rows])
    inputs = clips.inputs[rows]
    weights = make_clip_weights(clips, rows)
    mean, scale = inputs.mean(0), inputs.std(0, correction=0) + 1e-3
    values = (inputs - mean) / scale
    factor = factor_covariance(values, label, weights)
    values = torch.linalg.solve_triangular(factor, values.T, upper=False).T
    head = minimise_loss(clips.mapped[rows], values, label, weights, penalty)
    weight = torch.linalg.solve_triangular(factor.T, head.weight.T, upper=True).T / scale
    return replace(head, weight=weight, bias=head.bias - weight @ mean)


def compute_left_out_logits(
    clips: LabelledFeatures,
    group: NDArray[np.int64],
    penalty: float = PENALTY,
) -> Tensor:
    """Return logits (clips, labels), each clip's from a head that was fitted without its group."""
    logits = torch.zeros_like(clips.mapped)
    for number in np.unique(group):
        is_out = group == number
        head = fit_head_weights(clips, np.flatnonzero(~is_out), penalty)
        logits[torch.from_numpy(is_out)] = head.compute_logits(clips)[torch.from_numpy(is_out)]
    return logits


def fit_calibration_factor(clips: LabelledFeatures, logits: Tensor) -> float:
    """Return the factor for logits at which the mean best score of music equals the accuracy."""
    whole = torch.from_numpy(~clips.excerpt & clips.is_music)
    accuracy = (logits.argmax(1) == torch.from_numpy(clips.label))[whole].double().mean()
    factors = torch.arange(50, 201, dtype=torch.float64) / 100
    best = (factors[:, None, None] * logits[whole]).softmax(2).amax(2).mean(1)
    return float(factors[(best - accuracy).abs().argmin()])


def compute_music_lead(clips: LabelledFeatures, logits: Tensor) -> float:
    """Return what to take from the logits of NOT_MUSIC, so that little music is refused."""
    whole = torch.from_numpy(~clips.excerpt & clips.is_music)
    genres = len(TAG_WEIGHTS)
    lead = logits[:, genres:].logsumexp(1) - logits[:, :genres].logsumexp(1)
    most = lead[whole].quantile(1 - MAX_REFUSED_MUSIC, interpolation="higher")
    return max(0.0, float(most))


def make_left_out_groups(clips: LabelledFeatures) -> NDArray[np.int64]:
    """Return a group for each clip: some sources together. A large source is cut by artist."""
    sources, counts = np.unique(clips.source, return_counts=True)
    large = sources[counts > len(clips.source) / LEFT_OUT_GROUPS]
    by_artist = LEFT_OUT_GROUPS * (1 + clips.source) + clips.artist % LEFT_OUT_GROUPS
    return np.where(np.isin(clips.source, large), by_artist, clips.source % LEFT_OUT_GROUPS)


def fit_head(features: Path, classes: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Fit the head to labelled features; return float32 weights, the same bits every time.

    tag_map (labels, 621), sharpness (), linear.weight (labels, 2045), linear.bias (labels,).
    """
    with use_one_thread():
        clips = read_clips(features, classes)
        left_out = compute_left_out_logits(clips, make_left_out_groups(clips))
        factor = fit_calibration_factor(clips, left_out)
        lead = compute_music_lead(clips, left_out * factor)
        head = fit_head_weights(clips, np.arange(len(clips.label))).scale(factor)
    bias = head.bias.clone()
    bias[len(TAG_WEIGHTS) :] -= lead
    return {
        "tag_map": clips.tag_map.numpy().astype(np.float32),
        "sharpness": np.array(head.sharpness, np.float32),
        "linear.weight": head.weight.numpy().astype(np.float32),
        "linear.bias": bias.numpy().astype(np.float32),
    }
