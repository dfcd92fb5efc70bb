"""A vocabulary: how a library names its genres. Read it from TOML, and name genres by it.

All functions behind the parser are pure. A genre is found in any spelling: case, accents and
punctuation do not count, but separators do (`Pop/Rock` is two genres, `Pop Rock` is one).
"""

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from tagger.errors import SettingsError
from tagger.options import read_toml, to_path
from tagger.paths import AnyPath
from tagger.records import normalize_label, split_genres

DEFAULT_FILE = Path(__file__).with_name("vocabulary.toml")
"""The vocabulary that comes with tagger."""

ID3V1_GENRES = tuple(
    """Blues|Classic Rock|Country|Dance|Disco|Funk|Grunge|Hip-Hop|Jazz|Metal|New Age|Oldies|Other
Pop|R&B|Rap|Reggae|Rock|Techno|Industrial|Alternative|Ska|Death Metal|Pranks|Soundtrack|Euro-Techno
Ambient|Trip-Hop|Vocal|Jazz+Funk|Fusion|Trance|Classical|Instrumental|Acid|House|Game|Sound Clip
Gospel|Noise|Alt. Rock|Bass|Soul|Punk|Space|Meditative|Instrumental Pop|Instrumental Rock|Ethnic
Gothic|Darkwave|Techno-Industrial|Electronic|Pop-Folk|Eurodance|Dream|Southern Rock|Comedy|Cult
Gangsta Rap|Top 40|Christian Rap|Pop/Funk|Jungle|Native American|Cabaret|New Wave|Psychedelic|Rave
Showtunes|Trailer|Lo-Fi|Tribal|Acid Punk|Acid Jazz|Polka|Retro|Musical|Rock & Roll|Hard Rock|Folk
Folk-Rock|National Folk|Swing|Fast-Fusion|Bebop|Latin|Revival|Celtic|Bluegrass|Avantgarde
Gothic Rock|Progressive Rock|Psychedelic Rock|Symphonic Rock|Slow Rock|Big Band|Chorus
Easy Listening|Acoustic|Humour|Speech|Chanson|Opera|Chamber Music|Sonata|Symphony|Booty Bass|Primus
Porn Groove|Satire|Slow Jam|Club|Tango|Samba|Folklore|Ballad|Power Ballad|Rhythmic Soul|Freestyle
Duet|Punk Rock|Drum Solo|A Cappella|Euro-House|Dance Hall|Goa|Drum & Bass|Club-House|Hardcore
Terror|Indie|BritPop|Afro-Punk|Polsk Punk|Beat|Christian Gangsta Rap|Heavy Metal|Black Metal
Crossover|Contemporary Christian|Christian Rock|Merengue|Salsa|Thrash Metal|Anime|JPop|Synthpop
Abstract|Art Rock|Baroque|Bhangra|Big Beat|Breakbeat|Chillout|Downtempo|Dub|EBM|Eclectic|Electro
Electroclash|Emo|Experimental|Garage|Global|IDM|Illbient|Industro-Goth|Jam Band|Krautrock|Leftfield
Lounge|Math Rock|New Romantic|Nu-Breakz|Post-Punk|Post-Rock|Psytrance|Shoegaze|Space Rock|Trop Rock
World Music|Neoclassical|Audiobook|Audio Theatre|Neue Deutsche Welle|Podcast|Indie Rock|G-Funk
Dubstep|Garage Rock|Psybient""".replace("\n", "|").split("|")
)
"""The genres of ID3v1 and of Winamp, by number."""

MAX_ID3V1_NUMBER = 255
"""An ID3 tag cannot hold a genre that is a number up to this one: others would be read back."""

NUMBERS = re.compile(r"((?:\(\d+\) ?|\(RX\) ?|\(CR\) ?)+)(.*)", re.DOTALL | re.ASCII)
"""Genre numbers as ID3v2 has them: `(17)`, `(4)Eurodisco`, `(51)(39)`."""

ID3V2_WORDS = {"RX": "Remix", "CR": "Cover"}

SURE_SEPARATORS = ("\0", ";", "|", "\\")
"""No name of a genre has these."""

COMMA, SLASH = ",", "/"
"""Names may have these. A comma separates if one of its parts is known, a slash if all are."""

SEPARATORS = (*SURE_SEPARATORS, COMMA, SLASH)

SEPARATOR = re.compile("[" + "".join(map(re.escape, SEPARATORS)) + "]")

MAX_NAME_PARTS = 6
"""No name of a genre has more parts between separators."""

DROPPED = ""
"""The wanted name of what is no genre."""


class ParentUse(StrEnum):
    """What becomes of the parents of a genre in the tree. NARROW drops those that stand there."""

    LEAVE = "leave"
    ADD = "add"
    REPLACE = "replace"
    NARROW = "narrow"


@dataclass(frozen=True, slots=True)
class Rule:
    """What to do with the tracks of a folder or of an artist; of both, if it names both.

    genres: the genres that these tracks get; none: they are kept as they are.
    """

    folder: str = ""
    artist: str = ""
    genres: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = (("folder", self.folder), ("artist", self.artist))
        return ", ".join(f"{name} {value}" for name, value in parts if value)

    def applies_to(self, path: AnyPath, artist: str) -> bool:
        if self.artist and make_key(self.artist) != make_key(artist):
            return False
        return not self.folder or is_in_folder(path, self.folder)


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """The names of genres. Two are equal only if they are the same object, so that it has a hash.

    names: key of each known spelling -> wanted name, or DROPPED. patterns: regular expressions for
    whole names, each with the wanted name. parents: wanted name -> the genre above it.
    source: the file, for the command line.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    patterns: tuple[tuple[str, str], ...] = ()
    parents: Mapping[str, str] = field(default_factory=dict)
    parent_use: ParentUse = ParentUse.LEAVE
    rules: tuple[Rule, ...] = ()
    source: Path = field(default=DEFAULT_FILE, repr=False)

    def __str__(self) -> str:
        return str(self.source)

    @property
    def needs_artist(self) -> bool:
        return any(rule.artist for rule in self.rules)

    @property
    def dropped(self) -> frozenset[str]:
        """The keys of what is no genre."""
        return frozenset(key for key, name in self.names.items() if name == DROPPED)

    def find_rule(self, path: AnyPath, artist: str) -> Rule | None:
        """Return the first rule that applies to a track."""
        return next((rule for rule in self.rules if rule.applies_to(path, artist)), None)

    def has_genre(self, name: str) -> bool:
        """Tell whether a name is a spelling of a wanted genre."""
        return bool(self.names.get(make_key(name)))


@dataclass(frozen=True, slots=True)
class NamedGenre:
    """A genre of a track under its wanted name; under its own name if nobody knows it."""

    name: str
    is_known: bool = True


@lru_cache(maxsize=4096)
def make_key(text: str) -> str:
    """Return a key that is equal for all spellings of a name, with the same parts in their order.

    Accents do not count. Each separator between two parts becomes a slash.
    """
    parts = (part for part in SEPARATOR.split(text) if part.strip())
    return SLASH.join(
        normalize_label(unicodedata.normalize("NFKD", part.strip())) for part in parts
    )


@cache
def make_keys(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(make_key, names))


def is_in_folder(path: AnyPath, pattern: str) -> bool:
    """Tell whether a file is in a folder that a pattern names, or below it.

    A pattern without a slash in front may begin at any folder of the path.
    """
    pattern = pattern.replace("[", "[[]")  # a folder such as "Live [1999]" is no set of letters
    below = pattern if pattern.endswith("*") else f"{pattern.rstrip('/')}/*"
    start = "" if below.startswith("/") or "://" in below else "*/"
    text = unicodedata.normalize("NFC", str(path))  # macOS takes names apart
    return fnmatchcase(text, unicodedata.normalize("NFC", start + below))


UNSHOWN = {"Cc", "Cs"}
"""Control characters, and halves of surrogate pairs."""


def tidy(text: str) -> str:
    """Return a text as one line without spaces at its ends."""
    shown = (" " if unicodedata.category(char) in UNSHOWN else char for char in text)
    return " ".join("".join(shown).replace("\ufeff", " ").split())


def name_genres(
    values: Iterable[str], vocabulary: Vocabulary, junk: tuple[str, ...] = ()
) -> tuple[NamedGenre, ...]:
    """Return the genres of a track under their wanted names, each once.

    values: as they stand in the tags. junk: more names that are no genre, where the vocabulary
    does not want them. Names that the vocabulary does not know come out as they are.
    """
    namer = GenreNamer(vocabulary, make_keys(junk))
    found: dict[str, NamedGenre] = {}
    for value in values:
        for genre in namer.name(value, SEPARATORS):
            for each in namer.add_parents(genre):
                found.setdefault(make_key(each.name), each)
    if vocabulary.parent_use is not ParentUse.NARROW:
        return tuple(found.values())
    names = [genre.name for genre in found.values()]
    above = {parent for name in names for parent in list_parents(vocabulary, name)}
    return tuple(genre for genre in found.values() if genre.name not in above)


def normalize_genres(
    values: Iterable[str], vocabulary: Vocabulary, junk: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Return the names of `name_genres`."""
    return tuple(genre.name for genre in name_genres(values, vocabulary, junk))


def list_spellings(genre: str, vocabulary: Vocabulary) -> Iterator[str]:
    """Yield what a genre in a tag is called: its parts as they are written, then as wanted."""
    yield from split_genres(genre)
    yield from normalize_genres([genre], vocabulary)


def list_broader(genre: str, vocabulary: Vocabulary) -> Iterator[str]:
    """Yield the genres above a genre in a tag, the nearest first."""
    for name in normalize_genres([genre], vocabulary):
        yield from list_parents(vocabulary, name)


@dataclass(frozen=True, slots=True)
class GenreNamer:
    """Names the values of a genre field. junk: keys of names that are no genre."""

    vocabulary: Vocabulary
    junk: frozenset[str]

    def name(self, value: str, separators: Sequence[str]) -> list[NamedGenre]:
        """Return the genres that a value stands for. A genre with the name DROPPED is none."""
        text = value if "\0" in value else tidy(value)
        name = self.find(text)
        if name is not None:
            return [NamedGenre(name)]
        if numbers := self._resolve_numbers(text):
            return [genre for each in numbers for genre in self.name(each, separators)]
        for place, separator in enumerate(separators, 1):
            if separator in text:
                parts = self._split(text, separator, separators[place:])
                if parts is not None:
                    return parts
        for pattern, wanted in self.vocabulary.patterns:
            if compile_pattern(pattern).fullmatch(text):
                return [NamedGenre(wanted)]
        return [NamedGenre(text, is_known=False)]

    def find(self, text: str) -> str | None:
        """Return the wanted name of a spelling, DROPPED for junk, None if nobody knows it."""
        key = make_key(text)
        if not key:
            return DROPPED
        name = self.vocabulary.names.get(key)
        return DROPPED if name is None and key in self.junk else name

    def _resolve_numbers(self, text: str) -> list[str]:
        """Return the names of a text that begins with genre numbers, [] for other texts."""
        if is_plain_number(text):
            return _name_number(text)
        match = NUMBERS.fullmatch(text)
        if not match:
            return []
        numbers = re.findall(r"\w+", match[1])
        names = [name for number in numbers for name in _name_number(number)]
        return [*names, match[2]] if len(names) == len(numbers) else []

    def _split(
        self, text: str, separator: str, separators: Sequence[str]
    ) -> list[NamedGenre] | None:
        """Return the genres between separators, or None if they are no separators here."""
        parts = [self.name(part, separators) for part in self._cut(text, separator)]
        known = [all(genre.is_known for genre in part) for part in parts]
        if separator in SURE_SEPARATORS or (any(known) if separator == COMMA else all(known)):
            return [genre for part in parts for genre in part]
        return None

    def _cut(self, text: str, separator: str) -> Iterator[str]:
        """Yield the parts of a text, but no part of a name that is known as a whole."""
        pieces = [piece for piece in text.split(separator) if piece.strip()]
        start = 0
        while start < len(pieces):
            stops = range(min(len(pieces), start + MAX_NAME_PARTS), start + 1, -1)
            joined = ((stop, separator.join(pieces[start:stop])) for stop in stops)
            known = ((stop, part) for stop, part in joined if self.find(part) is not None)
            stop, part = next(known, (start + 1, pieces[start]))
            yield part
            start = stop

    def add_parents(self, genre: NamedGenre) -> Iterator[NamedGenre]:
        """Yield a genre, its parents, or both, as the vocabulary wants them; nothing for junk."""
        if genre.name == DROPPED:
            return
        use, parents = self.vocabulary.parent_use, list_parents(self.vocabulary, genre.name)
        if use is ParentUse.REPLACE and parents:
            yield NamedGenre(parents[-1])
            return
        yield genre
        if use is ParentUse.ADD:
            yield from map(NamedGenre, parents)


def is_plain_number(text: str) -> bool:
    """Tell whether a text is a number that an ID3 tag may have instead of a genre."""
    is_short = len(text) <= len(str(MAX_ID3V1_NUMBER))
    return is_short and text.isascii() and text.isdigit() and int(text) <= MAX_ID3V1_NUMBER


def is_numbered(text: str) -> bool:
    """Tell whether a text is or begins with genre numbers."""
    return is_plain_number(text) or NUMBERS.fullmatch(text) is not None


def _name_number(number: str) -> list[str]:
    if number in ID3V2_WORDS:
        return [ID3V2_WORDS[number]]
    is_known = is_plain_number(number) and int(number) < len(ID3V1_GENRES)
    return [ID3V1_GENRES[int(number)]] if is_known else []


def list_parents(vocabulary: Vocabulary, name: str) -> list[str]:
    """Return the genres above a genre, the nearest first."""
    parents = []
    while name := vocabulary.parents.get(name, ""):
        parents.append(name)
    return parents


@cache
def compile_pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def to_vocabulary(value: object) -> Vocabulary:
    """Convert the path of a TOML file, for the option. Raises SettingsError, ValueError."""
    return read_vocabulary(to_path(value))


@cache
def load_default_vocabulary() -> Vocabulary:
    return read_vocabulary(DEFAULT_FILE)


def read_vocabulary(path: Path) -> Vocabulary:
    """Read a vocabulary. Raises SettingsError, with file and key, if anything in it is wrong."""
    return VocabularyParser(path).parse(read_toml(path))


FILE_KEYS = {"extends", "drop", "parents", "genres", "rules"}
GENRE_KEYS = {"aliases", "patterns", "parent"}
RULE_KEYS = {"folder", "artist", "genre", "keep"}
EXTENDS_DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class VocabularyParser:
    """Turns the content of one file into a Vocabulary."""

    path: Path

    def fail(self, key: str, reason: str) -> SettingsError:
        return SettingsError(f"{self.path}: {key} {reason}")

    def parse(self, content: Mapping[str, Any]) -> Vocabulary:
        self._check_keys("the file", content, FILE_KEYS)
        base = self._read_base(content)
        genres = self._read_genres(content)
        names = self._claim_names(content, genres)
        names = _follow_names({**base.names, **names})
        patterns = [
            (pattern, name)
            for name, genre in genres.items()
            for pattern in self._read_patterns(name, genre)
        ]
        patterns += base.patterns
        vocabulary = Vocabulary(
            names,
            tuple((pattern, names[make_key(name)]) for pattern, name in patterns),
            self._read_parents(genres, names, base),
            self._read_parent_use(content, base),
            source=self.path.absolute(),
        )
        rules = self._read_rules(content, vocabulary)
        return replace(vocabulary, rules=(*rules, *base.rules))

    def _check_keys(self, place: str, table: Mapping[str, Any], known: set[str]) -> None:
        if unknown := sorted(table.keys() - known):
            names = ", ".join(sorted(known))
            raise self.fail(place, f"has an unknown key: {unknown[0]} (known: {names})")

    def _read_base(self, content: Mapping[str, Any]) -> Vocabulary:
        extends = content.get("extends")
        if extends is None:
            return Vocabulary()
        if extends != EXTENDS_DEFAULT:
            raise self.fail("extends", f'must be "{EXTENDS_DEFAULT}", not {extends!r}')
        return load_default_vocabulary()

    def _read_genres(self, content: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
        genres = content.get("genres", {})
        if not isinstance(genres, Mapping):
            raise self.fail("genres", "must be tables, such as [genres.Rock]")
        for name, genre in genres.items():
            place = _name_place(name)
            if not isinstance(genre, Mapping):
                raise self.fail(place, f"must be a table, not {genre!r}")
            self._check_keys(place, genre, GENRE_KEYS)
            self._check_name(place, name)
        return genres

    def _check_name(self, place: str, name: str) -> None:
        has_sure_separator = any(separator in name for separator in SURE_SEPARATORS)
        if not make_key(name) or tidy(name) != name:
            raise self.fail(place, "must be a name on one line, without spaces at its ends")
        if is_numbered(name) or has_sure_separator:
            raise self.fail(place, "is no name that tags can hold: a number, or it has ; | or \\")

    def _claim_names(
        self, content: Mapping[str, Any], genres: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, str]:
        """Return the wanted name of each spelling that this file names."""
        claims: dict[str, str] = {}
        for name in genres:
            self._claim(claims, name, name, _name_place(name))
        for name, genre in genres.items():
            place = f"{_name_place(name)}.aliases"
            for alias in self._read_texts(place, genre.get("aliases", [])):
                self._claim(claims, alias, name, place)
        for text in self._read_texts("drop", content.get("drop", [])):
            self._claim(claims, text, DROPPED, "drop")
        return claims

    def _claim(self, claims: dict[str, str], spelling: str, name: str, place: str) -> None:
        key = make_key(spelling)
        if not key or key.count(SLASH) >= MAX_NAME_PARTS:
            reason = f"has a text that is empty or has more than {MAX_NAME_PARTS} parts"
            raise self.fail(place, f"{reason}: {spelling!r}")
        other = claims.setdefault(key, name)
        if other != name and other and make_key(other) == key:
            hint = f"has an entry of its own: remove [{_name_place(other)}]"
            raise self.fail(place, f"has {spelling!r}, which {hint}")
        if other != name:
            raise self.fail(place, f"has {spelling!r}, which {other or 'drop'} has already")

    def _read_texts(self, place: str, value: object) -> list[str]:
        if isinstance(value, list) and all(isinstance(text, str) for text in value):
            return value
        raise self.fail(place, f"must be a list of texts, not {value!r}")

    def _read_patterns(self, name: str, genre: Mapping[str, Any]) -> Iterator[str]:
        place = f"{_name_place(name)}.patterns"
        for pattern in self._read_texts(place, genre.get("patterns", [])):
            try:
                compile_pattern(pattern)
            except re.error as error:
                reason = f"has {pattern!r}, which is no regular expression: {error}"
                raise self.fail(place, reason) from error
            yield pattern

    def _read_parents(
        self,
        genres: Mapping[str, Mapping[str, Any]],
        names: Mapping[str, str],
        base: Vocabulary,
    ) -> dict[str, str]:
        parents = {}
        for name, parent in base.parents.items():
            wanted, wanted_parent = names[make_key(name)], names[make_key(parent)]
            is_elsewhere = make_key(wanted) != make_key(name)  # this file has it as an alias
            if not is_elsewhere and wanted_parent != wanted:
                parents[wanted] = wanted_parent
        for name, genre in genres.items():
            if "parent" not in genre:
                continue
            parent = genre["parent"]
            if not isinstance(parent, str) or not names.get(make_key(parent)):
                reason = f"must be the name of a genre of the vocabulary, not {parent!r}"
                raise self.fail(f"{_name_place(name)}.parent", reason)
            parents[name] = names[make_key(parent)]
        parents = {name: parent for name, parent in parents.items() if parent}
        for name in parents:
            self._check_tree(name, parents)
        return parents

    def _check_tree(self, name: str, parents: Mapping[str, str]) -> None:
        way = [name]
        while parent := parents.get(way[-1]):
            if parent in way:
                circle = " under ".join([*way, parent])
                raise self.fail(f"{_name_place(name)}.parent", f"goes in a circle: {circle}")
            way.append(parent)

    def _read_parent_use(self, content: Mapping[str, Any], base: Vocabulary) -> ParentUse:
        value = content.get("parents", base.parent_use)
        try:
            return ParentUse(value)
        except ValueError as error:
            choices = ", ".join(ParentUse)
            raise self.fail("parents", f"must be one of {choices}, not {value!r}") from error

    def _read_rules(self, content: Mapping[str, Any], vocabulary: Vocabulary) -> Iterator[Rule]:
        rules = content.get("rules", [])
        if not isinstance(rules, list) or not all(isinstance(rule, Mapping) for rule in rules):
            raise self.fail("rules", "must be tables, each under [[rules]]")
        for number, rule in enumerate(rules, 1):
            place = f"rule {number}"
            self._check_keys(place, rule, RULE_KEYS)
            texts = [self._read_rule_text(place, rule, name) for name in ("folder", "artist")]
            if not any(texts):
                raise self.fail(place, "must have a folder or an artist")
            folder, artist = texts
            yield Rule(
                os.path.expanduser(folder),  # noqa: PTH111 - no path
                artist,
                self._read_rule_genres(place, rule, vocabulary),
            )

    def _read_rule_text(self, place: str, rule: Mapping[str, Any], name: str) -> str:
        value = rule.get(name, "")
        if not isinstance(value, str) or (name in rule and not value.strip()):
            raise self.fail(f"{place}: {name}", f"must be a text, not {value!r}")
        return value

    def _read_rule_genres(
        self, place: str, rule: Mapping[str, Any], vocabulary: Vocabulary
    ) -> tuple[str, ...]:
        """Return the genres of a rule under their wanted names; none where it keeps tracks."""
        keep, value = rule.get("keep", False), rule.get("genre", [])
        if not isinstance(keep, bool):
            raise self.fail(f"{place}: keep", f"must be true or false, not {keep!r}")
        genres = self._read_texts(f"{place}: genre", [value] if isinstance(value, str) else value)
        if keep == bool(genres):
            raise self.fail(place, "must have either a genre or keep = true")
        names = normalize_genres(genres, vocabulary)
        for name in names:
            self._check_name(f"{place}: genre", name)
        if genres and not names:
            raise self.fail(f"{place}: genre", f"has nothing but dropped names: {value!r}")
        return names


def _name_place(name: str) -> str:
    return f'genres."{name}"'


def _follow_names(names: Mapping[str, str]) -> dict[str, str]:
    """Return names in which each wanted name is wanted under its own spelling too.

    A file that extends another one may give a genre of the other one another name, or drop it.
    """
    followed = {}
    for key, name in names.items():
        wanted = name
        while wanted and names[make_key(wanted)] != wanted:
            wanted = names[make_key(wanted)]
        followed[key] = wanted
    return followed
