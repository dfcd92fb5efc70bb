"""A vocabulary: what its file may say, and how it names genres."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutagen.id3 import TCON

from tagger.decide import find_genre_origin, rename_genres
from tagger.errors import SettingsError
from tagger.labels import SPEECH_NAMES
from tagger.models import find_model
from tagger.paths import RemotePath
from tagger.records import Tags
from tagger.settings import JUNK_GENRES, Profile, Settings
from tagger.vocabulary import (
    ID3V1_GENRES,
    ParentUse,
    Rule,
    Vocabulary,
    load_default_vocabulary,
    make_key,
    name_genres,
    normalize_genres,
    read_vocabulary,
)

OWN = """
drop = ["Stuff"]
[genres."Hip-Hop"]
aliases = ["Rap/Hip-Hop", "HipHop/Rap"]
patterns = ['(?i)rap\\b.*']
[genres.Electronic]
[genres.House]
parent = "Electronic"
[genres."Deep House"]
parent = "House"
[genres."Folk, World & Country"]
aliases = ["Folk, World, & Country"]
[genres.Folk]
[[rules]]
folder = "Soundtracks/**"
genre = "Soundtrack"
[[rules]]
artist = "Radiohead"
keep = true
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, "utf-8")
    return path


@pytest.fixture
def own(tmp_path: Path) -> Vocabulary:
    return read_vocabulary(write(tmp_path, OWN))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('dropp = ["x"]', "the file has an unknown key: dropp"),
        ('drop = "Other"', "drop must be a list of texts"),
        ("drop = [1]", "drop must be a list of texts"),
        ('drop = ["; "]', "drop has a text that is empty"),
        ("genres = 3", "genres must be tables"),
        ("[genres]\nRock = 3", 'genres."Rock" must be a table'),
        ("[genres.Rock]\nalias = []", 'genres."Rock" has an unknown key: alias'),
        ("[genres.Rock]\naliases = 'Rawk'", 'genres."Rock".aliases must be a list'),
        (
            "[genres.Rock]\npatterns = ['(']",
            "genres.\"Rock\".patterns has '(', which is no regular",
        ),
        ("[genres.Rock]\nparent = 'Musik'", 'genres."Rock".parent must be the name of a genre'),
        ("[genres.Rock]\nparent = 7", 'genres."Rock".parent must be the name of a genre'),
        ("[genres.Rock]\nparent = 'Rock'", "goes in a circle: Rock under Rock"),
        (
            "[genres.A]\nparent='B'\n[genres.B]\nparent='C'\n[genres.C]\nparent='A'",
            "goes in a circle: A under B under C under A",
        ),
        ("[genres.Rock]\naliases=['x']\n[genres.Pop]\naliases=['X']", "which Rock has already"),
        ("drop=['x']\n[genres.Rock]\naliases=['x']", "drop has 'x', which Rock has already"),
        ("[genres.Rock]\n[genres.Pop]\naliases=['ROCK!']", 'of its own: remove [genres."Rock"]'),
        ("drop=['rock']\n[genres.Rock]", "drop has 'rock', which has an entry of its own: remove"),
        ("[genres.17]", 'genres."17" is no name that tags can hold'),
        ("[genres.'(17)']", "is no name that tags can hold"),
        ("[genres.'Rock; Pop']", "is no name that tags can hold"),
        ("[genres.' Rock']", "must be a name on one line"),
        ("[genres.'']", "must be a name on one line"),
        ("parents = 'all'", "parents must be one of leave, add, replace, narrow, not 'all'"),
        ("extends = 'mine'", 'extends must be "default"'),
        ("rules = 1", "rules must be tables"),
        ("[[rules]]\ngenre = 'Pop'", "rule 1 must have a folder or an artist"),
        ("[[rules]]\nfolder = 'a'", "rule 1 must have either a genre or keep = true"),
        (
            "[[rules]]\nfolder = 'a'\ngenre = 'Pop'\nkeep = true",
            "rule 1 must have either a genre or keep = true",
        ),
        ("[[rules]]\nfolder = ''\nkeep = true", "rule 1: folder must be a text"),
        ("[[rules]]\nartist = 3\nkeep = true", "rule 1: artist must be a text"),
        ("[[rules]]\nartist = 'x'\nkeep = 'yes'", "rule 1: keep must be true or false"),
        ("[[rules]]\nartist = 'x'\ngenre = 3", "rule 1: genre must be a list of texts"),
        ("[[rules]]\nartist = 'x'\ngenre = '200'", "rule 1: genre is no name that tags can hold"),
        ("[[rules]]\nartist = 'x'\nlabel = 'y'", "rule 1 has an unknown key: label"),
        ("drop=['x']\n[[rules]]\nfolder='a'\ngenre='X'", "rule 1: genre has nothing but dropped"),
        ("a = ", "is no valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_its_key(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SettingsError) as error:
        read_vocabulary(write(tmp_path, text))
    assert words in str(error.value)
    assert "mine.toml" in str(error.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("hip hop", ("Hip-Hop",)),
        ("HIPHOP", ("Hip-Hop",)),
        ("Rap/Hip Hop", ("Hip-Hop",)),
        ("Rap, Hip-Hop", ("Hip-Hop",)),
        ("Rap Francais", ("Hip-Hop",)),
        ("Rap;House", ("Hip-Hop", "House")),
        ("Rapcore", ("Rapcore",)),
        ("house/electronic", ("House", "Electronic")),
        ("House/Swamp", ("House/Swamp",)),
        ("House, Swamp", ("House", "Swamp")),
        ("Swamp, Mud", ("Swamp, Mud",)),
        ("Swamp|House\\Mud", ("Swamp", "House", "Mud")),
        ("House\0house\0Folk", ("House", "Folk")),
        ("Folk, World, & Country", ("Folk, World & Country",)),
        ("House, Folk, World & Country, Folk", ("House", "Folk, World & Country", "Folk")),
        (" ;; ", ()),
        ("Stuff", ()),
        ("House/Stuff", ("House",)),
        ("  Foo \n Bar\ufeff", ("Foo Bar",)),
        ("17", ("Rock",)),
        ("(17)", ("Rock",)),
        ("(35)House", ("House",)),
        ("(35) (17)Swamp", ("House", "Rock", "Swamp")),
        ("(RX)", ("Remix",)),
        ("200", ("200",)),
        ("1987", ("1987",)),
        ("(80s)", ("(80s)",)),
    ],
)
def test_names(own: Vocabulary, value: str, expected: tuple[str, ...]) -> None:
    assert normalize_genres([value], own) == expected


def test_what_is_not_known_is_told_apart(own: Vocabulary) -> None:
    found = {genre.name: genre.is_known for genre in name_genres(["house;Swamp"], own)}
    assert found == {"House": True, "Swamp": False}


def test_junk_is_dropped_but_what_the_vocabulary_wants_is_not(tmp_path: Path) -> None:
    mine = read_vocabulary(write(tmp_path, "[genres.Other]"))
    assert normalize_genres(["other", "Misc.", "(255)", "N/A", "(12)"], mine, JUNK_GENRES) == (
        "Other",
    )
    assert normalize_genres(["other", "(12)"], Vocabulary(), JUNK_GENRES) == ()


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        ("leave", ("Deep House", "Folk")),
        ("add", ("Deep House", "House", "Electronic", "Folk")),
        ("replace", ("Electronic", "Folk")),
        ("narrow", ("Deep House", "Folk")),
    ],
)
def test_parents(tmp_path: Path, use: str, expected: tuple[str, ...]) -> None:
    mine = read_vocabulary(write(tmp_path, f'parents = "{use}"\n{OWN}'))
    assert normalize_genres(["deep house; Folk; Electronic"], mine)[:2] == expected[:2]
    assert set(normalize_genres(["deep house; Folk"], mine)) == set(expected)


@pytest.mark.parametrize(
    ("path", "artist", "rule"),
    [
        ("/music/Soundtracks/Alien/1.mp3", "", 1),
        ("/music/Soundtracks/1.mp3", "Radiohead", 1),
        ("/music/My Soundtracks/1.mp3", "", 0),
        ("/music/Soundtracks.mp3", "", 0),
        ("/music/Rock/1.mp3", "radiohead", 2),
        ("/music/Rock/1.mp3", "Radio", 0),
    ],
)
def test_the_first_rule_that_applies_counts(
    own: Vocabulary, path: str, artist: str, rule: int
) -> None:
    assert own.find_rule(Path(path), artist) == (None, *own.rules)[rule]


@pytest.mark.parametrize("folder", ["s3://bucket/Soundtracks", "Soundtracks", "bucket/Soundtracks"])
def test_a_rule_may_name_a_folder_on_a_server(tmp_path: Path, folder: str) -> None:
    own = read_vocabulary(write(tmp_path, f'[[rules]]\nfolder = "{folder}"\nkeep = true'))
    assert own.find_rule(RemotePath("s3://bucket/Soundtracks/a.mp3"), "") == own.rules[0]
    assert own.find_rule(RemotePath("s3://bucket/Rock/a.mp3"), "") is None


@pytest.mark.parametrize(
    ("folder", "applies"),
    [
        ("Sound*", True),
        ("music/Soundtracks", True),
        ("/music", True),
        ("/music/**", True),
        ("/Soundtracks", False),
        ("Alien/**", True),
        ("1.mp3", False),
        ("Café", False),
    ],
)
def test_folders_of_rules(folder: str, applies: bool) -> None:  # noqa: FBT001
    path = Path("/music/Soundtracks/Alien/1.mp3")
    assert Rule(folder=folder, genres=("x",)).applies_to(path, "") == applies


def test_an_own_file_goes_before_the_one_that_it_extends(tmp_path: Path) -> None:
    mine = read_vocabulary(
        write(
            tmp_path,
            """
            extends = "default"
            drop = ["Polka"]
            [genres."Hip Hop"]
            [genres."Electronica"]
            aliases = ["House", "Electronic"]
            [genres."Swamp"]
            parent = "Blues"
            """,
        )
    )
    named = {
        value: normalize_genres([value], mine)
        for value in ("Hip-Hop/Rap", "house music", "Electronic Music", "polka", "Techno", "swamp")
    }
    assert named == {
        "Hip-Hop/Rap": ("Hip Hop",),
        "house music": ("Electronica",),
        "Electronic Music": ("Electronica",),
        "polka": (),
        "Techno": ("Techno",),
        "swamp": ("Swamp",),
    }
    assert (mine.parents["Techno"], mine.parents["Swamp"]) == ("Electronica", "Blues")
    assert mine.parents.get("Electronica") is None


def test_the_vocabulary_of_tagger_is_sound() -> None:
    default = load_default_vocabulary()
    assert default.parent_use is ParentUse.LEAVE
    for name in {*default.names.values()} - {""}:
        assert normalize_genres([name], default) == (name,)
    assert tuple(TCON.GENRES) == ID3V1_GENRES
    unknown = [
        genre.name
        for number in range(len(ID3V1_GENRES))
        for genre in name_genres([f"({number})"], default, JUNK_GENRES)
        if not genre.is_known
    ]
    assert unknown == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Rap/Hip-Hop", "Hip-Hop"),
        ("Rhythm and Blues", "R&B"),
        ("Rhythm 'n' Blues", "R&B"),
        ("R&B/Soul", "R&B"),
        ("Alternative & Punk", "Alternative & Punk"),
        ("Electronica/Dance", "Electronic"),
        ("Drum & Bass", "Drum and Bass"),
        ("Drum, Bass", "Drum and Bass"),
        ("drum n bass", "Drum and Bass"),
        ("Hörbuch", "Audiobook"),
        ("Klassik", "Classical"),
        ("Chanson", "Chanson"),
        ("Filmmusik", "Soundtrack"),
        ("Bande Originale", "Soundtrack"),
        ("musica clasica", "Classical"),
        ("bossa nova", "Bossa Nova"),
        ("JPop", "J-Pop"),
        ("Punk Rock", "Punk Rock"),
        ("Pop Rock", "Pop Rock"),
        ("Pop/Rock", "Pop;Rock"),
        ("Funk / Soul", "Funk;Soul"),
        ("Folk, World, & Country", "Folk, World & Country"),
        ("Singer/Songwriter", "Singer-Songwriter"),
        ("Jazz+Funk", "Jazz-Funk"),
        ("techno (peak time / driving)", "Techno (Peak Time / Driving)"),
        ("Minimal / Deep Tech", "Minimal / Deep Tech"),
        ("Ambient / Experimental", "Ambient;Experimental"),
        ("AlternRock", "Alternative Rock"),
        ("Rock & Roll", "Rock and Roll"),
    ],
)
def test_common_spellings(value: str, expected: str) -> None:
    assert ";".join(normalize_genres([value], load_default_vocabulary())) == expected


def test_what_the_bundled_model_says_has_its_wanted_name_already() -> None:
    source = find_model(Settings())
    music = [label for label in source.labels if label not in source.not_music]
    names = (*music, *source.attribute_labels.styles, *SPEECH_NAMES.values())
    assert normalize_genres(names, load_default_vocabulary()) == names


WORDS = ["rock", "Pop", "rap", "(17)", "255", "R&B", "Soul", "Drum", "Bass", "Other", "ö", "swamp"]
VALUES = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.lists(st.sampled_from([*WORDS, *";/,|\\\0 &-"]), max_size=8).map("".join),
    ),
    max_size=4,
)
NAMES = st.text(st.sampled_from("abAB /,&-é"), min_size=1, max_size=5)


@st.composite
def vocabularies(draw: st.DrawFn) -> Vocabulary:
    """Make any vocabulary in which each wanted name is known under its own spelling."""
    wanted = {make_key(name): " ".join(name.split()) for name in draw(st.lists(NAMES, max_size=5))}
    wanted = {make_key(name): name for name in wanted.values() if make_key(name)}
    names = sorted(wanted.values())
    if not names:
        return Vocabulary()
    chosen = st.sampled_from([*names, ""])
    aliases = draw(st.dictionaries(NAMES.map(make_key).filter(bool), chosen, max_size=6))
    patterns = draw(st.lists(st.tuples(st.sampled_from(["a.*", ".*b", "(?i)b/a"]), chosen)))
    parents = {
        name: names[number - 1]
        for number, name in enumerate(names)
        if number and draw(st.booleans())
    }
    use = draw(st.sampled_from(ParentUse))
    return Vocabulary({**aliases, **wanted}, tuple(patterns), parents, use)


@given(VALUES, st.one_of(vocabularies(), st.just(load_default_vocabulary())))
def test_to_normalize_twice_is_to_normalize_once(values: list[str], mine: Vocabulary) -> None:
    once = normalize_genres(values, mine, JUNK_GENRES)
    assert normalize_genres(once, mine, JUNK_GENRES) == once


@given(
    VALUES,
    VALUES,
    st.booleans(),
    st.one_of(vocabularies(), st.just(load_default_vocabulary())),
    st.sampled_from([Profile.ANY, Profile.PLEX]),
)
def test_a_persons_genre_stays_the_persons(
    user: list[str],
    ours: list[str],
    is_edited: bool,  # noqa: FBT001
    mine: Vocabulary,
    profile: Profile,
) -> None:
    genres = tuple(user) if is_edited else (*user, *ours)
    before, settings = Tags(genres, tuple(ours), "scores", "model"), Settings(profile=profile)
    once = rename_genres(before, settings, mine)
    assert rename_genres(once, settings, mine) == once
    if not find_genre_origin(before).name.startswith(("TAGGER", "BOTH")):
        assert find_genre_origin(once).name not in ("TAGGER", "BOTH")
