"""Styles, moods and voices: how their layer is fitted, and from the network to the state file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from docs.bundled_model import fit_attributes
from docs.bundled_model.fit_attributes import MOODS, STYLE_NAMES, STYLES, VOICES, make_style_map
from docs.bundled_model.fit_head import TAG_WEIGHTS, list_tags, read_class_names
from tagger.decide import choose_styles
from tagger.models import find_model
from tagger.models.loading import load_classifier
from tagger.records import Attributes, Prediction, Score
from tagger.settings import Settings
from tagger.state import open_state
from tagger.storage import look_up
from tests.builders import build_audio

CLASSES = read_class_names()


def test_each_style_belongs_to_a_genre_of_the_model() -> None:
    assert {style.genre for style in STYLES.values()} <= set(TAG_WEIGHTS)
    assert not {*STYLES, *MOODS, *VOICES} & set(TAG_WEIGHTS)


def test_a_style_is_as_likely_as_not_where_its_tag_is_seven_times_as_likely() -> None:
    mean = torch.full((len(list_tags(CLASSES)),), 0.01, dtype=torch.float64)
    lift = (mean * np.e**2) @ make_style_map(mean, CLASSES).T
    score = (lift.log() - fit_attributes.STYLE_LOG_LIFT).sigmoid()
    np.testing.assert_allclose(score, 0.5, atol=1e-3)


def test_a_regression_finds_what_separates_two_classes() -> None:
    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(rng.normal(3, 1, (400, 5)))
    label = (inputs[:, 2] > 3).long()
    weight, bias = fit_attributes.fit_regression(inputs, label, 0.01)
    assert ((inputs @ weight.T + bias).argmax(1) == label).double().mean() > 0.97
    difference = (weight[1] - weight[0]).abs()
    assert difference.argmax() == 2
    strong, _ = fit_attributes.fit_regression(inputs, label, 10)
    assert (strong[1] - strong[0]).abs().max() < difference.max()


def test_the_bundled_model_splits_its_logits() -> None:
    settings = Settings()
    classifier = load_classifier(find_model(settings), settings)
    genres, labels = len(classifier.labels), classifier.attribute_labels
    assert (tuple(labels.styles), labels.moods, labels.voices) == (
        tuple(STYLE_NAMES),
        MOODS,
        VOICES,
    )
    assert labels.styles["House"] == "Electronic"
    logits = torch.full((genres + len(STYLES) + len(MOODS) + len(VOICES),), -3.0)
    house = genres + STYLE_NAMES.index("House")
    logits[house], logits[-len(VOICES) - 1], logits[-1] = 2.0, 4.0, 5.0
    attributes = classifier.make_attributes(logits)
    groups = (attributes.styles, attributes.moods, attributes.voices)
    assert [scores[0].genre for scores in groups] == ["House", "Calm", "Male vocals"]
    assert attributes.styles[0].probability == pytest.approx(torch.tensor(2.0).sigmoid().item())
    for scores in (attributes.moods, attributes.voices, classifier.make_scores(logits)):
        assert sum(score.probability for score in scores) == pytest.approx(1)


def test_a_style_is_given_only_under_its_genre() -> None:
    styles = (Score("House", 0.9), Score("Ska", 0.8), Score("Techno", 0.4))
    genre_by_style = {"House": "Electronic; Dance", "Ska": "Reggae", "Techno": "Electronic"}
    assert choose_styles(styles, genre_by_style, ("Dance",)) == ("House",)
    assert choose_styles(styles, genre_by_style, ("Reggae", "Electronic")) == ("House", "Ska")
    assert choose_styles(styles, genre_by_style, ("Rock",)) == ()


def test_the_state_file_keeps_attributes_with_the_scores(tmp_path: Path) -> None:
    track = look_up(build_audio(tmp_path / "a.flac", seconds=2))
    assert track
    attributes = Attributes((Score("House", 0.9),), (Score("Calm", 0.7),), (Score("Male", 0.6),))
    prediction = Prediction(track, (Score("Rock", 1.0),), "model", 2.0, attributes=attributes)
    with open_state(tmp_path / "state.sqlite") as state:
        state.save_prediction(prediction, windows=0)
        assert state.load_track(track, model="model", windows=0).attributes == attributes
        state.save_prediction(replace(prediction, attributes=Attributes()), windows=0)
        assert state.load_track(track, model="model", windows=0).attributes == Attributes()
