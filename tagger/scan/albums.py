"""A scan by album: the tracks of one get one genre, once all that has to be heard of it was."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby

from tagger import decide
from tagger.crawl import Listing
from tagger.decide import MIN_ALBUM_TRACKS, is_compilation, is_outlier, is_single_album, pool_scores
from tagger.paths import AnyPath, parse_path
from tagger.records import Failure, Prediction, RepeatedRows, Tags, Track
from tagger.scan.session import TrackStep
from tagger.scan.tracks import TrackSettler
from tagger.state import KnownTrack

ScoredTrack = tuple[Track, KnownTrack]


class AlbumSettler(TrackSettler):
    """Settles folder by folder: an album is what has one title in one folder."""

    def known(self, found: Iterable[Listing | Failure]) -> Iterator[TrackStep | None]:
        """Settle the folders that need no listening; queue the others whole."""
        for folder, group in groupby(found, _get_folder):
            parts = list(group)
            if repeats := self._repeated(parts):
                yield from repeats
            else:
                yield from chain.from_iterable(map(self._afresh, parts))
                yield from self._settle_folder(parse_path(folder)) if folder else ()
            self.state.commit_if_due()
        self.state.commit()

    def heard(self, results: Iterable[Prediction | Failure]) -> Iterator[TrackStep | None]:
        """Remember what the network made of each track; settle a folder with its last one."""
        for result in results:
            if isinstance(result, Failure):
                self.state.dequeue(result.track)
                yield self._unheard(result)
            else:
                self.state.dequeue(result.track, heard=True)
                self.state.remember_prediction(result, windows=self._windows)
            yield from self._settle_folder(result.track.path.parent)
            self.state.commit_if_due()

    def _repeated(self, parts: Sequence[Listing | Failure]) -> list[RepeatedRows]:
        """Return the rows of a folder if all of them still hold: else others may change as well."""
        listings = [each for each in parts if isinstance(each, Listing)]
        if not self.repeats_rows or len(listings) < len(parts):
            return []
        runs = [run for listing in listings for run in self._runs(listing)]
        repeats = [run for run in runs if isinstance(run, RepeatedRows)]
        return repeats if len(repeats) == len(runs) else []

    def _scored(self, track: Track, known: KnownTrack) -> None:
        """Let a track wait for the others of its folder."""
        del known
        self.state.enqueue(track, heard=True)

    def _is_unread(self, tags: Tags | None) -> bool:
        return tags is None or tags.album is None

    def _settle_folder(self, folder: AnyPath) -> Iterator[TrackStep]:
        heard = [(track, self._recall(track)) for track in self.state.take_folder(folder)]
        wishes: dict[AnyPath, decide.Proposal] = {}
        free = [each for each in heard if not self._is_kept(each[1])]
        for group in _group_albums(free):
            wishes |= self._wishes(group)
        for track, known in heard:
            wish = wishes.get(track.path) or self._wish(known)
            yield self._keeping(self._settle(track, known, wish))

    def _is_kept(self, known: KnownTrack) -> bool:
        """Tell whether a track keeps its genre: one that was heard for an audit has no say."""
        return decide.decide_by_tags(known.tags or Tags(), self.settings.existing) is not None

    def _wishes(self, group: Sequence[ScoredTrack]) -> dict[AnyPath, decide.Proposal]:
        """Return what the tracks of one album should say: its genre, and the scores of each."""
        names = decide.get_label_names(self.settings)
        pooled = self._wish(
            KnownTrack(scores=pool_scores(known.scores or () for _, known in group))
        )
        wishes = {}
        for track, known in group:
            own, scores = self._wish(known), decide.relabel(known.scores or (), names)
            genre = (
                pooled.scores[0].genre if pooled.scores and len(group) >= MIN_ALBUM_TRACKS else None
            )
            odd = genre is not None and is_outlier(scores, genre)
            remark = f"sounds more like {scores[0].genre} than its album does" if odd else ""
            wishes[track.path] = decide.Proposal(
                pooled.genres, own.scores, own.model, pooled.score, remark
            )
        return wishes


def _get_folder(found: Listing | Failure) -> str | None:
    return found.folder if isinstance(found, Listing) else None


def _group_albums(heard: Iterable[ScoredTrack]) -> Iterator[Sequence[ScoredTrack]]:
    """Yield the tracks of each album; not those that are loose or from a compilation."""
    groups: dict[str, list[ScoredTrack]] = defaultdict(list)
    for track, known in heard:
        album = known.tags.album if known.tags else None
        if album and is_single_album(album):
            groups[album.title].append((track, known))
    for group in groups.values():
        albums = [known.tags.album for _, known in group if known.tags and known.tags.album]
        if not is_compilation(albums):
            yield group
