"""The engine on a Ray cluster: connect, plan the resources, translate errors."""

import logging
import platform
import signal
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self

import ray
from ray.exceptions import RayError, RayTaskError

from tagger import __version__
from tagger.errors import ClusterError, LostWorkerError, SettingsError, TaggerError, WorkerError
from tagger.inference.engine import InferenceRequest
from tagger.records import Failure, Prediction, Track
from tagger.settings import Settings

LOCAL_ADDRESS = "local"

CONNECT_TIMEOUT_S = 10.0

STALL_TIMEOUT_S = 20.0
"""After so long without a result it is time to see whether machines were lost."""

CPUS_PER_PREDICTOR = 3
"""Cores of a predictor on a CPU, for each one that decodes and writes: as their costs are."""

NO_CLUSTER = (
    "no Ray cluster runs here: `ray start --head` starts one, --ray-address local one for this run"
)


class Node(NamedTuple):
    """A machine of the cluster, as large as its resources say."""

    cpus: int
    gpus: int


@dataclass(frozen=True, slots=True)
class ResourcePlan:
    """How many predictors there are, and what each one gets; all other cores decode and write."""

    predictors: int
    cpus: int
    gpus: float
    left: int
    """Cores for everything else."""


@contextmanager
def connect(address: str) -> Iterator[None]:
    """Be a driver of the cluster, or stay one where this process is. Raises ClusterError."""
    if ray.is_initialized():
        yield
        return
    _check_answers(address)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    own: dict[str, Any] = {"include_dashboard": False} if address == LOCAL_ADDRESS else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **own)
    except Exception as error:  # Ray raises bare ones, too
        if address == "auto" and isinstance(error, ConnectionError):
            raise ClusterError(NO_CLUSTER) from error
        first = (str(error).strip() or repr(error)).splitlines()[0]
        raise ClusterError(f"cannot work with Ray at {address}: {first}") from error
    finally:
        for number, handler in handlers.items():  # Ray's would end the run in the midst of a write
            signal.signal(number, handler)
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Raise ClusterError at once where nobody listens; Ray itself would try for many minutes."""
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ClusterError(f"cannot reach Ray at {address}: {reason}") from error


def list_nodes() -> list[Node]:
    """Return the machines that are there now."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(int(each.get("CPU", 0)), int(each.get("GPU", 0))) for each in alive]


def plan_resources(found: Sequence[Node], settings: Settings) -> ResourcePlan:
    """Divide the cluster: a predictor for each GPU; without any, three cores of four predict.

    Raises ClusterError where no node has room for a predictor, or nothing would be left to decode
    with.
    """
    cpus = sum(node.cpus for node in found)
    on_gpu = settings.device in ("auto", "cuda") and any(node.gpus for node in found)
    gpus_each = settings.ray_predictor_gpus
    if gpus_each is None:
        gpus_each = float(on_gpu)
    largest = max((node.cpus for node in found), default=0)
    usual = CPUS_PER_PREDICTOR if largest > CPUS_PER_PREDICTOR and not gpus_each else 1
    cpus_each = settings.ray_predictor_cpus or usual
    if not any(node.cpus >= cpus_each and node.gpus >= gpus_each for node in found):
        wanted = f"{cpus_each} cores and {gpus_each:g} GPUs"
        raise ClusterError(f"no machine of the cluster has room for a predictor of {wanted}")
    if gpus_each:
        fitting = sum(node.gpus * int(1 / gpus_each) for node in found)
    else:
        fitting = sum(node.cpus // (cpus_each + 1) for node in found)
    predictors = settings.ray_predictors or max(1, fitting)
    left = cpus - predictors * cpus_each
    if left < 1:
        raise ClusterError(
            f"{predictors} predictors of {cpus_each} cores leave none of the cluster's {cpus} to"
            " decode (--ray-predictors, --ray-predictor-cpus)"
        )
    return ResourcePlan(predictors, cpus_each, gpus_each, left)


def check_version(version: str) -> None:
    """Raise ClusterError if this machine has another tagger than the one that asks."""
    if version != __version__:
        here = platform.node()
        raise ClusterError(f"{here} has tagger {__version__}, and the scan runs on {version}")


@contextmanager
def translate_ray_errors() -> Iterator[None]:
    """Turn what Ray raises where nothing of ours is lost with it into our errors."""
    try:
        yield
    except (RayError, ConnectionError) as error:
        raise translate_ray_error(error) from error


def find_root_cause(error: BaseException) -> BaseException:
    """Return what lies behind an error that went through several remote calls."""
    while isinstance(error, RayTaskError):
        error = error.cause
    return error


def translate_ray_error(error: BaseException) -> TaggerError:
    """Return what an error of a remote call means to us.

    LostWorkerError where a process or machine died, ours where the call itself raised that, else
    WorkerError.
    """
    cause = find_root_cause(error)
    if isinstance(cause, TaggerError):
        return cause
    if isinstance(cause, RayError | ConnectionError):
        return LostWorkerError(f"a process of the cluster was lost ({type(cause).__name__})")
    return WorkerError(f"unexpected error on the cluster: {cause!r}")


class RayCluster:
    """An engine on a cluster, connected to when there is something to do."""

    def __init__(self, settings: Settings) -> None:
        """Raise SettingsError for a device that is one of this machine alone."""
        if ":" in settings.device:
            raise SettingsError("--device cuda:N is for one machine: Ray hands out its GPUs")
        self.settings = settings
        self.shares: ResourcePlan | None = None
        self.stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stack.close()

    def connect(self) -> ResourcePlan:
        """Be a driver of the cluster and share it out, once. Raises ClusterError."""
        if self.shares is None:
            self.stack.enter_context(connect(self.settings.ray_address))
            self.shares = plan_resources(list_nodes(), self.settings)
        return self.shares

    def listen(
        self, tracks: Iterable[Track], hearing: InferenceRequest
    ) -> Iterator[Prediction | Failure]:
        """Hear the tracks; a `Listen`. Raises ClusterError where the cluster is not to be had."""
        shares = self.connect()
        from tagger.inference.ray.workers import RayPipeline  # with it comes torch

        with translate_ray_errors(), closing(RayPipeline(hearing, shares)) as listening:
            self.stack.callback(listening.close)  # sooner than a generator that nobody ends
            yield from listening.listen(tracks)
