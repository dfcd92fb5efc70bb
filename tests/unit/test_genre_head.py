"""The bundled head is fitted to synthetic features through its public functions."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from docs.bundled_model.fit_head import (
    LABELS,
    NOT_MUSIC,
    compute_music_lead,
    fit_head,
    make_left_out_groups,
    read_class_names,
    read_clips,
)
from tagger.models.musicnn.configuration import get_published_towers

Floats = NDArray[np.float32]
Head = dict[str, Floats]
Guess = Callable[[Floats, Floats], str]

CLASSES = read_class_names()
MUSICNN_TAGS = [f"{tower} {tag}" for tower, tags in get_published_towers().items() for tag in tags]
TAGS = [*MUSICNN_TAGS, *(f"yamnet {name}" for name in CLASSES)]
EMBEDDING = {"musicnn": 400, "yamnet": 1024}
GENRES = ("hiphop", "metal", "latin", "rock", "speech", "sound", "gospel", "")
OWN_TAG = {
    "hiphop": "msd Hip-Hop",
    "metal": "msd metal",
    "latin": "yamnet Salsa music",
    "rock": "msd rock",
    "speech": "yamnet Speech",
    "sound": "yamnet Siren",
}
LABEL = {
    "hiphop": "Hip-Hop",
    "metal": "Metal",
    "latin": "Latin",
    "rock": "Rock",
    "speech": "Speech",
    "sound": "Other sound",
}
NO_GENRES = (
    "msd sad",
    "msd sexy",
    "msd beautiful",
    "msd 00s",
    "mtt male",
    "mtt loud",
    "yamnet Singing",
    "yamnet Guitar",
    "yamnet Music",
    "yamnet Happy music",
)
CLIPS_PER_GENRE, WINDOWS = 6, 2
OFFSET = 3  # of all embedding values: the bias has to take it back


def synthetic_features(folder: Path) -> Path:
    """Write clips of one source and two artists.

    Each genre's own tag stands out, and one embedding value of YAMNet's.
    """
    rng = np.random.default_rng(0)
    number = np.repeat(np.arange(len(GENRES)), CLIPS_PER_GENRE)
    clips = len(number)
    windows = clips * WINDOWS
    logits = rng.normal(-4, 0.7, (windows, len(TAGS)))
    embedding = {name: rng.normal(OFFSET, 1, (windows, size)) for name, size in EMBEDDING.items()}
    for window, genre in enumerate(np.repeat(number, WINDOWS)):
        embedding["yamnet"][window, genre] += 4
        if tag := OWN_TAG.get(GENRES[genre]):
            logits[window, TAGS.index(tag)] += 4
    path = folder / "features.npz"
    np.savez(
        path,
        genre=np.array(GENRES)[number],
        source=np.zeros(clips, np.int32),
        artist=(np.arange(clips) % 2).astype(np.int32),
        windows=np.full(clips, WINDOWS, np.int16),
        gtzan_excerpt=np.arange(clips) % CLIPS_PER_GENRE == 0,
        musicnn_logits=logits[:, : len(MUSICNN_TAGS)].astype(np.float16),
        musicnn_embedding=embedding["musicnn"].astype(np.float16),
        yamnet_logits=logits[:, len(MUSICNN_TAGS) :].astype(np.float16),
        yamnet_embedding=embedding["yamnet"].astype(np.float16),
    )
    return path


def change_features(features: Path, changed: Path, **arrays: NDArray[np.generic]) -> Path:
    with np.load(features) as file:
        np.savez(changed, **({name: file[name] for name in file.files} | arrays))
    return changed


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_features(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="module")
def head(features: Path) -> Head:
    return fit_head(features, CLASSES)


@pytest.fixture(scope="module")
def guess(head: Head) -> Guess:
    def name(tag_logits: Floats, embedding: Floats) -> str:
        mapped = head["tag_map"] @ (1 / (1 + np.exp(-tag_logits))) + 1e-6
        correction = head["linear.weight"] @ np.concatenate([tag_logits, embedding])
        logits = head["sharpness"] * np.log(mapped) + correction + head["linear.bias"]
        return LABELS[int(logits.argmax())]

    return name


def test_labels_are_unique_and_hold_those_that_people_expect() -> None:
    assert len(set(LABELS)) == len(LABELS) == 17
    assert {"Blues", "Classical", "Disco", "Hip-Hop", "Latin", "Electronic"} < set(LABELS)
    assert LABELS[-2:] == NOT_MUSIC == ("Speech", "Other sound")
    assert not {"Soundtrack", "World", "Indie", "Funk"} & set(LABELS)


def test_the_weights_have_the_shapes_of_the_model(head: Head) -> None:
    shapes = {name: value.shape for name, value in head.items()}
    assert shapes == {
        "tag_map": (len(LABELS), 621),
        "sharpness": (),
        "linear.weight": (len(LABELS), 2045),
        "linear.bias": (len(LABELS),),
    }
    assert all(value.dtype == np.float32 for value in head.values())
    assert all(np.isfinite(value).all() for value in head.values())
    assert head["sharpness"] > 0


def test_every_label_is_spoken_for_and_moods_and_instruments_speak_for_none(head: Head) -> None:
    tag_map = head["tag_map"]
    assert (tag_map >= 0).all()
    assert (tag_map.max(1) > 0).all()
    assert not tag_map[:, [TAGS.index(tag) for tag in NO_GENRES]].any()


@pytest.mark.parametrize(
    ("tag", "label"),
    [
        ("msd jazz", "Jazz"),
        ("mtt classical", "Classical"),
        ("yamnet Reggae", "Reggae"),
        ("yamnet Ska", "Reggae"),
        ("yamnet Speech", "Speech"),
        ("yamnet Siren", "Other sound"),
    ],
)
def test_a_tag_speaks_loudest_for_its_own_label(head: Head, tag: str, label: str) -> None:
    assert LABELS[int(head["tag_map"][:, TAGS.index(tag)].argmax())] == label


def test_common_tags_speak_more_softly(features: Path, tmp_path: Path, head: Head) -> None:
    tag = MUSICNN_TAGS.index("msd jazz")
    with np.load(features) as file:
        logits = file["musicnn_logits"]
    logits[:, tag] += 4
    common = change_features(features, tmp_path / "common.npz", musicnn_logits=logits)
    cell = LABELS.index("Jazz"), tag
    assert 0 < read_clips(common, CLASSES).tag_map[cell] < 0.6 * head["tag_map"][cell]


@pytest.mark.parametrize("genre", list(LABEL))
def test_the_data_is_learnt(guess: Guess, genre: str) -> None:
    tag_logits = np.full(len(TAGS), -4, np.float32)
    embedding = np.full(sum(EMBEDDING.values()), OFFSET, np.float32)
    tag_logits[TAGS.index(OWN_TAG[genre])] = 0
    embedding[EMBEDDING["musicnn"] + GENRES.index(genre)] += 4
    assert guess(tag_logits, embedding) == LABEL[genre]


def test_only_labels_with_clips_are_corrected(head: Head) -> None:
    corrected = {LABELS[row] for row in np.flatnonzero(head["linear.weight"].any(1))}
    assert corrected == set(LABEL.values())


def test_names_that_are_no_label_are_left_out_and_styles_count_for_their_genre(
    features: Path, tmp_path: Path
) -> None:
    with np.load(features) as file:
        names = file["genre"]
    names = np.where(names == "rock", "techno", names)
    clips = read_clips(change_features(features, tmp_path / "styles.npz", genre=names), CLASSES)
    expected = {"Hip-Hop", "Metal", "Latin", "Electronic", "Speech", "Other sound"}
    assert {LABELS[number] for number in clips.label} == expected
    assert len(clips.label) == len(expected) * CLIPS_PER_GENRE
    assert set(names[clips.number[clips.label == LABELS.index("Metal")]]) == {"metal"}
    assert {LABELS[number] for number in clips.label[~clips.is_music]} == set(NOT_MUSIC)


def test_sources_are_left_out_whole_and_a_large_one_by_artist(
    features: Path, tmp_path: Path
) -> None:
    number = np.arange(len(GENRES) * CLIPS_PER_GENRE)
    source = np.where(number % 2, 0, 1 + number // 8)
    changed = change_features(
        features, tmp_path / "sources.npz", source=source, artist=number // 2 % 3
    )
    clips = read_clips(changed, CLASSES)
    group = make_left_out_groups(clips)
    large = clips.source == 0
    assert not set(group[large]) & set(group[~large])
    assert all(len(set(group[clips.source == each])) == 1 for each in clips.source[~large])
    by_artist = [set(group[large & (clips.artist == each)]) for each in range(3)]
    assert [len(groups) for groups in by_artist] == [1, 1, 1]
    assert len(set.union(*by_artist)) == 3


def test_the_lead_lets_no_music_in_doubt_be_refused(features: Path) -> None:
    clips = read_clips(features, CLASSES)
    logits = torch.zeros(len(clips.label), len(LABELS), dtype=torch.float64)
    assert compute_music_lead(clips, logits) == 0
    logits[:, -len(NOT_MUSIC) :] = 5
    logits[:, -len(NOT_MUSIC) :] -= compute_music_lead(clips, logits)
    not_music = logits.softmax(1)[:, -len(NOT_MUSIC) :].sum(1)
    np.testing.assert_allclose(not_music, 0.5)


def test_a_second_fit_gives_the_same_bits_whatever_the_threads(features: Path, head: Head) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        again = fit_head(features, CLASSES)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
    assert {k: v.tobytes() for k, v in again.items()} == {k: v.tobytes() for k, v in head.items()}
