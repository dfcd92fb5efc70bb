"""Decide what to write into a track, by its tags, its scores and the settings. Pure functions.

The genre rules come first, then the fields beside the genre, then genre formats of servers and
the names of a vocabulary.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import cache
from types import MappingProxyType

from tagger.errors import KeepReason
from tagger.labels import name_label
from tagger.records import (
    MAX_NOT_MUSIC,
    MOOD_NUMBERS,
    Action,
    Attributes,
    ExtraField,
    ExtraTag,
    MinScore,
    Score,
    Tags,
    Track,
    format_scores,
    split_genres,
)
from tagger.settings import Existing, Hardlinks, Profile, Settings, Styles, WrittenField
from tagger.vocabulary import (
    Rule,
    Vocabulary,
    is_numbered,
    list_broader,
    list_spellings,
    load_default_vocabulary,
    make_key,
    make_keys,
    normalize_genres,
)

KEEP_SENTENCES: Mapping[KeepReason, str] = MappingProxyType(
    {
        KeepReason.HAS_GENRE: "",  # the report has the genre itself
        KeepReason.REMOVED_BY_HAND: (
            "the genre that tagger wrote was removed by hand (--existing replace writes it again)"
        ),
        KeepReason.UNDONE: (
            "tagger's genre was undone or taken out of a report (--force writes it again)"
        ),
        KeepReason.NOT_WANTED: (
            "not wanted: the genre was taken out of the report (scan --force writes it)"
        ),
        KeepReason.NOT_ASKED: "its genre is not asked for (--write genre)",
        KeepReason.BY_RULE: "a rule of the vocabulary keeps it as it is",
        KeepReason.NO_GENRE: "it has no genre: tagger scan listens to it",
        KeepReason.HARD_LINKS: "it has several hard links (--hardlinks break|in-place writes it)",
        KeepReason.TIME_IS_UP: (
            "the time of --until came before this track; the next run goes on with it"
        ),
    }
)
"""The sentence of the report for each reason to keep a track as it is."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a track. tags: the tags to write, if the action is WRITTEN.

    kind and reason: why the track is KEPT, for programs and for people. keeps_genre: only extra
    fields are written.
    """

    action: Action
    tags: Tags | None = None
    kind: KeepReason | None = None
    reason: str = ""
    keeps_genre: bool = False

    @classmethod
    def keep(cls, kind: KeepReason) -> "Decision":
        return cls(Action.KEPT, kind=kind, reason=KEEP_SENTENCES[kind])


@dataclass(frozen=True, slots=True)
class Proposal:
    """What tagger would write into a file: genres, and the top scores under the user's names.

    shared_score: the probability of the first genre if other tracks count too: those of the album
    with --by-album, what the library knows with --context; None where the track counts alone.
    is_music: False for a track that is no music; it gets no genre. styles: those of its genres.
    moods, voices: the likely ones. numbers: the probabilities of all moods. remark: a sentence for
    the report. min_score: what the first genre has to reach. is_sure: a person decided on the
    genres, so that no score is needed.
    """

    genres: tuple[str, ...]
    scores: tuple[Score, ...]
    model: str
    shared_score: float | None = None
    is_music: bool = True
    styles: tuple[str, ...] = ()
    moods: tuple[str, ...] = ()
    voices: tuple[str, ...] = ()
    numbers: Mapping[ExtraField, float] = field(default_factory=dict)
    remark: str = ""
    min_score: float | None = None
    is_sure: bool = False

    @property
    def score(self) -> float | None:
        """The probability of the first genre; None without scores and where there is no music."""
        if not self.is_music:
            return None
        if self.shared_score is not None:
            return self.shared_score
        return self.scores[0].probability if self.scores else None


class GenreOrigin(Enum):
    """Who wrote the genre of a file."""

    NONE = auto()
    USER = auto()  # a genre of tagger that somebody edited is the user's too
    TAGGER = auto()
    BOTH = auto()  # tagger's behind the user's, as `append` leaves them
    REMOVED = auto()  # tagger wrote one and somebody removed it


class GenreRule(Enum):
    """What to do with the genre of a file: keep it, replace it, or add tagger's behind it."""

    KEEP = auto()
    TAGGER_ONLY = auto()
    TAGGER_BEHIND_USER = auto()


KEEP, REPLACE, APPEND = Existing
TAGGER_ONLY, TAGGER_BEHIND_USER = GenreRule.TAGGER_ONLY, GenreRule.TAGGER_BEHIND_USER

RULES: Mapping[GenreOrigin, Mapping[Existing, GenreRule]] = {
    GenreOrigin.NONE: {KEEP: TAGGER_ONLY, REPLACE: TAGGER_ONLY, APPEND: TAGGER_ONLY},
    GenreOrigin.USER: {KEEP: GenreRule.KEEP, REPLACE: TAGGER_ONLY, APPEND: TAGGER_BEHIND_USER},
    GenreOrigin.TAGGER: {KEEP: TAGGER_ONLY, REPLACE: TAGGER_ONLY, APPEND: TAGGER_ONLY},
    GenreOrigin.BOTH: {KEEP: GenreRule.KEEP, REPLACE: TAGGER_ONLY, APPEND: TAGGER_BEHIND_USER},
    GenreOrigin.REMOVED: {KEEP: GenreRule.KEEP, REPLACE: TAGGER_ONLY, APPEND: TAGGER_ONLY},
}
"""What to do for each origin of the genre and each value of `--existing`."""


def propose_by_rule(rule: Rule, profile: Profile) -> Proposal:
    """Return the genres that a rule of the vocabulary gives to a track, whatever it sounds like."""
    genres = format_genre_values(rule.genres, profile)
    return Proposal(genres, (), "", remark=f"by a rule of the vocabulary: {rule}", is_sure=True)


def is_music(scores: Sequence[Score], not_music: Collection[str], min_score: MinScore) -> bool:
    """Tell whether a track is music by its scores.

    not_music: the labels of sound that is no music. With a min_score of 0 every track gets its best
    genre, so every track counts as music.
    """
    no_music = sum(score.probability for score in scores if score.genre in not_music)
    return no_music <= MAX_NOT_MUSIC or min_score.is_zero


def choose_genres(scores: Sequence[Score], *, most: int, min_score: MinScore) -> tuple[str, ...]:
    """Return the genres to write, best first: the best one, and others that reach min_score.

    If the best one does not reach it, no other follows: each is less likely than the best.
    most: how many labels to take. A label with semicolons in its name stands for several genres.
    """
    likely = [
        score.genre for score in scores[:most] if score.probability >= min_score.get(score.genre)
    ]
    best = [score.genre for score in scores[:1]]
    return split_genres(";".join(likely if likely[:1] == best else best))


MIN_STYLE_SCORE = 0.5
"""A style is given if it is more likely than not."""


def choose_styles(
    styles: Sequence[Score], genre_by_style: Mapping[str, str], genres: Collection[str]
) -> tuple[str, ...]:
    """Return the likely styles of these genres, best first.

    genre_by_style: a genre with semicolons in its name stands for several genres.
    """
    return tuple(
        style.genre
        for style in styles
        if style.probability >= MIN_STYLE_SCORE
        and not set(split_genres(genre_by_style[style.genre])).isdisjoint(genres)
    )


MIN_MOOD_SCORE = 0.6
"""With at least this probability, a mood is right for 85 % of recordings of unknown artists."""

MIN_VOICE_SCORE = 0.7
"""Higher than that of moods: no recording says who sings, so less is measured."""


def choose_moods(attributes: Attributes) -> tuple[str, ...]:
    """Return the mood of a track, if it is sure enough."""
    return _choose_likely(attributes.moods, MIN_MOOD_SCORE)


def choose_voices(attributes: Attributes) -> tuple[str, ...]:
    """Return who sings in a track, or that nobody does, if it is sure enough."""
    return _choose_likely(attributes.voices, MIN_VOICE_SCORE)


def _choose_likely(scores: Iterable[Score], least: float) -> tuple[str, ...]:
    return tuple(score.genre for score in scores if score.probability >= least)


def get_mood_numbers(attributes: Attributes) -> Mapping[ExtraField, float]:
    moods = {each.genre: each.probability for each in attributes.moods}
    return {MOOD_NUMBERS[name]: moods[name] for name in MOOD_NUMBERS if name in moods}


STYLE_FIELDS = {Styles.STYLE: ExtraField.STYLE, Styles.GROUPING: ExtraField.GROUPING}


def list_extra_fields(settings: Settings) -> tuple[ExtraField, ...]:
    """Return the extra fields that a scan writes with these settings."""
    fields: list[ExtraField] = []
    if WrittenField.STYLE in settings.write and settings.styles is not Styles.GENRE:
        fields.append(STYLE_FIELDS[settings.styles])
    if WrittenField.MOOD in settings.write:
        fields.append(ExtraField.MOOD)
    if WrittenField.VOICE in settings.write:
        fields.append(ExtraField.VOICE)
    if settings.mood_numbers:
        fields += MOOD_NUMBERS.values()
    return tuple(fields)


def writes_styles_as_genres(settings: Settings) -> bool:
    return WrittenField.STYLE in settings.write and settings.styles is Styles.GENRE


def put_styles_behind(
    genres: Sequence[str], styles: Iterable[str], settings: Settings
) -> tuple[str, ...]:
    """Return genres with their styles behind them, under the names that the user wants.

    The vocabulary names them together, because it may drop a genre above one of its styles.
    """
    names = (name_label(style, settings) for style in styles)
    together = split_genres(";".join((*genres, *names)))
    return normalize_genres(together, settings.vocabulary) if settings.vocabulary else together


def _find_user_values(values: tuple[str, ...], written: tuple[str, ...]) -> tuple[str, ...]:
    """Return the values of a field without those that tagger wrote last.

    `append` puts tagger's values at the end. If they are not there, somebody edited the field.
    """
    count = len(written)
    return values[:-count] if count and values[-count:] == written else values


def _find_origin(values: tuple[str, ...], written: tuple[str, ...]) -> GenreOrigin:
    if not values:
        return GenreOrigin.REMOVED if written else GenreOrigin.NONE
    user_values = _find_user_values(values, written)
    if len(user_values) == len(values):
        return GenreOrigin.USER
    return GenreOrigin.BOTH if user_values else GenreOrigin.TAGGER


def find_user_genres(tags: Tags) -> tuple[str, ...]:
    """Return the genres without those that tagger wrote last."""
    return _find_user_values(tags.genres, tags.written)


@cache
def make_junk_keys(names: tuple[str, ...], vocabulary: Vocabulary | None) -> frozenset[str]:
    """Return the keys of names that are no genre. What the vocabulary wants is none of them."""
    if vocabulary is None:
        return make_keys(names)
    unwanted = tuple(name for name in names if not vocabulary.has_genre(name))
    return make_keys(unwanted) | vocabulary.dropped


def get_junk_keys(settings: Settings) -> frozenset[str]:
    return make_junk_keys(settings.junk_genres, settings.vocabulary)


def find_junk(tags: Tags, junk: Collection[str]) -> tuple[str, ...]:
    """Return the genres of the user if all of them are junk, else none.

    junk: keys of names that are no genre. Such a genre is no person's choice.
    """
    user_genres = find_user_genres(tags)
    names = (name for genre in user_genres for name in split_genres(genre))
    return user_genres if all(make_key(name) in junk for name in names) else ()


def format_junk_remark(genres: Iterable[str]) -> str:
    """Return the sentence of the report about genres that are junk; an empty one without any."""
    shown = [f'"{genre}"' for genre in genres]
    claim = "is no genre" if len(shown) == 1 else "are no genres"
    return f"{', '.join(shown)} {claim}" if shown else ""


def find_genre_origin(tags: Tags, junk: Collection[str] = ()) -> GenreOrigin:
    """Return who wrote the genre of a file. The field `written` tells what tagger wrote.

    junk: keys of names that are no genre, and so do not count where nothing else stands.
    """
    count = len(find_junk(tags, junk))  # the user's genres stand before tagger's
    return _find_origin(tags.genres[count:], tags.written)


def decide_by_tags(tags: Tags, existing: Existing, junk: Collection[str] = ()) -> Decision | None:
    """Return the decision to keep the genre of a track, if its scores cannot change that."""
    origin = find_genre_origin(tags, junk)
    if RULES[origin][existing] is not GenreRule.KEEP:
        return None
    is_removed = origin is GenreOrigin.REMOVED
    return Decision.keep(KeepReason.REMOVED_BY_HAND if is_removed else KeepReason.HAS_GENRE)


def decide_without_scores(tags: Tags, settings: Settings) -> Decision | None:
    """Return the decision to keep a track as it is, if its scores cannot change that."""
    if not keeps_extras(tags, settings.existing):
        return None
    if WrittenField.GENRE not in settings.write:
        return Decision.keep(KeepReason.NOT_ASKED)
    return decide_by_tags(tags, settings.existing, get_junk_keys(settings))


def keeps_extras(tags: Tags, existing: Existing) -> bool:
    """Tell whether all extra fields stay as they are, whatever the model says."""
    return all(
        extra.field not in MOOD_NUMBERS.values()
        and RULES[_find_origin(extra.values, extra.written)][existing] is GenreRule.KEEP
        for extra in tags.extras
    )


def build_extras(tags: Tags, proposal: Proposal, settings: Settings) -> Tags:
    """Return tags with the extra fields as tagger would write them.

    A field of a person obeys `existing`, as the genre does. Values of tagger go where the model
    does not give them any more.
    """
    styles = format_genre_values(proposal.styles, settings.profile)
    texts = {
        ExtraField.STYLE: styles,
        ExtraField.GROUPING: styles,
        ExtraField.MOOD: proposal.moods,
        ExtraField.VOICE: proposal.voices,
    }
    numbers = {each: (f"{number:.3f}",) for each, number in proposal.numbers.items()}
    return replace(
        tags,
        extras=tuple(
            replace(extra, values=numbers.get(extra.field, ()))
            if extra.field in MOOD_NUMBERS.values()
            else _build_extra(extra, texts[extra.field], settings.existing)
            for extra in tags.extras
        ),
    )


def _build_extra(extra: ExtraTag, new: tuple[str, ...], existing: Existing) -> ExtraTag:
    rule = RULES[_find_origin(extra.values, extra.written)][existing]
    if rule is GenreRule.KEEP:
        return extra
    user_values = _find_user_values(extra.values, extra.written)
    if not new:
        return extra if not extra.written else ExtraTag(extra.field, user_values)
    user_values = user_values if rule is TAGGER_BEHIND_USER else ()
    known = {value.casefold() for value in user_values}
    added = tuple(value for value in new if value.casefold() not in known)
    return ExtraTag(extra.field, (*user_values, *added), added) if added else extra


def decide_by_links(track: Track, hardlinks: Hardlinks) -> Decision | None:
    """Return the decision to leave a file with several hard links alone, or None."""
    if track.links > 1 and hardlinks is Hardlinks.SKIP:
        return Decision.keep(KeepReason.HARD_LINKS)
    return None


ONLY_EXTRAS = "written without a genre: {}"
FIELD_NAMES = {each: each.value for each in ExtraField} | dict.fromkeys(
    MOOD_NUMBERS.values(), "mood numbers"
)


def decide(tags: Tags, proposal: Proposal, settings: Settings) -> Decision:
    """Decide on a track by its tags and by what tagger would write."""
    decision = _decide_genre(tags, proposal, settings)
    wanted = build_extras(decision.tags or tags, proposal, settings)
    if wanted.extras == tags.extras:
        return decision
    if decision.action is Action.WRITTEN:
        return replace(decision, tags=wanted)
    reason = format_extras_reason(tags, wanted)
    return Decision(Action.WRITTEN, wanted, reason=reason, keeps_genre=True)


def format_extras_reason(before: Tags, after: Tags) -> str:
    """Return the sentence of the report about a change of extra fields alone."""
    pairs = zip(after.extras, before.extras, strict=True)
    changed = dict.fromkeys(FIELD_NAMES[new.field] for new, old in pairs if new != old)
    return ONLY_EXTRAS.format(", ".join(changed))


def _decide_genre(tags: Tags, proposal: Proposal, settings: Settings) -> Decision:
    if WrittenField.GENRE not in settings.write:
        return Decision.keep(KeepReason.NOT_ASKED)
    junk = get_junk_keys(settings)
    kept = decide_by_tags(tags, settings.existing, junk)
    if kept:
        return kept
    if not proposal.is_music:
        return Decision(Action.NOT_MUSIC)
    least = proposal.min_score or 0.0
    if not proposal.is_sure and (proposal.score is None or proposal.score < least):
        return Decision(Action.LOW_SCORE)
    wanted = build_tags(tags, proposal, settings.existing, junk)
    if wanted is None:
        return Decision.keep(KeepReason.HAS_GENRE)
    return Decision(Action.UNCHANGED if wanted == tags else Action.WRITTEN, wanted)


def limit_styles(tags: Tags, proposal: Proposal, settings: Settings) -> Proposal:
    """Drop the styles if they are to be written and no genre of theirs stands in the file then.

    A person's genre counts if it is the model's, or one below it: Tech House is Electronic.
    """
    if not proposal.styles or WrittenField.STYLE not in settings.write:
        return proposal
    decision = _decide_genre(tags, proposal, settings)
    genres = decision.tags.genres if decision.tags else tags.genres
    if not genres and decision.kind is KeepReason.NOT_ASKED:
        has_genre = (proposal.score or 0.0) >= (proposal.min_score or 0.0)
    else:
        vocabulary = settings.vocabulary or load_default_vocabulary()
        names = {name for genre in genres for name in list_spellings(genre, vocabulary)}
        names |= {name for genre in genres for name in list_broader(genre, vocabulary)}
        heard = (name for genre in proposal.genres for name in list_spellings(genre, vocabulary))
        has_genre = not set(map(make_key, heard)).isdisjoint(map(make_key, names))
    return proposal if has_genre else replace(proposal, styles=())


def build_tags(
    tags: Tags, proposal: Proposal, existing: Existing, junk: Collection[str] = ()
) -> Tags | None:
    """Return the tags to write, or None if appending would only repeat genres."""
    rule = RULES[find_genre_origin(tags, junk)][existing]
    user_genres = find_user_genres(tags) if rule is TAGGER_BEHIND_USER else ()
    known = {name.casefold() for name in user_genres}
    new = tuple(genre for genre in proposal.genres if genre.casefold() not in known)
    if not new:
        return None
    return replace(
        tags,
        genres=(*user_genres, *new),
        written=new,
        scores=format_scores(proposal.scores),
        model=proposal.model,
        raw=(),
    )


@dataclass(frozen=True, slots=True)
class GenreFormat:
    """How a program reads genres.

    separator: joins several genres into one value, for programs that read a single value; empty
    for programs that read all values. splits_at: texts at which the program splits a value.
    """

    separator: str = ""
    splits_at: tuple[str, ...] = ()


GENRE_FORMATS = {
    Profile.ANY: GenreFormat(),
    Profile.NAVIDROME: GenreFormat(splits_at=(";", "/", ",")),
    Profile.JELLYFIN: GenreFormat(splits_at=("/", ";", ",")),
    Profile.KODI: GenreFormat(splits_at=(" / ",)),
    Profile.MPD: GenreFormat(),
    Profile.PLEX: GenreFormat(separator=", "),
    Profile.ITUNES: GenreFormat(separator=", "),
}


def format_genre_values(genres: tuple[str, ...], profile: Profile) -> tuple[str, ...]:
    """Return the values to write for these genres."""
    separator = GENRE_FORMATS[profile].separator
    return (separator.join(genres),) if separator and genres else genres


def find_split_names(names: Iterable[str], profile: Profile) -> tuple[str, ...]:
    """Return the names that the program of a profile would split into several genres."""
    separators = GENRE_FORMATS[profile].splits_at
    return tuple(name for name in names if any(text in name for text in separators))


def rename_genres(tags: Tags, settings: Settings, vocabulary: Vocabulary) -> Tags:
    """Return the tags with the wanted names. Who wrote the genres stays as it was.

    What a person wrote stays the person's, also if it now has the name that tagger wrote once.
    """
    new = _rename_once(tags, settings, vocabulary)
    # A profile may join names, and then a comma within one of them can separate: name them again.
    while (again := _rename_once(new, settings, vocabulary)) != new:
        new = again
    return new


def _rename_once(tags: Tags, settings: Settings, vocabulary: Vocabulary) -> Tags:
    user_genres = find_user_genres(tags)
    our_genres = tags.genres[len(user_genres) :]
    user_names = normalize_genres(user_genres, vocabulary, settings.junk_genres)
    keys = set(map(make_key, user_names))
    our_names = normalize_genres(our_genres, vocabulary)
    our_names = tuple(name for name in our_names if make_key(name) not in keys)
    written = format_genre_values(our_names, settings.profile) if our_genres else tags.written
    named = format_genre_values(user_names, settings.profile)
    new_genres = (*named, *written) if our_genres else named
    new = replace(tags, genres=new_genres, written=written, raw=())
    if not our_genres and find_user_genres(new) != new.genres:
        return replace(new, written=())
    return new


def has_stored_number(tags: Tags) -> bool:
    """Tell whether an ID3 tag stores a genre as a number, which reads as a name."""
    texts = (text for raw in tags.raw if raw.name == "TCON" for text in raw.values)
    return any(map(is_numbered, texts))
