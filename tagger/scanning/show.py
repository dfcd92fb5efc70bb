"""All that is known of one track, and what a scan would do with it now. Nothing is written."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import takewhile

from tagger.crawl import Listing, crawl_folders, explain_passing_over
from tagger.decide import GenreOrigin, find_genre_origin, get_junk_keys
from tagger.errors import AccessError, KeepReason, LibraryError, TrackError
from tagger.isolation import IsolatedCaller, get_call_limits
from tagger.models import ModelSource
from tagger.paths import AnyPath
from tagger.records import Action, ExtraField, Failure, Outcome, RawField, Tags, Track
from tagger.report.csv import parse_row
from tagger.scanning.albums import AlbumSettler
from tagger.scanning.context import CONTEXT_DIGEST_PREFIX
from tagger.scanning.run import make_scope
from tagger.scanning.tag_reader import open_tag_reader
from tagger.scanning.tracks import RowRepeater, TrackDecider, TrackSettler
from tagger.settings import Context, Existing, Settings
from tagger.state import KnownTrack, ModelResult, PastWrite, State, open_snapshot
from tagger.storage import ListedFile, check_no_writer, find_file
from tagger.tags import EXTENSIONS, RAW_BYTES_SUFFIX, read_genres_elsewhere, read_tags

CONTEXT_NOT_ASKED = (
    "the other tracks of its {context} count in a scan (--context), but not here: tagger scan"
    " --dry-run shows what they do"
)
CONTEXT_SAID = "the last scan with --context said {result}{remark}"
NO_SAY = "; other tracks changed nothing"


@dataclass(frozen=True, slots=True)
class TrackTags:
    """What stands in a file now.

    elsewhere: genres that tagger does not write there, by the place. error: why the tags cannot be
    read; empty if they can.
    """

    tags: Tags | None = None
    elsewhere: tuple[RawField, ...] = ()
    error: str = ""
    junk: frozenset[str] = frozenset()

    @property
    def origin(self) -> GenreOrigin | None:
        """Who wrote the genre; None if nobody can tell."""
        return find_genre_origin(self.tags, self.junk) if self.tags else None

    @property
    def fields(self) -> tuple[RawField, ...]:
        """The genre fields and tagger's own, under the names of the container."""
        raw = self.tags.raw if self.tags else ()
        return tuple(each for each in raw if not each.name.endswith(RAW_BYTES_SUFFIX))


@dataclass(frozen=True, slots=True)
class TrackMemory:
    """What the state file has of a file.

    failure: one that does not depend on a model. undone: a person does not want tagger's genre.
    """

    results: tuple[ModelResult, ...]
    failure: Failure | None
    undone: bool
    duration_s: float | None
    history: tuple[PastWrite, ...]


@dataclass(frozen=True, slots=True)
class ScanPlan:
    """What a scan would do with a file now, and why.

    outcome: the row of a dry run; None if the scan would have to listen first.
    """

    model: str
    outcome: Outcome | None
    reason: str


@dataclass(frozen=True, slots=True)
class TrackView:
    """Everything about one track.

    in_use: a sentence if another program writes the file. passed_over: why a scan of a folder above
    does not find it; empty if it does.
    """

    track: Track
    tags: TrackTags
    memory: TrackMemory
    in_use: str
    passed_over: str
    plan: ScanPlan


def show_tracks(
    paths: Sequence[AnyPath], source: ModelSource, settings: Settings
) -> Iterator[TrackView | Failure]:
    """Yield the view of each file, in the given order, or why there is none.

    No file is changed, the state file neither. Raises StateError if the state file is unusable.
    """
    settings, junk = replace(settings, dry_run=True), get_junk_keys(settings)
    with (
        closing(IsolatedCaller(get_call_limits(settings))) as isolated,
        open_tag_reader(isolated, settings) as reader,
    ):
        for path in paths:
            try:
                track = _find_track(path)
                listings = _list_folder(track, settings)
            except TrackError as error:
                yield Failure.without_stat(path, str(error), error.kind)
                continue
            files = [listing.track(file) for listing in listings for file in listing.files]
            with open_snapshot(settings.state, files) as state:
                memory, tags = _recall(state, track), _read_tags(track, isolated, junk)
                decider = TrackDecider(settings, state, reader).add_model(source)
                known = decider.load(track)
                context = _recall_context(track, known, decider)  # before the settler saves a row
                in_use = _find_writer(track, state)
                outcome = _settle(track, listings, decider)
                if in_use and outcome and outcome.action is Action.WOULD_WRITE:
                    failure = Failure.from_error(track, in_use)
                    outcome = outcome.fail(failure, reported=known.failure is not None)
                reason = _explain(outcome, known, tags, decider)
                if settings.context is not Context.NONE and _needs_scores(outcome):
                    reason += f"; {context}"
                plan = ScanPlan(source.identity, outcome, reason)
            passed_over = explain_passing_over(track.path, make_scope(settings))
            yield TrackView(track, tags, memory, str(in_use or ""), passed_over, plan)


def _find_track(path: AnyPath) -> Track:
    """Return the file that a path names or leads to. Raises AccessError, TrackError."""
    try:
        track = find_file(path.resolve())
    except RuntimeError as error:  # a loop of links
        raise AccessError(f"cannot open: {error}") from error
    if track.path.suffix.lower() not in EXTENSIONS:
        raise TrackError(f"tagger knows no files named *{track.path.suffix}")
    return track


def _list_folder(track: Track, settings: Settings) -> Sequence[Listing]:
    """Return the file alone; by album, all files of its folder, which decide together."""
    file = ListedFile(track.path.name, track.size, track.mtime_ns, track.inode, track.links)
    alone = [Listing(str(track.path.parent), [file])]
    if not settings.by_album:
        return alone
    try:
        scope = replace(make_scope(settings), shard=None)  # the album counts as a whole
        found = crawl_folders([track.path.parent], scope)
    except LibraryError:  # the folder can be entered, but not listed
        return alone
    listed = (each for each in found if isinstance(each, Listing))
    listings = list(takewhile(lambda listing: listing.folder == alone[0].folder, listed))
    has_file = any(file.name == other.name for each in listings for other in each.files)
    return listings if has_file else alone


def _recall(state: State, track: Track) -> TrackMemory:
    known = state.load_track(track, model="", windows=0)
    results, history = state.list_model_results(track), state.journal.list_history(track.path)
    return TrackMemory(
        tuple(results), known.failure, known.undone, known.duration_s, tuple(history)
    )


def _read_tags(track: Track, isolated: IsolatedCaller, junk: frozenset[str]) -> TrackTags:
    try:
        tags = isolated.call(read_tags, track.path, extras=tuple(ExtraField))
        elsewhere = isolated.call(read_genres_elsewhere, track.path)
        return TrackTags(tags, elsewhere, junk=junk)
    except TrackError as error:
        return TrackTags(error=str(error))


def _find_writer(track: Track, state: State) -> AccessError | None:
    """Return the error with which a scan leaves a file alone that another program writes."""
    try:
        check_no_writer(track.path, is_settled=state.journal.has_written(track))
    except AccessError as error:
        return error
    return None


def _settle(track: Track, listings: Sequence[Listing], decider: TrackDecider) -> Outcome | None:
    """Return the row of a dry run, by the rules of a scan; None if it had to listen first."""
    rows = RowRepeater(decider.state, b"", is_dry_run=True, is_enabled=False)
    settler: AlbumSettler | TrackSettler = TrackSettler(decider, rows)
    if decider.settings.by_album:
        settler = AlbumSettler(decider, rows)
    for step in settler.settle_known(listings):
        if isinstance(step, Outcome) and step.track.path == track.path:
            return step
    return None


def _needs_scores(outcome: Outcome | None) -> bool:
    """Tell whether other scores could change what a scan does with a track."""
    return outcome is None or (bool(outcome.scores) and outcome.action in SCORED_ACTIONS)


SCORED_ACTIONS = {Action.WOULD_WRITE, Action.UNCHANGED, Action.LOW_SCORE}


def _recall_context(track: Track, known: KnownTrack, decider: TrackDecider) -> str:
    """Return what other tracks did to a track in the last scan, if the state file has its row."""
    text = decider.state.rows.find_text(track.path, digest_prefix=CONTEXT_DIGEST_PREFIX)
    if known.scores is None or text is None:
        return CONTEXT_NOT_ASKED.format(context=decider.settings.context)
    row = parse_row(text)
    score = f" {row.score:.3f}" if row.score is not None else ""
    result = f"{row.action} {'; '.join(row.genres)}{score}"
    return CONTEXT_SAID.format(result=result, remark=f" ({row.error})" if row.error else NO_SAY)


def _explain(
    outcome: Outcome | None, known: KnownTrack, tags: TrackTags, decider: TrackDecider
) -> str:
    """Return the reason for what a scan would do, with the rule that decides."""
    if outcome is None:
        return _explain_listening(known, decider)
    return EXPLAIN_ACTION[outcome.action](outcome, tags, decider.settings)


def _explain_listening(known: KnownTrack, decider: TrackDecider) -> str:
    settings = decider.settings
    if settings.force and known.scores is not None:
        return "--force listens again to a known track"
    if known.scores is not None:
        return "its scores are known, but not those of all tracks in its folder (--by-album)"
    windows = f" over {settings.windows} windows (--windows)" if settings.windows else ""
    return f"the state file {settings.state} has no scores of {decider.model}{windows}"


def _explain_failure(outcome: Outcome, _: TrackTags, __: Settings) -> str:
    if not outcome.permanent:
        return f"{outcome.error} (every scan tries again)"
    return f"{outcome.error} (a scan tries again when the file changes, or with --force)"


def _explain_keeping(outcome: Outcome, tags: TrackTags, settings: Settings) -> str:
    if outcome.kind is not KeepReason.HAS_GENRE:
        return outcome.error
    if settings.existing is Existing.APPEND:
        return "the genre there already says what --existing append would add"
    if tags.origin is GenreOrigin.BOTH:
        return "a genre that is not tagger's stands before tagger's: --existing keep leaves both"
    return "its genre is not tagger's: --existing keep leaves it alone"


def _explain_low_score(outcome: Outcome, _: TrackTags, __: Settings) -> str:
    if outcome.score is None:
        return "no genre is left: --genre-map or --vocabulary drops all labels"
    return (
        f"the score of {'; '.join(outcome.genres)}, {outcome.score:.3f}, is below"
        f" {outcome.min_score:g} (--min-score)"
    )


def _explain_no_music(outcome: Outcome, _: TrackTags, __: Settings) -> str:
    return f"{outcome.error}; speech and other sounds are together more likely than music"


WRITE_REASONS: Mapping[GenreOrigin, str] = {
    GenreOrigin.NONE: "no genre stands there",
    GenreOrigin.TAGGER: "the genre there is tagger's own",
    GenreOrigin.USER: "--existing {existing} does so although a genre stands there",
    GenreOrigin.BOTH: "--existing {existing} does so although a genre stands there",
    GenreOrigin.REMOVED: "--existing {existing} writes a removed genre again",
}


def _explain_writing(outcome: Outcome, tags: TrackTags, settings: Settings) -> str:
    if outcome.score is None or outcome.genres == outcome.existing:
        return outcome.error  # a rule, or other fields than the genre
    reason = WRITE_REASONS[tags.origin or GenreOrigin.NONE].format(existing=settings.existing)
    is_pooled = bool(outcome.scores) and outcome.score != outcome.scores[0].probability
    of_album = " of its album" if is_pooled else ""
    sentences = [f"the score{of_album}, {outcome.score:.3f}, reaches {outcome.min_score:g}", reason]
    return "; ".join(filter(None, [*sentences, outcome.error]))


EXPLAIN_ACTION: Mapping[Action, Callable[[Outcome, TrackTags, Settings], str]] = {
    Action.FAILED: _explain_failure,
    Action.KEPT: _explain_keeping,
    Action.UNCHANGED: lambda *_: "the file already says what tagger would write",
    Action.LOW_SCORE: _explain_low_score,
    Action.NOT_MUSIC: _explain_no_music,
    Action.WOULD_WRITE: _explain_writing,
}
