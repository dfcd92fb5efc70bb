"""A Ray cluster of several nodes on this machine, for tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NODES = 3


@contextmanager
def start_ray_nodes(count: int = NODES, *, cpus: int = 1) -> Iterator[Any]:
    """Start a `ray.cluster_utils.Cluster` of `count` nodes with `cpus` cores each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=make_node_options(cpus))
    try:
        for _ in range(count - 1):
            cluster.add_node(**make_node_options(cpus))
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()


def make_node_options(cpus: int) -> dict[str, Any]:
    """Return the options of a node that is small enough to run beside others."""
    return {"num_cpus": cpus, "object_store_memory": 100 << 20, "include_dashboard": False}


def make_ray_config(address: str) -> str:
    """Return a config file that makes every scan use the cluster."""
    return f'engine = "ray"\nray-address = "{address}"\nray-predictors = 1\n'
