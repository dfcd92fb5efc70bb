"""Genres that are no person's choice."""

import pytest

from tagger.decide import Proposal, decide
from tagger.records import Action, Score, Tags
from tagger.settings import Existing, Settings
from tagger.settings_sources import load_settings

KEEP, REPLACE, APPEND = Existing
PROPOSAL = Proposal(("Jazz",), (Score("Jazz", 0.8),), "musicnn@1")


@pytest.mark.parametrize(
    ("genres", "written", "existing", "expected"),
    [
        (("Other",), (), KEEP, ("Jazz",)),
        (("OTHER ",), (), KEEP, ("Jazz",)),
        (("(255)",), (), KEEP, ("Jazz",)),
        (("No genre", "misc."), (), KEEP, ("Jazz",)),
        (("Other; Unknown",), (), KEEP, ("Jazz",)),
        (("Other",), (), APPEND, ("Jazz",)),
        (("Other",), (), REPLACE, ("Jazz",)),
        (("Other", "Polka"), (), KEEP, None),
        (("Other", "Polka"), (), APPEND, ("Other", "Polka", "Jazz")),
        (("Other Music",), (), KEEP, None),
        (("Other", "Soul"), ("Soul",), KEEP, ("Jazz",)),  # appended behind it by an earlier version
        (("Other",), ("Soul",), KEEP, None),  # a person put it in the place of tagger's
        (("Other",), ("Soul",), APPEND, ("Jazz",)),
        (("Other",), ("Other",), KEEP, ("Jazz",)),  # tagger's own name for a label
    ],
)
def test_decision(
    genres: tuple[str, ...],
    written: tuple[str, ...],
    existing: Existing,
    expected: tuple[str, ...] | None,
) -> None:
    decision = decide(Tags(genres, written), PROPOSAL, Settings(existing=existing))
    assert decision.action is (Action.WRITTEN if expected else Action.KEPT)
    assert (decision.tags.genres if decision.tags else None) == expected


def test_the_list_is_the_users() -> None:
    settings = load_settings({"junk-genres": "Various, MP3"})
    assert settings.junk_genres == ("Various", "MP3")
    assert load_settings({"junk-genres": ""}).junk_genres == ()
    assert load_settings({"junk-genres": ["Foo, Bar"]}).junk_genres == ("Foo, Bar",)
