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

from tagger.errors import ClusterError, LostWorkerError, SettingsError, TaggerError, WorkerError
from tagger.inference.engine import InferenceRequest, keep_signal_handlers
from tagger.records import Failure, Prediction, Track
from tagger.settings import Settings
from tagger.version import __version__

LOCAL_ADDRESS = "local"

CONNECT_TIMEOUT_S = 10.0

STALL_TIMEOUT_S = 20.0
"""After this time without a result, the run checks whether the cluster lost machines."""

DEFAULT_CPUS_PER_PREDICTOR = 3
"""The cores of a predictor without a GPU. Predicting costs about three times as much as decoding,
so three cores predict for each core that decodes."""

NO_CLUSTER = (
    "no Ray cluster runs here: `ray start --head` starts one, --ray-address local one for this run"
)


class Node(NamedTuple):
    """The cores and GPUs of a machine of the cluster."""

    cpus: int
    gpus: int


@dataclass(frozen=True, slots=True)
class ResourcePlan:
    """How the cluster is divided: cores and GPUs for each predictor; all other cores decode."""

    predictors: int
    cpus_per_predictor: int
    gpus_per_predictor: float
    decoding_cpus: int


@contextmanager
def connect(address: str) -> Iterator[None]:
    """Connect this process to a cluster, unless it is connected already. Raises ClusterError."""
    if ray.is_initialized():
        yield
        return
    _check_reachable(address)
    local_options: dict[str, Any] = {"include_dashboard": False} if address == LOCAL_ADDRESS else {}
    try:
        # Ray's own handlers would end the run during a write
        with keep_signal_handlers(signal.SIGINT, signal.SIGTERM):
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                **local_options,
            )
    except Exception as error:  # Ray raises plain Exceptions too
        if address == "auto" and isinstance(error, ConnectionError):
            raise ClusterError(NO_CLUSTER) from error
        first = (str(error).strip() or repr(error)).splitlines()[0]
        raise ClusterError(f"cannot work with Ray at {address}: {first}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise ClusterError at once where nothing listens; Ray itself would try for many minutes."""
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ClusterError(f"cannot reach Ray at {address}: {reason}") from error


def list_nodes() -> list[Node]:
    """List the machines that are alive now."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(int(each.get("CPU", 0)), int(each.get("GPU", 0))) for each in alive]


def plan_resources(nodes: Sequence[Node], settings: Settings) -> ResourcePlan:
    """Divide the cluster: a predictor for each GPU; without GPUs, three of four cores predict.

    By default there are no more predictors than leave a core to decode. Raises ClusterError where
    no machine has room for a predictor, or no core would be left to decode.
    """
    cpus = sum(node.cpus for node in nodes)
    on_gpu = settings.device in ("auto", "cuda") and any(node.gpus for node in nodes)
    gpus_each = settings.ray_predictor_gpus
    if gpus_each is None:
        gpus_each = float(on_gpu)
    largest = max((node.cpus for node in nodes), default=0)
    has_room = largest > DEFAULT_CPUS_PER_PREDICTOR and not gpus_each
    default_cpus = DEFAULT_CPUS_PER_PREDICTOR if has_room else 1
    cpus_each = settings.ray_predictor_cpus or default_cpus
    if not any(node.cpus >= cpus_each and node.gpus >= gpus_each for node in nodes):
        wanted = f"{cpus_each} cores and {gpus_each:g} GPUs"
        raise ClusterError(f"no machine of the cluster has room for a predictor of {wanted}")
    if gpus_each:
        fitting = sum(min(node.gpus * int(1 / gpus_each), node.cpus // cpus_each) for node in nodes)
    else:
        fitting = sum(node.cpus // (cpus_each + 1) for node in nodes)
    predictors = settings.ray_predictors or max(1, min(fitting, (cpus - 1) // cpus_each))
    decoding_cpus = cpus - predictors * cpus_each
    if decoding_cpus < 1:
        raise ClusterError(
            f"{predictors} predictors of {cpus_each} cores leave none of the cluster's {cpus} to"
            " decode (--ray-predictors, --ray-predictor-cpus)"
        )
    return ResourcePlan(predictors, cpus_each, gpus_each, decoding_cpus)


def check_version(version: str) -> None:
    """Raise ClusterError where this machine has another version of tagger than the scan."""
    if version != __version__:
        here = platform.node()
        raise ClusterError(f"{here} has tagger {__version__}, and the scan runs on {version}")


@contextmanager
def translate_ray_errors() -> Iterator[None]:
    """Turn the errors that Ray raises for the connection and the cluster into ours."""
    try:
        yield
    except (RayError, ConnectionError) as error:
        raise translate_ray_error(error) from error


def find_root_cause(error: BaseException) -> BaseException:
    """Return the error behind one that went through remote calls."""
    while isinstance(error, RayTaskError):
        error = error.cause
    return error


def translate_ray_error(error: BaseException) -> TaggerError:
    """Return our error for an error of a remote call.

    It is LostWorkerError where a process or machine died, the TaggerError that the call itself
    raised, else WorkerError.
    """
    cause = find_root_cause(error)
    if isinstance(cause, TaggerError):
        return cause
    if isinstance(cause, RayError | ConnectionError):
        return LostWorkerError(f"a process of the cluster was lost ({type(cause).__name__})")
    return WorkerError(f"unexpected error on the cluster: {cause!r}")


class RayCluster:
    """An engine on a cluster. It connects when the first tracks are to be predicted."""

    def __init__(self, settings: Settings) -> None:
        """Raise SettingsError for a device of this machine alone, and for GPUs that nobody gets."""
        if ":" in settings.device:
            raise SettingsError("--device cuda:N is for one machine: Ray hands out its GPUs")
        if settings.device == "cuda" and settings.ray_predictor_gpus == 0:
            raise SettingsError("--device cuda needs a GPU, and --ray-predictor-gpus 0 gives none")
        self.settings = settings
        self.plan: ResourcePlan | None = None
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
        """Connect and divide the cluster, once. Raises ClusterError."""
        if self.plan is None:
            self.stack.enter_context(connect(self.settings.ray_address))
            self.plan = plan_resources(list_nodes(), self.settings)
        return self.plan

    def predict_tracks(
        self, tracks: Iterable[Track], request: InferenceRequest
    ) -> Iterator[Prediction | Failure]:
        """Predict tracks, as `PredictTracks` says. Raises ClusterError without a cluster."""
        plan = self.connect()
        from tagger.inference.ray.workers import RayPipeline  # imports torch

        with translate_ray_errors(), closing(RayPipeline(request, plan)) as pipeline:
            # Nobody may end this generator; the pipeline must close before the connection does.
            self.stack.callback(pipeline.close)
            yield from pipeline.predict(tracks)
