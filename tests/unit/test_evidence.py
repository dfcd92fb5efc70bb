"""How the scores of a track and what other tracks say become one."""

import shutil
from pathlib import Path

import pytest

from tagger.evidence import (
    ContextWeights,
    Evidence,
    find_labels,
    index_labels,
    pool_with_evidence,
)
from tagger.records import Album, Score, Tags
from tagger.scanning.context import describe_evidence
from tagger.settings import Context
from tagger.state import ContextMember, context, make_album_key, open_state
from tagger.storage import look_up
from tagger.vocabulary import load_default_vocabulary

OWN = (Score("Rock", 0.5), Score("Jazz", 0.3), Score("Speech", 0.15), Score("Pop", 0.05))
WEIGHTS = ContextWeights(scores=0.5, scores_smoothing=4, genres=1, genres_smoothing=4)


def pool(evidence: Evidence) -> dict[str, float]:
    pooled = pool_with_evidence(OWN, evidence, {"Speech"}, WEIGHTS)
    return {score.genre: score.probability for score in pooled}


def test_without_evidence_the_scores_stay() -> None:
    assert pool_with_evidence(OWN, Evidence(), {"Speech"}, WEIGHTS) == OWN


def test_an_even_vote_changes_nothing() -> None:
    even = Evidence(
        3, 3, dict.fromkeys(("Rock", "Jazz", "Pop"), 1.0), {"Rock": 1, "Jazz": 1, "Pop": 1}
    )
    assert pool(even) == pytest.approx({score.genre: score.probability for score in OWN})


def test_music_keeps_its_share_and_what_is_no_music_its_score() -> None:
    pooled = pool(Evidence(named=9, genres={"Jazz": 9}))
    assert pooled["Speech"] == 0.15
    assert sum(pooled.values()) == pytest.approx(1)
    assert max(pooled, key=pooled.__getitem__) == "Jazz"


def test_more_tracks_say_more() -> None:
    shares = [pool(Evidence(named=n, genres={"Pop": n}))["Pop"] for n in (1, 2, 5, 20)]
    assert shares == sorted(shares)
    shares = [pool(Evidence(scored=n, scores={"Pop": 0.8 * n}))["Pop"] for n in (1, 2, 5, 20)]
    assert shares == sorted(shares)


def test_the_size_of_the_factor_is_that_of_the_formula() -> None:
    pooled = pool(Evidence(named=2, genres={"Jazz": 2}))
    assert pooled["Jazz"] / pooled["Rock"] == pytest.approx(0.3 / 0.5 * (2 + 4 / 3) / (4 / 3))


def test_a_track_is_taken_out_of_its_group() -> None:
    one = Evidence(1, 1, {"Rock": 0.7, "Jazz": 0.3}, {"Rock": 1}, {"Rock": 1})
    assert not one - one
    assert (one + one) - one == one


def test_genres_are_found_by_any_spelling_and_by_the_names_of_the_user() -> None:
    index = index_labels(
        ["Hip-Hop", "Rock", "Pop", "Techno", "House", "Noise"],
        {"rock": "Pop", "pop": "Dance", "techno": "Club", "house": "Club", "noise": ""},
    )

    def find(genres: list[str]) -> list[str]:
        return find_labels(genres, index, load_default_vocabulary())

    assert find(["hip hop"]) == ["Hip-Hop"]
    assert find(["Pop"]) == ["Rock"]  # as the user calls it
    assert find(["Rock"]) == ["Rock"]
    assert find(["club"]) == ["Techno", "House"]
    assert find(["Noise"]) == []
    assert find(["Zydeco", "Rap/Hip-Hop"]) == ["Hip-Hop"]
    assert find(["Minimal Techno"]) == ["Techno"]  # which is above it
    assert find(["Fado", "Dance;Rock"]) == ["Pop"]


def test_the_remark_says_what_decided() -> None:
    evidence = Evidence(
        9, 4, genres={"Reggae": 3, "Pop": 1}, best={"Rock": 5, "Jazz": 1, "Blues": 3}
    )
    assert describe_evidence(evidence, Context.ARTIST, "Reggae", ["Reggae"]) == (
        "artist: 3 tracks Reggae"
    )
    assert describe_evidence(evidence, Context.ALBUM, "Pop", ["Pop"]) == "album: 1 track Pop"
    assert describe_evidence(evidence, Context.ALBUM, "Rock", ["Rock"]) == (
        "album: 5 tracks sound like Rock"
    )
    assert describe_evidence(evidence, Context.ALBUM, "Jazz", ["Jazz"]) == (
        "album: 1 track sounds like Jazz"
    )
    assert describe_evidence(evidence, Context.ALBUM, "Metal", ["Metal"]) == (
        "album: the scores of 9 tracks"
    )


def test_the_members_of_a_library_are_read_in_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "PAGE_ROWS", 2)

    def make_member(path: bytes, tags: Tags) -> ContextMember | None:
        assert tags.album
        return ContextMember(make_album_key(path, tags.album.title), b"spear", tags.genres)

    with open_state(tmp_path / "state.sqlite") as state:
        for number in range(5):
            path = tmp_path / f"{number}.flac"
            path.write_bytes(bytes([number]))
            track = look_up(path)
            assert track
            state.save_tags(track, Tags((f"Genre {number}",), album=Album("Spear", "Marcus")))
        for _ in range(2):
            state.context.fill(make_member, lambda _: False)
            found = list(state.context.list_artist(b"spear", model="m", windows=0))
            assert [each.member.labels for each in found] == [(f"Genre {n}",) for n in range(5)]
        key = make_album_key(bytes(tmp_path / "x.flac"), "Marcus")
        assert list(state.context.list_album(key, model="m", windows=0)) == found
        assert not list(state.context.list_artist(b"other", model="m", windows=0))


def test_a_file_that_another_replaced_has_no_say(tmp_path: Path) -> None:
    old, new = tmp_path / "old.flac", tmp_path / "new.flac"
    with open_state(tmp_path / "state.sqlite") as state:
        for path in (old, new):
            path.write_bytes(path.name.encode())
            track = look_up(path)
            assert track
            state.save_tags(track, Tags((path.stem,), album=Album("Spear", "Marcus")))
        shutil.move(old, new)
        moved = look_up(new)
        assert moved
        assert state.load_track(moved, model="m", windows=0).tags
        state.context.fill(
            lambda _, tags: ContextMember(b"", b"spear", tags.genres), lambda _: False
        )
        found = list(state.context.list_artist(b"spear", model="m", windows=0))
        assert [each.member.labels for each in found] == [("old",)]
