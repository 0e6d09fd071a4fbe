"""The Ray cluster of a sweep: reached before anything is written, and divided among its trials."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.data.prepared import PreparedData
from search_spaces.errors import InputError
from sweeps.executors.base import Slot
from sweeps.formatting import count
from sweeps.resources.machine import MAX_AUTO_THREADS, Allotment
from sweeps.settings import ADDRESS_VARIABLE, NONE, SweepSettings, check_ray_address

if TYPE_CHECKING:
    from sweeps.cluster.connection import ClusterConnection
    from sweeps.cluster.executor import ClusterExecutor
    from sweeps.executors.processes import ProcessExecutor


@contextmanager
def connected_cluster(
    settings: SweepSettings, say: Callable[[str], None]
) -> Iterator[ClusterConnection | None]:
    """The connection to the sweep's cluster, with a node at least; None for this machine alone.

    Raises:
        InputError: There is no Ray, no address, or the cluster cannot be used.
    """
    if settings.executor == "local":
        yield None
        return
    from sweeps.cluster.connection import ClusterConnection
    from sweeps.cluster.protocol import ClusterOptions

    options = ClusterOptions(
        cluster_address(settings),
        settings.node_cache,
        backend=settings.training.backend,
        insecure=settings.ray_insecure,
        uses_gpus=settings.gpus != NONE,
    )
    cluster = ClusterConnection(options)
    try:
        cluster.await_nodes(settings.node_wait_seconds, say)
        yield cluster
    finally:
        cluster.close()


def cluster_address(settings: SweepSettings) -> str:
    """HOST:PORT, or `auto`.

    Raises:
        InputError: Nothing names it, or it is none.
    """
    address = settings.ray_address or os.environ.get(ADDRESS_VARIABLE, "")
    if not address:
        raise InputError(
            f"--executor ray needs the address of a cluster: --ray-address HOST:PORT, or "
            f"{ADDRESS_VARIABLE}. `ray start --head` on one machine starts one and says it; `ray "
            "start --address=HOST:PORT` on each further machine joins it."
        )
    check_ray_address(address)
    return address


def cluster_allotment(cluster: ClusterConnection, settings: SweepSettings) -> Allotment:
    """The slots of the cluster's nodes.

    All trials have equally many threads, whatever their node: numbers depend on them.
    """
    from sweeps.cluster.slots import ClusterSlots

    nodes = cluster.nodes
    fewest = min(node.machine.num_cores for node in nodes.values())
    num_threads = settings.num_threads or min(MAX_AUTO_THREADS, fewest)
    pool = ClusterSlots(
        lambda: cluster.nodes, num_threads, settings.trials_per_gpu or 1, settings.num_workers,
        lambda: cluster.num_gpus_to_come,
    )  # fmt: skip
    num = pool.num_slots
    each = ", ".join(f"{name} ({node.text})" for name, node in sorted(nodes.items()))
    return Allotment(
        tuple(Slot(index, num_threads) for index in range(num)),
        f"{count(num, 'trial')} at once x {count(num_threads, 'thread')} on "
        f"{count(len(nodes), 'node')} of a Ray cluster: {each}",
        pool=pool,
    )


def on_cluster(
    cluster: ClusterConnection, local: ProcessExecutor, data: PreparedData
) -> ClusterExecutor:
    """The executor for trials on the nodes, which get the data now."""
    from sweeps.cluster.executor import ClusterExecutor
    from sweeps.cluster.protocol import UseData

    cluster.use_data(UseData(replace(data, folder=str(Path(data.folder).absolute()))))
    return ClusterExecutor(local, cluster)
