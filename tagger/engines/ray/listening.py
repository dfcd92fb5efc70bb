"""Tracks through the processes of a cluster, and again through others where some are lost."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import ray
from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, RayError

from tagger import __version__
from tagger.engines import Hearing
from tagger.engines.local import open_dataset
from tagger.engines.ray.cluster import Shares, root, told
from tagger.engines.ray.predictors import Member, Predictors
from tagger.engines.ray.stages import decode
from tagger.errors import LostWorkerError, WorkerError
from tagger.models.checkpoint import load_description
from tagger.records import Failure, Prediction, Track

GROUP, GPU_GROUP = 8, 32
"""Tracks that are predicted in one call; a GPU takes the windows of more at once."""

AHEAD = 2
"""Groups that each predictor has before it, so that it need not wait for the next."""

MOST_STRIKES = 2
MOST_LOSSES = 10
"""After so many losses that were no fault of it, one track is not worth the next machine."""

DIED = "the process that worked on it died, twice (is its memory enough?)"


class GroupLostError(Exception):
    """A group is lost; its predictor or what was decoded for it is gone."""

    def __init__(self, *, with_predictor: bool, at_work: bool) -> None:
        """at_work: the predictor died of this group, or with it on its hands."""
        super().__init__()
        self.with_predictor = with_predictor
        self.at_work = at_work


class Coming(NamedTuple):
    """What is to come of decoding a track, in Ray's object store: that it went well, and what."""

    well: Any
    item: Any


@dataclass(frozen=True, slots=True)
class Group:
    """Tracks on their way: what is to come of each, and of all of them."""

    tracks: Sequence[Track]
    decoded: Sequence[Coming]
    member: Member
    heard: Any


class Listening:
    """Has tracks decoded and predicted, in groups, of which only so many are on their way."""

    def __init__(self, hearing: Hearing, shares: Shares) -> None:
        _, extractor = load_description(hearing.source, hearing.settings)
        self.dataset = ray.put(open_dataset(extractor, hearing))
        decoding: Any = ray.remote(decode)
        self.decode = decoding.options(num_cpus=1, num_returns=2, max_retries=0)
        self.predictors = Predictors(hearing, shares)
        self.waiting: deque[Group] = deque()
        self.size = GPU_GROUP if shares.gpus else GROUP
        self.most = AHEAD * shares.predictors + -(-shares.left // self.size)  # rounded up

    def listen(self, tracks: Iterable[Track]) -> Iterator[Prediction | Failure]:
        """Yield what is heard in each track, in the order given."""
        coming = iter(tracks)
        while group := list(islice(coming, self.size)):
            self.waiting.append(self._start(group, self.predictors.choose))
            if len(self.waiting) >= self.most:
                yield from self._finish(self.waiting.popleft())
        while self.waiting:
            yield from self._finish(self.waiting.popleft())

    def close(self) -> None:
        """Call off what is on its way; it has to happen before the connection ends."""
        with suppress(RayError):
            while self.waiting:
                for coming in self.waiting.popleft().decoded:
                    ray.cancel(coming.item)
            self.predictors.close()

    def _start(self, tracks: Sequence[Track], choose: Callable[[], Member]) -> Group:
        decoded = [self._decode(track) for track in tracks]
        member = choose()
        heard = member.actor.predict.remote(*(coming.item for coming in decoded))
        return Group(tracks, decoded, member, heard)

    def _decode(self, track: Track) -> Coming:
        well, item = self.decode.remote(__version__, self.dataset, track)
        return Coming(well, item)

    def _finish(self, group: Group) -> Iterator[Prediction | Failure]:
        try:
            yield from self._heard(group)
        except GroupLostError as lost:
            struck = [_is_struck(coming, lost) for coming in group.decoded]
            for track, strike in zip(group.tracks, struck, strict=True):
                yield self._alone(track, int(strike))

    def _heard(self, group: Group) -> Sequence[Prediction | Failure]:
        """Return the results of a group. Raises GroupLostError, and our own errors."""
        try:
            heard: Sequence[Prediction | Failure] = self.predictors.result(group.heard)
        except RayError as error:
            cause = told(error)
            if not isinstance(cause, LostWorkerError):
                raise cause from error
            dead = isinstance(root(error), RayActorError)
            at_work = dead and self.predictors.drop(group.member)
            raise GroupLostError(with_predictor=dead, at_work=at_work) from error
        else:
            return heard
        finally:
            group.member.load -= 1

    def _alone(self, track: Track, strikes: int) -> Prediction | Failure:
        """Try a track again that was lost with others; what dies of it twice is its fault."""
        for _ in range(MOST_LOSSES):
            if strikes >= MOST_STRIKES:
                return Failure(track, DIED, lasting=False)
            group = self._start([track], self.predictors.choose_alive)
            try:
                return self._heard(group)[0]
            except GroupLostError as lost:
                strikes += _is_struck(group.decoded[0], lost)
        raise WorkerError("the cluster loses its machines faster than one track can be heard")


def _is_struck(coming: Coming, lost: GroupLostError) -> bool:
    """Tell whether a track of a group that was lost may be what killed the process."""
    if lost.with_predictor:
        return lost.at_work
    try:
        ray.get(coming.well)
    except RayError as error:
        return not isinstance(root(error), NodeDiedError | ObjectLostError)
    return False
