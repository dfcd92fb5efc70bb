"""Labelled clips and data sets of them, without reading any sound."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tagger.paths import AnyPath, to_one_line
from tagger.records import Failure, Track, normalize_label
from tagger.vocabulary import Vocabulary, list_broader, list_spellings

PARTS = ("train", "validation", "test")
"""The parts of a split."""

PART_ALIASES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""The names that published data sets give to the parts, and our names of these."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A file and its labels. If people gave several labels, the main one is the first.

    artist, album: clips that share one of these are no independent evidence. Empty where unknown.
    part: the part of the published data set that has the clip, a key of PART_ALIASES in any case.
    various: the tags call the album a compilation.
    """

    track: Track
    labels: tuple[str, ...]
    artist: str = ""
    album: str = ""
    part: str = ""
    various: bool = False


@dataclass(frozen=True, slots=True)
class Dataset:
    """Clips, and the files that were left out, each with the reason.

    name: the data set as the user named it. title: the same without the folder on this machine.
    """

    name: str
    clips: tuple[Clip, ...]
    left_out: tuple[Failure, ...] = ()
    title: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(sorted({label for clip in self.clips for label in clip.labels}))


def make_dataset(
    name: str, results: Iterable[Clip | Failure], label_names: Mapping[str, str]
) -> Dataset:
    """Separate clips from failures, and give each label one spelling.

    `label_names` renames labels. Its keys are case-folded labels; an empty name drops the label.
    Spellings with the same letters (Hip-Hop, hip hop) become the most frequent one of them. A file
    that comes twice becomes one clip with the labels of both.
    """
    clips = dict[AnyPath, Clip]()
    left_out = []
    for result in results:
        if isinstance(result, Failure):
            left_out.append(result)
            continue
        cleaned = map(to_one_line, result.labels)
        renamed = (label_names.get(label.casefold(), label) for label in cleaned)
        if labels := tuple(filter(None, renamed)):
            path = result.track.path
            earlier = clips[path].labels if path in clips else ()
            clips[path] = replace(clips.get(path, result), labels=(*earlier, *labels))
        else:
            left_out.append(Failure(result.track, "the genre map drops its label"))
    return Dataset(name, tuple(_unify_spelling(list(clips.values()))), tuple(left_out))


def _unify_spelling(clips: Sequence[Clip]) -> list[Clip]:
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for label in (label for clip in clips for label in clip.labels):
        spellings[normalize_label(label)][label] += 1
    usual = {key: counts.most_common(1)[0][0] for key, counts in spellings.items()}
    return [
        replace(
            clip,
            labels=tuple(dict.fromkeys(usual[normalize_label(label)] for label in clip.labels)),
        )
        for clip in clips
    ]


def drop_rare_labels(dataset: Dataset, min_clips: int) -> Dataset:
    """Leave out the labels that have fewer than `min_clips` clips."""
    counts = Counter(label for clip in dataset.clips for label in clip.labels)
    kept, left_out = [], list(dataset.left_out)
    for clip in dataset.clips:
        labels = tuple(label for label in clip.labels if counts[label] >= min_clips)
        if labels:
            kept.append(replace(clip, labels=labels))
        else:
            reason = f"fewer than {min_clips} tracks are {clip.labels[0]}"
            left_out.append(Failure(clip.track, reason))
    return replace(dataset, clips=tuple(kept), left_out=tuple(left_out))


def select_known_clips(
    clips: Iterable[Clip], genres: Iterable[str], vocabulary: Vocabulary
) -> tuple[list[Clip], Counter[str]]:
    """Return the clips with one of these genres, in their spelling, and count the other labels.

    genres: what a model may say, under the user's names. vocabulary: it knows other spellings of
    a genre, such as `Rap/Hip-Hop`, and the genres above it. The nearest one above a genre stands
    for it if the model does not say the genre itself, as Electronic for Tech House.
    """
    spellings = {normalize_label(name): name for name in genres}

    def find_known(names: Iterable[str]) -> list[str]:
        keys = map(normalize_label, names)
        return [spellings[key] for key in keys if key in spellings]

    known_clips, unknown_labels = [], Counter[str]()
    for clip in clips:
        found = [
            name
            for label in clip.labels
            for name in find_known(list_spellings(label, vocabulary))
            or find_known(list_broader(label, vocabulary))[:1]
        ]
        if labels := tuple(dict.fromkeys(found)):
            known_clips.append(replace(clip, labels=labels))
        else:
            unknown_labels[clip.labels[0]] += 1
    return known_clips, unknown_labels
