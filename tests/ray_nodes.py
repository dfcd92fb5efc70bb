"""A Ray cluster of several nodes on this machine, for tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NODES = 3


@contextmanager
def ray_nodes(count: int = NODES, *, cpus: int = 1) -> Iterator[Any]:
    """Give a `ray.cluster_utils.Cluster` of so many nodes, each of so many cores."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=node_of(cpus))
    try:
        for _ in range(count - 1):
            cluster.add_node(**node_of(cpus))
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()


def node_of(cpus: int) -> dict[str, Any]:
    """Return what makes a node small enough to stand beside others."""
    return {"num_cpus": cpus, "object_store_memory": 100 << 20, "include_dashboard": False}


def config_for(address: str) -> str:
    """Return the settings that have every scan done by a cluster."""
    return f'engine = "ray"\nray-address = "{address}"\nray-predictors = 1\n'
