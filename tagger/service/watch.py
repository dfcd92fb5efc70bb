"""Watch a library: find new and changed files, and scan them soon after they arrived.

Two processes share the work. The watching process (`Watcher`) waits for changes, puts them into the
queue of arrivals, and is small. It starts a scanning process (`drain_arrivals`) where something is
ready. The scanning process keeps the model in memory, and ends when there was nothing to do for a
while. Either may be killed at any time: an arrival leaves the queue only after its scan.
"""

import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from tagger.crawl import crawl
from tagger.errors import LibraryError, SettingsError
from tagger.inference.engine import PredictTracks, open_engine
from tagger.pacing import SYSTEM_CLOCK, Pacer, find_next_time
from tagger.paths import AnyPath, is_remote
from tagger.records import Track
from tagger.scanning.run import make_scope
from tagger.service.arrivals import STATUS_INTERVAL_S, may_be_music
from tagger.service.folder_events import FolderEvents, can_watch_folders
from tagger.settings import Settings, WatchSettings
from tagger.state import (
    Arrival,
    ArrivalQueue,
    find_settled,
    lock_watch,
    open_arrivals,
    save_watch_status,
)
from tagger.storage import get_filesystem, reports_changes
from tagger.tags import EXTENSIONS

STEP_S = 2.0
"""How long the watching process waits for changes before it looks around."""

SCAN_CHECK_INTERVAL_S = 1.0
"""How often the scanning process looks into the queue."""


FULL_SCAN_INTERVAL_S = 86_400.0
"""A watch scans everything at its start and then once a day: events may be lost."""

NETWORK_POLL_INTERVAL_S = 900.0

FIRST_RETRY_DELAY_S, MAX_RETRY_DELAY_S = 60.0, 3600.0

SETTLED_EXIT_CODES = {0, 1}
"""The exit codes of a scanning process that could go on."""


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """What to watch, and how. roots: absolute paths."""

    roots: Sequence[AnyPath]
    settings: Settings
    options: WatchSettings

    @property
    def poll_interval_s(self) -> float | None:
        """How often to look at all files, beside the events; None: never."""
        if self.options.poll is not None:
            return self.options.poll or None
        if all(map(self._has_events, self.roots)):
            return None
        return NETWORK_POLL_INTERVAL_S

    def list_event_roots(self) -> list[Path]:
        """Return the roots whose changes the system reports."""
        return [root for root in self.roots if isinstance(root, Path) and self._has_events(root)]

    @staticmethod
    def _has_events(root: AnyPath) -> bool:
        return can_watch_folders() and reports_changes(root)

    def start_pacer(self) -> Pacer:
        """Return what tells when the time of --until comes. Each scan paces itself."""
        return Pacer(SYSTEM_CLOCK, until=self.settings.until, gentle=False)

    def is_quiet(self, now: datetime) -> bool:
        hours = self.options.quiet_hours
        return hours is not None and hours.contain(now.time())

    def limit_settings(self, now: datetime) -> Settings:
        """Return the settings of a scan that begins now: it ends where quiet hours begin."""
        hours, until = self.options.quiet_hours, self.settings.until
        ends = [each for each in (until, hours.start if hours else None) if each is not None]
        end = min(ends, key=lambda each: find_next_time(each, now), default=None)
        return replace(self.settings, until=end, wait=True)


def find_roots(paths: Iterable[AnyPath]) -> list[AnyPath]:
    """Return the folders to watch as absolute paths. Raises LibraryError, SettingsError."""
    roots = [get_filesystem(path).find_root(path, EXTENSIONS) for path in paths]
    if files := [root.path for root in roots if not root.is_folder]:
        raise SettingsError(
            f"{files[0]} is a file: name a folder to watch (tagger add takes files)"
        )
    return [root.path for root in roots]


@dataclass(slots=True)
class Watcher:
    """The watching process.

    command: starts a scanning process. say: shows a line to the user. check_stop: raises the error
    that ends the watch.
    """

    request: WatchRequest
    command: Sequence[str]
    say: Callable[[str], None]
    check_stop: Callable[[], None]
    process: "subprocess.Popen[bytes] | None" = None
    retry_at_s: float = 0.0
    retry_delay_s: float = FIRST_RETRY_DELAY_S
    error: str = ""
    saved_at_s: float = field(default=-STATUS_INTERVAL_S)

    def run(self) -> None:
        """Watch until --until, or until `check_stop` raises. Raises WatchError, LockedError."""
        state = self.request.settings.state
        pacer = self.request.start_pacer()
        with ExitStack() as stack:
            queue = stack.enter_context(open_arrivals(state))
            stack.enter_context(lock_watch(state))
            stack.callback(self._end_process)
            for changed in self._list_changes(queue):
                queue.add(changed, delay_s=self.request.options.settle)
                self.check_stop()
                if pacer.is_time_up():
                    return
                self._tend_process(queue)
                self._save_status()

    def _list_changes(self, queue: ArrivalQueue) -> Iterator[list[AnyPath]]:
        """Yield what changed, every few seconds. Add the roots when it is time for all files."""
        request = self.request
        event_roots = request.list_event_roots()
        poll_interval_s = request.poll_interval_s
        full_scan_at_s = poll_at_s = 0.0
        scope = make_scope(request.settings)
        events = None
        with ExitStack() as stack:
            if event_roots:
                events = stack.enter_context(FolderEvents(event_roots, scope))
            self._say_start(len(event_roots), poll_interval_s)
            while True:
                now_s = time.monotonic()
                if not full_scan_at_s or now_s >= full_scan_at_s:
                    queue.add(request.roots, is_named=True)
                    full_scan_at_s = now_s + FULL_SCAN_INTERVAL_S
                    poll_at_s = now_s + (poll_interval_s or 0)
                elif poll_interval_s and now_s >= poll_at_s:
                    queue.add(request.roots)
                    poll_at_s = now_s + poll_interval_s
                if events is None:
                    time.sleep(STEP_S)
                    yield []
                else:
                    yield [path for path in events.read(STEP_S) if may_be_music(path)]

    def _say_start(self, event_roots: int, poll_interval_s: float | None) -> None:
        if not self.request.roots:
            self.say("waiting for `tagger add`")
        elif poll_interval_s is None:
            self.say(f"watching {', '.join(map(str, self.request.roots))}")
        else:
            also = " as well" if event_roots else ""
            self.say(
                f"watching {', '.join(map(str, self.request.roots))}; looking at all files every"
                f" {poll_interval_s:g} s{also}"
            )

    def _tend_process(self, queue: ArrivalQueue) -> None:
        """Start the scanning process where it is needed, and see how it ended."""
        if self.process is not None:
            code = self.process.poll()
            if code is None:
                return
            self.process = None
            self._note_end(code)
        is_due = time.monotonic() >= self.retry_at_s and queue.has_ready()
        if is_due and not self.request.is_quiet(SYSTEM_CLOCK.now()):
            self.process = subprocess.Popen(self.command)  # noqa: S603 - this program itself

    def _note_end(self, code: int) -> None:
        """Plan the next try. Raises SettingsError if it would end in the same way."""
        if code in SETTLED_EXIT_CODES:
            self.error, self.retry_delay_s = "", FIRST_RETRY_DELAY_S
            return
        if code == SettingsError.exit_code:
            raise SettingsError("the scan does not accept these options")
        self.error = f"the last scan ended with code {code}"
        self.say(f"{self.error}; the next try is in {self.retry_delay_s:g} s")
        self.retry_at_s = time.monotonic() + self.retry_delay_s
        self.retry_delay_s = min(2 * self.retry_delay_s, MAX_RETRY_DELAY_S)
        self.saved_at_s = -STATUS_INTERVAL_S

    def _save_status(self) -> None:
        if time.monotonic() - self.saved_at_s >= STATUS_INTERVAL_S:
            save_watch_status(self.request.settings.state, self.error)
            self.saved_at_s = time.monotonic()

    def _end_process(self) -> None:
        """Let the scanning process finish the files it has begun."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What one scan looks at: `roots`, and in them nothing but `only`, if there is any."""

    roots: Sequence[AnyPath]
    only: Sequence[AnyPath]


@dataclass(frozen=True, slots=True)
class BatchResult:
    """How a scan ended. in_use: the files that another program was writing.

    is_complete: no track was left to another run.
    """

    exit_code: int
    in_use: Sequence[AnyPath]
    is_complete: bool


ScanBatch = Callable[[Batch, Settings, PredictTracks], BatchResult]


def drain_arrivals(
    request: WatchRequest, scan_batch: ScanBatch, check_stop: Callable[[], None], *, idle_s: float
) -> int:
    """Scan what is ready in the queue, until nothing was ready for `idle_s`.

    Return 1 if a scan did, else 0. Raises what a scan raises: its arrivals stay in the queue.
    """
    pacer = request.start_pacer()
    worst = 0
    with open_arrivals(request.settings.state) as queue, open_engine(request.settings) as predict:
        idle_since_s = time.monotonic()
        while True:
            check_stop()
            now = SYSTEM_CLOCK.now()
            if request.is_quiet(now) or pacer.is_time_up():
                break
            arrivals = queue.list_ready(whole_folders=request.settings.needs_albums)
            if batch := _make_batch(arrivals, queue, request):
                result = scan_batch(batch, request.limit_settings(now), predict)
                worst = max(worst, result.exit_code)
                if not result.is_complete:
                    break
                queue.remove(arrivals)
                queue.add(result.in_use, delay_s=request.options.settle)
                idle_since_s = time.monotonic()
            elif arrivals:
                queue.remove(arrivals)
            elif time.monotonic() - idle_since_s >= idle_s:
                break
            else:
                time.sleep(min(SCAN_CHECK_INTERVAL_S, idle_s))
    return worst


def _make_batch(
    arrivals: Sequence[Arrival], queue: ArrivalQueue, request: WatchRequest
) -> Batch | None:
    """Return what has to be scanned; put back the files that changed a moment ago."""
    arrivals = [arrival for arrival in arrivals if _is_there(arrival.path)]
    named = [arrival.path for arrival in arrivals if arrival.is_named]
    seen = [arrival.path for arrival in arrivals if not arrival.is_named]
    news = list(_find_news(seen, request))
    settled_at_ns = time.time_ns() - int(request.options.settle * 1e9)
    queue.add(
        (track.path for track in news if track.mtime_ns > settled_at_ns),
        delay_s=request.options.settle,
    )
    only = named + [track.path for track in news if track.mtime_ns <= settled_at_ns]
    if request.settings.needs_albums:
        only = list(dict.fromkeys(path if _is_folder(path) else path.parent for path in only))
    return Batch(list(_list_roots(only, request.roots)), only) if only else None


def _find_news(paths: Sequence[AnyPath], request: WatchRequest) -> Iterator[Track]:
    """Yield the tracks among files, and below folders, that no run is done with."""
    if not paths:
        return
    found = crawl(list(_list_roots(paths, request.roots)), make_scope(request.settings, paths))
    tracks = [item for item in found if isinstance(item, Track)]
    settled = find_settled(request.settings.state, tracks)
    yield from (track for track in tracks if track.path not in settled)


def _list_roots(paths: Iterable[AnyPath], roots: Sequence[AnyPath]) -> Iterator[AnyPath]:
    """Yield the watched roots that have some of these paths, and the paths that are elsewhere.

    A crawl from the root finds out what is passed over on the way.
    """
    found: dict[AnyPath, None] = {}
    for path in paths:
        above = [root for root in roots if path == root or _is_below(path, root)]
        found |= dict.fromkeys(above[:1] or [path])
    return iter(found)


def _is_below(path: AnyPath, root: AnyPath) -> bool:
    return is_remote(path) == is_remote(root) and path.is_relative_to(root)


def _is_there(path: AnyPath) -> bool:
    """Tell whether a scan may begin with a path: if nothing is there, it could not go on."""
    try:
        get_filesystem(path).find_root(path, EXTENSIONS)
    except LibraryError:
        return False
    return True


def _is_folder(path: AnyPath) -> bool:
    return path.suffix.lower() not in EXTENSIONS or (isinstance(path, Path) and path.is_dir())
