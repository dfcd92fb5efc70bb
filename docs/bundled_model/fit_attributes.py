"""Fit styles, moods and voices of the bundled model to the tags of musicnn and YAMNet.

The README beside this file describes the method, its results and its limits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from docs.bundled_model.fit_head import (
    PROBABILITY_FLOOR,
    RARE_TAG_FLOOR,
    list_tags,
    load_features,
    pool_windows,
)
from tagger.models.classifier import use_one_thread


@dataclass(frozen=True, slots=True)
class Style:
    """genre: the style is given only under it. tags: those that count for the style, and weights.

    data_name: what labelled recordings call it, if there are any.
    """

    genre: str
    tags: Mapping[str, float]
    data_name: str = ""


STYLES: Mapping[str, Style] = {
    "House": Style("Electronic", {"msd House": 1, "yamnet House music": 1}, "house"),
    "Techno": Style("Electronic", {"mtt techno": 1, "yamnet Techno": 1}, "techno"),
    "Trance": Style("Electronic", {"yamnet Trance music": 1}, "trance"),
    "Dubstep": Style("Electronic", {"yamnet Dubstep": 1}, "dubstep"),
    "Drum and Bass": Style("Electronic", {"yamnet Drum and bass": 1}, "drumandbass"),
    "New Age": Style("Ambient", {"mtt new age": 1, "yamnet New-age music": 1}, "newage"),
    "Opera": Style("Classical", {"mtt opera": 1, "yamnet Opera": 1}),
    "Choral": Style("Classical", {"mtt choral": 1, "mtt choir": 1, "yamnet Choir": 1}),
    "Orchestral": Style("Classical", {"yamnet Orchestra": 1, "yamnet String section": 1}),
    "Bluegrass": Style("Country", {"yamnet Bluegrass": 1, "yamnet Banjo": 0.3}),
    "Swing": Style("Jazz", {"yamnet Swing music": 1}),
    "Ska": Style("Reggae", {"yamnet Ska": 1}),
    "Salsa": Style("Latin", {"yamnet Salsa music": 1}),
    "Flamenco": Style("Latin", {"yamnet Flamenco": 1}, "flamenco"),
    "Grunge": Style("Rock", {"yamnet Grunge": 1}),
    "Hard Rock": Style("Rock", {"msd hard rock": 1}),
    "Indie Rock": Style("Rock", {"msd indie rock": 1}),
    "Progressive Rock": Style("Rock", {"msd Progressive rock": 1, "yamnet Progressive rock": 1}),
    "Psychedelic Rock": Style("Rock", {"yamnet Psychedelic rock": 1}),
    "Rock and Roll": Style("Rock", {"yamnet Rock and roll": 1}),
}

LIFT_FLOOR = 1e-3
STYLE_LOG_LIFT = 2.0
"""The log of how much likelier than on average the tags of a style are where it is as likely as
not: e^2, about seven times."""

MOODS = ("Happy", "Tense", "Sad", "Calm")
"""The quadrants of valence and arousal (Russell, 1980), Q1 to Q4 of the labelled recordings."""
MOOD_PENALTY = 0.37

VOICES = ("Instrumental", "Female vocals", "Male vocals")
VOCAL_GENRES = (
    "country", "gospel", "hiphop", "jpop", "kpop", "latin", "pop", "punk", "reggae", "rnb", "soul",
    "vocal",
)  # fmt: skip
INSTRUMENTAL_GENRES = ("ambient", "classical", "newage", "soundtrack")
"""No recording says whether somebody sings in it. These genres mostly have singing, or none."""
VOICE_PENALTY = 0.01

VOCAL_TAGS: Sequence[Mapping[str, float]] = (
    {
        **dict.fromkeys(("mtt vocal", "mtt vocals", "mtt singing", "mtt voice"), 1 / 4),
        **dict.fromkeys(("mtt no vocals", "mtt no vocal", "mtt no voice"), -1 / 3),
    },
    {"msd instrumental": -1},
    {"yamnet Singing": 1},
    {"yamnet Song": 1},
)
"""Sums of tag logits that say whether there is a voice; a regression weighs them."""

FEMALE_TAGS: Mapping[str, float] = {
    **dict.fromkeys(("mtt female", "mtt woman", "mtt female vocal", "mtt female voice"), 0.125),
    **dict.fromkeys(("mtt male", "mtt man", "mtt male vocal", "mtt male voice"), -0.125),
    "msd female vocalists": 0.35,
    "msd female vocalist": 0.35,
    "msd male vocalists": -0.7,
}
FEMALE_OFFSET = -0.25
"""The weights are chosen by hand: no recording says who sings. The offset makes up for male
singers, whom people tag less often."""


STYLE_NAMES = sorted(STYLES)
"""In the order of the rows of the attribute head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recordings:
    """Labelled recordings, one in each row.

    inputs: (clips, 2045) means over the windows of tag logits and embedding, float64. log_lift:
    (clips, styles). genre: as the data calls it. mood: an index of MOODS, -1 for unknown.
    """

    inputs: Tensor
    log_lift: Tensor
    style_map: Tensor
    genre: NDArray[np.str_]
    source: NDArray[np.int64]
    artist: NDArray[np.int64]
    mood: NDArray[np.int64]


def read_recordings(features: Path, classes: Sequence[str]) -> Recordings:
    data = load_features(features)
    counts = data["windows"].tolist()
    tag_logits = data["tag_logits"]
    probabilities = torch.from_numpy(tag_logits).sigmoid()
    is_music = torch.from_numpy(~np.isin(data["genre"], ["speech", "sound"]))
    mean = pool_windows(probabilities, counts)[is_music].mean(0)
    style_map = make_style_map(mean, classes)
    lift = probabilities @ style_map.T
    return Recordings(
        inputs=pool_windows(
            torch.cat([torch.from_numpy(tag_logits), torch.from_numpy(data["embedding"])], 1),
            counts,
        ),
        log_lift=pool_windows((lift + LIFT_FLOOR).log(), counts),
        style_map=style_map,
        genre=data["genre"].astype(np.str_),
        source=data["source"].astype(np.int64),
        artist=data["artist"].astype(np.int64),
        mood=np.array([int(name[1]) - 1 if name else -1 for name in data["quadrant"].tolist()]),
    )


def make_style_map(mean_probability: Tensor, classes: Sequence[str]) -> Tensor:
    """Return (styles, tags): times probabilities, how many times likelier than on average."""
    tags = list_tags(classes)
    weights = torch.zeros(len(STYLES), len(tags), dtype=torch.float64)
    for row, style in enumerate(STYLES[name] for name in STYLE_NAMES):
        for tag, weight in style.tags.items():
            weights[row, tags.index(tag)] = weight / sum(style.tags.values())
    return weights / (mean_probability + RARE_TAG_FLOOR)


def fit_regression(inputs: Tensor, label: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Return weights (labels, inputs) and biases of the penalised logistic regression."""
    mean, scale = inputs.mean(0), inputs.std(0, correction=0) + 1e-3
    values, labels = (inputs - mean) / scale, int(label.max()) + 1
    weight = torch.zeros(labels, inputs.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(labels, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=200, tolerance_grad=1e-7, line_search_fn="strong_wolfe"
    )

    def compute_loss() -> Tensor:
        optimizer.zero_grad()
        logits = values @ weight.T + bias
        loss: Tensor = torch.nn.functional.cross_entropy(logits, label)
        loss = loss + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(compute_loss)
    scaled = weight.detach() / scale
    return scaled, bias.detach() - scaled @ mean


def fit_moods(recordings: Recordings, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Return weights (moods, inputs) and biases, fitted to the recordings of these rows."""
    label = torch.from_numpy(recordings.mood[rows])
    return fit_regression(recordings.inputs[rows], label, MOOD_PENALTY)


def select_voice_rows(recordings: Recordings) -> NDArray[np.int64]:
    return np.flatnonzero(np.isin(recordings.genre, VOCAL_GENRES + INSTRUMENTAL_GENRES))


def fit_vocals(
    recordings: Recordings, rows: NDArray[np.int64], classes: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Return the weights (inputs,) and the bias of the logit that somebody sings."""
    sums = make_tag_rows(VOCAL_TAGS, classes, recordings.inputs.shape[1])
    is_vocal = torch.from_numpy(np.isin(recordings.genre[rows], VOCAL_GENRES)).long()
    weight, bias = fit_regression(recordings.inputs[rows] @ sums.T, is_vocal, VOICE_PENALTY)
    # Both classes count alike: many more recordings are of vocal genres.
    share = is_vocal.double().mean()
    return (weight[1] - weight[0]) @ sums, bias[1] - bias[0] - (share / (1 - share)).log()


def make_tag_rows(
    rows: Sequence[Mapping[str, float]], classes: Sequence[str], inputs: int
) -> Tensor:
    """Return (rows, inputs): the weights of tag logits; those of the embedding are zero."""
    tags = list_tags(classes)
    weights = torch.zeros(len(rows), inputs, dtype=torch.float64)
    for row, tag_weights in enumerate(rows):
        for tag, weight in tag_weights.items():
            weights[row, tags.index(tag)] = weight
    return weights


def fit_attributes(features: Path, classes: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Fit the attribute head: float32 weights for STYLE_NAMES, MOODS and VOICES, in this order."""
    with use_one_thread():
        recordings = read_recordings(features, classes)
        mood_weight, mood_bias = fit_moods(recordings, np.flatnonzero(recordings.mood >= 0))
        vocal, vocal_bias = fit_vocals(recordings, select_voice_rows(recordings), classes)
    inputs = recordings.inputs.shape[1]
    female = make_tag_rows([FEMALE_TAGS], classes, inputs)[0]
    labels = len(STYLES) + len(MOODS) + len(VOICES)
    tag_map = torch.zeros(labels, recordings.style_map.shape[1], dtype=torch.float64)
    weight = torch.zeros(labels, inputs, dtype=torch.float64)
    bias = torch.zeros(labels, dtype=torch.float64)
    # The head adds its floor to the mapped probability; scaled so, that is LIFT_FLOOR of lift.
    scale = PROBABILITY_FLOOR / LIFT_FLOOR
    tag_map[: len(STYLES)] = recordings.style_map * scale
    bias[: len(STYLES)] = -log(scale) - STYLE_LOG_LIFT
    moods = slice(len(STYLES), len(STYLES) + len(MOODS))
    weight[moods], bias[moods] = mood_weight, mood_bias
    # All rows without a map get the same logarithm of the floor, which their softmax ignores.
    weight[-2] = vocal + female / 2
    weight[-1] = vocal - female / 2
    bias[-2] = vocal_bias - log(2) + FEMALE_OFFSET / 2
    bias[-1] = vocal_bias - log(2) - FEMALE_OFFSET / 2
    return {
        "tag_map": tag_map.numpy().astype(np.float32),
        "sharpness": np.array(1, np.float32),
        "linear.weight": weight.numpy().astype(np.float32),
        "linear.bias": bias.numpy().astype(np.float32),
    }
