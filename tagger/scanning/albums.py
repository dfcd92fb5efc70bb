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
from tagger.paths import AnyPath
from tagger.records import Failure, Prediction, RepeatedRows, Tags
from tagger.scanning.session import TrackStep
from tagger.scanning.tracks import (
    FoundPart,
    FoundTrack,
    RowRepeater,
    TrackDecider,
    settle_parts,
)
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
        parts = self._split(found)
        return settle_parts(parts, self.decider, self.decider.needs_tags, self._settle_tracks)

    def _split(self, found: Iterable[Listing | Failure]) -> Iterator[FoundPart]:
        """Yield failures, the rows of folders in which all still hold, and whole other folders.

        One track that changed may change the genre of its whole album.
        """
        for _, group in groupby(found, _get_folder):
            items = list(group)
            yield from (item for item in items if isinstance(item, Failure))
            listings = [item for item in items if isinstance(item, Listing)]
            parts = [part for listing in listings for part in self.rows.split_listing(listing)]
            repeated = [part for part in parts if isinstance(part, RepeatedRows)]
            if len(repeated) == len(parts):
                yield from repeated
            else:
                yield [track for listing in listings for track in self._load_tracks(listing)]

    def _load_tracks(self, listing: Listing) -> list[FoundTrack]:
        return self.decider.load_tracks([listing.track(file) for file in listing.files])

    def _settle_tracks(self, found: list[FoundTrack]) -> Iterator[TrackStep | None]:
        """Settle the tracks of one folder."""
        for track, known in found:
            yield self.decider.settle_or_queue(track, known, self.rows)
        yield from self._settle_folder(found[0][0].path.parent)

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
