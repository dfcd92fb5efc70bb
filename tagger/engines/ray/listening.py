"""Tracks through the processes of a cluster, and again through others where some are lost."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import ray
from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, RayError

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

STALL_S = 20.0
"""After so long without a result it is time to see whether machines were lost."""

MOST_STRIKES = 2
MOST_LOSSES = 10
"""After so many losses that were no fault of it, one track is not worth the next machine."""

DIED = "the process that worked on it died, twice (is its memory enough?)"


@dataclass(frozen=True, slots=True)
class Group:
    """Tracks on their way: what is to come of each, and of all of them, in Ray's object store."""

    tracks: Sequence[Track]
    decoded: Sequence[Any]
    member: Member
    heard: Any


class Listening:
    """Has tracks decoded and predicted, in groups, of which only so many are on their way."""

    def __init__(self, hearing: Hearing, shares: Shares) -> None:
        _, extractor = load_description(hearing.source, hearing.settings)
        self.dataset = ray.put(open_dataset(extractor, hearing))
        self.decode = ray.remote(decode).options(num_cpus=1, max_retries=0)
        self.predictors = Predictors(hearing, shares)
        self.waiting: deque[Group] = deque()
        self.size = GPU_GROUP if shares.gpus else GROUP
        self.most = AHEAD * shares.predictors + -(-shares.left // self.size)  # rounded up

    def listen(self, tracks: Iterable[Track]) -> Iterator[Prediction | Failure]:
        """Yield what is heard in each track, in the order given."""
        coming = iter(tracks)
        while group := list(islice(coming, self.size)):
            self.waiting.append(self._start(group))
            if len(self.waiting) > self.most:
                yield from self._finish(self.waiting.popleft())
        while self.waiting:
            yield from self._finish(self.waiting.popleft())

    def close(self) -> None:
        """Call off what is on its way; it has to happen before the connection ends."""
        while self.waiting:
            for ref in self.waiting.popleft().decoded:
                ray.cancel(ref)
        self.predictors.close()

    def _start(self, tracks: Sequence[Track]) -> Group:
        decoded = [self.decode.remote(self.dataset, track) for track in tracks]
        member = self.predictors.choose()
        return Group(tracks, decoded, member, member.actor.predict.remote(*decoded))

    def _finish(self, group: Group) -> Iterator[Prediction | Failure]:
        try:
            yield from self._heard(group)
        except RayError as error:
            struck = [_is_struck(ref, error) for ref in group.decoded]
            for track, strike in zip(group.tracks, struck, strict=True):
                yield self._alone(track, int(strike))

    def _heard(self, group: Group) -> Sequence[Prediction | Failure]:
        """Return the results of a group. Raises the RayError of a loss, and our own errors."""
        try:
            while not ray.wait([group.heard], timeout=STALL_S)[0]:
                self.predictors.make_room()
            heard: Sequence[Prediction | Failure] = ray.get(group.heard)
        except RayError as error:
            cause = told(error)
            if not isinstance(cause, LostWorkerError):
                raise cause from error
            if isinstance(root(error), RayActorError):
                self.predictors.drop(group.member)
            raise
        else:
            return heard
        finally:
            group.member.load -= 1

    def _alone(self, track: Track, strikes: int) -> Prediction | Failure:
        """Try a track again that was lost with others; what dies of it twice is its fault."""
        for _ in range(MOST_LOSSES):
            if strikes >= MOST_STRIKES:
                return Failure(track, DIED, lasting=False)
            group = self._start([track])
            try:
                return self._heard(group)[0]
            except RayError as error:
                strikes += _is_struck(group.decoded[0], error)
        raise WorkerError("the cluster loses its machines faster than one track can be heard")


def _is_struck(decoded: Any, error: RayError) -> bool:
    """Tell whether a track of a group that was lost may be what killed the process."""
    if isinstance(root(error), RayActorError):
        return True
    try:
        ray.get(decoded)
    except RayError as own:
        return not isinstance(root(own), (NodeDiedError, ObjectLostError))
    return False
