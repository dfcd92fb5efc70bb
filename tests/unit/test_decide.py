"""What becomes of a track, by the table "Which genre stays" of docs/files.md."""

from dataclasses import replace

import pytest

from tagger.decide import (
    RULES,
    GenreOrigin,
    Proposal,
    choose_genres,
    decide,
    find_genre_origin,
    find_user_genres,
    is_music,
)
from tagger.records import Action, MinScore, Score, Tags
from tagger.settings import Existing, Settings

MODEL = "musicnn@1"
BEST = (Score("Jazz", 0.8), Score("Blues", 0.1))
PROPOSAL = Proposal(("Jazz",), BEST, MODEL)


def ours(*genres: str, before: tuple[str, ...] = ()) -> Tags:
    """Tags as tagger leaves them for BEST; `genres` as somebody edited them since."""
    return Tags(
        genres=genres or (*before, "Jazz"),
        written=("Jazz",),
        scores="Jazz=0.800;Blues=0.100",
        model=MODEL,
    )


KEEP, REPLACE, APPEND = Existing.KEEP, Existing.REPLACE, Existing.APPEND
NONE, USER, OURS = Tags(), Tags(genres=("Rock",)), ours()
OLDER = Tags(("Soul",), ("Soul",), "Soul=0.500", "musicnn@0")
APPENDED, EDITED = ours(before=("Rock",)), ours("Swing")
REMOVED = Tags(written=("Jazz",), scores="Jazz=0.800", model=MODEL)


@pytest.mark.parametrize(
    ("tags", "existing", "action", "genres"),
    [
        (NONE, KEEP, Action.WRITTEN, ("Jazz",)),
        (NONE, REPLACE, Action.WRITTEN, ("Jazz",)),
        (NONE, APPEND, Action.WRITTEN, ("Jazz",)),
        (USER, KEEP, Action.KEPT, None),
        (USER, REPLACE, Action.WRITTEN, ("Jazz",)),
        (USER, APPEND, Action.WRITTEN, ("Rock", "Jazz")),
        (OURS, KEEP, Action.UNCHANGED, ("Jazz",)),
        (OURS, REPLACE, Action.UNCHANGED, ("Jazz",)),
        (OURS, APPEND, Action.UNCHANGED, ("Jazz",)),
        (OLDER, KEEP, Action.WRITTEN, ("Jazz",)),
        (OLDER, APPEND, Action.WRITTEN, ("Jazz",)),
        (APPENDED, KEEP, Action.KEPT, None),
        (APPENDED, APPEND, Action.UNCHANGED, ("Rock", "Jazz")),
        (APPENDED, REPLACE, Action.WRITTEN, ("Jazz",)),
        (OLDER, REPLACE, Action.WRITTEN, ("Jazz",)),
        (EDITED, KEEP, Action.KEPT, None),
        (EDITED, APPEND, Action.WRITTEN, ("Swing", "Jazz")),
        (EDITED, REPLACE, Action.WRITTEN, ("Jazz",)),
        (ours("Jazz", "Swing"), KEEP, Action.KEPT, None),
        (ours("Jazz", "Swing"), APPEND, Action.KEPT, None),
        (Tags(genres=("jazz",)), APPEND, Action.KEPT, None),
        (REMOVED, KEEP, Action.KEPT, None),
        (REMOVED, APPEND, Action.WRITTEN, ("Jazz",)),
        (REMOVED, REPLACE, Action.WRITTEN, ("Jazz",)),
    ],
)
def test_decision(
    tags: Tags, existing: Existing, action: Action, genres: tuple[str, ...] | None
) -> None:
    decision = decide(tags, PROPOSAL, Settings(existing=existing))
    assert decision.action is action
    assert (decision.tags.genres if decision.tags else None) == genres
    if decision.tags:
        assert decision.tags.written == ("Jazz",)
        assert decision.tags.scores == "Jazz=0.800;Blues=0.100"
        assert decision.tags.model == MODEL


def test_a_genre_removed_by_hand_stays_removed_and_the_row_says_so() -> None:
    decision = decide(REMOVED, PROPOSAL, Settings(existing=KEEP))
    assert "removed by hand" in decision.reason


@pytest.mark.parametrize(("min_score", "action"), [(0.8, Action.WRITTEN), (0.81, Action.LOW_SCORE)])
def test_nothing_is_written_below_the_minimum(min_score: float, action: Action) -> None:
    decision = decide(NONE, replace(PROPOSAL, min_score=min_score), Settings())
    assert decision.action is action


def test_a_map_that_drops_every_label_leaves_nothing_to_write() -> None:
    nothing = Proposal((), (), MODEL)
    assert decide(NONE, nothing, Settings()).action is Action.LOW_SCORE


def test_what_was_written_once_is_theirs_again_after_any_edit() -> None:
    assert find_user_genres(OURS) == ()
    assert find_user_genres(APPENDED) == ("Rock",)
    assert find_user_genres(EDITED) == ("Swing",)
    assert find_user_genres(ours("Jazz", "Rock")) == ("Jazz", "Rock")


def test_every_origin_has_a_rule_for_every_setting() -> None:
    assert set(RULES) == set(GenreOrigin)
    assert all(set(rules) == set(Existing) for rules in RULES.values())


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (NONE, GenreOrigin.NONE),
        (USER, GenreOrigin.USER),
        (EDITED, GenreOrigin.USER),
        (ours("Jazz", "Swing"), GenreOrigin.USER),
        (ours("jazz"), GenreOrigin.USER),
        (OURS, GenreOrigin.TAGGER),
        (APPENDED, GenreOrigin.BOTH),
        (REMOVED, GenreOrigin.REMOVED),
    ],
)
def test_whose_genre_stands_in_a_file(tags: Tags, expected: GenreOrigin) -> None:
    assert find_genre_origin(tags) is expected


MANY = (Score("Jazz", 0.8), Score("Soul", 0.6), Score("Funk", 0.5), Score("Pop", 0.1))


@pytest.mark.parametrize(
    ("most", "min_score", "genres"),
    [
        (1, 0.5, ("Jazz",)),
        (2, 0.5, ("Jazz", "Soul")),
        (9, 0.5, ("Jazz", "Soul", "Funk")),
        (9, 0.7, ("Jazz",)),
        (9, 0.9, ("Jazz",)),  # for the report: `decide` writes nothing then
    ],
)
def test_up_to_so_many_genres_that_are_likely_enough(
    most: int, min_score: float, genres: tuple[str, ...]
) -> None:
    assert choose_genres(MANY, most=most, min_score=MinScore(min_score)) == genres


def test_of_several_genres_only_the_new_ones_are_appended_and_count_as_ours() -> None:
    proposal = Proposal(("Jazz", "Soul", "Funk"), MANY, MODEL)
    decision = decide(Tags(genres=("soul",)), proposal, Settings(existing=APPEND))
    assert decision.tags
    assert decision.tags.genres == ("soul", "Jazz", "Funk")
    assert decision.tags.written == ("Jazz", "Funk")
    again = decide(decision.tags, proposal, Settings(existing=APPEND))
    assert again.action is Action.UNCHANGED
    fewer = decide(decision.tags, PROPOSAL, Settings(existing=APPEND))
    assert fewer.tags
    assert fewer.tags.genres == ("soul", "Jazz")


BOUNDS = MinScore(0.4, {"hip hop": 0.6, "Folk": 0.2, "House; Electronic": 0.3})


@pytest.mark.parametrize(
    ("genre", "bound"),
    [
        ("Hip-Hop", 0.6),
        ("folk", 0.2),
        ("Jazz", 0.4),
        ("Folk; Jazz", 0.4),
        ("Folk; HipHop", 0.6),
        ("House; Electronic", 0.3),
        ("house;electronic", 0.3),
        ("House", 0.4),
        ("Electronic", 0.4),
    ],
)
def test_a_genre_has_its_own_bound_in_any_spelling(genre: str, bound: float) -> None:
    assert BOUNDS.get(genre) == bound
    assert MinScore(0.3).get(genre) == 0.3


@pytest.mark.parametrize(
    ("scores", "genres"),
    [
        ({"Hip-Hop": 0.59, "Folk": 0.3}, ("Hip-Hop",)),  # the best one, which then is a low score
        ({"Hip-Hop": 0.61, "Folk": 0.3}, ("Hip-Hop", "Folk")),
        ({"Jazz": 0.5, "Hip-Hop": 0.45, "Folk": 0.1}, ("Jazz",)),
        ({"Folk": 0.25, "Jazz": 0.24}, ("Folk",)),
    ],
)
def test_no_genre_follows_a_better_one_that_misses_its_bound(
    scores: dict[str, float], genres: tuple[str, ...]
) -> None:
    ranked = [Score(*item) for item in scores.items()]
    assert choose_genres(ranked, most=3, min_score=BOUNDS) == genres


def test_only_a_bound_of_zero_for_all_makes_speech_music() -> None:
    speech = [Score("speech", 0.9), Score("Jazz", 0.1)]
    assert is_music(speech, {"speech"}, MinScore(0))
    assert not is_music(speech, {"speech"}, MinScore(0, {"Jazz": 0.5}))
    assert not is_music(speech, {"speech"}, MinScore(0.1))
