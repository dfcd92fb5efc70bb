"""Labels of a model under the user's names: by the genre map, then by the vocabulary.

All functions are pure.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from types import MappingProxyType

from tagger.records import MinScore, Score, normalize_label, split_genres
from tagger.settings import NotMusic, Settings
from tagger.vocabulary import Vocabulary, normalize_genres

GTZAN_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "blues": "Blues", "classical": "Classical", "country": "Country", "disco": "Disco",
        "hiphop": "Hip-Hop", "jazz": "Jazz", "metal": "Metal", "pop": "Pop", "reggae": "Reggae",
        "rock": "Rock",
    }
)  # fmt: skip
"""The labels of GTZAN (Tzanetakis & Cook, 2002), on which most genre checkpoints were trained."""


def relabel(scores: Sequence[Score], names: Mapping[str, str]) -> tuple[Score, ...]:
    """Rename labels. Add up the scores of labels with the same name; drop labels with none.

    The keys of `names` are case-folded labels. The result is sorted, best first; ties keep their
    order.
    """
    sums: dict[str, float] = defaultdict(float)
    for score in scores:
        name = names.get(score.genre.casefold(), score.genre)
        if name:
            sums[name] += score.probability
    ranked = sorted(sums.items(), key=lambda item: -item[1])
    return tuple(Score(genre, min(probability, 1.0)) for genre, probability in ranked)


SPEECH_NAMES: Mapping[str, str] = MappingProxyType({"speech": "Spoken Word"})
"""The genre of speech with `--not-music tag`, as media servers call it."""


def get_label_names(settings: Settings) -> Mapping[str, str]:
    """Return the names for a model's labels. Labels of the user (--labels) have no default name."""
    default_names = {} if settings.labels else GTZAN_NAMES
    speech_names = SPEECH_NAMES if settings.not_music is NotMusic.TAG else {}
    return {**default_names, **speech_names, **settings.genre_map}


def name_scores(
    scores: Sequence[Score], settings: Settings, not_music: Collection[str] = ()
) -> tuple[Score, ...]:
    """Rename labels as the user wants them: by the genre map, then by the vocabulary.

    not_music: the model's labels of sound that is no music. The rest is as in `relabel`.
    """
    names = get_label_names(settings)
    if settings.vocabulary:
        no_genres = list_no_genres(not_music, settings)
        vocabulary_names = {
            label.casefold(): label if label in no_genres else name_label(label, settings)
            for label in (score.genre for score in scores)
        }
        names = {**names, **vocabulary_names}
    return relabel(scores, names)


def list_no_genres(not_music: Collection[str], settings: Settings) -> frozenset[str]:
    """Return the labels of sound that is no music to which the user gives no name.

    Such a label is no genre. A label with a name is one, as Spoken Word with `--not-music tag`, and
    the vocabulary names it too. If the vocabulary drops that name, the label is no genre again.
    """
    names = get_label_names(settings)

    def is_no_genre(label: str) -> bool:
        name = names.get(label.casefold())
        return name is None or (bool(name) and not name_label(label, settings))

    return frozenset(filter(is_no_genre, not_music))


def name_label(label: str, settings: Settings) -> str:
    """Return the user's name for a label of the model; an empty one drops the label."""
    name = get_label_names(settings).get(label.casefold(), label)
    return _name_label(name, settings.vocabulary) if settings.vocabulary else name


@lru_cache(maxsize=4096)  # a model has few labels, and each track has scores for all of them
def _name_label(name: str, vocabulary: Vocabulary) -> str:
    """Return the wanted names of a label, with semicolons between them, as in the genre map."""
    return "; ".join(normalize_genres([name], vocabulary))


def find_unknown_labels(settings: Settings, labels: Iterable[str]) -> tuple[str, ...]:
    """Return the labels in the user's genre map that a model with these labels lacks."""
    known = {label.casefold() for label in labels}
    return tuple(label for label in settings.genre_map if label not in known)


def list_label_names(
    settings: Settings, labels: Iterable[str], not_music: Collection[str]
) -> tuple[str, ...]:
    """Return the user's names for the labels that are genres. A name may have semicolons."""
    no_genres = list_no_genres(not_music, settings)
    names = (name_label(label, settings) for label in labels if label not in no_genres)
    return tuple(dict.fromkeys(filter(None, names)))


def list_genre_names(
    settings: Settings, labels: Iterable[str], not_music: Collection[str]
) -> tuple[str, ...]:
    """Return the genres that a model with these labels may write, under the user's names."""
    names = list_label_names(settings, labels, not_music)
    return tuple(dict.fromkeys(chain.from_iterable(map(split_genres, names))))


def find_unknown_genres(min_score: MinScore, names: Iterable[str]) -> tuple[str, ...]:
    """Return the genres with a bound of their own that tagger never gives.

    names: those of `list_label_names`. A bound may be that of a whole name, or of a genre in it.
    """
    known = {normalize_label(genre) for name in names for genre in (name, *split_genres(name))}
    return tuple(name for name in min_score.by_genre if normalize_label(name) not in known)


def name_genres_of_styles(
    genre_by_style: Mapping[str, str], settings: Settings
) -> Mapping[str, str]:
    """Return the user's name for the genre of each style. genre_by_style: the model's labels."""
    return {style: name_label(label, settings) for style, label in genre_by_style.items()}
