"""Choose the minimum score of each genre by the tracks whose genre a person wrote."""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

from tagger import decide
from tagger.errors import LibraryError
from tagger.evidence import (
    Evidence,
    find_labels,
    index_labels,
    make_evidence,
    pool_with_evidence,
)
from tagger.labels import get_label_names, list_genre_names, list_no_genres, name_label, name_scores
from tagger.models import ModelSource
from tagger.paths import AnyPath, display_path
from tagger.records import MinScore, Score, normalize_label, split_genres
from tagger.settings import Settings
from tagger.state import AUTO_WINDOWS, read_scores
from tagger.training.clips import Clip, make_dataset, select_known_clips
from tagger.training.datasets import list_tagged_clips
from tagger.vocabulary import load_default_vocabulary

BOUNDS = tuple(percent / 100 for percent in range(30, 100, 5))
"""The minimum scores that are tried. With finer steps the choice would follow chance."""

PARTS = 5
"""Albums are divided into so many parts; each is left out once."""

WILSON_Z = 1.645
"""With a probability of 95 % a share is not smaller than its lower bound with this z."""


@dataclass(frozen=True, slots=True)
class JudgedTrack:
    """What a model says of a track whose genre a person wrote.

    genre: the best one, in the user's spelling; empty for no music. group: the album, or the track
    itself where it has none.
    """

    genre: str
    score: float
    is_right: bool
    group: str


@dataclass(frozen=True, slots=True)
class Written:
    """How many of some tracks get a genre, and how many of these get the right one."""

    tracks: int
    written: int
    right: int

    @property
    def share(self) -> float:
        """The share of the tracks that get a genre."""
        return self.written / self.tracks if self.tracks else 0.0

    @property
    def precision(self) -> float:
        """The share of the written genres that are right."""
        return self.right / self.written if self.written else 0.0

    @property
    def least_precision(self) -> float:
        """What the precision is at least, with a probability of 95 % (Wilson, 1927)."""
        return compute_wilson_bound(self.right, self.written) if self.written else 0.0


def compute_wilson_bound(right: int, tracks: int) -> float:
    """Return the lower end of the one-sided 95 % interval of a share."""
    share, z2 = right / tracks, WILSON_Z**2
    spread = WILSON_Z * math.sqrt(share * (1 - share) / tracks + z2 / (4 * tracks**2))
    return max(0.0, (share + z2 / (2 * tracks) - spread) / (1 + z2 / tracks))


def count_needed_tracks(precision: float) -> int:
    """Return how many tracks, all of them right, are needed to show a precision."""
    return math.ceil(precision * WILSON_Z**2 / (1 - precision))


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What is written with one bound."""

    bound: float
    result: Written


class Verdict(StrEnum):
    """Whether the tracks of a genre show that a bound has the wanted precision."""

    REACHED = "reached"
    NOT_REACHED = "not-reached"
    TOO_FEW = "too-few"


@dataclass(frozen=True, slots=True)
class GenreBound:
    """The bound that is proposed for a genre; it has one of its own if it `reached` the precision.

    tracks: how many tracks the model gives this genre. curve: what each bound writes. chosen: what
    the proposed bound writes.
    """

    genre: str
    tracks: int
    bound: float
    verdict: Verdict
    chosen: Written
    curve: tuple[CurvePoint, ...]


@dataclass(frozen=True, slots=True)
class BoundChoice:
    """A bound for all genres, chosen by all tracks (common), and those of single genres."""

    common: GenreBound
    genres: tuple[GenreBound, ...]

    @property
    def min_score(self) -> MinScore:
        """The bounds as the option `min-score` has them."""
        own = {each.genre: each.bound for each in self.genres if each.verdict is Verdict.REACHED}
        return MinScore(self.common.bound, own)


@dataclass(frozen=True, slots=True)
class CrossCheck:
    """What bounds do on albums that had no part in choosing them.

    by_genre: the proposed table. common: one bound for all genres. usual: the bound of today.
    """

    parts: int
    by_genre: Written
    common: Written
    usual: Written


@dataclass(frozen=True, slots=True)
class ContextCheck:
    """What --context artist does with the usual bounds, if no person named the album's genre.

    helped: tracks of which other albums or tracks say something. alone: without --context.
    """

    helped: int
    alone: Written
    artist: Written


@dataclass(frozen=True, slots=True)
class Calibration:
    """Bounds for the genres of a library, and what they do.

    usual: the default bound of today. without_scores: tracks whose scores nobody knows.
    context_check: None if no track has others of its artist.
    unknown_labels: genres that the model does not give, with the number of their tracks, which do
    not count. cross_check: None with fewer than two albums.
    """

    model: str
    precision: float
    usual: float
    tracks: int
    groups: int
    choice: BoundChoice
    cross_check: CrossCheck | None
    context_check: ContextCheck | None
    without_scores: int
    unknown_labels: Mapping[str, int]


def calibrate_library(
    paths: Sequence[AnyPath], source: ModelSource, settings: Settings, precision: float
) -> Calibration:
    """Propose a minimum score for each genre, by the scores that the state file has.

    precision: the wanted share of right genres. Nothing is listened to or written. Raises
    LibraryError if no track counts or no scores are known, StateError.
    """
    label_names = get_label_names(settings)
    name = ", ".join(map(display_path, paths))
    dataset = make_dataset(name, list_tagged_clips(paths, settings), label_names)
    genres = list_genre_names(settings, source.labels, source.not_music)
    vocabulary = settings.vocabulary or load_default_vocabulary()
    clips, unknown_labels = select_known_clips(dataset.clips, genres, vocabulary)
    if not clips:
        raise LibraryError(f"{name} has no track with a genre of {source.identity} by a person")
    found = read_scores(
        settings.state,
        (clip.track for clip in clips),
        model=source.identity,
        windows=settings.windows or AUTO_WINDOWS,
    )
    scored = [
        ScoredClip(clip, scores)
        for clip in clips
        if (scores := found.get(clip.track.path)) is not None
    ]
    tracks = [judge_track(each, source.not_music, settings) for each in scored]
    usual = settings.min_score.default
    return Calibration(
        model=source.identity,
        precision=precision,
        usual=usual,
        tracks=len(tracks),
        groups=len({track.group for track in tracks}),
        choice=choose_bounds(tracks, usual=usual, precision=precision),
        cross_check=cross_validate_bounds(tracks, usual=usual, precision=precision),
        context_check=check_context(scored, source, settings),
        without_scores=len(clips) - len(tracks),
        unknown_labels=dict(unknown_labels.most_common()),
    )


@dataclass(frozen=True, slots=True)
class ScoredClip:
    """A track with the genres that a person wrote, and all its scores by a model."""

    clip: Clip
    scores: Sequence[Score]

    @property
    def group(self) -> str:
        """The album, or the track itself where it has none."""
        return self.clip.album or display_path(self.clip.track.path)

    @property
    def context_key(self) -> tuple[str, str]:
        """Artist and album as a scan with --context has them. A compilation belongs to no artist.

        None of its tracks has a say in another one, so each is an album of its own.
        """
        if self.clip.various:
            return "", display_path(self.clip.track.path)
        return normalize_label(self.clip.artist), self.group


def judge_track(scored: ScoredClip, not_music: Collection[str], settings: Settings) -> JudgedTrack:
    """Compare what a scan would write into a track with what the person wrote."""
    group = scored.group
    named = name_scores(scored.scores, settings, not_music)
    no_genres = list_no_genres(not_music, settings)
    music = [score for score in named if score.genre not in no_genres]
    if not music or not decide.is_music(named, no_genres, settings.min_score):
        return JudgedTrack("", 0.0, is_right=False, group=group)
    keys = set(map(normalize_label, split_genres(music[0].genre)))
    is_right = not keys.isdisjoint(map(normalize_label, scored.clip.labels))
    return JudgedTrack(music[0].genre, music[0].probability, is_right, group)


def check_context(
    clips: Sequence[ScoredClip], source: ModelSource, settings: Settings
) -> ContextCheck | None:
    """Compare --context artist with each track alone, as if whole albums had no genre yet.

    Of its own album, only the scores of the other tracks count; of other albums of its artist, also
    the genres that people wrote.
    """
    music_labels = [label for label in source.labels if label not in source.not_music]
    names = {label.casefold(): name_label(label, settings) for label in music_labels}
    index = index_labels(music_labels, names)
    vocabulary = settings.vocabulary or load_default_vocabulary()
    own: list[Evidence] = []
    artists: dict[str, Evidence] = defaultdict(Evidence)
    albums: dict[tuple[str, str], Evidence] = defaultdict(Evidence)
    sounds: dict[tuple[str, str], Evidence] = defaultdict(Evidence)
    for each in clips:
        is_music = decide.is_music(each.scores, source.not_music, settings.min_score)
        scores = each.scores if is_music else ()
        music = [score for score in scores if score.genre not in source.not_music]
        whole = make_evidence(music, find_labels(each.clip.labels, index, vocabulary))
        sound = make_evidence(music, ())
        own.append(sound)
        artist, _ = key = each.context_key
        artists[artist] += whole
        albums[key] += whole
        sounds[key] += sound
    alone, together, helped = [], [], 0
    for each, sound in zip(clips, own, strict=True):
        artist, _ = key = each.context_key
        others = artists[artist] - albums[key] if artist else Evidence()
        evidence = others + (sounds[key] - sound)
        pooled = pool_with_evidence(each.scores, evidence, source.not_music)
        alone.append(judge_track(each, source.not_music, settings))
        together.append(judge_track(replace(each, scores=pooled), source.not_music, settings))
        helped += bool(evidence)
    if not helped:
        return None
    min_score = settings.min_score
    return ContextCheck(helped, measure_bound(alone, min_score), measure_bound(together, min_score))


def measure_bound(tracks: Iterable[JudgedTrack], min_score: MinScore) -> Written:
    """Count what is written with these bounds."""
    counts = Counter[str]()
    for track in tracks:
        counts["tracks"] += 1
        if track.genre and track.score >= min_score.get(track.genre):
            counts["written"] += 1
            counts["right"] += track.is_right
    return Written(counts["tracks"], counts["written"], counts["right"])


def make_curve(tracks: Sequence[JudgedTrack]) -> tuple[CurvePoint, ...]:
    """Return what is written with each bound, the same for all genres."""
    return tuple(CurvePoint(bound, measure_bound(tracks, MinScore(bound))) for bound in BOUNDS)


def choose_bounds(tracks: Sequence[JudgedTrack], *, usual: float, precision: float) -> BoundChoice:
    """Choose the bound for all genres, and the bounds of genres that show the precision themselves.

    Other genres get the bound for all. That one stays as usual if all tracks together are too few.
    If no bound shows the precision, the one that comes nearest is chosen.
    """
    common = choose_bound("", tracks, default=usual, precision=precision)
    if common.verdict is Verdict.NOT_REACHED:
        best = max(common.curve, key=lambda point: point.result.least_precision)
        common = replace(common, bound=best.bound, chosen=best.result)
    by_genre: dict[str, list[JudgedTrack]] = defaultdict(list)
    for track in tracks:
        if track.genre:
            by_genre[track.genre].append(track)
    genres = (
        choose_bound(genre, by_genre[genre], default=common.bound, precision=precision)
        for genre in sorted(by_genre)
    )
    return BoundChoice(common, tuple(genres))


def choose_bound(
    genre: str, tracks: Sequence[JudgedTrack], *, default: float, precision: float
) -> GenreBound:
    """Choose the smallest bound with which the tracks show the precision, else the default."""
    curve = make_curve(tracks)
    reached = [point for point in curve if point.result.least_precision >= precision]
    if reached:
        bound, verdict = reached[0].bound, Verdict.REACHED
    elif curve[0].result.written < count_needed_tracks(precision):
        bound, verdict = default, Verdict.TOO_FEW
    else:
        bound, verdict = default, Verdict.NOT_REACHED
    chosen = measure_bound(tracks, MinScore(bound))
    return GenreBound(genre, len(tracks), bound, verdict, chosen, curve)


def divide_groups(tracks: Sequence[JudgedTrack], parts: int) -> Mapping[str, int]:
    """Return the part of each album. The parts have about the same number of tracks."""
    sizes = Counter(track.group for track in tracks)
    filled = [0] * parts
    part_by_group = {}
    for group, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        part = filled.index(min(filled))
        part_by_group[group] = part
        filled[part] += size
    return part_by_group


def cross_validate_bounds(
    tracks: Sequence[JudgedTrack], *, usual: float, precision: float
) -> CrossCheck | None:
    """Choose the bounds without a part of the albums, and apply them to it; do so for each part."""
    parts = min(PARTS, len({track.group for track in tracks}))
    if parts < 2:  # noqa: PLR2004 - nothing would be left to choose by
        return None
    part_by_group = divide_groups(tracks, parts)
    by_genre, common, as_usual = Counter[str](), Counter[str](), Counter[str]()
    for part in range(parts):
        left_out = [track for track in tracks if part_by_group[track.group] == part]
        others = [track for track in tracks if part_by_group[track.group] != part]
        min_score = choose_bounds(others, usual=usual, precision=precision).min_score
        by_genre.update(asdict(measure_bound(left_out, min_score)))
        common.update(asdict(measure_bound(left_out, MinScore(min_score.default))))
        as_usual.update(asdict(measure_bound(left_out, MinScore(usual))))
    return CrossCheck(parts, Written(**by_genre), Written(**common), Written(**as_usual))


def make_calibration_json(calibration: Calibration) -> dict[str, object]:
    """Return all of a calibration as values for JSON. Programs read these keys: they stay."""
    check, choice = calibration.cross_check, calibration.choice
    context = calibration.context_check
    return {
        "model": calibration.model,
        "precision": calibration.precision,
        "tracks": calibration.tracks,
        "albums": calibration.groups,
        "without_scores": calibration.without_scores,
        "unknown_labels": dict(calibration.unknown_labels),
        "min_score": {"default": choice.common.bound, **choice.min_score.by_genre},
        "all": _make_bound_json(choice.common),
        "genres": [{"genre": each.genre, **_make_bound_json(each)} for each in choice.genres],
        "left_out": {
            "parts": check.parts,
            "by_genre": _make_written_json(check.by_genre),
            "common": _make_written_json(check.common),
            "usual": _make_written_json(check.usual),
        }
        if check
        else None,
        "context": {
            "helped": context.helped,
            "alone": _make_written_json(context.alone),
            "artist": _make_written_json(context.artist),
        }
        if context
        else None,
    }


def _make_bound_json(bound: GenreBound) -> dict[str, object]:
    return {
        "bound": bound.bound,
        "verdict": bound.verdict,
        **_make_written_json(bound.chosen),
        "curve": _make_curve_json(bound.curve),
    }


def _make_curve_json(curve: Iterable[CurvePoint]) -> list[dict[str, object]]:
    return [{"bound": each.bound, **_make_written_json(each.result)} for each in curve]


def _make_written_json(result: Written) -> dict[str, object]:
    return {
        **asdict(result),
        "share": result.share,
        "precision": result.precision,
        "least_precision": result.least_precision,
    }
