"""The bundled head is fitted to synthetic features through its public function."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from docs.bundled_model.fit_head import GENRE_LABELS, fit_head
from tagger.models.musicnn.configuration import get_published_towers

TAGS = [f"{tower} {tag}" for tower, tags in get_published_towers().items() for tag in tags]
GENRES = ("hiphop", "metal", "rnb", "rock", "soundtrack")
OWN_TAG = {"hiphop": "msd Hip-Hop", "metal": "msd metal", "rnb": "msd rnb", "rock": "msd rock"}
NOT_GENRES = (
    "msd sad",
    "msd happy",
    "msd sexy",
    "msd beautiful",
    "msd 00s",
    "mtt male",
    "mtt loud",
)
CLIPS_PER_GENRE, WINDOWS = 12, 2
OFFSET = 6  # of all embedding values: the bias has to take it back

Head = dict[str, NDArray[np.float32]]


def synthetic_features(folder: Path) -> Path:
    """Write clips from three sources; each genre's own tag stands out, and one embedding value."""
    rng = np.random.default_rng(0)
    genre = np.repeat(np.arange(len(GENRES)), CLIPS_PER_GENRE)
    clips = len(genre)
    logits = rng.normal(-4, 0.7, (clips * WINDOWS, len(TAGS)))
    embedding = rng.normal(OFFSET, 1, (clips * WINDOWS, 400))
    for window, number in enumerate(np.repeat(genre, WINDOWS)):
        embedding[window, number] += 4
        if tag := OWN_TAG.get(GENRES[number]):
            logits[window, TAGS.index(tag)] += 4
    path = folder / "features.npz"
    np.savez(
        path,
        genres=np.array(GENRES),
        clip_genre=genre.astype(np.int16),
        clip_source=(np.arange(clips) % 3).astype(np.int16),
        clip_artist=np.arange(clips).astype(np.int32),
        clip_windows=np.full(clips, WINDOWS, np.int16),
        gtzan_excerpt=np.arange(clips) % 4 == 0,
        window_logits=logits.astype(np.float16),
        window_embedding=embedding.astype(np.float16),
    )
    return path


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_features(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="module")
def head(features: Path) -> Head:
    return fit_head(features)


@pytest.fixture(scope="module")
def guess(head: Head) -> Callable[[NDArray[np.float32], NDArray[np.float32]], str]:
    def name(tag_logits: NDArray[np.float32], embedding: NDArray[np.float32]) -> str:
        mapped = head["tag_map"] @ (1 / (1 + np.exp(-tag_logits))) + 1e-6
        correction = head["linear.weight"] @ np.concatenate([tag_logits, embedding])
        logits = head["sharpness"] * np.log(mapped) + correction + head["linear.bias"]
        return GENRE_LABELS[int(logits.argmax())]

    return name


def test_labels_are_unique_and_hold_those_that_people_expect() -> None:
    assert len(set(GENRE_LABELS)) == len(GENRE_LABELS) == 18
    assert {"Blues", "Classical", "Disco", "Hip-Hop", "R&B", "Indie", "Electronic"} < set(
        GENRE_LABELS
    )
    assert not {"Soundtrack", "World", "Latin"} & set(GENRE_LABELS)


def test_the_weights_have_the_shapes_of_the_model(head: Head) -> None:
    shapes = {name: value.shape for name, value in head.items()}
    assert shapes == {
        "tag_map": (len(GENRE_LABELS), 100),
        "sharpness": (),
        "linear.weight": (len(GENRE_LABELS), 500),
        "linear.bias": (len(GENRE_LABELS),),
    }
    assert all(value.dtype == np.float32 for value in head.values())
    assert all(np.isfinite(value).all() for value in head.values())
    assert head["sharpness"] > 0


def test_every_genre_is_spoken_for_and_moods_speak_for_none(head: Head) -> None:
    tag_map = head["tag_map"]
    assert (tag_map >= 0).all()
    assert (tag_map.max(1) > 0).all()
    assert not tag_map[:, [TAGS.index(tag) for tag in NOT_GENRES]].any()


def test_a_tag_speaks_loudest_for_its_own_genre(head: Head) -> None:
    own = {"Jazz": "msd jazz", "Soul": "msd soul", "R&B": "msd rnb", "Classical": "mtt classical"}
    for genre, tag in own.items():
        assert GENRE_LABELS[int(head["tag_map"][:, TAGS.index(tag)].argmax())] == genre


def test_common_tags_speak_more_softly(features: Path, tmp_path: Path, head: Head) -> None:
    with np.load(features) as file:
        data = {name: file[name] for name in file.files}
    data["window_logits"][:, TAGS.index("msd jazz")] += 4
    np.savez(tmp_path / "common.npz", **data)
    cell = GENRE_LABELS.index("Jazz"), TAGS.index("msd jazz")
    assert 0 < fit_head(tmp_path / "common.npz")["tag_map"][cell] < 0.6 * head["tag_map"][cell]


@pytest.mark.parametrize(
    ("genre", "label"),
    [("hiphop", "Hip-Hop"), ("metal", "Metal"), ("rnb", "R&B"), ("rock", "Rock")],
)
def test_the_data_is_learnt(
    guess: Callable[[NDArray[np.float32], NDArray[np.float32]], str], genre: str, label: str
) -> None:
    tag_logits, embedding = np.full(100, -4, np.float32), np.full(400, OFFSET, np.float32)
    tag_logits[TAGS.index(OWN_TAG[genre])] = 0
    embedding[GENRES.index(genre)] += 4
    assert guess(tag_logits, embedding) == label


def test_only_labels_with_clips_and_indie_are_corrected(head: Head) -> None:
    corrected = {GENRE_LABELS[row] for row in np.flatnonzero(head["linear.weight"].any(1))}
    assert corrected == {"Hip-Hop", "Metal", "R&B", "Rock", "Indie"}


def test_indie_shares_the_correction_of_rock(head: Head) -> None:
    indie, rock = GENRE_LABELS.index("Indie"), GENRE_LABELS.index("Rock")
    assert head["linear.weight"][rock].any()
    np.testing.assert_array_equal(head["linear.weight"][indie], head["linear.weight"][rock])


def test_overlapping_labels_alone_have_to_lead(
    features: Path, head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("docs.bundled_model.fit_head.OVERLAPPING", ())
    free = fit_head(features)
    asked = free["linear.bias"] / free["sharpness"] - head["linear.bias"] / head["sharpness"]
    leading = {GENRE_LABELS[row] for row in np.flatnonzero(asked > 0.01)}
    assert leading == {"Ambient", "Funk", "Indie", "R&B", "Soul"}
    assert not asked[[GENRE_LABELS.index("Pop"), GENRE_LABELS.index("Rock")]].round(4).any()


def test_a_second_fit_gives_the_same_bits_whatever_the_threads(features: Path, head: Head) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        again = fit_head(features)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
    assert {k: v.tobytes() for k, v in again.items()} == {k: v.tobytes() for k, v in head.items()}
