"""A scan by album: all tracks of an album get one genre, once the scores of each are known."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from tagger import decide
from tagger.crawl import Listing
from tagger.decide import Proposal
from tagger.evidence import (
    MIN_ALBUM_TRACKS,
    is_compilation,
    is_outlier,
    is_single_album,
    pool_scores,
)
from tagger.paths import AnyPath, parse_path
from tagger.records import Failure, Prediction, RepeatedRows, Tags, Track
from tagger.scanning.session import TrackStep
from tagger.scanning.tracks import FoundTrack, RowRepeater, TrackDecider
from tagger.state import KnownTrack


@dataclass(frozen=True, slots=True)
class AlbumSettler:
    """Settles folder by folder. An album is the tracks with one album title in one folder."""

    decider: TrackDecider
    rows: RowRepeater

    def settle_known(self, found: Iterable[Listing | Failure]) -> Iterator[TrackStep | None]:
        """Settle the folders that need no prediction; queue all tracks of the others.

        Yield None for each queued track.
        """
        state = self.decider.state
        for folder, group in groupby(
            self.decider.reader.read_ahead(found, self._list_unread), _get_folder
        ):
            items = list(group)
            if repeated := self._repeat_folder(items):
                yield from repeated
            else:
                for item in items:
                    yield from self._examine(item)
                if folder:
                    yield from self._settle_folder(parse_path(folder))
            state.commit_if_due()
        state.commit()

    def _repeat_folder(self, items: Sequence[Listing | Failure]) -> Sequence[RepeatedRows]:
        """Return the rows of a folder if all of them still hold.

        One track that changed may change the genre of its whole album.
        """
        listings = [item for item in items if isinstance(item, Listing)]
        parts = [part for listing in listings for part in self.rows.split_listing(listing)]
        repeated = [part for part in parts if isinstance(part, RepeatedRows)]
        is_whole = len(listings) == len(items) and len(repeated) == len(parts)
        return repeated if is_whole else []

    def _list_unread(self, item: Listing | Failure) -> list[Track]:
        parts = self.rows.split_listing(item) if isinstance(item, Listing) else ()
        tracks = [track for part in parts if isinstance(part, list) for track in part]
        return self.decider.list_unread(self.decider.look_up(tracks))

    def _examine(self, item: Listing | Failure) -> Iterator[TrackStep | None]:
        if isinstance(item, Failure):
            yield self.decider.report_failure(item)
            return
        for track, known in self.decider.look_up([item.track(file) for file in item.files]):
            yield self.decider.settle_or_queue(track, known, self.rows)

    def settle_predictions(
        self, results: Iterable[Prediction | Failure]
    ) -> Iterator[TrackStep | None]:
        """Save the prediction of each queued track; settle a folder after its last one."""
        state = self.decider.state
        for result in results:
            if failed := self.decider.save_result(result):
                yield self.rows.save(failed)
            yield from self._settle_folder(result.track.path.parent)
            state.commit_if_due()

    def _settle_folder(self, folder: AnyPath) -> Iterator[TrackStep]:
        """Settle the tracks of a folder, if none of them waits for a prediction."""
        queued = self.decider.state.queue.remove_scored_folder(folder)
        tracks = [(track, self.decider.load(track)) for track in queued]
        proposals = {track.path: self.decider.propose(known) for track, known in tracks}
        members = [
            (track, known)
            for track, known in tracks
            if proposals[track.path].is_music and not self._keeps_genre(known)
        ]
        for album in _group_albums(members):
            proposals |= self._propose_for_album(album, proposals)
        for track, known in tracks:
            yield self.rows.save(self.decider.decide_track(track, known, proposals[track.path]))

    def _keeps_genre(self, known: KnownTrack) -> bool:
        """Tell whether a track keeps its genre. Scores for --audit do not count for the album."""
        existing, junk = self.decider.settings.existing, self.decider.junk
        return decide.decide_by_tags(known.tags or Tags(), existing, junk) is not None

    def _propose_for_album(
        self, album: Sequence[FoundTrack], own: Mapping[AnyPath, Proposal]
    ) -> dict[AnyPath, Proposal]:
        """Return the proposal for each track: the genre of the album, the scores of the track.

        own: what each track would get alone.
        """
        pooled_scores = pool_scores(known.scores or () for _, known in album)
        pooled = self.decider.propose(KnownTrack(scores=pooled_scores))
        has_outliers = len(album) >= MIN_ALBUM_TRACKS and bool(pooled.scores)
        proposals = {}
        for track, known in album:
            remark = ""
            scores = self.decider.name_scores(known)
            if has_outliers and is_outlier(scores, pooled.scores[0].genre):
                remark = f"sounds more like {scores[0].genre} than its album does"
            by_album = self.decider.propose(replace(known, scores=pooled_scores))
            proposals[track.path] = replace(
                by_album, scores=own[track.path].scores, shared_score=by_album.score, remark=remark
            )
        return proposals


def _get_folder(item: Listing | Failure) -> str | None:
    return item.folder if isinstance(item, Listing) else None


def _group_albums(tracks: Iterable[FoundTrack]) -> Iterator[Sequence[FoundTrack]]:
    """Yield the tracks of each album. Skip loose tracks and compilations."""
    groups: dict[str, list[FoundTrack]] = defaultdict(list)
    for track, known in tracks:
        album = known.tags.album if known.tags else None
        if album and is_single_album(album):
            groups[album.title].append((track, known))
    for group in groups.values():
        albums = [known.tags.album for _, known in group if known.tags and known.tags.album]
        if not is_compilation(albums):
            yield group
