"""A scan with --context: what the library knows of an album or artist counts for each genre.

evidence.py has the formula.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from tagger import decide
from tagger.crawl import Listing
from tagger.decide import Proposal, find_user_genres
from tagger.errors import AccessError
from tagger.evidence import (
    Evidence,
    find_labels,
    index_labels,
    is_compilation,
    is_single_album,
    make_evidence,
    pool_with_evidence,
)
from tagger.labels import name_label
from tagger.paths import AnyPath, join_path, parse_path
from tagger.records import (
    Album,
    Failure,
    Prediction,
    Tags,
    Track,
    normalize_label,
)
from tagger.scanning.session import TrackStep
from tagger.scanning.tracks import RowRepeater, TrackDecider, settle_found
from tagger.settings import Context, Existing
from tagger.state import ContextMember, KnownTrack, ScoredMember, make_album_key
from tagger.storage import look_up
from tagger.vocabulary import load_default_vocabulary

CONTEXT_DIGEST_PREFIX = b"context "
"""So begins the digest of a row for which other tracks counted."""

KEPT_GROUPS = 256
"""The sums of this many albums and artists stay in memory."""


class LibraryContext:
    """Finds what the state file knows of the album and the artist of a track.

    labels_by_key: the labels that are genres, as `index_labels` returns them. roots: the resolved
    paths of the scan.
    """

    def __init__(
        self,
        decider: TrackDecider,
        labels_by_key: Mapping[str, tuple[str, ...]],
        roots: Sequence[AnyPath],
    ) -> None:
        self.decider = decider
        self.labels_by_key = labels_by_key
        self.roots = roots
        self.vocabulary = decider.settings.vocabulary or load_default_vocabulary()
        self.sum_album = lru_cache(KEPT_GROUPS)(self._sum_album)
        self.sum_artist = lru_cache(KEPT_GROUPS)(self._sum_artist)

    def load(self) -> None:
        """Read the members of all albums and artists from the state file."""
        self.decider.state.context.fill(self.make_member, self._is_gone)

    def _is_gone(self, path: bytes) -> bool:
        """Tell whether a file was deleted since. Nobody looks outside of the scanned folders."""
        name = parse_path(os.fsdecode(path))
        if not any(name.is_relative_to(root) for root in self.roots):
            return False
        try:
            return look_up(name) is None
        except AccessError:
            return False

    def make_member(self, path: bytes, tags: Tags) -> ContextMember | None:
        """Return a track as a member of its groups; None if it belongs to none.

        A compilation is no group, and neither are its tracks members of their artists: what its
        tags call the artist may be a label. With --existing replace the genres of people do not
        count: they are what is to be replaced.
        """
        album = tags.album
        if album is None or album.various:
            return None
        by_artist = self.decider.settings.context is Context.ARTIST
        album_key = make_album_key(path, album.title) if is_single_album(album) else b""
        artist = normalize_label(album.artist).encode("utf-8", "surrogatepass")
        if not album_key and not (by_artist and artist):
            return None
        counts_people = self.decider.settings.existing is not Existing.REPLACE
        genres = find_user_genres(tags) if counts_people else ()
        labels = find_labels(genres, self.labels_by_key, self.vocabulary)
        return ContextMember(album_key, artist, tuple(labels))

    def find(self, track: Track, known: KnownTrack) -> Evidence:
        """Return what the other tracks of the album, and of the artist, say."""
        member = self.make_member(os.fsencode(track.path), known.tags) if known.tags else None
        if member is None:
            return Evidence()
        own = self._make_evidence(ScoredMember(member, known.scores))
        found = Evidence()
        if self.decider.settings.context is Context.ARTIST and member.artist:
            found = self.sum_artist(member.artist) - own
            if member.album:
                found += self.sum_album(member.album, member.artist)
        elif member.album:
            found = self.sum_album(member.album, b"") - own
        return found

    def _sum_artist(self, artist: bytes) -> Evidence:
        decider = self.decider
        return self._sum(
            decider.state.context.list_artist(artist, model=decider.model, windows=decider.windows)
        )

    def _sum_album(self, album: bytes, without_artist: bytes) -> Evidence:
        """Return what an album says, without tracks of an artist. A compilation says nothing."""
        decider, table = self.decider, self.decider.state.context
        if is_compilation([Album(artist.hex()) for artist in table.list_artists(album)]):
            return Evidence()
        found = table.list_album(album, model=decider.model, windows=decider.windows)
        return self._sum(
            each for each in found if not without_artist or each.member.artist != without_artist
        )

    def _sum(self, members: Iterable[ScoredMember]) -> Evidence:
        total = Evidence()
        for member in members:
            total += self._make_evidence(member)
        return total

    def _make_evidence(self, member: ScoredMember) -> Evidence:
        """Return what one track says. What is no music says nothing by its scores."""
        decider, labels = self.decider, member.member.labels
        scores = member.scores or ()
        if not decide.is_music(scores, decider.not_music, decider.settings.min_score):
            scores = ()
        music = [score for score in scores if score.genre not in decider.not_music]
        return make_evidence(music, labels)


def describe_evidence(
    evidence: Evidence, context: Context, genre: str, labels: Iterable[str]
) -> str:
    """Return the remark of a row that other tracks decided. labels: those behind the genre."""
    labels = tuple(labels)
    named = max((evidence.genres.get(label, 0) for label in labels), default=0)
    if named:
        return f"{context}: {_count_tracks(named)} {genre}"
    heard = sum(evidence.best.get(label, 0) for label in labels)
    if heard:
        return f"{context}: {_count_tracks(heard)} sound{'s' if heard == 1 else ''} like {genre}"
    return f"{context}: the scores of {_count_tracks(evidence.scored)}"


def _count_tracks(count: float) -> str:
    return f"{round(count)} track{'' if count == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class ContextSettler:
    """Settles the tracks that need scores once all of them are known.

    rows: repeats the rows of tracks whose scores do not matter. Rows of other tracks depend on
    other tracks. They are kept under another digest, for `tagger apply`, and never repeated.
    """

    decider: TrackDecider
    rows: RowRepeater
    context: LibraryContext

    def settle_known(self, found: Iterable[Listing | Failure]) -> Iterator[TrackStep | None]:
        """Settle the tracks whose scores do not matter; queue the others. Yield None for each."""

        def settle_track(track: Track, known: KnownTrack) -> TrackStep | None:
            return self.decider.settle_or_queue(track, known, self.rows)

        return settle_found(self._note(found), self.decider, self.rows, settle_track)

    def _note(self, found: Iterable[Listing | Failure]) -> Iterator[Listing | Failure]:
        """Yield what the crawl finds. Note the files: others may be gone, and have no say then."""
        for item in found:
            if isinstance(item, Listing):
                paths = [join_path(item.folder, file.name) for file in item.files]
                self.decider.state.context.add_found(paths)
            yield item

    def settle_predictions(
        self, results: Iterable[Prediction | Failure]
    ) -> Iterator[TrackStep | None]:
        """Save the prediction of each queued track; settle the tracks that failed."""
        state = self.decider.state
        for result in results:
            failed = self.decider.save_result(result)
            yield self.rows.save(failed) if failed else None
            state.commit_if_due()
        state.commit()

    def count_scored(self) -> int:
        """Return how many tracks can be settled: all, or none while one waits for a prediction."""
        queue = self.decider.state.queue
        return 0 if queue.count() else queue.count(with_scored=True)

    def settle_scored(self) -> Iterator[TrackStep]:
        """Settle all queued tracks. Call it once `count_scored` says that it can."""
        state = self.decider.state
        self.context.load()
        rows = replace(self.rows, digest=CONTEXT_DIGEST_PREFIX + self.rows.digest)
        for track in state.queue.list_tracks(with_scored=True):
            state.queue.remove(track)
            known = self.decider.load(track)
            yield rows.save(self.decider.decide_track(track, known, self._propose(track, known)))
            state.commit_if_due()

    def _propose(self, track: Track, known: KnownTrack) -> Proposal:
        """Return what tagger would write: the genre with context, the scores of the track."""
        decider = self.decider
        own = decider.propose(known)
        evidence = self.context.find(track, known) if own.is_music else Evidence()
        if not evidence or not known.scores:
            return own
        pooled = pool_with_evidence(known.scores, evidence, decider.not_music)
        together = decider.propose(replace(known, scores=pooled))
        remark = ""
        if self._is_decisive(own, together):
            genre = together.scores[0].genre
            labels = find_labels([genre], self.context.labels_by_key, self.context.vocabulary)
            remark = describe_evidence(evidence, decider.settings.context, genre, labels)
        return replace(together, scores=own.scores, shared_score=together.score, remark=remark)

    def _is_decisive(self, own: Proposal, together: Proposal) -> bool:
        """Tell whether the track alone would get other genres, or none for a low score."""
        least = together.min_score or 0.0
        return bool(together.genres) and (
            own.genres != together.genres or (own.score or 0.0) < least <= (together.score or 0.0)
        )


def make_context_settler(
    decider: TrackDecider, rows: RowRepeater, labels: Iterable[str], paths: Iterable[AnyPath]
) -> ContextSettler:
    """Return the settler of a scan of these paths with --context. labels: those of the model."""
    music = [label for label in labels if label not in decider.not_music]
    names = {label.casefold(): name_label(label, decider.settings) for label in music}
    index = index_labels(music, names)
    roots = [path.resolve() for path in paths]
    return ContextSettler(decider, rows, LibraryContext(decider, index, roots))
