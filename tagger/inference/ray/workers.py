"""The processes of a Ray cluster: tasks that decode, actors that predict, and their pipeline."""

import platform
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

import ray
import torch
from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, RayError

from tagger import __version__
from tagger.errors import ClusterError, LostWorkerError, ModelError, WorkerError
from tagger.inference.dataset import Sample, TrackDataset
from tagger.inference.engine import InferenceRequest, never_stop
from tagger.inference.predict import open_dataset, open_predictor, translate_torch_errors
from tagger.inference.ray.cluster import (
    STALL_TIMEOUT_S,
    ResourcePlan,
    check_version,
    find_root_cause,
    list_nodes,
    translate_ray_error,
)
from tagger.models import download_missing, find_model
from tagger.models.checkpoint import load_description
from tagger.models.sources import BUNDLED_MODELS
from tagger.records import Failure, Prediction, Track


def make_portable(hearing: InferenceRequest) -> InferenceRequest:
    """Return what asks for the same on another machine, in another folder, when it is pickled."""
    source, settings = hearing.source, replace(hearing.settings, genre_map={}, notify_cmd="")
    if source.commit:
        settings = replace(settings, revision=source.commit)
    elif source.name not in BUNDLED_MODELS:
        settings = replace(settings, model=str(source.folder.resolve()))
    return replace(hearing, settings=settings, check=never_stop)


def decode_track(
    version: str, dataset: TrackDataset, track: Track
) -> tuple[bool, Sample | Failure]:
    """Return that all is well, and the windows of a track or why it has none; keeps nothing.

    The first is there to be asked for alone. Raises ClusterError.
    """
    check_version(version)
    return True, dataset[track]


class PredictorActor:
    """An actor that holds the model."""

    def load(self, hearing: InferenceRequest, version: str, cpus: int) -> None:
        """Load the model from where this machine has it, on so many threads.

        Raises ModelError where it cannot be loaded or is another version here, ClusterError where
        this is another version of tagger.
        """
        check_version(version)
        torch.set_num_threads(cpus)
        source = find_model(hearing.settings)
        download_missing(source, hearing.settings, lambda *_: None)
        if source.identity != hearing.source.identity:
            wanted = hearing.source.identity
            raise ModelError(
                f"{platform.node()} has {source.identity}, not the {wanted} of the scan"
            )
        self.settings = hearing.settings
        with translate_torch_errors(hearing.settings):
            self.predictor = open_predictor(replace(hearing, source=source))

    def answer(self) -> None:
        """Be alive."""

    def predict(self, *items: Sample | Failure) -> Sequence[Prediction | Failure]:
        with translate_torch_errors(self.settings):
            return list(self.predictor.predict(items))


PREDICTOR_START_TIMEOUT_S = 900.0
"""So long at most may it take until there is a predictor: machines that are added take minutes."""

WAIT_STEP_S = 1.0
NODE_LOSS_SETTLE_S = 30.0
"""After a loss, the time until Ray is sure to know which machines there still are."""

MAX_START_DEATHS = 5
"""After so many predictors on end that died while they loaded the model, it is what kills them."""


@dataclass(slots=True)
class PredictorHandle:
    """A predictor. started: done once it has loaded the model; load: the groups it has to do."""

    actor: Any
    started: Any
    ready: bool = False
    load: int = 0


class PredictorPool:
    """As many as the cluster has room for; one that is lost is replaced while that is so.

    Only one thread may ask.
    """

    def __init__(self, hearing: InferenceRequest, shares: ResourcePlan) -> None:
        self.shares = shares
        self.check = hearing.check
        self.arguments = ray.put(make_portable(hearing))
        self.deaths = 0
        self.lost_at = 0.0
        self.members = [self._hire() for _ in range(shares.predictors)]

    def choose(self) -> PredictorHandle:
        """Return the one with the least to do of those that are ready; wait for the first.

        Raises ModelError where the model cannot be loaded, ClusterError where there is no room.
        """
        self._fill_up()
        self._welcome(timeout_s=0)
        given_up = time.monotonic() + PREDICTOR_START_TIMEOUT_S
        while not (ready := [member for member in self.members if member.ready]):
            self.check()
            if time.monotonic() > given_up:
                wanted = f"{self.shares.cpus} cores and {self.shares.gpus:g} GPUs"
                raise ClusterError(f"no node has room for a predictor: {wanted} (see ray status)")
            self._welcome(timeout_s=1)
            self._fill_up()
        chosen = min(ready, key=lambda member: member.load)
        chosen.load += 1
        return chosen

    def choose_alive(self) -> PredictorHandle:
        """Return one that surely lives and has nothing to do: what it dies of next is its next."""
        while True:
            member = self.choose()
            try:
                self.result(member.actor.answer.remote())
            except RayError:
                self.drop(member)
            else:
                return member

    def drop(self, lost: PredictorHandle) -> bool:
        """Do without one; whoever waits for it learns that it is dead.

        Return whether that is news. It is to the first of the groups that it had before it, for
        they are asked for in turn: that one it was at work on.
        """
        if lost not in self.members:
            return False
        ray.kill(lost.actor)
        self.members.remove(lost)
        self.lost_at = time.monotonic()
        return True

    def result(self, ref: Any) -> Any:
        """Wait for what a predictor was asked, and see to it that it can come. Raises RayError."""
        stalled_s = 0.0
        while not ray.wait([ref], timeout=WAIT_STEP_S)[0]:
            self.check()
            stalled_s += WAIT_STEP_S
            if stalled_s >= STALL_TIMEOUT_S:
                self.make_room()
                stalled_s = 0.0
        return ray.get(ref)

    def make_room(self) -> None:
        """Drop one where those that are left after losses leave no core to decode with.

        Raises ClusterError where it is the last one.
        """
        if not self.members or self._has_room(len(self.members)):
            return
        if len(self.members) < 2:  # noqa: PLR2004 - the last one
            raise ClusterError("the cluster lost machines, and has no core left to decode with")
        self.drop(min(self.members, key=lambda member: (member.ready, member.load)))

    def close(self) -> None:
        while self.members:
            ray.kill(self.members.pop().actor)

    def _has_room(self, count: int) -> bool:
        """Tell whether so many predictors leave a core, of the machines that Ray knows of now."""
        return sum(node.cpus for node in list_nodes()) - count * self.shares.cpus >= 1

    def _fill_up(self) -> None:
        """Replace one that was lost, unless its machine went with it and there is no other room."""
        if len(self.members) == self.shares.predictors:
            return
        is_settled = time.monotonic() - self.lost_at > NODE_LOSS_SETTLE_S
        if (is_settled or not self.members) and self._has_room(len(self.members) + 1):
            self.members.append(self._hire())

    def _hire(self) -> PredictorHandle:
        predicting: Any = ray.remote(PredictorActor)
        actor = predicting.options(
            num_cpus=self.shares.cpus,
            num_gpus=self.shares.gpus,
            scheduling_strategy="SPREAD",
            max_restarts=0,  # what is lost is asked of another one, and of which is for us to say
        ).remote()
        return PredictorHandle(
            actor, actor.load.remote(self.arguments, __version__, self.shares.cpus)
        )

    def _welcome(self, *, timeout_s: float) -> None:
        """Note who is ready by now; with a timeout, wait for somebody."""
        starting = [member for member in self.members if not member.ready]
        if not starting:
            time.sleep(timeout_s)
            return
        awaited = 1 if timeout_s else len(starting)
        done, _ = ray.wait(
            [member.started for member in starting], num_returns=awaited, timeout=timeout_s
        )
        for member in starting:
            if member.started in done:
                self._greet(member)

    def _greet(self, member: PredictorHandle) -> None:
        try:
            ray.get(member.started)
        except RayError as error:
            cause = translate_ray_error(error)
            if not isinstance(cause, LostWorkerError):
                raise cause from error
            self.deaths += 1
            if self.deaths == MAX_START_DEATHS:
                raise WorkerError(f"predictors die as they load the model: {cause}") from error
            self.drop(member)
        else:
            member.ready = True
            self.deaths = 0


CPU_GROUP_TRACKS, GPU_GROUP_TRACKS = 8, 32
"""Tracks that are predicted in one call; a GPU takes the windows of more at once."""

GROUPS_AHEAD = 2
"""Groups that each predictor has before it, so that it need not wait for the next."""

MAX_STRIKES = 2
MAX_LOSSES = 10
"""After so many losses that were no fault of it, one track is not worth the next machine."""

PROCESS_DIED_TWICE = "the process that worked on it died, twice (is its memory enough?)"


class GroupLostError(Exception):
    """A group is lost; its predictor or what was decoded for it is gone."""

    def __init__(self, *, with_predictor: bool, at_work: bool) -> None:
        """at_work: the predictor died of this group, or with it on its hands."""
        super().__init__()
        self.with_predictor = with_predictor
        self.at_work = at_work


class DecodeRefs(NamedTuple):
    """What is to come of decoding a track, in Ray's object store: that it went well, and what."""

    well: Any
    item: Any


@dataclass(frozen=True, slots=True)
class TrackGroup:
    """Tracks on their way: what is to come of each, and of all of them."""

    tracks: Sequence[Track]
    decoded: Sequence[DecodeRefs]
    member: PredictorHandle
    heard: Any


class RayPipeline:
    """Has tracks decoded and predicted, in groups, of which only so many are on their way."""

    def __init__(self, hearing: InferenceRequest, shares: ResourcePlan) -> None:
        _, extractor = load_description(hearing.source, hearing.settings)
        self.dataset = ray.put(open_dataset(extractor, hearing))
        decoding: Any = ray.remote(decode_track)
        self.decode = decoding.options(num_cpus=1, num_returns=2, max_retries=0)
        self.predictors = PredictorPool(hearing, shares)
        self.waiting: deque[TrackGroup] = deque()
        self.size = GPU_GROUP_TRACKS if shares.gpus else CPU_GROUP_TRACKS
        self.most = GROUPS_AHEAD * shares.predictors + -(-shares.left // self.size)  # rounded up

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

    def _start(self, tracks: Sequence[Track], choose: Callable[[], PredictorHandle]) -> TrackGroup:
        decoded = [self._decode(track) for track in tracks]
        member = choose()
        heard = member.actor.predict.remote(*(coming.item for coming in decoded))
        return TrackGroup(tracks, decoded, member, heard)

    def _decode(self, track: Track) -> DecodeRefs:
        well, item = self.decode.remote(__version__, self.dataset, track)
        return DecodeRefs(well, item)

    def _finish(self, group: TrackGroup) -> Iterator[Prediction | Failure]:
        try:
            yield from self._heard(group)
        except GroupLostError as lost:
            struck = [_may_be_cause(coming, lost) for coming in group.decoded]
            for track, strike in zip(group.tracks, struck, strict=True):
                yield self._alone(track, int(strike))

    def _heard(self, group: TrackGroup) -> Sequence[Prediction | Failure]:
        """Return the results of a group. Raises GroupLostError, and our own errors."""
        try:
            heard: Sequence[Prediction | Failure] = self.predictors.result(group.heard)
        except RayError as error:
            cause = translate_ray_error(error)
            if not isinstance(cause, LostWorkerError):
                raise cause from error
            dead = isinstance(find_root_cause(error), RayActorError)
            at_work = dead and self.predictors.drop(group.member)
            raise GroupLostError(with_predictor=dead, at_work=at_work) from error
        else:
            return heard
        finally:
            group.member.load -= 1

    def _alone(self, track: Track, strikes: int) -> Prediction | Failure:
        """Try a track again that was lost with others; what dies of it twice is its fault."""
        for _ in range(MAX_LOSSES):
            if strikes >= MAX_STRIKES:
                return Failure(track, PROCESS_DIED_TWICE, permanent=False)
            group = self._start([track], self.predictors.choose_alive)
            try:
                return self._heard(group)[0]
            except GroupLostError as lost:
                strikes += _may_be_cause(group.decoded[0], lost)
        raise WorkerError("the cluster loses its machines faster than one track can be heard")


def _may_be_cause(coming: DecodeRefs, lost: GroupLostError) -> bool:
    """Tell whether a track of a group that was lost may be what killed the process."""
    if lost.with_predictor:
        return lost.at_work
    try:
        ray.get(coming.well)
    except RayError as error:
        return not isinstance(find_root_cause(error), NodeDiedError | ObjectLostError)
    return False
