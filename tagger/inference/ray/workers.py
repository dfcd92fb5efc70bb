"""The work on a Ray cluster: tasks that decode, actors that predict, and their pipeline.

Tasks and actors only read the library. The run itself writes tags, on the machine that started it.
"""

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

from tagger.errors import ClusterError, FailureKind, LostWorkerError, ModelError, WorkerError
from tagger.inference.dataset import TrackDataset, TrackInputs
from tagger.inference.engine import InferenceRequest, never_stop
from tagger.inference.predict import load_predictor, make_track_dataset, translate_torch_errors
from tagger.inference.ray.cluster import (
    STALL_TIMEOUT_S,
    ResourcePlan,
    check_version,
    find_root_cause,
    list_nodes,
    translate_ray_error,
)
from tagger.models import download_missing, find_model
from tagger.models.loading import load_extractor
from tagger.models.sources import BUNDLED_MODELS
from tagger.records import Failure, Prediction, Track
from tagger.version import __version__


def make_portable(request: InferenceRequest, plan: ResourcePlan) -> InferenceRequest:
    """Return a request that means the same on another machine and can be pickled.

    A predictor to which the plan gives no GPU runs on the CPU, where the user leaves the choice of
    the device to tagger: Ray hides the GPUs only from processes that get some of them.
    """
    source = request.source
    settings = replace(
        request.settings, genre_map={}, notify_cmd="", notify=(), ping_url=None, alert=()
    )
    if settings.device == "auto" and not plan.gpus_per_predictor:
        settings = replace(settings, device="cpu")
    if source.commit:
        settings = replace(settings, revision=source.commit)
    elif source.name not in BUNDLED_MODELS:
        settings = replace(settings, model=str(source.folder.resolve()))
    return replace(request, settings=settings, check=never_stop)


def decode_track(
    version: str, dataset: TrackDataset, track: Track
) -> tuple[bool, TrackInputs | Failure]:
    """Return True and the network inputs of a track, or why it has none. Raises ClusterError.

    Ray keeps the two results as two objects: the small first one tells whether the task succeeded,
    and can be fetched without the second.
    """
    check_version(version)
    return True, dataset[track]


class PredictorActor:
    """An actor that has the model in memory."""

    def load(self, request: InferenceRequest, version: str, cpus: int) -> None:
        """Load the model from this machine's folder or cache; run it on `cpus` threads.

        Raises ModelError where the model cannot be loaded or has another version here, ClusterError
        where this machine has another version of tagger.
        """
        check_version(version)
        torch.set_num_threads(cpus)
        source = find_model(request.settings)
        download_missing(source, request.settings, lambda *_: None)
        if source.identity != request.source.identity:
            expected = request.source.identity
            raise ModelError(
                f"{platform.node()} has {source.identity}, not the {expected} of the scan"
            )
        self.settings = request.settings
        with translate_torch_errors(request.settings):
            self.predictor = load_predictor(replace(request, source=source))

    def ping(self) -> None:
        """Return at once, to show that the actor is alive."""

    def predict(self, *items: TrackInputs | Failure) -> Sequence[Prediction | Failure]:
        with translate_torch_errors(self.settings):
            return list(self.predictor.predict(items))


PREDICTOR_START_TIMEOUT_S = 900.0
"""How long the run waits for the first predictor: a cluster takes minutes to add machines."""

POLL_INTERVAL_S = 1.0
NODE_LOSS_SETTLE_S = 30.0
"""How long after a loss Ray may still list machines that are gone."""

MAX_CONSECUTIVE_START_CRASHES = 5
"""When this many predictors in a row die while they load the model, loading it kills them."""


@dataclass(slots=True)
class PredictorHandle:
    """A predictor of the pool.

    loaded: ObjectRef that is ready once the actor has loaded the model. pending_groups: how many
    groups of tracks the actor has before it.
    """

    actor: Any
    loaded: Any
    is_ready: bool = False
    pending_groups: int = 0


class PredictorPool:
    """The predictors that the plan asks for. A lost one is replaced while the cluster has room.

    Not for use by several threads.
    """

    def __init__(self, request: InferenceRequest, plan: ResourcePlan) -> None:
        self.plan = plan
        self.check = request.check
        self.request_ref = ray.put(make_portable(request, plan))
        self.start_crashes = 0
        self.lost_at = 0.0
        self.predictors = [self._start_predictor() for _ in range(plan.predictors)]

    def acquire(self) -> PredictorHandle:
        """Return the ready predictor with the fewest groups, and count one more for it.

        Waits for the first one. Raises ModelError where the model cannot be loaded, ClusterError
        where the cluster has no room.
        """
        self._replace_lost()
        self._update_ready(timeout_s=0)
        deadline = time.monotonic() + PREDICTOR_START_TIMEOUT_S
        while not (ready := [each for each in self.predictors if each.is_ready]):
            self.check()
            if time.monotonic() > deadline:
                cpus, gpus = self.plan.cpus_per_predictor, self.plan.gpus_per_predictor
                wanted = f"{cpus} cores and {gpus:g} GPUs (see ray status)"
                raise ClusterError(f"no node has room for a predictor: {wanted}")
            self._update_ready(timeout_s=1)
            self._replace_lost()
        chosen = min(ready, key=lambda each: each.pending_groups)
        chosen.pending_groups += 1
        return chosen

    def acquire_alive(self) -> PredictorHandle:
        """Return a predictor that has just answered: if it dies, its next group is the cause."""
        while True:
            predictor = self.acquire()
            try:
                self.get_result(predictor.actor.ping.remote())
            except RayError:
                self.remove(predictor)
            else:
                return predictor

    def remove(self, lost: PredictorHandle) -> bool:
        """Remove a predictor and kill its actor; calls that wait for it fail.

        Return whether it was still in the pool. Groups are collected in order, so True means that
        the caller's group is the first that failed: the one that the predictor was working on.
        """
        if lost not in self.predictors:
            return False
        ray.kill(lost.actor)
        self.predictors.remove(lost)
        self.lost_at = time.monotonic()
        return True

    def get_result(self, ref: Any) -> Any:
        """Wait for the result of a remote call. Raises RayError.

        Where nothing comes, give a predictor's cores to decoding.
        """
        stalled_s = 0.0
        while not ray.wait([ref], timeout=POLL_INTERVAL_S)[0]:
            self.check()
            stalled_s += POLL_INTERVAL_S
            if stalled_s >= STALL_TIMEOUT_S:
                self.keep_core_to_decode()
                stalled_s = 0.0
        return ray.get(ref)

    def keep_core_to_decode(self) -> None:
        """Remove a predictor where the predictors hold all cores that are left after losses.

        Raises ClusterError where it is the last one.
        """
        if not self.predictors or self._has_room(len(self.predictors)):
            return
        if len(self.predictors) == 1:
            raise ClusterError("the cluster lost machines, and has no core left to decode with")
        self.remove(min(self.predictors, key=lambda each: (each.is_ready, each.pending_groups)))

    def close(self) -> None:
        while self.predictors:
            ray.kill(self.predictors.pop().actor)

    def _has_room(self, count: int) -> bool:
        """Tell whether `count` predictors leave a core of the machines that Ray knows of now."""
        return sum(node.cpus for node in list_nodes()) - count * self.plan.cpus_per_predictor >= 1

    def _replace_lost(self) -> None:
        """Start a predictor for a lost one, unless the room for it was lost with its machine."""
        if len(self.predictors) == self.plan.predictors:
            return
        is_settled = time.monotonic() - self.lost_at > NODE_LOSS_SETTLE_S
        if (is_settled or not self.predictors) and self._has_room(len(self.predictors) + 1):
            self.predictors.append(self._start_predictor())

    def _start_predictor(self) -> PredictorHandle:
        remote_class: Any = ray.remote(PredictorActor)
        actor = remote_class.options(
            num_cpus=self.plan.cpus_per_predictor,
            num_gpus=self.plan.gpus_per_predictor,
            scheduling_strategy="SPREAD",
            max_restarts=0,  # the pool itself replaces a lost actor and decides who retries
        ).remote()
        loaded = actor.load.remote(self.request_ref, __version__, self.plan.cpus_per_predictor)
        return PredictorHandle(actor, loaded)

    def _update_ready(self, *, timeout_s: float) -> None:
        """Mark predictors that have loaded the model; with a timeout, wait for one of them."""
        loading = [each for each in self.predictors if not each.is_ready]
        if not loading:
            time.sleep(timeout_s)
            return
        awaited = 1 if timeout_s else len(loading)
        done, _ = ray.wait(
            [each.loaded for each in loading], num_returns=awaited, timeout=timeout_s
        )
        for predictor in loading:
            if predictor.loaded in done:
                self._check_loaded(predictor)

    def _check_loaded(self, predictor: PredictorHandle) -> None:
        """Mark a predictor as ready, or remove it where it died. Raises what its loading raised."""
        try:
            ray.get(predictor.loaded)
        except RayError as error:
            cause = translate_ray_error(error)
            if not isinstance(cause, LostWorkerError):
                raise cause from error
            self.start_crashes += 1
            if self.start_crashes == MAX_CONSECUTIVE_START_CRASHES:
                raise WorkerError(f"predictors die as they load the model: {cause}") from error
            self.remove(predictor)
        else:
            predictor.is_ready = True
            self.start_crashes = 0


CPU_GROUP_TRACKS, GPU_GROUP_TRACKS = 8, 32
"""Tracks that are predicted in one call; a GPU takes the windows of more at once."""

GROUPS_PER_PREDICTOR = 2
"""Groups that each predictor has before it, so that it need not wait for the next one."""

MAX_CRASHES_PER_TRACK = 2
MAX_ATTEMPTS_PER_TRACK = 10
"""How often one track is tried while the cluster loses processes for other reasons."""

PROCESS_DIED_TWICE = "the process that worked on it died twice (does its machine lack memory?)"


class GroupLostError(Exception):
    """A group is lost, because its predictor or a decoding task of it died."""

    def __init__(self, *, predictor_died: bool, was_running: bool) -> None:
        """Take whether the predictor died, and whether it was working on this group then."""
        super().__init__()
        self.predictor_died = predictor_died
        self.was_running = was_running


class DecodeRefs(NamedTuple):
    """ObjectRefs of the two results of `decode_track`."""

    succeeded: Any
    item: Any


@dataclass(frozen=True, slots=True)
class TrackGroup:
    """Tracks that are being decoded and predicted. results: ObjectRef of their predictions."""

    tracks: Sequence[Track]
    decoded: Sequence[DecodeRefs]
    predictor: PredictorHandle
    results: Any


class RayPipeline:
    """Decodes and predicts tracks on the cluster, in groups; `max_pending` groups at a time."""

    def __init__(self, request: InferenceRequest, plan: ResourcePlan) -> None:
        extractor = load_extractor(request.source, request.settings)
        self.dataset_ref = ray.put(make_track_dataset(extractor, request))
        remote_function: Any = ray.remote(decode_track)
        self.decode_track = remote_function.options(num_cpus=1, num_returns=2, max_retries=0)
        self.pool = PredictorPool(request, plan)
        self.pending: deque[TrackGroup] = deque()
        self.group_size = GPU_GROUP_TRACKS if plan.gpus_per_predictor else CPU_GROUP_TRACKS
        decoding_groups = -(-plan.decoding_cpus // self.group_size)  # rounded up
        self.max_pending = GROUPS_PER_PREDICTOR * plan.predictors + decoding_groups

    def predict(self, tracks: Iterable[Track]) -> Iterator[Prediction | Failure]:
        """Yield the result of each track, in the order given."""
        remaining = iter(tracks)
        while group := list(islice(remaining, self.group_size)):
            self.pending.append(self._submit_group(group, self.pool.acquire))
            if len(self.pending) >= self.max_pending:
                yield from self._collect_group(self.pending.popleft())
        while self.pending:
            yield from self._collect_group(self.pending.popleft())

    def close(self) -> None:
        """Cancel all pending work; call it before the connection ends."""
        with suppress(RayError):
            while self.pending:
                for refs in self.pending.popleft().decoded:
                    ray.cancel(refs.item)
            self.pool.close()

    def _submit_group(
        self, tracks: Sequence[Track], acquire: Callable[[], PredictorHandle]
    ) -> TrackGroup:
        decoded = [self._submit_decoding(track) for track in tracks]
        predictor = acquire()
        results = predictor.actor.predict.remote(*(refs.item for refs in decoded))
        return TrackGroup(tracks, decoded, predictor, results)

    def _submit_decoding(self, track: Track) -> DecodeRefs:
        succeeded, item = self.decode_track.remote(__version__, self.dataset_ref, track)
        return DecodeRefs(succeeded, item)

    def _collect_group(self, group: TrackGroup) -> Iterator[Prediction | Failure]:
        """Yield the results of a group; try its tracks one by one where the group is lost."""
        try:
            yield from self._get_results(group)
        except GroupLostError as lost:
            suspects = [_may_be_cause(refs, lost) for refs in group.decoded]
            for track, is_suspect in zip(group.tracks, suspects, strict=True):
                yield self._retry_track(track, crashes=int(is_suspect))

    def _get_results(self, group: TrackGroup) -> Sequence[Prediction | Failure]:
        """Wait for the results of a group. Raises GroupLostError, and our own errors."""
        try:
            results: Sequence[Prediction | Failure] = self.pool.get_result(group.results)
        except RayError as error:
            cause = translate_ray_error(error)
            if not isinstance(cause, LostWorkerError):
                raise cause from error
            predictor_died = isinstance(find_root_cause(error), RayActorError)
            was_running = predictor_died and self.pool.remove(group.predictor)
            raise GroupLostError(predictor_died=predictor_died, was_running=was_running) from error
        else:
            return results
        finally:
            group.predictor.pending_groups -= 1

    def _retry_track(self, track: Track, *, crashes: int) -> Prediction | Failure:
        """Try a track of a lost group alone; a track that kills two processes is a Failure."""
        for _ in range(MAX_ATTEMPTS_PER_TRACK):
            if crashes >= MAX_CRASHES_PER_TRACK:
                return Failure(track, PROCESS_DIED_TWICE, permanent=False, kind=FailureKind.CRASHED)
            group = self._submit_group([track], self.pool.acquire_alive)
            try:
                return self._get_results(group)[0]
            except GroupLostError as lost:
                crashes += _may_be_cause(group.decoded[0], lost)
        raise WorkerError("the cluster loses machines faster than one track can be predicted")


def _may_be_cause(refs: DecodeRefs, lost: GroupLostError) -> bool:
    """Tell whether a track of a lost group may have killed the process."""
    if lost.predictor_died:
        return lost.was_running
    try:
        ray.get(refs.succeeded)
    except RayError as error:
        return not isinstance(find_root_cause(error), NodeDiedError | ObjectLostError)
    return False
