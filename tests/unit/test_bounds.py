"""The choice of a least score by tracks whose genre is known."""

import random
from pathlib import Path

import pytest
from scipy.stats import binomtest

from tagger.records import MinScore, Score, Track
from tagger.settings import Settings
from tagger.training.calibrate import (
    JudgedTrack,
    ScoredClip,
    Verdict,
    choose_bound,
    choose_bounds,
    compute_wilson_bound,
    count_needed_tracks,
    cross_validate_bounds,
    divide_groups,
    judge_track,
    measure_bound,
)
from tagger.training.clips import Clip


def jazz(score: float, *, right: bool = True, group: str = "") -> JudgedTrack:
    return JudgedTrack("Jazz", score, right, group)


@pytest.mark.parametrize(("right", "tracks"), [(0, 10), (45, 50), (50, 50), (1, 3)])
def test_wilsons_bound_is_that_of_scipy(right: int, tracks: int) -> None:
    both_sides = binomtest(right, tracks).proportion_ci(0.9, method="wilson")
    assert compute_wilson_bound(right, tracks) == pytest.approx(float(both_sides.low), abs=1e-3)


@pytest.mark.parametrize("precision", [0.5, 0.8, 0.9, 0.95])
def test_so_many_right_tracks_are_needed_and_no_fewer(precision: float) -> None:
    needed = count_needed_tracks(precision)
    assert compute_wilson_bound(needed, needed) >= precision
    assert compute_wilson_bound(needed - 1, needed - 1) < precision


def test_the_smallest_bound_that_shows_the_precision_is_chosen() -> None:
    tracks = [jazz(0.7)] * 30 + [jazz(0.52, right=False)] * 10 + [jazz(0.95)] * 10
    found = choose_bound("Jazz", tracks, default=0.4, precision=0.9)
    assert (found.bound, found.verdict) == (0.55, Verdict.REACHED)
    assert (found.chosen.tracks, found.chosen.written, found.chosen.right) == (50, 40, 40)
    assert [point.result.written for point in found.curve][:6] == [50, 50, 50, 50, 50, 40]


def test_three_tracks_prove_nothing() -> None:
    few = choose_bound("Jazz", [jazz(0.9)] * 3, default=0.4, precision=0.9)
    assert (few.bound, few.verdict) == (0.4, Verdict.TOO_FEW)
    choice = choose_bounds([jazz(0.9)] * 3, usual=0.45, precision=0.9)
    assert choice.min_score == MinScore(0.45)


def test_a_genre_that_shows_nothing_gets_the_bound_of_all() -> None:
    rock = [JudgedTrack("Rock", 0.72, is_right=n % 2 == 0, group="") for n in range(40)]
    rock += [JudgedTrack("Rock", 0.9, is_right=True, group="")] * 5
    choice = choose_bounds([jazz(0.5), jazz(0.8)] * 60 + rock, usual=0.4, precision=0.9)
    assert choice.common.bound == 0.75
    assert choice.min_score == MinScore(0.75, {"Jazz": 0.3})
    found = {each.genre: (each.verdict, each.bound) for each in choice.genres}
    assert found["Rock"] == (Verdict.NOT_REACHED, 0.75)


def test_if_no_bound_shows_it_the_nearest_one_is_for_all() -> None:
    tracks = [jazz(0.5, right=n % 2 == 0) for n in range(60)] + [jazz(0.82)] * 15
    choice = choose_bounds(tracks, usual=0.4, precision=0.9)
    assert choice.common.verdict is Verdict.NOT_REACHED
    assert choice.min_score == MinScore(0.55)  # the smallest of the bounds that do best


def test_tracks_without_music_are_never_written() -> None:
    silent = JudgedTrack("", 0.0, is_right=False, group="")
    assert measure_bound([silent, jazz(0.5)], MinScore(0)).written == 1
    assert choose_bounds([silent], usual=0.4, precision=0.9).genres == ()


def test_albums_stay_whole_and_the_parts_are_of_a_size() -> None:
    tracks = [jazz(0.5, group=f"album {n % 7}") for n in range(70)]
    parts = divide_groups(tracks, 5)
    assert set(parts) == {f"album {n}" for n in range(7)}
    assert set(parts.values()) == set(range(5))


def test_left_out_albums_show_that_luck_does_not_last() -> None:
    chance = random.Random(0)
    lucky = [
        jazz(chance.uniform(0.3, 1), right=chance.random() < 0.75, group=str(n // 4))
        for n in range(400)
    ]
    check = cross_validate_bounds(lucky, usual=0.4, precision=0.9)
    assert check
    assert check.parts == 5
    assert check.usual.tracks == check.by_genre.tracks == check.common.tracks == 400
    assert check.by_genre.precision < 0.9  # no bound helps: the scores say nothing
    honest = [jazz(n % 100 / 100, right=n % 100 >= 60, group=str(n // 10)) for n in range(1000)]
    check = cross_validate_bounds(honest, usual=0.4, precision=0.9)
    assert check
    assert check.by_genre.precision > 0.9 > check.usual.precision
    assert cross_validate_bounds([jazz(0.5)] * 9, usual=0.4, precision=0.9) is None


def test_a_track_is_judged_by_what_a_scan_would_write() -> None:
    track = Track(Path("/a/1.mp3"), 1, 1, 1)
    clip = Clip(track, ("Hip-Hop", "Soul"), album="/a/Title")
    settings = Settings(genre_map={"rap": "Hip Hop; Urban"})
    scores = (Score("rap", 0.6), Score("speech", 0.3), Score("Rock", 0.1))
    found = judge_track(ScoredClip(clip, scores), {"speech"}, settings)
    assert found == JudgedTrack("Hip Hop; Urban", 0.6, is_right=True, group="/a/Title")
    assert judge_track(ScoredClip(clip, scores), {"rap", "speech"}, Settings()).genre == ""
    no_music = (Score("speech", 0.6), Score("rap", 0.4))
    assert judge_track(ScoredClip(clip, no_music), {"speech"}, settings).genre == ""
