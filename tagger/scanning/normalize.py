"""Normalize: give the genres that stand in the tags the names of a vocabulary, without listening.

It is a run like a scan: a dry run, a report, a journal, an undo. See docs/vocabulary.md.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import starmap
from pathlib import Path

from tagger import decide
from tagger.crawl import Listing, crawl_folders
from tagger.decide import (
    Decision,
    Proposal,
    decide_by_links,
    format_genre_values,
    has_stored_number,
    rename_genres,
)
from tagger.errors import KeepReason, SettingsError, TrackError, WriteReason
from tagger.models import find_model
from tagger.pacing import SYSTEM_CLOCK, Pacer
from tagger.paths import AnyPath, display_path
from tagger.records import Action, Failure, GenreNames, Outcome, PassedOver, ScanResult, Tags, Track
from tagger.scanning.run import RunInterrupts, ScanObserver, make_scope
from tagger.scanning.session import TrackStep, open_session
from tagger.scanning.tag_reader import open_tag_reader
from tagger.scanning.tracks import FoundTrack, TrackDecider, settle_parts
from tagger.settings import Existing, Settings, WrittenField
from tagger.state import KnownTrack, RunKind
from tagger.tags import read_hidden_genres
from tagger.vocabulary import (
    Vocabulary,
    is_numbered,
    load_default_vocabulary,
    make_key,
    name_genres,
)
from tagger.writing import PlannedWrite

STORED_AS_NUMBER = "its genre is stored as a number"
NO_SCORES = "nothing is known of its sound: tagger scan listens to it"
SCAN_LISTENS = "tagger scan listens to it"
REMOVED_BEFORE = "its genre was removed or undone by hand: --fill leaves it so"


@dataclass(frozen=True, slots=True)
class NormalizeRequest:
    """What `tagger normalize` does beside naming genres.

    fill: write the genre of known scores where no genre is left. starter: a new file for a
    vocabulary to start from; the run then writes no tags.
    """

    fill: bool = False
    starter: Path | None = None


def run_normalize(
    paths: Sequence[AnyPath],
    settings: Settings,
    request: NormalizeRequest,
    observer: ScanObserver,
) -> ScanResult:
    """Name the genres of all tracks below `paths` by the vocabulary, and return the counts.

    Without a vocabulary in the settings, it is the one that comes with tagger. Raises the errors of
    a run that cannot go on. A bad file is only a row.
    """
    vocabulary = settings.vocabulary or load_default_vocabulary()
    if request.starter:
        _check_starter(request.starter)
        vocabulary = load_default_vocabulary()  # the one that the new file extends
        settings = replace(settings, dry_run=True)
    settings = replace(settings, vocabulary=vocabulary)
    source = find_model(settings) if request.fill else None
    scope = replace(make_scope(settings), shard=None)  # it has no --shard
    passed_over, names = PassedOver(), GenreNames(starter=request.starter)
    found = crawl_folders(paths, scope, passed_over)
    pacer = Pacer(SYSTEM_CLOCK, until=settings.until, gentle=settings.gentle)
    interrupts = RunInterrupts(observer, pacer)
    with (
        open_session(RunKind.NORMALIZE, "", settings, observer) as session,
        open_tag_reader(session.writer.isolated, settings, extras=()) as reader,
    ):
        session.counts.passed_over, session.counts.names = passed_over, names
        decider = TrackDecider(
            settings, session.state, reader, session.writer.unrecovered, pacer.is_time_up
        )
        if source:
            decider = decider.add_model(source)
        normalizer = Normalizer(
            decider, vocabulary, names, fill=request.fill, only_counts=request.starter is not None
        )
        session.process(interrupts.check_between(normalizer.plan_all(found)))
        if pacer.is_time_up():
            session.counts.waiting = normalizer.waiting
    if request.starter:
        write_starter(request.starter, names, paths)
    return session.counts.make_result()


@dataclass(frozen=True, slots=True)
class RenamedTags:
    """The tags that a track should have.

    tags: None where nothing is to be written. proposal: of the model, where it fills a gap.
    by_rule: whether a rule of the vocabulary decided, not the names that stand there.
    """

    tags: Tags | None
    decision: Decision
    remark: str = ""
    proposal: Proposal | None = None
    by_rule: bool = False


@dataclass(slots=True)
class Normalizer:
    """Plans the write for each track. It touches a file only to read its tags.

    names: the names that it counts. only_counts: nobody asks whether the files can be written.
    waiting: how many tracks wait for the next run.
    """

    decider: TrackDecider
    vocabulary: Vocabulary
    names: GenreNames
    fill: bool = False
    only_counts: bool = False
    waiting: int = 0

    @property
    def settings(self) -> Settings:
        return self.decider.settings

    def plan_all(self, found: Iterable[Listing | Failure]) -> Iterator[TrackStep]:
        parts = (item if isinstance(item, Failure) else self._load_tracks(item) for item in found)
        return settle_parts(
            parts, self.decider, self._needs_tags, lambda part: starmap(self.plan_track, part)
        )

    def _load_tracks(self, listing: Listing) -> list[FoundTrack]:
        tracks = [listing.track(file) for file in listing.files]
        known = self.decider.state.load_tracks(tracks, model="", windows=0)
        return list(zip(tracks, known, strict=True))

    def _needs_tags(self, known: KnownTrack) -> bool:
        lacks_album = self.vocabulary.needs_artist and known.tags and known.tags.album is None
        return known.tags is None or bool(lacks_album) or self.settings.force

    def plan_track(self, track: Track, known: KnownTrack) -> TrackStep:
        """Return the write for a track, or the outcome if there is none."""
        decider = self.decider
        if decider.is_time_up():
            self.waiting += 1
            kept = Decision.keep(KeepReason.TIME_IS_UP)
            return Outcome(track, kept.action, error=kept.reason, kind=kept.kind)
        try:
            known = self._read_tags(track, known)
            tags = known.tags or Tags()
            renamed = self._rename(track, known, tags)
        except TrackError as error:
            return decider.report_failure(Failure.from_error(track, error))
        step = self._plan_write(track, known, tags, renamed)
        is_kept = isinstance(step, Outcome) and step.action in (Action.KEPT, Action.FAILED)
        self._count(tags, replace(renamed, tags=None) if is_kept else renamed)
        return step

    def _read_tags(self, track: Track, known: KnownTrack) -> KnownTrack:
        """Return what is known of a track, with its tags. Raises TrackError."""
        decider = self.decider
        if track.path in decider.unrecovered:
            raise decider.unrecovered[track.path]
        if known.tags is not None and not self._needs_tags(known):
            return replace(known, tags=known.tags.select_extras(()))  # they stay as they are
        reading = decider.reader.read(track)
        if reading.error:
            raise reading.error
        decider.state.save_reading(track, reading, is_new=known.is_new)
        return replace(known, tags=reading.tags)

    def _rename(self, track: Track, known: KnownTrack, tags: Tags) -> RenamedTags:
        rule = self.decider.find_rule(track, tags)
        if rule and not rule.genres:
            return RenamedTags(None, Decision.keep(KeepReason.BY_RULE), by_rule=True)
        if rule:
            proposal = decide.propose_by_rule(rule, self.settings.profile)
            if tags.genres == proposal.genres:
                return replace(self._store_names(tags, replace(tags, raw=())), by_rule=True)
            # The rule is the person's, and so is the genre: later scans leave it alone.
            by_rule = replace(tags, genres=proposal.genres, written=(), scores="", model="", raw=())
            return RenamedTags(by_rule, Decision(Action.WRITTEN), proposal.remark, by_rule=True)
        new = rename_genres(tags, self.settings, self.vocabulary)
        if new.genres:
            return self._store_names(tags, new)
        return self._fill_gap(track, known, tags, new)

    def _store_names(self, tags: Tags, new: Tags) -> RenamedTags:
        """Return the tags to write if names differ, or if a genre is stored as a number."""
        if new != tags:
            return RenamedTags(new, Decision(Action.WRITTEN))
        if has_stored_number(tags):
            return RenamedTags(new, Decision(Action.WRITTEN), STORED_AS_NUMBER)
        return RenamedTags(None, Decision.keep(KeepReason.HAS_GENRE))

    def _fill_gap(self, track: Track, known: KnownTrack, tags: Tags, new: Tags) -> RenamedTags:
        """Return the tags of a track without a genre: with the model's genre, if that is wanted."""
        junk = decide.format_junk_remark(tags.genres)
        filled, why = self._propose(track, known, new) if self.fill else (None, SCAN_LISTENS)
        if filled:
            return replace(filled, remark="; ".join(filter(None, (junk, filled.remark))))
        if not tags.genres:
            reason = why if self.fill else ""
            kept = Decision.keep(KeepReason.NO_GENRE)
            return RenamedTags(None, replace(kept, reason=reason or kept.reason))
        hidden = self.decider.reader.isolated.call(read_hidden_genres, track.path)
        if hidden:
            shown = ", ".join(f'"{genre}"' for genre in hidden)
            reason = f"{junk}, but without it players show {shown} of another tag; {SCAN_LISTENS}"
            return RenamedTags(None, replace(Decision.keep(KeepReason.NO_GENRE), reason=reason))
        return RenamedTags(new, Decision(Action.WRITTEN), f"{junk}; {why}")

    def _propose(
        self, track: Track, known: KnownTrack, tags: Tags
    ) -> tuple[RenamedTags | None, str]:
        """Return the tags with the genre of known scores, or why there is none."""
        if known.undone:
            return None, REMOVED_BEFORE
        scored = self.decider.load(track)
        if scored.scores is None:
            return None, NO_SCORES
        proposal = self.decider.propose(scored)
        by_gap = replace(self.settings, existing=Existing.KEEP, write=(WrittenField.GENRE,))
        decision = decide.decide(tags, proposal, by_gap)
        if decision.action is Action.WRITTEN:
            return RenamedTags(decision.tags, decision, proposal.remark, proposal), ""
        reasons = {
            Action.NOT_MUSIC: proposal.remark,
            Action.LOW_SCORE: "no genre reaches --min-score",
        }
        return None, reasons.get(decision.action, REMOVED_BEFORE)

    def _plan_write(
        self, track: Track, known: KnownTrack, tags: Tags, renamed: RenamedTags
    ) -> TrackStep:
        settings, decision = self.settings, renamed.decision
        failure = known.failure
        if renamed.tags is not None and failure and failure.permanent and not settings.force:
            failed = Outcome(track, Action.FAILED, renamed.tags.genres, tags.genres)
            return failed.fail(failure, reported=True)
        if renamed.tags is not None:
            decision = decide_by_links(track, settings.hardlinks) or decision
        is_written = decision.action is Action.WRITTEN
        would_write = is_written and settings.dry_run
        proposal = renamed.proposal
        kind = WriteReason.RENAMED if is_written and proposal is None else decision.kind
        outcome = Outcome(
            track,
            Action.WOULD_WRITE if would_write else decision.action,
            genres=renamed.tags.genres if renamed.tags else (),
            existing=tags.genres,
            scores=proposal.scores if proposal else (),
            score=proposal.score if proposal else None,
            duration_s=known.duration_s,
            model=proposal.model if proposal else "",
            error=decision.reason or renamed.remark,
            kind=kind,
            styles=proposal.styles if proposal else (),
        )
        if would_write and not self.only_counts:
            return self.decider.check_writable(outcome, reported=failure is not None)
        if is_written and renamed.tags is not None and not would_write:
            reported = failure is not None
            return PlannedWrite(track, tags, renamed.tags, outcome, reported=reported)
        return outcome

    def _count(self, tags: Tags, renamed: RenamedTags) -> None:
        """Count the names of a track, by values of the genre field. renamed: as it is written."""
        names, new = self.names, renamed.tags or tags
        names.before.update(dict.fromkeys(tags.genres, 1))
        names.after.update(dict.fromkeys(new.genres, 1))
        names.without += not new.genres
        is_filled = renamed.tags is not None and renamed.proposal is not None
        names.filled += is_filled
        is_renamed = renamed.tags is not None and not renamed.by_rule and not is_filled
        for value in dict.fromkeys(tags.genres):
            found = name_genres([value], self.vocabulary, self.settings.junk_genres)
            genres = tuple(genre.name for genre in found)
            wanted = "; ".join(format_genre_values(genres, self.settings.profile))
            if wanted != value and is_renamed:
                names.renamed[value, wanted] += 1
            names.unknown.update(genre.name for genre in found if not genre.is_known)


STARTER_HEADER = """\
# A vocabulary for the genres of {paths}, made by tagger on {day}.
# "tagger normalize --vocabulary FILE.toml" uses it. docs/vocabulary.md explains it.

extends = "default"    # all names that tagger knows; remove this line to begin from nothing
parents = "leave"      # leave; add: "House" also gets "Electronic"; replace: "Electronic" only;
                       # narrow: "House" only, where both stand there
drop = []              # names that are no genre, such as ["Favourites"]

# [[rules]]
# folder = "Soundtracks/**"
# genre = "Soundtrack"

# [[rules]]
# artist = "Radiohead"
# keep = true
"""


def _check_starter(path: Path) -> None:
    if path.exists():
        raise SettingsError(f"{path} exists already: --init-vocabulary writes a new file only")
    if not path.parent.is_dir():
        raise SettingsError(f"--init-vocabulary: there is no folder {path.parent}")


def write_starter(path: Path, names: GenreNames, paths: Sequence[AnyPath]) -> None:
    """Write a vocabulary to start from. Raises SettingsError if the file exists."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(format_starter(names, paths))
    except FileExistsError as error:
        raise SettingsError(f"{path} exists already") from error
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}") from error


def format_starter(names: GenreNames, paths: Sequence[AnyPath]) -> str:
    """Return a vocabulary with each unknown genre as an entry, and all others as comments."""
    shown = ", ".join(json.dumps(display_path(path)) for path in paths)
    header = STARTER_HEADER.format(paths=shown, day=f"{datetime.now().astimezone():%Y-%m-%d}")
    renamed = dict(names.renamed.keys())
    comments = [
        f"# {count:>6}  {json.dumps(name, ensure_ascii=False)}"
        + (f" -> {json.dumps(renamed[name], ensure_ascii=False)}" if name in renamed else "")
        for name, count in sorted(names.before.items(), key=lambda item: (-item[1], item[0]))
    ]
    entries = list(_format_entries(names))
    return "\n".join(
        [
            header,
            "# The existing genres, each with its number of tracks:",
            *comments,
            "",
            "# The names that tagger does not know. They stay as they are. To give one of them",
            "# another name, remove its line, and add the name to the aliases of that genre:",
            "#",
            '# [genres."Rock"]',
            '# aliases = ["General Rock"]',
            "#",
            '# If it is no genre, remove its line, and add the name to "drop".',
            *entries,
            "",
        ]
    )


def _format_entries(names: GenreNames) -> Iterator[str]:
    """Yield an entry for each unknown genre under its commonest spelling."""
    seen: set[str] = set()
    for name, count in names.unknown.most_common():
        if (key := make_key(name)) in seen:
            continue
        seen.add(key)
        quoted = json.dumps(name, ensure_ascii=False)
        line = f"[genres.{quoted}]  # tracks: {count}"
        yield f"# {line} (a number is no name)" if is_numbered(name) else line
