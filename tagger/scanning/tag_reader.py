"""Read the tags of new files, many at once, while the scan is busy with the files before."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from tagger.decide import list_extra_fields
from tagger.errors import TrackError
from tagger.isolation import IsolatedCaller
from tagger.pacing import count_usable_cores, halve_cores
from tagger.records import ExtraField, FileReading, Track
from tagger.settings import Settings
from tagger.storage import sample_content
from tagger.tags import read_file, read_files, read_tags

T = TypeVar("T")

FILES_PER_CALL = 50

MAX_TRACKS_AHEAD = 400
"""The tags of so many tracks are read ahead, and those of one more folder.

An item without unread tracks counts as one track: it may be the rows of a whole folder.
"""


@dataclass(frozen=True, slots=True)
class TagReader:
    """Reads tags in isolated processes. Tags that were read ahead are handed out later."""

    isolated: IsolatedCaller
    threads: ThreadPoolExecutor
    extras: tuple[ExtraField, ...] = ()
    ahead: dict[Track, Future[Mapping[Track, FileReading]]] = field(default_factory=dict)
    unsent: list[Track] = field(default_factory=list)
    """Less than a call is worth: they wait for tracks of the next folders."""

    def read(self, track: Track) -> FileReading:
        """Return the tags of a file, or the error if there are none."""
        future = self.ahead.pop(track, None)
        found = future.result().get(track) if future else None
        return found or self._read_alone(track)

    def check_writable(self, track: Track) -> None:
        """Raise TagError if the tags of a file can be read, but not written."""
        self.isolated.call(read_tags, track.path, for_writing=True, extras=self.extras)

    def _read_alone(self, track: Track) -> FileReading:
        try:
            return self.isolated.call(read_file, track.path, extras=self.extras)
        except TrackError as error:  # it breaks the call
            return FileReading(None, error, sample_content(track.path))

    def read_ahead(
        self, items: Iterable[T], list_tracks: Callable[[T], Sequence[Track]]
    ) -> Iterator[T]:
        """Yield the items, while the tags of the tracks in the next ones are read.

        list_tracks: the tracks of an item whose tags are needed.
        """
        waiting: deque[tuple[T, Sequence[Track]]] = deque()
        count = 0
        for item in items:
            tracks = list_tracks(item)
            self.unsent.extend(tracks)
            while len(self.unsent) >= FILES_PER_CALL:
                self._start_call()
            waiting.append((item, tracks))
            count += max(1, len(tracks))
            while waiting and (count > MAX_TRACKS_AHEAD or not waiting[0][1]):
                first, needed = waiting.popleft()
                if needed and needed[-1] not in self.ahead:
                    self._start_call()
                yield first
                count -= max(1, len(needed))
        self._start_call()
        while waiting:
            yield waiting.popleft()[0]

    def _start_call(self) -> None:
        """Start to read the tags of the tracks that wait, of so many as one call takes."""
        part = self.unsent[:FILES_PER_CALL]
        del self.unsent[:FILES_PER_CALL]
        if part:
            self.ahead.update(dict.fromkeys(part, self.threads.submit(self._read_many, part)))

    def _read_many(self, tracks: Sequence[Track]) -> Mapping[Track, FileReading]:
        """Return what is in files: nothing if one file breaks the call for all of them."""
        paths = [track.path for track in tracks]
        try:
            found = self.isolated.call(read_files, paths, extras=self.extras)
        except TrackError:
            return {}
        return dict(zip(tracks, found, strict=True))


@contextmanager
def open_tag_reader(
    isolated: IsolatedCaller, settings: Settings, extras: tuple[ExtraField, ...] | None = None
) -> Iterator[TagReader]:
    """Give a TagReader with as many processes as there are cores; half as many if gentle.

    extras: the extra fields to read; by default those that the settings name.
    """
    cores = count_usable_cores()
    threads = ThreadPoolExecutor(halve_cores(cores) if settings.gentle else cores)
    try:
        wanted = list_extra_fields(settings) if extras is None else extras
        yield TagReader(isolated, threads, wanted)
    finally:
        threads.shutdown(cancel_futures=True)
