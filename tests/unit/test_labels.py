"""Labels of a model under the user's names."""

from pathlib import Path

import pytest

from tagger.labels import (
    find_unknown_genres,
    list_genre_names,
    list_label_names,
    list_no_genres,
    name_scores,
    relabel,
)
from tagger.records import MinScore, Score
from tagger.settings import NotMusic, Settings
from tagger.vocabulary import normalize_genres, read_vocabulary


def test_labels_with_one_name_add_up_and_labels_without_fall_out() -> None:
    scores = (Score("Metal", 0.375), Score("Punk", 0.25), Score("rock", 0.25), Score("Pop", 0.125))
    named = relabel(scores, {"punk": "Loud", "rock": "Loud", "metal": ""})
    assert named == (Score("Loud", 0.5), Score("Pop", 0.125))


def test_genres_with_a_bound_are_those_that_the_genre_map_gives() -> None:
    settings = Settings(genre_map={"disco": "Dance", "folk": "Folk; World", "speech": "Spoken"})
    labels = ("disco", "folk", "hiphop", "speech", "noise")
    genres = list_genre_names(settings, labels, {"speech", "noise"})
    assert genres == ("Dance", "Folk", "World", "Hip-Hop", "Spoken")
    names = list_label_names(settings, labels, {"speech", "noise"})
    assert names == ("Dance", "Folk; World", "Hip-Hop", "Spoken")
    bounds = MinScore(
        0.4, {"World": 0.5, "hip-hop": 0.5, "Disco": 0.5, "noise": 0.5, "Folk;World": 0.5}
    )
    assert find_unknown_genres(bounds, names) == ("Disco", "noise")


SPEECH = (Score("Speech", 0.9), Score("Rock", 0.1))


@pytest.mark.parametrize(
    ("text", "not_music", "named"),
    [
        ("[genres.Talk]\naliases = ['Spoken Word']", NotMusic.TAG, "Talk"),
        ("[genres.Speech]\naliases = ['Spoken Word']", NotMusic.TAG, "Speech"),
        ("[genres.Rock]", NotMusic.TAG, "Spoken Word"),
        ("drop = ['Spoken Word']", NotMusic.TAG, None),
        ("[genres.Talk]\naliases = ['Spoken Word', 'Speech']", NotMusic.SKIP, None),
    ],
)
def test_a_vocabulary_names_speech_as_normalize_does(
    tmp_path: Path, text: str, not_music: NotMusic, named: str | None
) -> None:
    (tmp_path / "mine.toml").write_text(text)
    vocabulary = read_vocabulary(tmp_path / "mine.toml")
    settings = Settings(vocabulary=vocabulary, not_music=not_music)
    best = name_scores(SPEECH, settings, {"Speech"})[0].genre
    no_genres = list_no_genres({"Speech"}, settings)
    assert (best in no_genres) == (named is None)
    assert best == named or named is None
    if named:
        assert normalize_genres(["Spoken Word"], vocabulary) == (named,)
        assert named in list_genre_names(settings, ["Speech", "Rock"], {"Speech"})
