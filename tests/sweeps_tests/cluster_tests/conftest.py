"""What several modules need: two nodes, and what the sweep is without them."""

from __future__ import annotations

import pytest
from cluster_sweeps import SWEEP, RunningSweep, outcome
from ray_cluster import ray_cluster


@pytest.fixture(scope="module")
def shared_cluster():
    """A head and two nodes of a core; who ends one leaves it to `two_nodes` to add another.

    For a module: beside a second cluster on one machine drivers could not connect.
    """
    with ray_cluster(num_nodes=2) as made:
        yield made


@pytest.fixture
def two_nodes(shared_cluster):
    """The shared cluster, with two nodes that live."""
    for _ in range(2 - len(shared_cluster.workers)):
        shared_cluster.add()
    return shared_cluster


@pytest.fixture(scope="session")
def local(tmp_path_factory):
    """What the sweep is on this machine."""
    folder = tmp_path_factory.mktemp("local")
    sweep = RunningSweep(folder, *SWEEP)
    assert sweep.end() == 0, sweep.text
    return outcome(folder)
