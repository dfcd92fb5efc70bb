"""A Ray cluster: how to reach it, and what of it each stage gets."""

import logging
import platform
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError, RayTaskError

from tagger import __version__
from tagger.errors import (
    ClusterError,
    LostWorkerError,
    TaggerError,
    WorkerError,
)
from tagger.settings import Settings

LOCAL = "local"

ANSWER_S = 10.0

STALL_S = 20.0
"""After so long without a result it is time to see whether machines were lost."""

PREDICTOR_CPUS = 3
"""Cores of a predictor on a CPU, for each one that decodes and writes: as their costs are."""

NO_CLUSTER = (
    "no Ray cluster runs here: `ray start --head` starts one, --ray-address local one for this run"
)


class Node(NamedTuple):
    """A machine of the cluster, as large as its resources say."""

    cpus: int
    gpus: int


@dataclass(frozen=True, slots=True)
class Shares:
    """How many predictors there are, and what each one gets; all other cores decode and write."""

    predictors: int
    cpus: int
    gpus: float
    left: int
    """Cores for everything else."""


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Be a driver of the cluster, or stay one where this process is. Raises ClusterError."""
    if ray.is_initialized():
        yield
        return
    _check_answers(address)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    own: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
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
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ClusterError(f"cannot reach Ray at {address}: {reason}") from error


def nodes() -> list[Node]:
    """Return the machines that are there now."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(int(each.get("CPU", 0)), int(each.get("GPU", 0))) for each in alive]


def share_out(found: Sequence[Node], settings: Settings) -> Shares:
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
    usual = PREDICTOR_CPUS if largest > PREDICTOR_CPUS and not gpus_each else 1
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
    return Shares(predictors, cpus_each, gpus_each, left)


def check_version(version: str) -> None:
    """Raise ClusterError if this machine has another tagger than the one that asks."""
    if version != __version__:
        here = platform.node()
        raise ClusterError(f"{here} has tagger {__version__}, and the scan runs on {version}")


@contextmanager
def errors_told() -> Iterator[None]:
    """Turn what Ray raises where nothing of ours is lost with it into our errors."""
    try:
        yield
    except (RayError, ConnectionError) as error:
        raise told(error) from error


def root(error: BaseException) -> BaseException:
    """Return what lies behind an error that went through several remote calls."""
    while isinstance(error, RayTaskError):
        error = error.cause
    return error


def told(error: BaseException) -> TaggerError:
    """Return what an error of a remote call means to us.

    LostWorkerError where a process or machine died, ours where the call itself raised that, else
    WorkerError.
    """
    cause = root(error)
    if isinstance(cause, TaggerError):
        return cause
    if isinstance(cause, RayError | ConnectionError):
        return LostWorkerError(f"a process of the cluster was lost ({type(cause).__name__})")
    return WorkerError(f"unexpected error on the cluster: {cause!r}")
