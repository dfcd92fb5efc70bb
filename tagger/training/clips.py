"""Labelled clips, and what can be said of them without listening."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tagger.paths import AnyPath, display_path
from tagger.records import Failure, Track, normalize_label

PART_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""The names under which the halves of data sets are published."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A file and what it is: several labels where people gave several, the main one first.

    artist, album: what clips have in common that are no independent evidence; empty where nobody
    says. part: the part of the data set that it was published in (`train`, `validation`, `test`).
    """

    track: Track
    labels: tuple[str, ...]
    artist: str = ""
    album: str = ""
    part: str = ""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Clips, and what was left out of them, each with its reason.

    name: as the user knows it. title: the same without where it lies on this machine.
    """

    name: str
    clips: tuple[Clip, ...]
    left_out: tuple[Failure, ...] = ()
    title: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(sorted({label for clip in self.clips for label in clip.labels}))


def make_dataset(name: str, found: Iterable[Clip | Failure], names: Mapping[str, str]) -> Dataset:
    """Part clips from failures, and give the labels one spelling each.

    `names` renames labels, keyed by the case-folded label; an empty name drops one. Of spellings
    that differ in no letter (Hip-Hop, hip hop) the most frequent one stands for all. A file that
    comes twice is one clip with the labels of both.
    """
    clips: dict[AnyPath, Clip] = {}
    left_out = []
    for each in found:
        if isinstance(each, Failure):
            left_out.append(each)
            continue
        renamed = (names.get(label.casefold(), label) for label in map(clean_label, each.labels))
        if labels := tuple(filter(None, renamed)):
            path = each.track.path
            known = clips[path].labels if path in clips else ()
            clips[path] = replace(clips.get(path, each), labels=(*known, *labels))
        else:
            left_out.append(Failure(each.track, "the genre map drops its label"))
    return Dataset(name, tuple(_unify_spelling(list(clips.values()))), tuple(left_out))


def _unify_spelling(clips: Sequence[Clip]) -> list[Clip]:
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for label in (label for clip in clips for label in clip.labels):
        spellings[normalize_label(label)][label] += 1
    usual = {each: counts.most_common(1)[0][0] for each, counts in spellings.items()}
    return [
        replace(
            clip,
            labels=tuple(dict.fromkeys(usual[normalize_label(label)] for label in clip.labels)),
        )
        for clip in clips
    ]


def clean_label(label: str) -> str:
    """Return a label as text that every file format and terminal takes for that."""
    text = display_path(Path(label))
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def drop_rare_labels(dataset: Dataset, count: int) -> Dataset:
    """Leave out the labels that have fewer clips than `count`."""
    counts = Counter(label for clip in dataset.clips for label in clip.labels)
    kept, left_out = [], list(dataset.left_out)
    for clip in dataset.clips:
        labels = tuple(label for label in clip.labels if counts[label] >= count)
        if labels:
            kept.append(replace(clip, labels=labels))
        else:
            reason = f"fewer than {count} tracks are {clip.labels[0]}"
            left_out.append(Failure(clip.track, reason))
    return replace(dataset, clips=tuple(kept), left_out=tuple(left_out))
